"""Early stopping: a training ends when a validation figure no longer improves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tutelage.progress import EpochLog
from tutelage.recipe import Schedule

MONITOR = "val_accuracy"  # by default


def best_epoch(rows: Sequence[EpochLog], schedule: Schedule) -> int:
    """The epoch, counted from 1, with the best validation figure; of several, the first.

    Args:
        rows: one row per epoch, at least one.
        schedule: names the figure.

    Returns:
        The epoch's number.

    Example:

    >>> from tutelage.recipe import Schedule
    >>> from tutelage.training.early_stopping import best_epoch
    >>> schedule = Schedule(epochs=9, learning_rate=1, early_stopping=2, monitor="val_loss")
    >>> best_epoch([{"val_loss": 0.5}, {"val_loss": 0.3}, {"val_loss": 0.3}], schedule)
    2
    """
    monitor = schedule.monitor or MONITOR
    sign = -1 if monitor == "val_loss" else 1
    figures = [sign * row[monitor] for row in rows]
    figures = [-math.inf if math.isnan(figure) else figure for figure in figures]
    return figures.index(max(figures)) + 1


def is_over(rows: Sequence[EpochLog], schedule: Schedule) -> bool:
    """Whether a training ends after these epochs.

    Args:
        rows: one row per epoch so far.
        schedule: the number of epochs, and the patience if it may end earlier.

    Returns:
        True if all epochs are done, or if so many as the patience are worse than the best.
    """
    patience = schedule.early_stopping
    if patience and rows and len(rows) - best_epoch(rows, schedule) >= patience:
        return True
    return len(rows) >= schedule.epochs


class EarlyStopping(keras.callbacks.Callback):
    """Keeps the weights of the best epoch, and stops the training when it is over.

    What it does follows from the history, so a resumed training goes on alike.

    Args:
        model: a built model.
        schedule: the patience and the figure.
        rows: the epochs before the current one.
        evaluated: the variables whose values are validated, one for each of the model's weights.

    Attributes:
        variables: the best epoch's weights.
    """

    def __init__(
        self,
        model: keras.Model,
        schedule: Schedule,
        rows: Sequence[EpochLog],
        evaluated: Sequence[keras.Variable],
    ):
        super().__init__()
        self.schedule, self.rows, self.evaluated = schedule, rows, evaluated
        self.weights = model.weights
        self.variables = [
            keras.Variable(ops.copy(v.value), dtype=v.dtype, trainable=False) for v in evaluated
        ]

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        name = self.schedule.monitor or MONITOR
        rows = [*self.rows, {name: float(logs[name])}]
        if best_epoch(rows, self.schedule) == len(rows):
            for variable, value in zip(self.variables, self.evaluated, strict=True):
                variable.assign(value)
        self.model.stop_training = is_over(rows, self.schedule)

    def finish(self) -> None:
        """Give the model the best epoch's weights."""
        for variable, weight in zip(self.variables, self.weights, strict=True):
            weight.assign(variable)
