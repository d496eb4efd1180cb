"""Checkpoints within the validation of an epoch."""

from __future__ import annotations

import time
from typing import Any

import keras

from tutelage.errors import RunError
from tutelage.training import callbacks, checkpoint
from tutelage.training.callbacks import EpochKeeper
from tutelage.training.checkpoint import Position


class ValidationKeeper(keras.callbacks.Callback):
    """Saves each minute how much of an epoch's validation is done, beside the training state.

    Args:
        keeper: saves the training state; saves it before a long validation.
        batches: number of batches of validation images.
    """

    def __init__(self, keeper: EpochKeeper, batches: int):
        super().__init__()
        self.keeper, self.batches = keeper, batches
        self.path = keeper.path.with_suffix(".validation.npz")
        self.position = Position()

    def restore(self) -> Position:
        """How much of the validation that follows the history was done by another process."""
        try:
            rows, position = checkpoint.restore(self.path, self.keeper.key, [])
        except RunError as error:
            self.keeper.progress.note(f"validation begins anew: {error}")
            return self.position
        if len(rows) == len(self.keeper.history):
            self.position = position
        return self.position

    def on_test_begin(self, logs: Any = None) -> None:
        self.begun = self.saved = time.monotonic()
        if not self.position.batches:
            self.path.unlink(missing_ok=True)

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        if batch == 0 and self.position.batches:  # evaluation has reset the metrics
            callbacks.assign_metrics(self.model, self.position.metrics)

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        now, done = time.monotonic(), self.position.batches + batch + 1
        if now - self.saved < callbacks.SAVE_SECONDS or done == self.batches:
            return
        seconds = self.position.seconds + now - self.begun
        within = Position(done, seconds, callbacks.metric_values(self.model))
        checkpoint.save(self.path, self.keeper.key, self.keeper.history, [], within)
        self.saved = now

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.position = Position()
        self.path.unlink(missing_ok=True)
