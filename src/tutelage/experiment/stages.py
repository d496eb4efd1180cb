"""Distillation targets and training of a stage."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import keras
import numpy as np

from tutelage.data.content import Images
from tutelage.data.image_files import ImageFiles
from tutelage.distillation import answers, logit_cache, stored_classes
from tutelage.distillation.logit_cache import GivenLogits, LogitCache
from tutelage.distillation.origin import Origin
from tutelage.experiment.spec import StageSpec, settings_of
from tutelage.losses import from_recipe
from tutelage.models import loading
from tutelage.models.digest import keras_digest
from tutelage.progress import EpochLog, Progress
from tutelage.recipe import Loss
from tutelage.training import trainer
from tutelage.training.batch_norm import epochs_worth, recalibrate_batch_norm
from tutelage.training.early_stopping import MONITOR, best_epoch
from tutelage.training.trainer import DistillationTargets


def losses(stage: StageSpec) -> DistillationTargets:
    """The losses and weights of a student, without its teacher or logits.

    Args:
        stage: a student's stage.

    Returns:
        The targets.
    """
    assert stage.targets is not None
    loss = stage.targets.loss
    weights = from_recipe.weights(loss, stage.steps)
    assert loss.alpha != "auto"
    return DistillationTargets(None, from_recipe.losses(loss), weights, loss.alpha)


def shared_targets(stage: StageSpec, shared: DistillationTargets) -> DistillationTargets:
    """The losses and weights of a student, with the teacher or logits of another's targets.

    Args:
        stage: a student's stage.
        shared: from `targets`, of a student for which this one's losses were among the others.

    Returns:
        The targets.
    """
    assert stage.targets is not None
    logits = shared.logits
    if isinstance(logits, LogitCache):
        logits = logits.at(from_recipe.temperature(stage.targets.loss))
    return replace(losses(stage), logits=logits, teacher=shared.teacher)


def targets(
    stage: StageSpec, teacher: Path, progress: Progress, others: Sequence[Loss] = ()
) -> tuple[DistillationTargets, float]:
    """Distillation targets of a student; computes and caches missing logits.

    Logits of a loader's images are computed in each step.

    Args:
        stage: a student's stage.
        teacher: the teacher's file, if it is a Keras model.
        progress: notified of each pass over the images.
        others: the loss sections of other students that share the logits.

    Returns:
        The targets, and the seconds that computing the teacher's logits took.

    Raises:
        LogitsError: if the teacher's logits are not finite, or have another origin.
        RunError: if the cache can't be written, or the disk has too little room.
    """
    spec, distillation = stage.targets, losses(stage)
    assert spec is not None
    if not spec.loss.alpha:
        return distillation, 0.0
    _note_unused(stage, progress)
    if spec.stored is not None:
        return replace(distillation, logits=GivenLogits(spec.stored)), 0.0
    images, given = stage.train.images, spec.given
    teachers: tuple[int, ...] = ()  # (members,) for an ensemble that averages losses
    batch = None
    if given is not None and given.logits is not None and given.model is None:
        digest, compute = given.digest, given.member_logits or given.logits
        if stage.stream is not None:
            return replace(distillation, ask=lambda x: compute(x, stage.precision)), 0.0
        teachers = compute(images[:1], stage.precision).shape[1:-1]
    else:
        model = loading.load_model(teacher)
        if from_recipe.reads_layers(spec.loss):
            return replace(distillation, teacher=model), 0.0
        if stage.stream is not None:
            ask_in_step = loading.logits_of_batches(model, stage.precision)
            return replace(distillation, ask=ask_in_step), 0.0
        digest, compute = keras_digest(model), partial(loading.logits, model)
        batch = loading.batch_size(images.shape[1:], model)
    views = settings_of(stage.views)
    origin = Origin(
        teacher=digest,
        images=_hash(images),
        seed=stage.seed,
        flip=stage.views.flip,
        shift=stage.views.shift,
        cutout=stage.schedule.cutout,
        precision=stage.precision,
        shape=(len(images), *teachers, len(stage.classes)),
        exact=any(term.own for term in spec.loss.terms()),
        transforms={name: v for name, v in views.items() if name not in ("flip", "shift")},
    )

    def ask(views: np.ndarray) -> np.ndarray:
        return compute(views, stage.precision)

    def sample() -> np.ndarray:
        index = answers.sample(len(images), stored_classes.sample_size(len(stage.classes)))
        return ask(origin.views(images)(0, index))

    sections = (spec.loss, *others)
    about = ""
    if why := next(filter(None, map(from_recipe.needs_all_classes, sections)), ""):
        if spec.loss.stored_classes is not None:
            progress.note(
                f"loss.stored_classes = {spec.loss.stored_classes}: the logits of all classes are "
                f"stored, as {why}"
            )
    else:
        temperatures = sorted(set(map(from_recipe.temperature, sections)))
        asked = spec.loss.stored_classes
        origin, about = stored_classes.choose(origin, spec.passes, temperatures, sample, asked)
    cache = logit_cache.find(origin, ask, images, progress)
    cache = cache.at(from_recipe.temperature(spec.loss))
    cache.ask(ask, images, spec.passes, progress, stage.workers, batch=batch, about=about)
    return replace(distillation, logits=cache), cache.seconds(spec.passes)


def _note_unused(stage: StageSpec, progress: Progress) -> None:
    """Note a choice of classes to store where the teacher's logits are not stored."""
    spec = stage.targets
    if spec is None or spec.loss.stored_classes is None:
        return
    why = ""
    if spec.stored is not None:
        why = "the teacher is a file of logits"
    elif from_recipe.reads_layers(spec.loss):
        why = "a loss on features asks the teacher in each step"
    elif stage.stream is not None:
        why = "the teacher is asked for a loader's images in each step"
    if why:
        progress.note(f"loss.stored_classes = {spec.loss.stored_classes}: not used, as {why}")


