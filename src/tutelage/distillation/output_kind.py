"""Whether a model returns logits or probabilities, and the logits of either."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from tutelage import private_api
from tutelage.errors import ModelError

# Lower bound of unrounded probabilities, so that the logarithm is finite.
_SMALLEST = 1e-7
_TOLERANCE = 0.01  # of the sum of a row, from computation in 16 bits
_COARSEST = 0.1  # largest step of probabilities that count as rounded
_LINEAR = (layers.Dense, layers.Conv1D, layers.Conv2D, layers.Conv3D)
_KEEPS_KIND = (layers.Identity, layers.Flatten, layers.Reshape, layers.Dropout)
_FUNCTIONS = {
    None: "linear",
    keras.activations.linear: "linear",
    keras.activations.softmax: "softmax",
    keras.activations.sigmoid: "sigmoid",
    ops.softmax: "softmax",
    ops.sigmoid: "sigmoid",
}


def before_activation(output: Any) -> tuple[Any, str]:
    """The logits before the softmax or sigmoid that a graph of layers ends in.

    Only stock layers count, and only a softmax over all values of an image's output.

    Args:
        output: the symbolic output of a model.

    Returns:
        The symbolic logits, and `"softmax"` or `"sigmoid"`; or `output` itself and `""`. A layer
        with an activation of its own is replaced by one without it on the same variables.
    """
    head, inputs = private_api.producer(output)
    unchanged = output, ""
    if len(inputs) != 1:
        return unchanged
    (x,) = inputs
    if isinstance(head, keras.Model):
        graph = _graph(head)
        if graph is None:
            return unchanged
        inner, name = before_activation(graph.outputs[0])
        return (keras.Model(graph.inputs, inner)(x), name) if name else unchanged
    name = _activation(head, output.shape)
    if name in {"softmax", "sigmoid"}:
        if type(head) not in _LINEAR:
            return x, name
        if any(v is not head.kernel and v is not head.bias for v in head.variables):
            return unchanged  # quantized, or with LoRA's matrices
        linear = type(head).from_config(head.get_config() | {"activation": "linear"})
        private_api.share_variables(linear, head)
        return linear(x), name
    if type(head) in _KEEPS_KIND or (type(head) is layers.Activation and name == "linear"):
        inner, name = before_activation(x)
        return (head(inner), name) if name else unchanged
    return unchanged


def _activation(operation: Any, shape: tuple[int | None, ...]) -> str:
    """`softmax`, `sigmoid` or `linear`: what an operation of Keras ends in; else empty.

    Args:
        operation: a layer, or an operation such as that of `keras.ops.softmax`.
        shape: of its output, all of which a softmax must be over.
    """
    kind, name = type(operation), ""
    if not kind.__module__.startswith("keras.") or "call" in vars(operation):
        return ""
    if kind in (*_LINEAR, layers.Activation):
        function = operation.activation
        if isinstance(function, keras.Layer):
            return _activation(function, shape)
        name = next((name for each, name in _FUNCTIONS.items() if each is function), "")
    elif kind.__name__ in {"Softmax", "Sigmoid"}:
        name = kind.__name__.lower()
    over_all = getattr(operation, "axis", -1) in (-1, len(shape) - 1) and all(
        size == 1 for size in shape[1:-1]
    )
    return name if name != "softmax" or over_all else ""


def _graph(model: keras.Model) -> Any:
    """The graph of layers that a model with one output computes; None if it does otherwise."""
    graph = private_api.graph(model)
    stock = type(model).call.__module__.startswith("keras.") and "call" not in vars(model)
    return graph if stock and private_api.has_nodes(graph) and len(graph.outputs) == 1 else None


def logits_model(model: keras.Model) -> tuple[keras.Model, str]:
    """A model of the same layers and variables that returns logits.

    Args:
        model: the model.

    Returns:
        The model without the activation it ends in, and that activation's name; or the model
        itself and `""`, also if it is no graph of layers.

    Example:

    >>> import keras
    >>> from tutelage.distillation.output_kind import logits_model
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])
    >>> logits, activation = logits_model(model)
    >>> activation, logits.layers[-1].activation.__name__
    ('softmax', 'linear')
    """
    graph = _graph(model)
    if graph is None:
        return model, ""
    logits, name = before_activation(graph.outputs[0])
    return (keras.Model(graph.inputs, logits, name=model.name), name) if name else (model, "")


def note_activation(name: str, notes: list[str]) -> None:
    """Add a note, once, that the logits before a model's last activation are used.

    Args:
        name: the activation's name; empty if there is none.
        notes: receives the note.
    """
    note = f"it ends in {name}: using the logits before the {name}"
    if name and note not in notes:
        notes.append(note)


def smallest_probability(outputs: np.ndarray) -> float | None:
    """The lower bound to clip probabilities or percentages at; None if outputs are not any.

    Probabilities are values from 0 to 1 whose rows sum to 1, percentages from 0 to 100 to 100,
    within rounding: of 16-bit computation, or to steps, as of 8-bit models and files with few
    digits, where all zeros of a row together become half a step.

    Args:
        outputs: outputs of a model, (n, classes).

    Returns:
        The bound, in the unit of `outputs`. Logits are `log(max(outputs, bound))`.

    Example:

    >>> import numpy as np
    >>> from tutelage.distillation.output_kind import smallest_probability
    >>> smallest_probability(np.array([[0.25, 0.75]])), smallest_probability(np.eye(2) * 4)
    (1e-07, None)
    """
    if not outputs.size or not np.isfinite(outputs).all() or outputs.min() < 0:
        return None
    sums = outputs.sum(axis=1, dtype=np.float64)
    for whole in (1.0, 100.0):
        step = _step(outputs / whole)
        # Rounding errors add up like random numbers; four standard deviations.
        tolerance = _TOLERANCE + 4 * step * math.sqrt(outputs.shape[1] / 12)
        if outputs.max() <= whole * (1 + _TOLERANCE) and np.all(
            np.abs(sums / whole - 1) <= tolerance
        ):
            return whole * (step / (2 * outputs.shape[1]) if step else _SMALLEST)
    return None


def _step(values: np.ndarray) -> float:
    """The step that values are rounded to, 0 if there is none or it is coarse."""
    distinct = np.unique(np.append(values, 0.0))
    steps = np.diff(distinct)
    step = float(steps.min(initial=1.0))
    if not _SMALLEST < step <= _COARSEST:
        return 0.0
    multiples = values / step
    return step if np.allclose(multiples, np.round(multiples), rtol=0, atol=0.02) else 0.0


def refuse_sigmoid(name: str, outputs: np.ndarray) -> None:
    """Raise ModelError for outputs that look like a sigmoid's, one probability per class.

    A trained network is sure of some images; logits within 0 and 1 seldom reach both ends.
    """
    if 0 <= outputs.min() < 0.05 and 0.95 < outputs.max() <= 1:
        raise ModelError(
            f"{name} returns values from 0 to 1 that do not sum to 1, as of a sigmoid: expected "
            "logits; remove its last activation"
        )


def lowest_probability(name: str, outputs: np.ndarray, notes: list[str]) -> float | None:
    """The bound to clip a model's outputs at before their logarithm; None if they are logits.

    Adds a note if they are probabilities; raises ModelError if they are a sigmoid's.
    """
    bound = smallest_probability(outputs)
    if bound is None:
        refuse_sigmoid(name, outputs)
    else:
        notes.append("it returns probabilities: using their logarithms as logits")
    return bound


def log_of(probabilities: np.ndarray, bound: float) -> np.ndarray:
    """Logits of probabilities, clipped at a bound from `lowest_probability`."""
    return np.log(np.maximum(probabilities, np.float32(bound)))


def refuse_probabilities(role: str, outputs: Any) -> bool:
    """Raise ModelError for a batch of probabilities in place of logits.

    Args:
        role: what returns them, for the message.
        outputs: a tensor (batch, classes).

    Returns:
        Whether it was checked: it has no values in a symbolic or a compiled step.
    """
    try:
        values = np.asarray(ops.convert_to_numpy(outputs), np.float64)
    except Exception:  # each backend has its own error for a tensor without values
        return False
    if values.ndim == 2 and smallest_probability(values) is not None:
        raise ModelError(
            f"{role} returns probabilities: expected logits; remove the softmax it ends in, or "
            "give the logarithms of stored probabilities"
        )
    return True
