"""Graphs in 8-bit integers: near the floats they came from, and in integers throughout."""

from __future__ import annotations

import keras
import numpy as np
import onnx
import pytest
from keras import layers
from onnx import numpy_helper

from tutelage.data import datasets
from tutelage.exporters import fold_batch_norm, onnx_graph, quantization
from tutelage.models import zoo

DIGITS = datasets.load("digits")
IMAGES = DIGITS.train.images[:64]


def net(gamma: float) -> keras.Model:
    """A student of digits, its normalization with statistics and scales as if it had learnt."""
    rng = np.random.default_rng(0)
    model = zoo.build("digits-student", images=DIGITS.train.images, classes=10, seed=0)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            size = layer.gamma.shape[0]
            scales = rng.uniform(0.5, 1.5, size) * np.where(rng.uniform(size=size) < gamma, -1, 1)
            mean, offset = rng.uniform(0, 0.5, size), rng.normal(0, 0.3, size)
            layer.set_weights([scales, offset, mean, rng.uniform(0.5, 2, size)])
    return model


@pytest.fixture(scope="module", params=[0.0, 0.5], ids=["positive", "mixed"])
def graph(request: pytest.FixtureRequest) -> onnx.ModelProto:
    return onnx_graph.convert(net(request.param))


@pytest.mark.parametrize("method", quantization.METHODS)
def test_answers_stay_near_those_of_the_floats(graph: onnx.ModelProto, method: str) -> None:
    images = DIGITS.test.images
    wanted = onnx_graph.run(graph, images)
    found = onnx_graph.run(quantization.int8(graph, IMAGES, method), images)
    assert 0 < np.abs(found - wanted).mean() < 0.05 * wanted.std()
    assert np.mean(found.argmax(axis=1) == wanted.argmax(axis=1)) > 0.9


def test_bounds_are_held_in_8_bits_and_nothing_is_decoded_for_them(graph: onnx.ModelProto) -> None:
    made = quantization.int8(graph, IMAGES, "minmax")
    constants = {one.name: numpy_helper.to_array(one) for one in made.graph.initializer}
    bounds = [node for node in made.graph.node if node.op_type in ("Max", "Min")]
    assert len(bounds) >= 4
    assert {constants[node.input[1]].dtype for node in bounds} == {np.dtype(np.uint8)}
    makers = {node.output[0]: node.op_type for node in made.graph.node}
    assert {makers[node.input[0]] for node in bounds} <= {"QuantizeLinear", "Max"}
    onnx.checker.check_model(made, full_check=True)


def test_weights_keep_to_7_bits_so_that_no_processor_overflows(graph: onnx.ModelProto) -> None:
    made = quantization.int8(graph, IMAGES, "minmax")
    weights = [numpy_helper.to_array(one) for one in made.graph.initializer]
    weights = [values for values in weights if values.dtype == np.int8 and values.ndim > 1]
    assert len(weights) == 5  # four convolutions, a dense layer
    assert 60 <= max(np.abs(values.astype(int)).max() for values in weights) <= 64
    assert all(abs(int(values.min())) <= 64 for values in weights)


def test_logits_are_not_rounded_to_8_bits(graph: onnx.ModelProto) -> None:
    made = quantization.int8(graph, IMAGES, "minmax")
    found = onnx_graph.run(made, DIGITS.train.images)
    assert len(np.unique(found)) > 1000


def test_the_same_graph_and_images_give_the_same_file(graph: onnx.ModelProto) -> None:
    one, other = (quantization.int8(graph, IMAGES, "percentile 99.9") for _ in range(2))
    assert one.SerializeToString() == other.SerializeToString()


def test_a_bound_that_is_not_read_as_integers_stays_in_floats() -> None:
    inputs = keras.Input((8, 8, 1), dtype="uint8")
    x = layers.Rescaling(1 / 16)(inputs)
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, activation="relu")(x))
    x = keras.ops.sigmoid(x)  # which is not quantised
    x = layers.GlobalMaxPooling2D()(layers.Conv2D(4, 3)(x))
    graph = onnx_graph.convert(keras.Model(inputs, layers.Dense(10)(x)))
    assert "Max" in [node.op_type for node in fold_batch_norm.fold(graph).graph.node]
    made = quantization.int8(graph, IMAGES, "minmax")
    wanted, found = (onnx_graph.run(one, IMAGES) for one in (graph, made))
    assert np.abs(found - wanted).max() < 0.1 * np.abs(wanted).max()


def test_a_net_without_convolutions_is_quantised_too() -> None:
    model = zoo.build("mlp-300", images=DIGITS.train.images, classes=10, seed=0)
    graph = onnx_graph.convert(model)
    made = quantization.int8(graph, IMAGES, "minmax")
    wanted, found = (onnx_graph.run(one, DIGITS.test.images) for one in (graph, made))
    assert np.mean(found.argmax(axis=1) == wanted.argmax(axis=1)) > 0.9
    assert len(made.SerializeToString()) < 0.5 * len(graph.SerializeToString())
