"""Fit one model: optimizer, schedule, checkpoints, resume."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tutelage.data.content import Part
from tutelage.data.image_files import ImageFiles
from tutelage.data.training_stream import TrainingStream
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
from tutelage.training.batches import (
    StoredBatches,
    TrainingBatches,
    ViewedBatches,
    images_per_step,
    steps_per_epoch,
)
from tutelage.training.callbacks import EarlyDropout, EpochKeeper
from tutelage.training.early_stopping import EarlyStopping, is_over
from tutelage.training.layer_groups import LayerRates, frozen, head, layer_groups
from tutelage.training.memory import freed_memory_kept
from tutelage.training.streamed_batches import StreamedBatches
from tutelage.training.threads import threads_for
from tutelage.training.validation_keeper import ValidationKeeper
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
        ask: computes the teacher's logits of a loader's batch, which can't be stored; else None.
    """

    logits: LogitCache | GivenLogits | None
    losses: Sequence[keras.distillation.DistillationLoss]
    weights: Any
    alpha: float
    teacher: keras.Model | None = None
    ask: Callable[[np.ndarray], np.ndarray] | None = None


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
    workers: int | None = None,
    stream: TrainingStream | None = None,
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
        workers: processes that prepare views ahead, as in `AugmentedViews.loader`.
        stream: the loader of the training images, of which `train` is a sample; its batches are
            the steps, and `views` and the batch size are not used.
        progress: notified of each step and epoch.
        on_epoch: called with the history so far after an epoch is saved to disk.

    Returns:
        One row per epoch: losses, accuracies, learning rate and seconds. The model has the weights
        of the last one, or with early stopping those of the best.

    Raises:
        TrainingError: if the loss is not finite; names the step.
        RunError: if the checkpoint is damaged or belongs to another training.
        DataError: if the loader gives other batches than in its first pass, or fails.
    """
    progress, history = progress or Progress(), list[EpochLog]()
    images = images_per_step(schedule, len(train)) if stream is None else stream.largest
    parts = _parts(model, train.images.shape[1:], images, schedule, targets)
    if stream is not None and parts > stream.smallest:
        progress.note(
            f"a step has {stream.smallest} parts instead of {parts}, as the loader's smallest "
            "batch has no more images; with drop_last=True it would need less memory"
        )
        parts = stream.smallest
    batches: TrainingBatches
    if stream is None:
        logits = targets.logits if targets else None
        classes = model.output_shape[-1]
        batches = ViewedBatches(train, classes, schedule, views, seed, logits, parts, workers)
    else:
        batches = StreamedBatches(stream, train, targets.ask if targets else None, parts)
    keeper = EpochKeeper(checkpoint, key, history, batches, progress, on_epoch, len(validation))
    labels = train.labels if stream is None else stream.labels
    training = _Training(
        model, train, validation, schedule, seed, precision, targets, labels, batches, keeper
    )
    try:
        with freed_memory_kept(), threads_for(model, schedule.batch_size // batches.parts):
            training.run()
    finally:
        training.dropout.restore()
        batches.close()
    return history


class _Training:
    """A model with all that trains it."""

    def __init__(
        self,
        model: keras.Model,
        train: Part,
        validation: Part,
        schedule: Schedule,
        seed: int,
        precision: str,
        targets: DistillationTargets | None,
        labels: np.ndarray,
        batches: TrainingBatches,
        keeper: EpochKeeper,
    ):
        self.model, self.schedule, self.targets = model, schedule, targets
        self.validation = validation
        self.batches, self.keeper, self.history = batches, keeper, keeper.history
        self.class_weights = None
        if schedule.class_weights and not batches.unlabeled:
            self.class_weights = _class_weights(labels)
        self.trained = _runnable(model, precision, targets, seed, self.class_weights)
        self.groups: list[list[keras.Layer]] = []
        if schedule.layer_decay or schedule.frozen_epochs:
            self.groups = layer_groups(model, train.images[:1])
        rates = LayerRates(self.groups, schedule.layer_decay) if schedule.layer_decay else None
        average = WeightAverage(model, schedule.ema, batches) if schedule.ema else None
        stopping = None
        if schedule.early_stopping:
            evaluated = average.variables if average else model.weights
            stopping = EarlyStopping(model, schedule, self.history, evaluated)
        self.keep_weights = [callback for callback in (average, stopping) if callback]
        self.dropout = EarlyDropout(model, round(schedule.dropout * schedule.epochs))
        validated = math.ceil(len(validation) / self._batch_size)
        self.validation_keeper = ValidationKeeper(keeper, validated)
        used = [
            callback
            for callback in (rates, *self.keep_weights, keeper, self.validation_keeper)
            if callback
        ]
        self.callbacks = keras.callbacks.CallbackList(
            [*used, self.dropout], add_history=True, model=self.trained
        )

    def run(self) -> None:
        """Train from the checkpoint, if there is one, to the end."""
        self._note_settings()
        first = self.schedule.frozen_epochs or 0
        if first and checkpoints.position(self.keeper.path) <= (first, 0):
            with frozen(self.model, self.groups[:-1]):
                self._compile()
                self.keeper.restore()
                self._train_until(first)
            # A new optimizer, as Adam's, for one, counts the steps of all weights together.
            self._compile(first_epoch=first)
        else:
            self._compile(first_epoch=first)
            self.keeper.restore()
        self._train_until(self.schedule.epochs)
        for callback in self.keep_weights:
            callback.finish()

    def _note_settings(self) -> None:
        note, parts = self.keeper.progress.note, self.batches.parts
        if parts > 1:
            note(
                f"the {self.batches.step_images} images of a step are processed "
                f"in {parts} parts, to bound memory: batch normalization and losses that compare "
                "images see one part at a time"
            )
        if self.schedule.frozen_epochs:
            last = self.schedule.frozen_epochs
            note(f"{head(self.groups)} alone is trained until the end of epoch {last}")
        if self.schedule.layer_decay:
            least = self.schedule.layer_decay ** (len(self.groups) - 1)
            note(
                f"{len(self.groups)} groups of layers have rates from {least:.2g} of the learning "
                f"rate to all of it, in {head(self.groups)}"
            )

    def _compile(self, first_epoch: int = 0) -> None:
        """Give the model an optimizer of what is trainable, and the checkpoint its state."""
        parts = self.batches.parts
        _compile(self.trained, self.schedule, self.batches.batches // parts, parts, first_epoch)
        optimizer = self.trained.optimizer
        optimizer.build(self.trained.trainable_variables)
        self.keeper.state = [
            *self.model.variables,
            *(self.trained.own_variables if self.targets else []),
            *optimizer.variables,
            *(v for callback in self.keep_weights for v in callback.variables),
        ]

    def _train_until(self, epoch: int) -> None:
        if self.keeper.position.batches:
            self._finish_epoch()
        if len(self.history) < epoch and not is_over(self.history, self.schedule):
            self._fit(epoch)

    def _finish_epoch(self) -> None:
        """Train an interrupted epoch from its checkpoint on."""
        epoch, total = len(self.history), len(self.batches)
        done, parts = self.keeper.position.batches, self.batches.parts
        self.keeper.progress.note(
            f"resuming epoch {epoch + 1} of {self.schedule.epochs} after step {done // parts} of "
            f"{total // parts}"
        )
        self.batches.show(epoch, first=done)  # Keras asks for its length once
        if done < total:
            self._fit(epoch + 1)
        else:
            self._validate(epoch)
        self.batches.show(len(self.history))

    def _fit(self, epoch: int) -> None:
        self.trained.fit(
            self.batches,
            validation_data=self._validation_data(),
            validation_batch_size=self._validation_batch_size,
            epochs=epoch,
            initial_epoch=len(self.history),
            shuffle=False,  # views have a seeded order
            class_weight=None if self.targets else self.class_weights,
            callbacks=self.callbacks,
            verbose=0,
        )

    def _validate(self, epoch: int) -> None:
        """End an epoch that was interrupted after its last step."""
        self.callbacks.on_train_begin()
        self.callbacks.on_epoch_begin(epoch)
        validated = self.validation_keeper.restore()
        self.keeper.started -= validated.seconds
        data = self._validation_data(first=validated.batches)
        figures = self.trained.evaluate(
            *(data if isinstance(data, tuple) else (data,)),
            batch_size=self._validation_batch_size,
            callbacks=self.callbacks,
            return_dict=True,
            verbose=0,
        )
        self.keeper.restore_metrics()  # evaluation has reset them
        logs = {f"val_{name}": value for name, value in figures.items()}
        self.callbacks.on_epoch_end(epoch, self.trained.get_metrics_result() | logs)

    def _validation_data(self, first: int = 0) -> StoredBatches | tuple[np.ndarray, np.ndarray]:
        """The validation images from a batch on."""
        rest = self.validation
        if first:
            rest = rest.take(np.arange(first * self._batch_size, len(rest)))
        images, labels = rest.images, rest.labels
        if self.batches.mixed:  # metrics have one form of labels in training and validation
            labels = np.eye(self.batches.classes)[labels]
        if isinstance(images, ImageFiles):
            return StoredBatches(images, labels, self._batch_size)
        return images, labels

    @property
    def _validation_batch_size(self) -> int | None:
        """Images of a batch; None if the data consists of batches."""
        return None if isinstance(self.validation.images, ImageFiles) else self._batch_size

    @property
    def _batch_size(self) -> int:
        return loading.batch_size(self.validation.images.shape[1:], self.model)


def seconds_per_step(
    model: keras.Model,
    train: Part,
    *,
    schedule: Schedule,
    views: Views,
    precision: str,
    workers: int | None = None,
) -> float:
    """Median seconds per training step over a few steps; changes the model's weights.

    Arguments as in `fit`.
    """
    images = images_per_step(schedule, len(train))
    parts = _parts(model, train.images.shape[1:], images, schedule)
    trained = _runnable(model, precision)
    _compile(trained, schedule, steps_per_epoch(schedule, len(train)), parts)
    classes = model.output_shape[-1]
    batches = ViewedBatches(train, classes, schedule, views, 0, parts=parts, workers=workers)
    batches.begin(epoch=0)
    seconds = []
    with freed_memory_kept(), threads_for(model, schedule.batch_size // parts):
        for step in range(_TIMED_STEPS + 1):
            started = time.monotonic()
            trained.train_on_batch(*batches[step % len(batches)])
            seconds.append(time.monotonic() - started)
    batches.close()
    return parts * float(np.median(seconds[1:]))  # the first one also builds


def _parts(
    model: keras.Model,
    shape: tuple[int, ...],
    images: int,
    schedule: Schedule,
    targets: DistillationTargets | None = None,
) -> int:
    if schedule.gradient_accumulation_steps is not None:
        return schedule.gradient_accumulation_steps
    models = [model] if targets is None or targets.teacher is None else [model, targets.teacher]
    return parts_per_step(models, shape, images)


def _runnable(
    model: keras.Model,
    precision: str,
    targets: DistillationTargets | None = None,
    seed: int = 0,
    class_weights: dict[int, float] | None = None,
) -> keras.Model:
    """The model by its fast layers, or a distiller of it."""
    fast = accelerate.accelerate(model, precision)
    if targets is None:
        return fast
    teacher = targets.teacher
    return Distiller(
        teacher=None if teacher is None else accelerate.accelerate(teacher, precision),
        student=fast,
        distillation_losses=targets.losses,
        distillation_loss_weights=targets.weights,
        alpha=targets.alpha,
        class_weights=class_weights,
        seed=seed,
    )


def _compile(
    trained: keras.Model, schedule: Schedule, steps: int, parts: int, first_epoch: int = 0
) -> None:
    trained.compile(
        optimizer=_optimizer(schedule, steps, parts, first_epoch),
        loss=CrossEntropy(label_smoothing=schedule.label_smoothing),
        metrics=["accuracy"],
    )


def _class_weights(labels: np.ndarray) -> dict[int, float]:
    """Weights by class so that each class has the same sum over the images."""
    from sklearn.utils.class_weight import compute_class_weight  # takes a second to import

    classes = np.unique(labels)
    weights = compute_class_weight("balanced", classes=classes, y=labels)
    return {int(k): float(weight) for k, weight in zip(classes, weights, strict=True)}


def _optimizer(
    schedule: Schedule, steps: int, parts: int, first_epoch: int = 0
) -> keras.optimizers.Optimizer:
    rate = schedules.build(schedule, schedule.epochs * steps, parts, first_epoch * steps)
    return optimizers.build(schedule, rate, parts)
