"""Wrappers of all private Keras names that this package uses.

Checked with Keras 3.15.1; `tests/test_private_api.py` reports names missing in another version.
No private name of PyTorch is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras


def graph(model: keras.Model) -> Any:
    """The Functional model behind a Sequential one; other models are returned unchanged."""
    return model._functional if isinstance(model, keras.Sequential) else model


def nodes(functional: Any) -> list[Any]:
    """The nodes of a graph, each with its `operation`, `input_tensors` and `outputs`."""
    return [node for depth in functional._nodes_by_depth.values() for node in depth]


def standardize(functional: Any, inputs: Any) -> list[Any]:
    """A graph's inputs as a flat list, in the dtypes and ranks that it declares."""
    return functional._standardize_inputs(inputs)


def has_nodes(model: keras.Model) -> bool:
    """Whether a model is a graph of layers, as a Functional one is."""
    return hasattr(model, "_nodes_by_depth")


def run_through(functional: Any, inputs: list[Any], call: Callable[[Any], Any]) -> Any:
    """Run a graph with `call(operation)` in place of each operation; returns the outputs."""
    return functional._run_through_graph(inputs, operation_fn=call)


def producer(tensor: Any) -> tuple[Any, Any]:
    """The operation that produced a symbolic tensor, and the inputs of that call."""
    operation, node, _ = tensor._keras_history
    return operation, operation._inbound_nodes[node].input_tensors


def share_variables(layer: keras.Layer, other: keras.Layer) -> None:
    """Give a layer that is not built the variables of a built one of the same class."""
    for name, value in vars(other).items():
        if isinstance(value, keras.Variable):
            setattr(layer, name, value)
    layer._build_shapes_dict = other._build_shapes_dict
    layer.built = True


def flat_layers(model: keras.Layer, *, include_self: bool = True) -> list[keras.Layer]:
    """A model's layers, including those of nested models."""
    return list(model._flatten_layers(include_self=include_self))


def takes_training(layer: keras.Layer) -> bool:
    """Whether a layer's `call` has an argument `training`."""
    return bool(layer._call_has_training_arg)


def compiled_loss(model: keras.Model, y: Any, y_pred: Any, sample_weight: Any) -> Any:
    """The loss given to `compile`, without the regularizers that `compute_loss` adds."""
    return model._compile_loss(y, y_pred, sample_weight)


def has_compiled_metrics(model: keras.Model) -> bool:
    """Whether the metrics given to `compile` have seen a batch; True if there are none."""
    return model._compile_metrics is None or model._compile_metrics.built


def mean_loss(model: keras.Model) -> Any:
    """The mean of the loss over the batches so far."""
    return model._loss_tracker.result()


def read_py_dataset(dataset: keras.utils.PyDataset) -> Iterator[Any]:
    """The batches of an epoch of a dataset, in its worker threads or processes, as in `fit`."""
    from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

    adapter = PyDatasetAdapter(dataset)
    adapter.on_epoch_begin()
    try:
        yield from adapter.get_numpy_iterator()
    finally:
        adapter.on_epoch_end()
