"""Early stopping, against that of Keras, and the weights that it keeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import ops
from sklearn.metrics import accuracy_score

from tests.training.test_trainer import SCHEDULE, VALIDATION, fit, student, values
from tutelage.losses import CrossEntropy
from tutelage.models import loading
from tutelage.progress import EpochLog, Progress
from tutelage.recipe import Schedule
from tutelage.training.early_stopping import best_epoch, is_over

RNG = np.random.default_rng(0)
STOPPED = replace(SCHEDULE, epochs=9, early_stopping=2)


def of_keras(rows: list[EpochLog], monitor: str, patience: int) -> tuple[int, int]:
    """The last epoch and the best one of a training."""
    mode = "min" if monitor == "val_loss" else "max"
    stopping = keras.callbacks.EarlyStopping(monitor, patience=patience, mode=mode)
    stopping.set_model(SimpleNamespace(stop_training=False))
    stopping.on_train_begin()
    for epoch, row in enumerate(rows):
        stopping.on_epoch_end(epoch, row)
        if stopping.model.stop_training:
            break
    return epoch + 1, stopping.best_epoch + 1


@pytest.mark.parametrize("monitor", ["val_accuracy", "val_loss"])
@pytest.mark.parametrize("patience", [1, 2, 5])
def test_it_stops_where_that_of_keras_stops(monitor: str, patience: int) -> None:
    schedule = Schedule(epochs=12, learning_rate=1, early_stopping=patience, monitor=monitor)
    lasts = []
    for _ in range(50):
        # Few values, so that some are the same.
        rows = [{monitor: float(value)} for value in RNG.integers(0, 6, 12)]
        last = next(n for n in range(13) if is_over(rows[:n], schedule))
        assert (last, best_epoch(rows[:last], schedule)) == of_keras(rows, monitor, patience)
        lasts.append(last)
    assert len(set(lasts)) > 2


def test_a_figure_that_is_not_a_number_is_worse_than_any() -> None:
    schedule = replace(STOPPED, monitor="val_loss")
    rows = [{"val_loss": loss} for loss in (float("nan"), 3.0, 2.0, float("nan"), 2.5)]
    assert best_epoch(rows, schedule) == 3
    assert is_over(rows, schedule)
    assert best_epoch(rows[:1], schedule) == 1


def test_without_it_a_training_is_over_after_its_epochs() -> None:
    rows = [{"val_accuracy": -float(n)} for n in range(3)]
    assert [is_over(rows[:n], SCHEDULE) for n in range(4)] == [False, False, False, True]


class Kept(Progress):
    def __init__(self, model: keras.Model):
        self.model = model
        self.epochs: list[list[np.ndarray]] = []

    def epoch(self, row: EpochLog) -> None:
        self.epochs.append([ops.convert_to_numpy(w.value).copy() for w in self.model.weights])


def test_the_model_gets_the_weights_of_the_best_epoch(tmp_path: Path) -> None:
    schedule, stopped = STOPPED, student()
    history = fit(student(), tmp_path / "w.npz", schedule=replace(schedule, early_stopping=9))
    assert len(history) == 9
    kept = Kept(stopped)
    rows = fit(stopped, tmp_path / "stopped.npz", schedule=schedule, progress=kept)
    best = best_epoch(rows, schedule)
    assert len(rows) == best + 2 < 9
    assert [row | {"seconds": 0} for row in rows] == [
        row | {"seconds": 0} for row in history[: len(rows)]
    ]
    for weight, expected in zip(stopped.weights, kept.epochs[best - 1], strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(weight.value), expected)
    again = student()
    assert fit(again, tmp_path / "stopped.npz", schedule=schedule) == rows  # it is finished
    for one, other in zip(values(again), values(stopped), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_weights_of_the_best_epoch_are_the_averaged_ones(tmp_path: Path) -> None:
    model, schedule = student(), replace(STOPPED, ema=0.9, monitor="val_loss", epochs=4)
    rows = fit(model, tmp_path / "c.npz", schedule=schedule)
    best = rows[best_epoch(rows, schedule) - 1]
    logits = loading.logits(model, VALIDATION.images)
    accuracy = accuracy_score(VALIDATION.labels, logits.argmax(axis=1))
    assert best["val_accuracy"] == pytest.approx(accuracy)
    loss = float(CrossEntropy()(VALIDATION.labels, logits))
    assert best["val_loss"] == pytest.approx(loss, rel=1e-4)
