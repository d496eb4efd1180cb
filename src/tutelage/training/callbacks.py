"""Training callbacks: early dropout, progress and checkpoints."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from tutelage import private_api
from tutelage.errors import TrainingError
from tutelage.progress import EpochLog, Progress
from tutelage.training import checkpoint
from tutelage.training.batches import TrainingBatches
from tutelage.training.checkpoint import Position

_READ_SECONDS = 0.1
SAVE_SECONDS = 60.0  # between two checkpoints, at most
_FIGURES = {
    *("loss", "accuracy", "hard_loss", "distillation_loss"),
    *("val_loss", "val_accuracy"),  # validation images have no teacher logits
}


class EarlyDropout(keras.callbacks.Callback):
    """Disables dropout after the first epochs."""

    def __init__(self, model: keras.Model, epochs: int):
        super().__init__()
        self.epochs = epochs
        layers = private_api.flat_layers(model, include_self=False)
        self.rates = [(x, x.rate) for x in layers if isinstance(x, keras.layers.Dropout)]

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch < self.epochs or not any(layer.rate for layer, _ in self.rates):
            return
        for layer, _ in self.rates:
            layer.rate = 0
        self.model.make_train_function(force=True)  # rates are compiled into the step

    def restore(self) -> None:
        for layer, rate in self.rates:
            layer.rate = rate


def metric_values(model: keras.Model) -> dict[str, np.ndarray]:
    """The values of a model's metrics variables, by name, for a checkpoint."""
    return {name: ops.convert_to_numpy(v.value) for name, v in _metrics_of(model).items()}


def _metrics_of(model: keras.Model) -> dict[str, keras.Variable]:
    """A model's metrics variables by path and, as layers may have metrics of one name, number."""
    found: dict[str, keras.Variable] = {}
    count: Counter[str] = Counter()
    for variable in model.metrics_variables:
        count[variable.path] += 1
        found[f"{variable.path} {count[variable.path]}"] = variable
    return found


def assign_metrics(model: keras.Model, values: Mapping[str, np.ndarray]) -> None:
    """Give metrics variables the values of a checkpoint; others have seen no batch."""
    for name, variable in _metrics_of(model).items():
        if name in values:
            variable.assign(values[name])


class EpochKeeper(keras.callbacks.Callback):
    """Raises if the loss is not finite, and saves checkpoints: after each epoch and each minute.

    Args:
        path: the checkpoint's file.
        key: identifies the training.
        history: receives one row per epoch.
        batches: the training data.
        progress: notified of each step and epoch.
        on_epoch: called with the history after an epoch is saved.
        validation: number of validation images.

    Attributes:
        state: all variables needed to resume.
        position: how much of the running epoch was trained before, by another process.
    """

    def __init__(
        self,
        path: Path,
        key: str,
        history: list[EpochLog],
        batches: TrainingBatches,
        progress: Progress,
        on_epoch: Callable[[list[EpochLog]], None],
        validation: int,
    ):
        super().__init__()
        self.path, self.key, self.history, self.validation = path, key, history, validation
        self.batches, self.progress, self.on_epoch = batches, progress, on_epoch
        self.state: list[keras.Variable] = []
        self.position, self.saved = Position(), time.monotonic()

    def restore(self) -> None:
        """Restore the state, the history and the position from the file, if there is one."""
        rows, self.position = checkpoint.restore(self.path, self.key, self.state)
        self.history += rows

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch
        self.begun = self.read = time.monotonic()
        self.started = self.read - self.position.seconds
        self.unread: list[dict[str, Any]] = []  # logs since values were last read
        self.values: dict[str, float] = {}
        self.batches.begin(epoch, first=self.position.batches)
        self.restore_metrics()

    def restore_metrics(self) -> None:
        """Give the metrics the values of the part of the epoch that was trained before."""
        if not self.position.batches:
            return
        self.model.reset_metrics()
        assign_metrics(self.model, self.position.metrics)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        # Reading a value waits for the device, so several steps are read at once.
        self.unread.append(dict(logs or {}))
        now, done = time.monotonic(), self.batches.first + batch + 1
        last = batch + 1 == len(self.batches)
        due = now - self.saved >= SAVE_SECONDS or (last and self._validates_long(now))
        if due or now - self.read >= _READ_SECONDS or last:
            self._read_values(done)
            self.read = now
        if due:
            self._save(Position(done, now - self.started, metric_values(self.model)))
        self.progress.step(self._step(done), self.values)

    def _validates_long(self, now: float) -> bool:
        """Whether the validation may take a minute, at the speed of this epoch's training."""
        seconds_per_image = (now - self.begun) / max(1, self.batches.images)
        return seconds_per_image * self.validation >= SAVE_SECONDS

    def _save(self, position: Position | None = None) -> None:
        checkpoint.save(self.path, self.key, self.history, self.state, position)
        self.saved = time.monotonic()

    def _step(self, done: int) -> int:
        """The number of the step that the last of so many batches belongs to."""
        return (done - 1) // self.batches.parts + 1

    def _read_values(self, done: int) -> None:
        for batches, logs in enumerate(self.unread, start=done - len(self.unread) + 1):
            self.values = {name: float(value) for name, value in logs.items()}
            if not math.isfinite(self.values["loss"]):
                raise TrainingError(
                    f"the loss is {self.values['loss']} at step {self._step(batches)} of epoch "
                    f"{self.epoch + 1}: "
                    "try a lower learning rate, or look for damaged images or labels; "
                    "earlier epochs are saved"
                )
        self.unread.clear()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        row: EpochLog = {"epoch": epoch + 1}
        row |= {name: float(value) for name, value in (logs or {}).items() if name in _FIGURES}
        if self.batches.unlabeled:
            row.pop("accuracy", None)  # meaningless without labels
        row["learning_rate"] = float(ops.convert_to_numpy(self.model.optimizer.learning_rate))
        row["seconds"] = time.monotonic() - self.started
        self.history.append(row)
        self.position = Position()
        self._save()
        self.on_epoch(self.history)
        self.progress.epoch(row | self._speed())

    def _speed(self) -> dict[str, float]:
        """Images a second of the epoch's steps in this process, and the share of waiting."""
        seconds, batches = max(self.read - self.begun, 1e-9), self.batches
        return {"images_per_second": batches.images / seconds, "waiting": batches.waited / seconds}