def _hash(images: Images) -> str:
    if isinstance(images, ImageFiles):
        return images.digest()
    return hashlib.sha256(np.ascontiguousarray(images).data).hexdigest()


def train(
    stage: StageSpec,
    targets: DistillationTargets | None,
    *,
    checkpoint: Path,
    key: str | None = None,
    progress: Progress | None = None,
    on_epoch: Callable[[list[EpochLog]], None] = lambda rows: None,
) -> tuple[keras.Model, list[EpochLog], float]:
    """Train a stage's model from its initial weights or its checkpoint.

    Args:
        stage: the stage.
        targets: from `targets`.
        checkpoint: file of the training state.
        key: identifies the training; other checkpoints are refused; default: the stage's key.
        progress: notified of each step and epoch.
        on_epoch: called with the history so far after an epoch is saved to disk.

    Returns:
        The model with recalibrated batch normalization, one row per epoch, and the total
        seconds.

    Raises:
        RunError: if the checkpoint is damaged or belongs to another training.
        TrainingError: if a loss is not finite.
    """
    progress = progress or Progress()
    model = stage.build()
    images = len(stage.labeled) if stage.stream is None else stage.stream.images
    share = len(stage.labeled) / images  # of an epoch's images, that are at hand
    progress.then(share * epochs_worth(model, len(stage.labeled)))
    history = trainer.fit(
        model,
        stage.train,
        stage.validation,
        schedule=stage.schedule,
        views=stage.views,
        seed=stage.seed,
        precision=stage.precision,
        checkpoint=checkpoint,
        key=key or stage.key,
        targets=targets,
        workers=stage.workers,
        stream=stage.stream,
        progress=progress,
        on_epoch=on_epoch,
    )
    if stage.schedule.early_stopping is not None:
        best = best_epoch(history, stage.schedule)
        progress.note(
            f"{stage.name}: the weights of epoch {best} of {len(history)} are kept, whose "
            f"{stage.schedule.monitor or MONITOR} is the best"
        )
    began = time.monotonic()
    kept = recalibrate_batch_norm(
        model,
        stage.labeled.images,
        seed=stage.seed,
        validation=stage.validation,
        progress=progress,
    )
    if not kept:
        progress.note(
            f"{stage.name}: batch normalization keeps the statistics of training, as those of "
            "images without augmentation cost validation accuracy"
        )
    seconds = sum(row["seconds"] for row in history) + time.monotonic() - began
    return model, history, seconds
