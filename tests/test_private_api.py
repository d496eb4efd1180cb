"""The private names of Keras that the package uses are there, and do what is said of them."""

import ast
import re
from pathlib import Path

import keras
import pytest

from tutelage import private_api

SOURCES = Path(private_api.__file__).parent


def model() -> keras.Model:
    inner = keras.Sequential([keras.layers.Dense(4, name="a"), keras.layers.Dropout(0.1)])
    net = keras.Sequential([keras.Input((3,)), inner, keras.layers.Dense(2, name="b")])
    net.compile("sgd", "mse", metrics=["mae"])
    return net


def owners() -> dict[str, object]:
    net = model()
    functional = net._functional
    return {
        "_functional": net,
        "_nodes_by_depth": functional,
        "_run_through_graph": functional,
        "_standardize_inputs": functional,
        "_keras_history": net.outputs[0],
        "_inbound_nodes": net.layers[-1],
        "_build_shapes_dict": net.layers[-1],
        "_flatten_layers": net,
        "_call_has_training_arg": net.layers[-1],
        "_compile_loss": net,
        "_compile_metrics": net,
        "_loss_tracker": net,
    }


NAMES = sorted(set(re.findall(r"\w\.(_[a-z]\w+)", Path(private_api.__file__).read_text())))


@pytest.mark.parametrize("name", NAMES)
def test_the_private_name_is_there(name: str) -> None:
    assert hasattr(owners()[name], name), f"Keras {keras.__version__} has no {name}"


def test_no_other_file_uses_a_private_name_of_a_library() -> None:
    for path in SOURCES.rglob("*.py"):
        if path.name == "private_api.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in NAMES:
                owner = getattr(node.value, "id", "")  # a class may have one of its own
                assert owner == "self", (path, node.attr)
            if isinstance(node, ast.ImportFrom):
                assert not re.search(r"keras\.src|torch\._", node.module or ""), path


def test_what_they_give() -> None:
    net = model()
    graph = private_api.graph(net)
    assert graph.layers[-1] is net.layers[-1]
    assert [node.operation.name for node in private_api.nodes(graph)].count("b") == 1
    operation, (x,) = private_api.producer(net.outputs[0])
    assert (operation.name, x.shape) == ("b", (None, 4))
    twin = keras.layers.Dense(2, name="b")
    private_api.share_variables(twin, operation)
    assert twin.kernel is operation.kernel
    assert twin.bias is operation.bias
    # A model's file and digest include it.
    assert twin.get_build_config() == operation.get_build_config()
    names = [layer.name for layer in private_api.flat_layers(net, include_self=False)]
    assert {"a", "b"} <= set(names)
    assert net not in private_api.flat_layers(net, include_self=False)
    assert private_api.takes_training(keras.layers.Dropout(0.1))
    assert not private_api.takes_training(keras.layers.Flatten())
    ones = keras.ops.ones((2, 3))
    doubled = private_api.run_through(graph, [ones], lambda op: op)
    assert doubled[0].shape == (2, 2) or doubled.shape == (2, 2)
    loss = private_api.compiled_loss(net, keras.ops.zeros((2, 2)), keras.ops.ones((2, 2)), None)
    assert float(loss) == 1.0
