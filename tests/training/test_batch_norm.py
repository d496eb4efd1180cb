"""Batch normalization statistics after training, against means over a layer's inputs."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops

from tutelage.data import augmentation
from tutelage.data.content import Part
from tutelage.progress import EpochLog, Progress
from tutelage.training.batch_norm import epochs_worth, recalibrate_batch_norm

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (300, 8, 8, 3), dtype=np.uint8)  # more than one batch


def statistics(layer: keras.Layer) -> tuple[np.ndarray, np.ndarray]:
    return tuple(ops.convert_to_numpy(v) for v in (layer.moving_mean, layer.moving_variance))


def assert_measures(layer: keras.Layer, *inputs: np.ndarray) -> None:
    """The layer's statistics are those of these inputs along its axis."""
    channels = [np.moveaxis(x, layer.axis, -1).reshape(-1, x.shape[layer.axis]) for x in inputs]
    values = np.concatenate(channels).astype(np.float64)
    mean, variance = statistics(layer)
    np.testing.assert_allclose(mean, values.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(variance, values.var(axis=0), rtol=1e-3, atol=1e-5)


def head(x: keras.KerasTensor) -> keras.KerasTensor:
    return layers.Dense(4)(layers.GlobalAveragePooling2D()(x))


def scaled() -> tuple[keras.KerasTensor, keras.KerasTensor]:
    inputs = keras.Input((8, 8, 3), dtype="uint8")
    return inputs, layers.Rescaling(1 / 64)(inputs)


@pytest.mark.parametrize("axis", [1, 2, -1])
def test_any_axis(axis: int) -> None:
    inputs, x = scaled()
    norm = layers.BatchNormalization(axis=axis)
    model = keras.Model(inputs, head(norm(x)))
    recalibrate_batch_norm(model, IMAGES, seed=0)
    assert_measures(norm, IMAGES.astype(np.float32) / 64)


def test_a_frozen_layer_keeps_its_statistics() -> None:
    inputs, x = scaled()
    frozen, inner = layers.BatchNormalization(), layers.BatchNormalization()
    backbone_inputs = keras.Input((8, 8, 3))
    backbone = keras.Model(backbone_inputs, inner(layers.Conv2D(4, 3)(backbone_inputs)))
    backbone.trainable = frozen.trainable = False
    measured = layers.BatchNormalization()
    model = keras.Model(inputs, head(measured(backbone(frozen(x)))))
    for layer in (frozen, inner):
        layer.moving_mean.assign(np.linspace(-1, 1, layer.moving_mean.shape[0]))
        layer.moving_variance.assign(np.linspace(0.5, 2, layer.moving_mean.shape[0]))
    before = [statistics(layer) for layer in (frozen, inner)]
    recalibrate_batch_norm(model, IMAGES, seed=0)
    np.testing.assert_equal([statistics(layer) for layer in (frozen, inner)], before)
    assert statistics(measured)[0].any()


def test_a_layer_used_twice_gets_the_statistics_of_all_its_inputs() -> None:
    inputs, x = scaled()
    shared = layers.BatchNormalization(scale=False, center=False)
    first = shared(x)
    second = layers.Rescaling(3.0, 1.0)(x)
    model = keras.Model(inputs, head(layers.Add()([first, shared(second)])))
    recalibrate_batch_norm(model, IMAGES, seed=0)
    x = IMAGES.astype(np.float32) / 64
    assert_measures(shared, x, 3 * x + 1)


def test_a_nested_and_a_subclassed_model() -> None:
    @keras.saving.register_keras_serializable("test_batch_norm")
    class Block(keras.Model):
        def __init__(self, **kwargs: object):
            super().__init__(**kwargs)
            self.norm = layers.BatchNormalization()

        def call(self, x: object, training: bool = False) -> object:
            return self.norm(x, training=training)

    inputs, x = scaled()
    inner, block = layers.BatchNormalization(), Block()
    nested_inputs = keras.Input((8, 8, 3))
    nested = keras.Sequential([keras.Model(nested_inputs, inner(nested_inputs) * 2.0)])
    model = keras.Model(inputs, head(block(nested(x))))
    recalibrate_batch_norm(model, IMAGES, seed=0)
    x = IMAGES.astype(np.float32) / 64
    assert_measures(inner, x)
    mean, variance = statistics(inner)
    y = 2 * (x - mean) / np.sqrt(variance + inner.epsilon)
    assert_measures(block.norm, y)


def test_each_layer_is_fed_by_those_measured_before_it() -> None:
    inputs, x = scaled()
    first, second = layers.BatchNormalization(), layers.BatchNormalization()
    conv = layers.Conv2D(4, 3, activation="relu")
    model = keras.Model(inputs, head(second(conv(first(x)))))
    first.moving_mean.assign([5.0, 5.0, 5.0])
    recalibrate_batch_norm(model, IMAGES, seed=0)
    hidden = keras.Model(inputs, conv.output).predict(IMAGES, verbose=0)
    assert_measures(second, hidden)


def test_statistics_that_cost_accuracy_are_put_back() -> None:
    inputs, x = scaled()
    norm = layers.BatchNormalization(scale=False, center=False)
    model = keras.Model(inputs, head(norm(x)))
    norm.moving_mean.assign([1.0, 2.0, 3.0])
    images = IMAGES[:40]
    labels = model.predict(images, verbose=0).argmax(axis=1)  # all right, by the present statistics
    before = statistics(norm)
    assert not recalibrate_batch_norm(model, IMAGES, seed=0, validation=Part(images, labels))
    np.testing.assert_equal(statistics(norm), before)
    labels = (labels + 1) % 4  # all wrong
    assert recalibrate_batch_norm(model, IMAGES, seed=0, validation=Part(images, labels))
    assert_measures(norm, IMAGES.astype(np.float32) / 64)


def test_each_layer_is_reported_and_nothing_else_of_the_model_changes() -> None:
    rows: list[EpochLog] = []

    class Log(Progress):
        def epoch(self, row: EpochLog) -> None:
            rows.append(row)

    inputs, x = scaled()
    x = layers.BatchNormalization()(layers.BatchNormalization()(x))
    model = keras.Model(inputs, layers.Dropout(0.5)(head(x)))
    norms = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    moved = {id(v) for n in norms for v in (n.moving_mean, n.moving_variance)}
    others = [v for v in model.variables if id(v) not in moved]
    before = [np.array(ops.convert_to_numpy(v)) for v in others]
    recalibrate_batch_norm(model, IMAGES, seed=0, progress=Log())
    np.testing.assert_equal([ops.convert_to_numpy(v) for v in others], before)
    assert rows[-1]["epoch"] == 2
    assert all("call" not in vars(layer) for layer in norms)


@pytest.mark.parametrize(("depth", "images"), [(1, 5_000), (53, 1_000)])
def test_deep_networks_are_measured_on_fewer_images(depth: int, images: int) -> None:
    many = RNG.integers(0, 256, (6_000, 1, 1, 1), dtype=np.uint8)
    x = inputs = keras.Input((1, 1, 1), dtype="uint8")
    norms = [layers.BatchNormalization() for _ in range(depth)]
    for norm in (layers.Rescaling(1 / 255), *norms):
        x = norm(x)
    recalibrate_batch_norm(keras.Model(inputs, x), many, seed=0)
    chosen = many[augmentation.order(6_000, seed=0, epoch=0)[:images]] / 255
    mean, variance = statistics(norms[0])
    np.testing.assert_allclose([mean[0], variance[0]], [chosen.mean(), chosen.var()], rtol=1e-5)


@pytest.mark.parametrize(("depth", "images"), [(1, 5_000), (8, 5_000), (20, 2_000), (53, 1_000)])
def test_its_time_is_known_by_the_number_of_layers(depth: int, images: int) -> None:
    x = inputs = keras.Input((1, 1, 1))
    for _ in range(depth):
        x = layers.BatchNormalization()(x)
    assert epochs_worth(keras.Model(inputs, x), 10_000) == depth / 3 * images / 10_000
