"""Training callbacks: early dropout, progress and checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
from keras import ops

from tutelage import private_api
from tutelage.errors import TrainingError
from tutelage.progress import EpochLog, Progress
from tutelage.training import checkpoint
from tutelage.training.batches import ViewedBatches

_READ_SECONDS = 0.1
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


class EpochKeeper(keras.callbacks.Callback):
    """Raises if the loss is not finite, and saves a checkpoint after each epoch."""

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
        self.unread: list[dict[str, Any]] = []  # logs since values were last read
        self.values: dict[str, float] = {}
        self.batches.begin(epoch)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        # Reading a value waits for the device, so several steps are read at once.
        self.unread.append(dict(logs or {}))
        now = time.monotonic()
        if now - self.read >= _READ_SECONDS or batch + 1 == len(self.batches):
            self._read_values(last=batch + 1)
            self.read = now
        self.progress.step(self._step(batch), self.values)

    def _step(self, batch: int) -> int:
        return batch // self.batches.parts + 1

    def _read_values(self, last: int) -> None:
        for batch, logs in enumerate(self.unread, start=last - len(self.unread)):
            self.values = {name: float(value) for name, value in logs.items()}
            if not math.isfinite(self.values["loss"]):
                raise TrainingError(
                    f"the loss is {self.values['loss']} at step {self._step(batch)} of epoch "
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
        checkpoint.save(self.path, self.key, self.history, self.state)
        self.on_epoch(self.history)
        self.progress.epoch(row)
