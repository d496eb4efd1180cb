"""Fit one model: optimiser, schedule, checkpoints, resume."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from tutelage import storage
from tutelage.data.datasets import Part
from tutelage.distillation.distiller import Distiller
from tutelage.distillation.logit_cache import GivenLogits, LogitCache
from tutelage.errors import TrainingError
from tutelage.kernels import accelerate
from tutelage.losses import CrossEntropy
from tutelage.progress import EpochLog, Progress
from tutelage.recipe import Schedule, Views
from tutelage.training import checkpoint as checkpoints
from tutelage.training.batches import ViewedBatches, steps_per_epoch
from tutelage.training.memory import give_freed_memory_back, keep_freed_memory
from tutelage.training.optimizers import Muon
from tutelage.training.schedules import TriangularSchedule

_VALIDATION_BATCH = 250
_TIMED_STEPS = 3
_READ_SECONDS = 0.1
_FIGURES = {
    *("loss", "accuracy", "hard_loss", "distillation_loss"),
    *("val_loss", "val_accuracy"),  # of validation images, whose teacher logits nobody asks
}


@dataclass(frozen=True)
class DistillationTargets:
    """What a student is taught with: a teacher's knowledge or the teacher, losses and weights.

    Attributes:
        knowledge: the teacher's logits for each view; None where alpha is 0 and none is needed,
            or the teacher is there.
        loss: the distillation loss, or several.
        alpha: their share, 0..1; the hard loss has `1 - alpha`.
        weights: each loss's weight, as `Distiller` takes them.
        teacher: is asked at each step, where a loss reads its inner layers.
    """

    knowledge: LogitCache | GivenLogits | None
    loss: keras.distillation.DistillationLoss | Sequence[keras.distillation.DistillationLoss]
    alpha: float
    weights: Any = 1.0
    teacher: keras.Model | None = None


def fit(
    model: keras.Model,
    train: Part,
    validation: Part,
    *,
    schedule: Schedule,
    settings: Views,
    seed: int,
    precision: str,
    checkpoint: Path,
    key: str,
    guidance: DistillationTargets | None = None,
    progress: Progress | None = None,
    on_epoch: Callable[[list[EpochLog]], None] = lambda rows: None,
) -> list[EpochLog]:
    """Train a model, going on from its checkpoint where there is one.

    Each epoch ends with a checkpoint written whole, so a process killed at any
    moment loses the running epoch at most, and a resumed run on the CPU ends with
    the very weights of an uninterrupted one.

    Args:
        model: a stock model from uint8 images to logits; its variables are trained.
        train: the images to learn from; labels of -1 are none, and are not shown.
        validation: images measured after each epoch; nothing is chosen by them here.
        schedule: epochs, batch size, learning rate and the like.
        settings: the views.
        seed: of the order and the views.
        precision: `"float32"` or `"bfloat16"`, what the step computes in.
        checkpoint: file of the state after the last finished epoch.
        key: what this training is, for a checkpoint that belongs to another is refused.
        guidance: the teacher's knowledge; without it, the labels alone.
        progress: hears of each step and epoch.
        on_epoch: called with the history so far when an epoch is safe on disk.

    Returns:
        A row for each epoch: losses, accuracies, learning rate and seconds.

    Raises:
        TrainingError: if the loss is not finite; the step is named.
        RunError: if the checkpoint is damaged or of another training.
    """
    progress = progress or Progress()
    trainee = _trainee(model, len(train), schedule, precision, guidance, seed)
    optimizer = trainee.optimizer
    optimizer.build(trainee.trainable_variables)
    own = trainee.own_variables if guidance else []
    state = [*model.variables, *own, *optimizer.variables]
    history = checkpoints.restore(checkpoint, key, state)
    knowledge = guidance.knowledge if guidance else None
    batches = ViewedBatches(train, schedule, settings, seed, knowledge)
    keeper = _Keeper(checkpoint, key, state, history, batches, progress, on_epoch)
    early = _EarlyDropout(model, round(schedule.dropout * schedule.epochs))
    try:
        trainee.fit(
            batches,
            validation_data=(validation.images, validation.labels),
            validation_batch_size=_VALIDATION_BATCH,
            epochs=schedule.epochs,
            initial_epoch=len(history),
            shuffle=False,  # the views have their own order; Keras would shuffle them unseeded
            callbacks=[keeper, early],
            verbose=0,
        )
    finally:
        early.restore()
        give_freed_memory_back()
    return history


def seconds_per_step(
    model: keras.Model,
    train: Part,
    *,
    schedule: Schedule,
    settings: Views,
    precision: str,
) -> float:
    """How long a training step takes here, in seconds: the median of a few; the model is used up.

    Arguments as in `fit`.
    """
    trainee = _trainee(model, len(train), schedule, precision)
    batches = ViewedBatches(train, schedule, settings, seed=0)
    spent = []
    for step in range(_TIMED_STEPS + 1):
        started = time.monotonic()
        trainee.train_on_batch(*batches[step % len(batches)])
        spent.append(time.monotonic() - started)
    return float(np.median(spent[1:]))  # the first one also builds


def _trainee(
    model: keras.Model,
    images: int,
    schedule: Schedule,
    precision: str,
    guidance: DistillationTargets | None = None,
    seed: int = 0,
) -> keras.Model:
    keep_freed_memory()
    trainee = accelerate.accelerate(model, precision)
    if guidance is not None:
        teacher = guidance.teacher
        trainee = Distiller(
            student=trainee,
            teacher=None if teacher is None else accelerate.accelerate(teacher, precision),
            loss=guidance.loss,
            loss_weights=guidance.weights,
            alpha=guidance.alpha,
            seed=seed,
        )
    trainee.compile(
        optimizer=_optimizer(schedule, images),
        loss=CrossEntropy(label_smoothing=schedule.label_smoothing),
        metrics=["accuracy"],
    )
    return trainee


def _optimizer(schedule: Schedule, images: int) -> keras.optimizers.Optimizer:
    steps = schedule.epochs * steps_per_epoch(schedule, images)
    rate = TriangularSchedule(schedule.learning_rate, steps, schedule.warmup)
    momentum, decay = schedule.momentum, schedule.weight_decay or None
    if schedule.optimizer == "muon":
        optimizer = Muon(rate, momentum, decay)
    else:
        optimizer = keras.optimizers.SGD(rate, momentum, momentum > 0, decay)
    if schedule.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


class _EarlyDropout(keras.callbacks.Callback):
    """Lets dropout layers drop in the first epochs alone."""

    def __init__(self, model: keras.Model, epochs: int):
        super().__init__()
        self.epochs = epochs
        found = model._flatten_layers(include_self=False)
        self.rates = [(x, x.rate) for x in found if isinstance(x, keras.layers.Dropout)]

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch < self.epochs or not any(layer.rate for layer, _ in self.rates):
            return
        for layer, _ in self.rates:
            layer.rate = 0
        self.model.make_train_function(force=True)  # a compiled step has the rates built in

    def restore(self) -> None:
        for layer, rate in self.rates:
            layer.rate = rate


class _Keeper(keras.callbacks.Callback):
    """Stops at a loss that is not finite, and makes each epoch safe."""

    def __init__(
        self,
        path: Path,
        key: str,
        state: list[keras.Variable],
        history: list[EpochLog],
        batches: ViewedBatches,
        progress: Progress,
        on_epoch: Callable[[list[EpochLog]], None],
    ):
        super().__init__()
        self.path, self.key, self.state, self.history = path, key, state, history
        self.batches, self.progress, self.on_epoch = batches, progress, on_epoch

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch, self.started = epoch, time.monotonic()
        self.read = self.started
        self.unread: list[dict[str, Any]] = []  # of the steps since values were last read
        self.values: dict[str, float] = {}
        self.batches.begin(epoch)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        # To read a value is to wait for the device, so the steps of a moment are read together.
        self.unread.append(dict(logs or {}))
        now = time.monotonic()
        if now - self.read >= _READ_SECONDS or batch + 1 == len(self.batches):
            self._read_values(last=batch + 1)
            self.read = now
        self.progress.step(batch + 1, self.values)

    def _read_values(self, last: int) -> None:
        for step, logs in enumerate(self.unread, start=last + 1 - len(self.unread)):
            self.values = {name: float(value) for name, value in logs.items()}
            if not math.isfinite(self.values["loss"]):
                raise TrainingError(
                    f"the loss is {self.values['loss']} at step {step} of epoch {self.epoch + 1}: "
                    "try a lower learning rate, or look for broken images or labels; "
                    "the epochs before are kept"
                )
        self.unread.clear()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        row: EpochLog = {"epoch": epoch + 1}
        row |= {name: float(value) for name, value in (logs or {}).items() if name in _FIGURES}
        if self.batches.unlabelled:
            row.pop("accuracy", None)  # nobody knows it
        row["learning_rate"] = float(ops.convert_to_numpy(self.model.optimizer.learning_rate))
        row["seconds"] = time.monotonic() - self.started
        self.history.append(row)
        arrays = {f"v{i}": ops.convert_to_numpy(v.value) for i, v in enumerate(self.state)}
        note = json.dumps({"key": self.key, "history": self.history})
        with storage.replacing(self.path) as temporary:
            np.savez(temporary, note=np.array(note), **arrays)
        self.on_epoch(self.history)
        self.progress.epoch(row)
