"""Rates by layer and frozen layers, against Keras' MultiOptimizer and its frozen layers."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from tests.training.test_trainer import SCHEDULE, TRAIN, assert_identical, fit, values
from tutelage import losses
from tutelage.data import augmentation
from tutelage.errors import ModelError
from tutelage.models import zoo
from tutelage.progress import EpochLog, Progress
from tutelage.recipe import Schedule, Views
from tutelage.training import layer_groups, optimizers, schedules
from tutelage.training.layer_groups import frozen

STILL = Views(flip=False, shift=0)


def network() -> keras.Model:
    """Convolutions with normalization, without dropout."""
    return zoo.build("digits-student", images=TRAIN.images, classes=4, seed=0)


def groups(model: keras.Model) -> list[list[keras.Layer]]:
    return layer_groups.layer_groups(model, TRAIN.images[:1])


def names(model: keras.Model) -> list[list[str]]:
    return [[layer.name for layer in group] for group in groups(model)]


def batches(epochs: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The batches of a training on images as they are."""
    found = []
    for epoch in range(epochs):
        for index in augmentation.order(len(TRAIN), seed=0, epoch=epoch).reshape(-1, 8):
            found.append((TRAIN.images[index], TRAIN.labels[index]))
    return found


def test_a_group_is_a_kernel_and_what_follows() -> None:
    inputs = keras.Input((8, 8, 1), dtype="uint8")
    x = layers.Normalization(mean=1.0, variance=2.0, name="scaled")(inputs)
    inner = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, name="first"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(),
        ]
    )
    x = inner(x)
    x = layers.Reshape((36, 4))(x)
    attention = layers.MultiHeadAttention(2, 2, name="attention")
    x = layers.LayerNormalization(name="more")(attention(x, x))
    last = layers.Dense(4, name="head")(layers.Flatten()(x))
    model = keras.Model(inputs, layers.Activation("linear")(last))
    expected = [["first", "norm"], ["attention", "more"], ["head"]]
    assert names(model) == expected
    assert layer_groups.head(groups(model)) == "head"


