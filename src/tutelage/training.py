"""Fit one model: optimiser, schedule, checkpoints, resume."""

from __future__ import annotations

import ctypes
import json
import math
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from . import native, storage, views
from .datasets import Part
from .distiller import Distiller
from .errors import RunError, TrainingError
from .knowledge import Given, Knowledge
from .losses import CrossEntropy
from .optimizers import Muon
from .progress import Progress, Row
from .recipe import Schedule, Views

_VALIDATION_BATCH = 250
_TIMED_STEPS = 3
_READ_SECONDS = 0.1
_SETTLING_IMAGES = 5_000
_FIGURES = {
    *("loss", "accuracy", "hard_loss", "distillation_loss"),
    *("val_loss", "val_accuracy"),  # of validation images, whose teacher logits nobody asks
}


@dataclass(frozen=True)
class Guidance:
    """What a student is taught with: a teacher's knowledge or the teacher, losses and weights.

    Attributes:
        knowledge: the teacher's logits for each view; None where alpha is 0 and none is needed,
            or the teacher is there.
        loss: the distillation loss, or several.
        alpha: their share, 0..1; the hard loss has `1 - alpha`.
        weights: each loss's weight, as `Distiller` takes them.
        teacher: is asked at each step, where a loss reads its inner layers.
    """

    knowledge: Knowledge | Given | None
    loss: keras.distillation.DistillationLoss | Sequence[keras.distillation.DistillationLoss]
    alpha: float
    weights: Any = 1.0
    teacher: keras.Model | None = None


class Triangle(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises linearly to its peak and falls linearly to zero.

    Args:
        peak: the highest rate.
        steps: training steps in all.
        warmup: part of the steps in which the rate rises, 0..1.
    """

    def __init__(self, peak: float, steps: int, warmup: float):
        self.peak, self.steps, self.warmup = peak, steps, warmup

    def __call__(self, step: Any) -> Any:
        """The rate at a step, counted from 0."""
        done = (ops.cast(step, "float32") + 1) / (self.steps + 1)
        fall = (1 - done) / (1 - self.warmup)
        return self.peak * (ops.minimum(done / self.warmup, fall) if self.warmup else fall)

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this schedule again."""
        return {"peak": self.peak, "steps": self.steps, "warmup": self.warmup}


class _ViewedBatches(keras.utils.PyDataset):
    """Batches of views. The last images of an epoch's order, too few for a batch, are left out."""

    def __init__(
        self,
        part: Part,
        schedule: Schedule,
        settings: Views,
        seed: int,
        knowledge: Knowledge | Given | None = None,
    ):
        super().__init__()
        self.part, self.settings, self.seed, self.knowledge = part, settings, seed, knowledge
        self.cutout, self.unlabelled = schedule.cutout, bool((part.labels < 0).any())
        self.batch = min(schedule.batch_size, len(part))
        self.steps = steps_per_epoch(schedule, len(part))
        self.background = ThreadPoolExecutor(1, "views")
        self.begin(epoch=0)

    def begin(self, epoch: int) -> None:
        # Said by who knows: Keras also opens and closes the data to look at one batch.
        self.view = epoch % (self.settings.distinct or epoch + 1)
        self.order = views.order(len(self.part), seed=self.seed, epoch=epoch)
        self.ahead: dict[int, Future[Any]] = {}

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> tuple[Any, ...]:
        # The next batch is made while this one is learned from. Keras' own workers would
        # carry batches of one epoch over into the next.
        ready = self.ahead.pop(step, None)
        batch = ready.result() if ready else self._batch(self.view, self._index(step))
        if step + 1 < self.steps:
            following = self._index(step + 1)
            self.ahead[step + 1] = self.background.submit(self._batch, self.view, following)
        return batch

    def _index(self, step: int) -> np.ndarray:
        return self.order[step * self.batch : (step + 1) * self.batch]

    def _batch(self, view: int, index: np.ndarray) -> tuple[Any, ...]:
        images = views.view(
            self.part.images,
            index,
            seed=self.seed,
            epoch=view,
            flip=self.settings.flip,
            shift=self.settings.shift,
            cutout=self.cutout,
        )
        labels = () if self.unlabelled else (self.part.labels[index],)
        if self.knowledge is None:
            return images, *labels
        logits = self.knowledge.logits(view, index)
        return {"images": images, "teacher_logits": logits}, *labels


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
    guidance: Guidance | None = None,
    progress: Progress | None = None,
    on_epoch: Callable[[list[Row]], None] = lambda rows: None,
) -> list[Row]:
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
    history = _restore(checkpoint, key, state)
    knowledge = guidance.knowledge if guidance else None
    batches = _ViewedBatches(train, schedule, settings, seed, knowledge)
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
        _give_freed_memory_back()
    return history


