"""Folded graphs answer as ONNX Runtime answers the graphs they came from."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tutelage.exporters import fold_batch_norm

SIGNS = {"positive": [1, 1], "negative": [-1, -1], "mixed": [1, -1]}


def model(*nodes: tuple[str, list[str | np.ndarray], str], **attributes: dict[str, object]):
    """A graph of images x of shape (n, 3, 8, 8); attributes by the name of a node's output."""
    given, made = [], []
    for kind, inputs, output in nodes:
        names = []
        for place, value in enumerate(inputs):
            if isinstance(value, np.ndarray):
                name = f"{output}_{place}"
                value = value if value.dtype.kind == "i" else value.astype(np.float32)
                given.append(numpy_helper.from_array(value, name))
                value = name
            names.append(value)
        made.append(helper.make_node(kind, names, [output], output, **attributes.get(output, {})))
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])
    places = [] if nodes[-1][0] == "ReduceMean" and not attributes["y"]["keepdims"] else ["h", "w"]
    answer = helper.make_tensor_value_info(nodes[-1][2], TensorProto.FLOAT, ["n", "c", *places])
    graph = helper.make_graph(made, "net", [image], [answer], given)
    versions = [helper.make_opsetid("", 20), helper.make_opsetid("unused", 1)]
    return helper.make_model(graph, opset_imports=versions, ir_version=9)


def answers(given: onnx.ModelProto) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(given.SerializeToString(), options)
    images = np.random.default_rng(7).normal(size=(5, 3, 8, 8)).astype(np.float32)
    return session.run(None, {"x": images})[0]


def kinds(given: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in given.graph.node]


def conv(rng: np.random.Generator, inside: str, output: str, channels: int, by: int):
    weights = rng.normal(size=(by, channels, 3, 3))
    return ("Conv", [inside, weights, rng.normal(size=by)], output)


def same(rng: np.random.Generator, sign: str, size: int) -> list[np.ndarray]:
    """A mean, a scale and an offset a channel."""
    shape = (1, size, 1, 1)
    scale = rng.uniform(0.5, 2, shape) * np.resize(SIGNS[sign], shape)
    return [rng.normal(size=shape), scale, rng.normal(size=shape)]


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("relu", [False, True])
def test_normalization_goes_into_the_convolution_before_it(sign, pooled, relu):
    rng = np.random.default_rng(0)
    mean, scale, offset = same(rng, sign, 4)
    nodes = [conv(rng, "x", "z", 3, 4)]
    last = "z"
    if relu:
        nodes.append(("Relu", ["z"], "r"))
        last = "r"
    nodes += [("Sub", [last, mean], "s"), ("Mul", ["s", scale], "m"), ("Add", ["m", offset], "a")]
    last = "a"
    if pooled:
        nodes.append(("MaxPool", ["a"], "p"))
        last = "p"
    nodes.append(conv(rng, last, "y", 4, 2))
    pads = {"pads": [1, 1, 1, 1]}
    given = model(*nodes, z=pads, y=pads, p={"kernel_shape": [2, 2], "strides": [2, 2]})
    folded = fold_batch_norm.fold(given)
    wanted = answers(given)
    np.testing.assert_allclose(answers(folded), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    bounds = ["Max"] + (["Min"] if sign != "positive" else []) if relu else []
    assert kinds(folded) == ["Conv", *(["MaxPool"] if pooled else []), *bounds, "Conv"]
    assert [one.domain for one in folded.opset_import] == [""]


def test_what_another_node_reads_too_stays_as_it_is():
    rng = np.random.default_rng(1)
    nodes = [
        conv(rng, "x", "z", 3, 4),
        ("Mul", ["z", rng.normal(size=(1, 4, 1, 1))], "m"),
        ("Add", ["m", "z"], "y"),
    ]
    given = model(*nodes)
    folded = fold_batch_norm.fold(given)
    assert kinds(folded) == ["Conv", "Mul", "Add"]
    np.testing.assert_array_equal(answers(folded), answers(given))


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("Mul", np.random.default_rng(2).normal(size=(1, 1, 6, 6))),  # a place's, not a channel's
        ("Add", np.random.default_rng(2).normal(size=(6,))),  # a column's
        ("Mul", np.random.default_rng(2).normal(size=(5, 4, 1, 1))),  # an image's
    ],
)
def test_what_is_not_a_channels_stays_as_it_is(kind, values):
    rng = np.random.default_rng(3)
    given = model(conv(rng, "x", "z", 3, 4), (kind, ["z", values], "y"))
    folded = fold_batch_norm.fold(given)
    assert kinds(folded) == ["Conv", kind]
    np.testing.assert_array_equal(answers(folded), answers(given))


@pytest.mark.parametrize("kind", ["Sub", "Div"])
def test_a_constant_less_the_values_is_no_scale(kind):
    rng = np.random.default_rng(4)
    given = model(conv(rng, "x", "z", 3, 4), (kind, [rng.normal(size=(1, 4, 1, 1)), "z"], "y"))
    assert kinds(fold_batch_norm.fold(given)) == ["Conv", kind]


def test_scalars_and_a_division_go_in_too_and_a_bias_is_made():
    rng = np.random.default_rng(5)
    weights = rng.normal(size=(4, 3, 3, 3))
    given = model(
        ("Conv", ["x", weights], "z"),
        ("Div", ["z", np.array(2.5)], "d"),
        ("Add", ["d", np.array([0.5])], "y"),
    )
    folded = fold_batch_norm.fold(given)
    assert kinds(folded) == ["Conv"]
    np.testing.assert_allclose(answers(folded), answers(given), atol=1e-5)


def test_the_given_model_is_left_alone_and_shared_constants_too():
    rng = np.random.default_rng(6)
    scale = rng.normal(size=(1, 4, 1, 1))
    weights = rng.normal(size=(4, 3, 1, 1))
    given = model(
        ("Conv", ["x", weights], "z"),
        ("Mul", ["z", scale], "m"),
        ("Conv", ["x", "z_1"], "w"),
        ("Add", ["m", "w"], "y"),
    )
    before = given.SerializeToString()
    folded = fold_batch_norm.fold(given)
    assert given.SerializeToString() == before
    assert kinds(folded) == ["Conv", "Conv", "Add"]
    np.testing.assert_allclose(answers(folded), answers(given), atol=1e-5)


def test_a_mean_over_places_becomes_pooling():
    rng = np.random.default_rng(7)
    nodes = [conv(rng, "x", "z", 3, 4), ("ReduceMean", ["z", np.array([2, 3])], "y")]
    given = model(*nodes, y={"keepdims": 0})
    folded = fold_batch_norm.fold(given)
    assert kinds(folded) == ["Conv", "GlobalAveragePool", "Flatten"]
    np.testing.assert_allclose(answers(folded), answers(given), atol=1e-5)
    kept = model(*nodes, y={"keepdims": 1})
    assert kinds(fold_batch_norm.fold(kept)) == ["Conv", "ReduceMean"]
