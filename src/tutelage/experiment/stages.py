"""A stage of a job: what its student is taught with, and its training."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import keras
import numpy as np

from tutelage.distillation import logit_cache
from tutelage.experiment.spec import Job
from tutelage.losses import from_recipe
from tutelage.models import loading
from tutelage.progress import EpochLog, Progress
from tutelage.training import trainer
from tutelage.training.batch_norm import recalibrate_batch_norm
from tutelage.training.batches import steps_per_epoch


def goal(job: Job) -> trainer.DistillationTargets:
    """What a job's student minimises; of its teacher nothing is there yet."""
    loss, schedule = job.recipe.loss, job.schedule("student")
    steps = schedule.epochs * steps_per_epoch(schedule, len(job.shown("student")))
    return trainer.DistillationTargets(
        None, from_recipe.losses(loss), loss.alpha, from_recipe.weights(loss, steps)
    )


def guidance(
    job: Job, teacher: Path, progress: Progress
) -> tuple[trainer.DistillationTargets, float]:
    """What a job's student is taught with; asks the teacher for the views not yet stored.

    Args:
        job: from `prepare`.
        teacher: its trained teacher, `teacher.keras`, or an earlier student.
        progress: hears of each view asked for.

    Returns:
        The guidance, without knowledge where alpha is 0, and the seconds that the
        teacher's answers took whenever they were stored.

    Raises:
        KnowledgeError: if the teacher's logits are not finite, or belong to something else.
        RunError: if the cache can't be written.
    """
    loss, taught = job.recipe.loss, goal(job)
    if not loss.alpha:
        return taught, 0.0
    images = job.shown("student").images
    given, count = job.teacher, views_to_ask(job)
    own = teacher.stem == "teacher"  # and no earlier generation of the student
    if own and given is not None and given.stored is not None:
        return replace(taught, knowledge=logit_cache.GivenLogits(job.held_logits()[0])), 0.0
    each: tuple[int, ...] = ()  # of several teachers, whose losses are averaged
    if own and given is not None and given.answer is not None and given.model is None:
        digest, answer = given.digest, given.apart or given.answer
        each = answer(images[:1], job.precision).shape[1:-1]
    else:
        model = loading.load_model(teacher)
        if from_recipe.reads_layers(loss):
            return replace(taught, teacher=model), 0.0
        digest, answer = loading.digest(model), partial(loading.logits, model)
    origin = logit_cache.Origin(
        teacher=digest,
        images=hashlib.sha256(np.ascontiguousarray(images).data).hexdigest(),
        seed=job.recipe.seed,
        flip=job.views("student").flip,
        shift=job.views("student").shift,
        cutout=job.recipe.schedule.student.cutout,
        precision=job.precision,
        shape=(len(images), *each, len(job.data.classes)),
    )
    held = logit_cache.LogitCache(logit_cache.home() / origin.key(), origin)
    held.ask(
        lambda shown: answer(shown, job.precision),
        images,
        count,
        progress,
    )
    return replace(taught, knowledge=held), held.seconds(count)


def views_to_ask(job: Job) -> int:
    """How many views of each image a job's teacher is asked about."""
    epochs = job.recipe.schedule.student.epochs
    return (
        epochs
        if from_recipe.reads_layers(job.recipe.loss)
        else min(job.recipe.views.distinct or epochs, epochs)
    )


def trained(
    job: Job,
    stage: str,
    guidance: trainer.DistillationTargets | None,
    *,
    checkpoint: Path,
    key: str,
    generation: int = 1,
    progress: Progress | None = None,
    on_epoch: Callable[[list[EpochLog]], None] = lambda rows: None,
) -> tuple[keras.Model, list[EpochLog], float]:
    """Train a stage's model of a job from its initial weights, or from its checkpoint.

    Args:
        job: from `prepare`.
        stage: one of `STAGES`.
        guidance: what teaches it; None of what learns from labels alone.
        checkpoint: file of the state after the last finished epoch.
        key: what this training is, for a checkpoint that belongs to another is refused.
        generation: of the student, from 1.
        progress: hears of each step and epoch.
        on_epoch: called with the history so far when an epoch is safe on disk.

    Returns:
        The model, settled; a row for each epoch; the seconds that all of it took.

    Raises:
        RunError: if the checkpoint is damaged or of another training.
        TrainingError: if a loss is not finite.
    """
    model, seed = job.build(stage, generation), job.recipe.seed
    history = trainer.fit(
        model,
        job.shown(stage),
        job.validation,
        schedule=job.schedule(stage),
        settings=job.views(stage),
        seed=seed,
        precision=job.precision,
        checkpoint=checkpoint,
        key=key,
        guidance=guidance,
        progress=progress,
        on_epoch=on_epoch,
    )
    began = time.monotonic()
    recalibrate_batch_norm(model, job.labelled(stage).images, seed=seed)
    seconds = sum(row["seconds"] for row in history) + time.monotonic() - began
    return model, history, seconds