class Backwards(keras.Model):
    """Its layers are made in another order than that of execution; one is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = layers.Dense(3, name="unused")
        self.head = layers.Dense(4, name="head")
        self.first = layers.Dense(3, name="first")
        self.flatten = layers.Flatten()
        self.unused.build((None, 3))

    def call(self, x: Any) -> Any:
        return self.head(self.first(self.flatten(ops.cast(x, "float32"))))


def test_groups_follow_the_order_of_execution() -> None:
    model = Backwards()
    model(TRAIN.images[:1])
    assert names(model) == [["unused"], ["first"], ["head"]]


def test_a_head_that_can_not_be_trained_is_refused() -> None:
    model = network()
    head = groups(model)[-1][0]
    head.trainable = False
    with pytest.raises(ModelError, match=f"{head.name}, .* no trainable weights"):
        groups(model)


@pytest.mark.parametrize("name", ["sgd", "muon", "adamw", "Lion"])
@pytest.mark.parametrize("parts", [1, 2])
def test_each_group_has_the_rate_of_an_optimizer_of_its_own(
    tmp_path: Path, name: str, parts: int
) -> None:
    schedule = Schedule(
        epochs=2, batch_size=8, learning_rate=0.02, optimizer=name, weight_decay=0.1
    )
    ours, theirs = network(), network()
    fit(
        ours,
        tmp_path / "c.npz",
        views=STILL,
        schedule=replace(schedule, layer_decay=0.5, gradient_accumulation_steps=parts),
    )
    made, by_weight = {}, {}
    for depth, group in enumerate(reversed(groups(theirs))):
        rate = schedules.build(replace(schedule, learning_rate=0.02 * 0.5**depth), 10, parts)
        made[depth] = optimizers.build(schedule, rate, parts)
        for layer in group:
            by_weight |= {id(weight): depth for weight in layer.trainable_weights}
    assert len(made) > 3
    optimizer = keras.optimizers.MultiOptimizer(lambda weight: made[by_weight[id(weight)]])
    theirs.compile(optimizer, losses.CrossEntropy())
    for images, labels in batches(epochs=2):
        for part in np.split(np.arange(8), parts):
            theirs.train_on_batch(images[part], labels[part])
    for one, other in zip(values(ours), values(theirs), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-4)


def test_without_a_decay_it_is_another_training(tmp_path: Path) -> None:
    plain, decayed = network(), network()
    fit(plain, tmp_path / "p.npz")
    fit(decayed, tmp_path / "d.npz", schedule=replace(SCHEDULE, layer_decay=0.99))
    assert any((a != b).any() for a, b in zip(values(plain), values(decayed), strict=True))


class Kept(Progress):
    def __init__(self, model: keras.Model):
        self.model = model
        self.epochs: list[dict[str, list[np.ndarray]]] = [self.weights()]
        self.notes: list[str] = []

    def weights(self) -> dict[str, list[np.ndarray]]:
        found = {}
        for layer in self.model.layers:
            found[layer.name] = [ops.convert_to_numpy(w.value).copy() for w in layer.weights]
        return found

    def epoch(self, row: EpochLog) -> None:
        self.epochs.append(self.weights())

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_all_but_the_head_are_frozen_in_the_first_epochs(tmp_path: Path) -> None:
    model, plain = network(), network()
    kept = Kept(model)
    schedule = replace(SCHEDULE, frozen_epochs=2)
    rows = fit(model, tmp_path / "c.npz", schedule=schedule, progress=kept)
    head = groups(model)[-1][0].name
    assert any(f"{head} alone is trained until the end of epoch 2" in note for note in kept.notes)
    start, first, second, third = kept.epochs
    for name, before in start.items():
        if name != head:
            assert_identical(first[name], before)
            assert_identical(second[name], before)  # moving statistics, too
        elif before:
            assert all((a != b).any() for a, b in zip(first[name], before, strict=True))
            assert all((a != b).any() for a, b in zip(second[name], first[name], strict=True))
        assert all((a != b).any() for a, b in zip(third[name], second[name], strict=True)), name
    assert all(layer.trainable for layer in model.layers)
    # The learning rate is that of the whole training.
    expected = fit(plain, tmp_path / "p.npz")
    assert [row["learning_rate"] for row in rows] == [row["learning_rate"] for row in expected]


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_frozen_epochs_are_those_of_keras_with_frozen_layers(tmp_path: Path, name: str) -> None:
    schedule = Schedule(epochs=3, batch_size=8, learning_rate=0.02, optimizer=name, frozen_epochs=2)
    ours, theirs = network(), network()
    fit(ours, tmp_path / "c.npz", views=STILL, schedule=schedule)
    head = groups(theirs)[-1][0]
    for layer in theirs.layers:
        layer.trainable = layer is head
    for frozen_layers, (first, last) in ((True, (0, 10)), (False, (10, 15))):
        if not frozen_layers:
            theirs.trainable = True
        rate = schedules.build(schedule, 15, first=first)
        theirs.compile(optimizers.build(schedule, rate), losses.CrossEntropy())
        for images, labels in batches(epochs=3)[first:last]:
            theirs.train_on_batch(images, labels)
    for one, other in zip(values(ours), values(theirs), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-4)


def test_what_was_frozen_before_stays_so(tmp_path: Path) -> None:
    model = network()
    convolution, *_, head = (layer for layer in model.layers if layer.weights)
    convolution.trainable = False
    other = next(x for x in model.layers[::-1] if x.weights and x is not head)
    other.weights[0].trainable = False
    before = [(v.path, v.trainable) for v in model.variables]
    kept = [*convolution.get_weights(), other.get_weights()[0]]
    fit(model, tmp_path / "c.npz", schedule=replace(SCHEDULE, frozen_epochs=1))
    assert [(v.path, v.trainable) for v in model.variables] == before
    assert not convolution.trainable
    assert_identical([*convolution.get_weights(), other.get_weights()[0]], kept)


def test_layers_are_trainable_again_after_an_error() -> None:
    model = network()
    with contextlib.suppress(KeyError), frozen(model, groups(model)[:-1]):
        assert not model.layers[2].trainable
        raise KeyError
    assert all(part.trainable for part in [*model.layers, *model.trainable_variables])


def test_a_training_may_end_while_layers_are_frozen(tmp_path: Path) -> None:
    model = network()
    kept = Kept(model)
    # A rate so small that no epoch is better than the first.
    schedule = Schedule(
        epochs=9, batch_size=8, learning_rate=1e-9, early_stopping=2, frozen_epochs=8
    )
    rows = fit(model, tmp_path / "c.npz", schedule=schedule, progress=kept)
    assert len(rows) == 3
    again = network()
    assert fit(again, tmp_path / "c.npz", schedule=schedule) == rows
    assert_identical(values(again), values(model))