def settle(model: keras.Model, images: np.ndarray, *, seed: int) -> None:
    """Measure anew what batch normalisation goes by, on images as they are.

    In training its moving statistics follow the shifted views of the last few batches. Here
    they become the mean and variance over 5,000 training images without augmentation, layer
    by layer, each fed by those that have settled; nothing else of the model changes.

    Args:
        model: a trained Functional model from uint8 images to logits.
        images: the training images, uint8 of shape (count, height, width, channels).
        seed: of the choice of images.

    Source: section 3 of arXiv 2105.07576 ("PreciseBN"), there by batches in training mode.
    """
    images = images[views.order(len(images), seed=seed, epoch=0)[:_SETTLING_IMAGES]]
    for layer in model.layers:
        if not isinstance(layer, keras.layers.BatchNormalization):
            continue
        x = layer.input
        places = tuple(range(1, len(x.shape) - 1))  # none behind a dense layer
        moments = [ops.mean(y, places) if places else y for y in (x, ops.square(x))]
        measured = keras.Model(model.inputs, ops.concatenate(moments, axis=-1))
        answers = native.accelerate(measured, "float32").predict(
            images, batch_size=_VALIDATION_BATCH, verbose=0
        )
        mean, square = np.split(answers.mean(axis=0, dtype=np.float64), 2)
        layer.moving_mean.assign(mean)
        layer.moving_variance.assign(np.maximum(square - mean**2, 0))


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
    batches = _ViewedBatches(train, schedule, settings, seed=0)
    spent = []
    for step in range(_TIMED_STEPS + 1):
        started = time.monotonic()
        trainee.train_on_batch(*batches[step % len(batches)])
        spent.append(time.monotonic() - started)
    return float(np.median(spent[1:]))  # the first one also builds


def epochs_done(checkpoint: Path) -> int:
    """How many epochs a checkpoint has behind it; 0 where there is none."""
    return len(_read(checkpoint)[0]["history"]) if checkpoint.exists() else 0


def steps_per_epoch(schedule: Schedule, images: int) -> int:
    """Training steps in an epoch over so many images."""
    return images // min(schedule.batch_size, images)


def _trainee(
    model: keras.Model,
    images: int,
    schedule: Schedule,
    precision: str,
    guidance: Guidance | None = None,
    seed: int = 0,
) -> keras.Model:
    _keep_freed_memory()
    trainee = native.accelerate(model, precision)
    if guidance is not None:
        teacher = guidance.teacher
        trainee = Distiller(
            student=trainee,
            teacher=None if teacher is None else native.accelerate(teacher, precision),
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
    rate = Triangle(schedule.learning_rate, steps, schedule.warmup)
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
        history: list[Row],
        batches: _ViewedBatches,
        progress: Progress,
        on_epoch: Callable[[list[Row]], None],
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
        row: Row = {"epoch": epoch + 1}
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


def _restore(path: Path, key: str, state: list[keras.Variable]) -> list[Row]:
    if not path.exists():
        return []
    note, arrays = _read(path)
    if note["key"] != key or [a.shape for a in arrays] != [tuple(v.shape) for v in state]:
        raise RunError(
            f"{path} belongs to another training: delete it to train this stage from its start"
        )
    for variable, array in zip(state, arrays, strict=True):
        variable.assign(array)
    return list(note["history"])


def _read(path: Path) -> tuple[dict[str, Any], list[np.ndarray]]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            note = json.loads(str(stored["note"]))
            return note, [stored[f"v{i}"] for i in range(len(stored) - 1)]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise RunError(
            f"{path} is damaged ({error}): delete it to train this stage again from its start"
        ) from error


def _keep_freed_memory() -> None:
    # glibc gives each freed feature map back to the system and takes it again
    # page by page in the next step: a fifth of the step's time.
    if libc := _glibc():
        libc.mallopt(-4, 0)  # M_MMAP_MAX
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def _give_freed_memory_back() -> None:
    # What a training leaves lies in pieces: the next would take more beside it.
    if libc := _glibc():
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    try:
        return ctypes.CDLL("libc.so.6")
    except OSError:  # another C library
        return None
