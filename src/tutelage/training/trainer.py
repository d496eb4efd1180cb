"""Fit one model: optimizer, schedule, checkpoints, resume."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tutelage.data.datasets import Part
from tutelage.distillation.distiller import Distiller
from tutelage.distillation.logit_cache import GivenLogits, LogitCache
from tutelage.kernels import accelerate
from tutelage.losses import CrossEntropy
from tutelage.models import loading
from tutelage.progress import EpochLog, Progress
from tutelage.recipe import Schedule, Views
from tutelage.training import checkpoint as checkpoints
from tutelage.training import optimizers, schedules
from tutelage.training.accumulation import parts_per_step
from tutelage.training.batches import ViewedBatches, images_per_step, steps_per_epoch
from tutelage.training.callbacks import EarlyDropout, EpochKeeper
from tutelage.training.early_stopping import EarlyStopping, is_over
from tutelage.training.memory import freed_memory_kept
from tutelage.training.threads import threads_for
from tutelage.training.weight_average import WeightAverage

_TIMED_STEPS = 3


@dataclass(frozen=True)
class DistillationTargets:
    """Distillation targets of a student: a teacher or its logits, losses and weights.

    Attributes:
        logits: the teacher's logits of each view; None if alpha is 0 or a teacher is given.
        losses: the distillation losses.
        weights: weight of each loss, as in `Distiller`.
        alpha: weight of the distillation loss, 0 to 1; the hard loss has `1 - alpha`.
        teacher: runs at each step if a loss compares intermediate layers; else None.
    """

    logits: LogitCache | GivenLogits | None
    losses: Sequence[keras.distillation.DistillationLoss]
    weights: Any
    alpha: float
    teacher: keras.Model | None = None


def fit(
    model: keras.Model,
    train: Part,
    validation: Part,
    *,
    schedule: Schedule,
    views: Views,
    seed: int,
    precision: str,
    checkpoint: Path,
    key: str,
    targets: DistillationTargets | None = None,
    progress: Progress | None = None,
    on_epoch: Callable[[list[EpochLog]], None] = lambda rows: None,
) -> list[EpochLog]:
    """Train a model, resuming from its checkpoint if there is one.

    A checkpoint is written atomically after each epoch and each minute, so a killed process
    loses at most a minute of training, and a resumed run on the CPU ends with exactly the weights
    and the history of an uninterrupted one.

    Args:
        model: a stock model from uint8 images to logits; its variables are trained.
        train: the training images; a label of -1 means unlabeled.
        validation: images evaluated after each epoch; they select an epoch only if the schedule
            has early stopping.
        schedule: epochs, batch size, learning rate and so on.
        views: the augmentation.
        seed: seed of image order and augmentation.
        precision: training precision, `"float32"` or `"bfloat16"`.
        checkpoint: file of the training state.
        key: identifies the training; a checkpoint with another key is refused.
        targets: distillation targets; None to learn from labels alone.
        progress: notified of each step and epoch.
        on_epoch: called with the history so far after an epoch is saved to disk.

    Returns:
        One row per epoch: losses, accuracies, learning rate and seconds. The model has the weights
        of the last one, or with early stopping those of the best.

    Raises:
        TrainingError: if the loss is not finite; names the step.
        RunError: if the checkpoint is damaged or belongs to another training.
    """
    progress = progress or Progress()
    parts = _parts(model, train, schedule, targets)
    if parts > 1:
        progress.note(
            f"the {images_per_step(schedule, len(train))} images of a step are processed in "
            f"{parts} parts, to bound memory: batch normalization and losses that compare images "
            "see one part at a time"
        )
    unlabeled = bool((train.labels < 0).any())
    weights = _class_weights(train.labels) if schedule.class_weights and not unlabeled else None
    trained = _compiled(model, len(train), schedule, precision, targets, seed, parts, weights)
    optimizer = trained.optimizer
    optimizer.build(trained.trainable_variables)
    batches = ViewedBatches(
        train, schedule, views, seed, targets.logits if targets else None, parts
    )
    average = None if schedule.ema is None else WeightAverage(model, schedule.ema, batches)
    history: list[EpochLog] = []
    stopping = None
    if schedule.early_stopping is not None:
        evaluated = average.variables if average else model.weights
        stopping = EarlyStopping(model, schedule, history, evaluated)
    state = [
        *model.variables,
        *(trained.own_variables if targets else []),
        *optimizer.variables,
        *(average.variables if average else []),
        *(stopping.variables if stopping else []),
    ]
    rows, position = checkpoints.restore(checkpoint, key, state)
    history += rows
    keeper = EpochKeeper(checkpoint, key, state, history, position, batches, progress, on_epoch)
    early = EarlyDropout(model, round(schedule.dropout * schedule.epochs))
    callbacks = keras.callbacks.CallbackList(
        [callback for callback in (average, stopping, keeper, early) if callback],
        add_history=True,
        model=trained,
    )
    size = loading.batch_size(validation.images.shape[1:], model)

    def train_until(epoch: int) -> None:
        trained.fit(
            batches,
            validation_data=(validation.images, validation.labels),
            validation_batch_size=size,
            epochs=epoch,
            initial_epoch=len(history),
            shuffle=False,  # views have a seeded order
            class_weight=None if targets else weights,
            callbacks=callbacks,
            verbose=0,
        )

    def validate(epoch: int) -> None:
        callbacks.on_train_begin()
        callbacks.on_epoch_begin(epoch)
        figures = trained.evaluate(
            validation.images,
            validation.labels,
            batch_size=size,
            callbacks=callbacks,
            return_dict=True,
            verbose=0,
        )
        keeper.restore_metrics()  # evaluation has reset them
        logs = {f"val_{name}": value for name, value in figures.items()}
        callbacks.on_epoch_end(epoch, trained.get_metrics_result() | logs)

    try:
        with freed_memory_kept(), threads_for(model, schedule.batch_size // parts):
            if position.batches:  # an epoch was interrupted
                epoch, total = len(history), len(batches)
                progress.note(
                    f"resuming epoch {epoch + 1} of {schedule.epochs} after step "
                    f"{position.batches // parts} of {total // parts}"
                )
                batches.begin(epoch, first=position.batches)  # Keras asks for its length once
                if position.batches < total:
                    train_until(epoch + 1)
                else:
                    validate(epoch)
                batches.begin(len(history))
            if not is_over(history, schedule):
                train_until(schedule.epochs)
    finally:
        early.restore()
    for last in (average, stopping):
        if last:
            last.finish()
    return history


def seconds_per_step(
    model: keras.Model,
    train: Part,
    *,
    schedule: Schedule,
    views: Views,
    precision: str,
) -> float:
    """Median seconds per training step over a few steps; changes the model's weights.

    Arguments as in `fit`.
    """
    parts = _parts(model, train, schedule)
    trained = _compiled(model, len(train), schedule, precision, parts=parts)
    batches = ViewedBatches(train, schedule, views, seed=0, parts=parts)
    seconds = []
    with freed_memory_kept(), threads_for(model, schedule.batch_size // parts):
        for step in range(_TIMED_STEPS + 1):
            started = time.monotonic()
            trained.train_on_batch(*batches[step % len(batches)])
            seconds.append(time.monotonic() - started)
    return parts * float(np.median(seconds[1:]))  # the first one also builds


def _parts(
    model: keras.Model,
    train: Part,
    schedule: Schedule,
    targets: DistillationTargets | None = None,
) -> int:
    if schedule.gradient_accumulation_steps is not None:
        return schedule.gradient_accumulation_steps
    models = [model] if targets is None or targets.teacher is None else [model, targets.teacher]
    images = images_per_step(schedule, len(train))
    return parts_per_step(models, train.images.shape[1:], images)


def _compiled(
    model: keras.Model,
    images: int,
    schedule: Schedule,
    precision: str,
    targets: DistillationTargets | None = None,
    seed: int = 0,
    parts: int = 1,
    class_weights: dict[int, float] | None = None,
) -> keras.Model:
    trained = accelerate.accelerate(model, precision)
    if targets is not None:
        teacher = targets.teacher
        trained = Distiller(
            teacher=None if teacher is None else accelerate.accelerate(teacher, precision),
            student=trained,
            distillation_losses=targets.losses,
            distillation_loss_weights=targets.weights,
            alpha=targets.alpha,
            class_weights=class_weights,
            seed=seed,
        )
    trained.compile(
        optimizer=_optimizer(schedule, images, parts),
        loss=CrossEntropy(label_smoothing=schedule.label_smoothing),
        metrics=["accuracy"],
    )
    return trained


def _class_weights(labels: np.ndarray) -> dict[int, float]:
    """Weights by class so that each class has the same sum over the images."""
    from sklearn.utils.class_weight import compute_class_weight  # takes a second to import

    classes = np.unique(labels)
    weights = compute_class_weight("balanced", classes=classes, y=labels)
    return {int(k): float(weight) for k, weight in zip(classes, weights, strict=True)}


def _optimizer(schedule: Schedule, images: int, parts: int) -> keras.optimizers.Optimizer:
    steps = schedule.epochs * steps_per_epoch(schedule, images)
    return optimizers.build(schedule, schedules.build(schedule, steps, parts), parts)
