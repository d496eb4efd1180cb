"""Averaged weights: their values, and that they are what is validated and returned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import torch
from keras import ops
from sklearn.metrics import accuracy_score

from tests.training.test_trainer import SCHEDULE, VALIDATION, fit, known, student, values
from tutelage import losses
from tutelage.models import loading
from tutelage.progress import Progress
from tutelage.training.batch_norm import recalibrate_batch_norm
from tutelage.training.trainer import DistillationTargets


def weights(model: keras.Model) -> list[np.ndarray]:
    return [ops.convert_to_numpy(v.value).copy() for v in model.weights]


class Kept(Progress):
    """Keeps the weights after each step."""

    def __init__(self, model: keras.Model, parts: int):
        self.model, self.parts, self.batch = model, parts, 0
        self.steps = [weights(model)]

    def step(self, step: int, logs: object) -> None:
        self.batch += 1
        if self.batch % self.parts == 0:
            self.steps.append(weights(self.model))


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("distilled", [False, True])
def test_the_average_is_that_of_pytorch(tmp_path: Path, parts: int, distilled: bool) -> None:
    plain, averaged = student(), student()
    targets = None
    if distilled:
        targets = DistillationTargets(known(tmp_path), [losses.KD()], 1.0, alpha=0.5)
    schedule = replace(SCHEDULE, gradient_accumulation_steps=parts)
    kept = Kept(plain, parts)
    settings = {"targets": targets, "schedule": schedule}
    rows = fit(plain, tmp_path / "plain.npz", **settings, progress=kept)
    settings["schedule"] = replace(schedule, ema=0.6)  # reached after 12 of the 15 steps
    found = fit(averaged, tmp_path / "averaged.npz", **settings)
    # The training itself is the same, to the bit.
    assert [row["loss"] for row in found] == [row["loss"] for row in rows]
    assert len(kept.steps) == 1 + 15
    averages, *steps = [[torch.tensor(w) for w in step] for step in kept.steps]
    for t, step in enumerate(steps):
        average = torch.optim.swa_utils.get_ema_avg_fn(min(0.6, (1 + t) / (10 + t)))
        averages = [average(a, w, t) for a, w in zip(averages, step, strict=True)]
    for ours, expected in zip(weights(averaged), averages, strict=True):
        np.testing.assert_allclose(ours, expected.numpy(), rtol=1e-4, atol=1e-6)
    assert any((a != b).any() for a, b in zip(weights(averaged), weights(plain), strict=True))


def test_averaged_weights_are_validated_and_returned(tmp_path: Path) -> None:
    model = student()
    rows = fit(model, tmp_path / "c.npz", schedule=replace(SCHEDULE, ema=0.9))
    logits = loading.logits(model, VALIDATION.images)
    accuracy = accuracy_score(VALIDATION.labels, logits.argmax(axis=1))
    assert rows[-1]["val_accuracy"] == pytest.approx(accuracy)
    loss = float(losses.CrossEntropy()(VALIDATION.labels, logits))
    assert rows[-1]["val_loss"] == pytest.approx(loss, rel=1e-4)
    again = student()
    fit(again, tmp_path / "c.npz", schedule=replace(SCHEDULE, ema=0.9))  # from its checkpoint
    for one, other in zip(values(again), values(model), strict=True):
        np.testing.assert_array_equal(one, other)


def test_batch_normalization_is_measured_again_with_the_averaged_weights(tmp_path: Path) -> None:
    model = student()
    fit(model, tmp_path / "c.npz", schedule=replace(SCHEDULE, ema=0.9))
    images = VALIDATION.images
    first = next(x for x in model.layers if isinstance(x, keras.layers.BatchNormalization))
    seen = keras.Model(model.inputs, first.input).predict(images, verbose=0)
    recalibrate_batch_norm(model, images, seed=0)
    mean = seen.mean(axis=(0, 1, 2))
    np.testing.assert_allclose(ops.convert_to_numpy(first.moving_mean.value), mean, atol=1e-5)


def test_a_frozen_weight_stays_as_it_is(tmp_path: Path) -> None:
    model = student()
    frozen = next(x for x in model.layers if isinstance(x, keras.layers.Conv2D))
    frozen.trainable = False
    before = frozen.get_weights()
    fit(model, tmp_path / "c.npz", schedule=replace(SCHEDULE, ema=0.9))
    for one, other in zip(frozen.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)
