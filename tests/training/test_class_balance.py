"""Class weights and balanced sampling of unbalanced images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from tests.training.test_trainer import (
    SCHEDULE,
    TRAIN,
    assert_identical,
    fit,
    linear_network,
    student,
    values,
)
from tutelage import losses
from tutelage.data.datasets import Part
from tutelage.distillation.distiller import Distiller
from tutelage.distillation.logit_cache import GivenLogits
from tutelage.errors import RecipeError
from tutelage.models import loading
from tutelage.progress import EpochLog
from tutelage.recipe import Views
from tutelage.training.batches import ViewedBatches
from tutelage.training.trainer import DistillationTargets

LABELS = np.repeat([0, 1, 3], [24, 4, 12])  # and none of class 2
UNBALANCED = Part(TRAIN.images, LABELS)
STILL = replace(SCHEDULE, epochs=1, learning_rate=1e-12, weight_decay=0.0)
WEIGHTED = replace(STILL, class_weights="balanced")
LOGITS = GivenLogits(np.random.default_rng(1).normal(size=(40, 4)).astype(np.float32))


def rows(path: Path, **settings: Any) -> EpochLog:
    views = Views(flip=False, shift=0)
    (row,) = fit(linear_network(), path, **{"views": views, "train": UNBALANCED} | settings)
    return row


def expected_loss() -> float:
    logits = torch.tensor(loading.logits(linear_network(), UNBALANCED.images))
    classes = np.array([0, 1, 3])
    weight = torch.ones(4)
    weight[classes] = torch.tensor(
        compute_class_weight("balanced", classes=classes, y=LABELS), dtype=torch.float32
    )
    loss = torch.nn.CrossEntropyLoss(weight=weight, reduction="sum")
    return float(loss(logits, torch.tensor(LABELS))) / 40


def test_the_hard_loss_is_weighted_as_by_pytorch_and_scikit_learn(tmp_path: Path) -> None:
    weighted = rows(tmp_path / "w.npz", schedule=WEIGHTED)
    plain = rows(tmp_path / "p.npz", schedule=STILL)
    assert weighted["loss"] == pytest.approx(expected_loss(), rel=1e-4)
    assert abs(weighted["loss"] - plain["loss"]) > 0.01 * plain["loss"]
    for figure in ("accuracy", "val_loss", "val_accuracy"):  # which are of images as they are
        assert weighted[figure] == pytest.approx(plain[figure], rel=1e-4)


def test_only_the_hard_loss_of_a_student_is_weighted(tmp_path: Path) -> None:
    targets = DistillationTargets(LOGITS, [losses.KD()], 1.0, alpha=0.3)
    weighted = rows(tmp_path / "w.npz", schedule=WEIGHTED, targets=targets)
    plain = rows(tmp_path / "p.npz", schedule=STILL, targets=targets)
    assert weighted["hard_loss"] == pytest.approx(expected_loss(), rel=1e-4)
    assert weighted["distillation_loss"] == pytest.approx(plain["distillation_loss"], rel=1e-4)
    both = 0.3 * weighted["distillation_loss"] + 0.7 * weighted["hard_loss"]
    assert weighted["loss"] == pytest.approx(both, rel=1e-4)
    assert weighted["val_loss"] == pytest.approx(plain["val_loss"], rel=1e-4)


def test_images_without_labels_have_no_weights(tmp_path: Path) -> None:
    targets = DistillationTargets(LOGITS, [losses.KD()], 1.0, alpha=1.0)
    unlabeled = Part(TRAIN.images, np.full(40, -1))
    found = [
        rows(tmp_path / f"{i}.npz", schedule=schedule, targets=targets, train=unlabeled)["loss"]
        for i, schedule in enumerate((WEIGHTED, STILL))
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "settings", [{"class_weights": "balanced"}, {"sampling": "balanced"}, {"ema": 0.9}]
)
def test_alpha_zero_is_the_baseline_to_the_bit(tmp_path: Path, settings: dict[str, Any]) -> None:
    schedule = replace(SCHEDULE, **settings)
    baseline, pupil = student(), student()
    fit(baseline, tmp_path / "b.npz", schedule=schedule, train=UNBALANCED)
    targets = DistillationTargets(LOGITS, [losses.KD()], 1.0, alpha=0.0)
    fit(pupil, tmp_path / "p.npz", schedule=schedule, train=UNBALANCED, targets=targets)
    assert_identical(values(baseline), values(pupil))


def test_a_distiller_has_its_weights_in_training_alone() -> None:
    distiller = Distiller(teacher=None, student=linear_network(), alpha=0.0, class_weights={1: 3.0})
    distiller.compile("sgd")
    images, labels = TRAIN.images[:2], np.array([0, 1])
    logits = torch.tensor(loading.logits(linear_network(), images))
    each = torch.nn.functional.cross_entropy(logits, torch.tensor(labels), reduction="none")
    evaluated = distiller.evaluate(images, labels, verbose=0, return_dict=True)["hard_loss"]
    assert evaluated == pytest.approx(float(each.mean()), rel=1e-4)
    trained = distiller.train_on_batch(images, labels, return_dict=True)["hard_loss"]
    assert float(trained) == pytest.approx(float(each[0] + 3 * each[1]) / 2, rel=1e-4)
    again = Distiller.from_config(distiller.get_config() | {"class_weights": {"1": 3.0}})
    assert again.class_weights == distiller.class_weights == {1: 3.0}


@pytest.mark.parametrize("weights", [[1.0, 2.0], {"a": 1.0}, {0: -1.0}, {0: float("nan")}, {-1: 1}])
def test_weights_of_a_distiller_that_can_not_be_are_refused(weights: Any) -> None:
    with pytest.raises(RecipeError, match="class_weights must"):
        Distiller(teacher=None, student=linear_network(), class_weights=weights)


def test_balanced_batches_have_every_class_equally_often() -> None:
    schedule = replace(SCHEDULE, batch_size=9, sampling="balanced")
    batches = ViewedBatches(UNBALANCED, 3, schedule, Views(), seed=0)
    assert len(batches) == 40 // 9
    for epoch in range(2):
        batches.begin(epoch)
        for number in range(len(batches)):
            _, labels = batches[number]
            assert np.bincount(labels, minlength=4).tolist() == [3, 3, 0, 3]


def test_training_on_balanced_batches_is_another_training(tmp_path: Path) -> None:
    plain, balanced = linear_network(), linear_network()
    fit(plain, tmp_path / "p.npz", train=UNBALANCED)
    schedule = replace(SCHEDULE, sampling="balanced")
    fit(balanced, tmp_path / "b.npz", train=UNBALANCED, schedule=schedule)
    assert any((a != b).any() for a, b in zip(values(plain), values(balanced), strict=True))
