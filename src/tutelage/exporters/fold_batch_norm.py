"""Folding of batch normalization into convolutions in an ONNX graph."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper, numpy_helper

BOUND = "bound"  # name prefix of nodes that clip values to a bound per channel

_AFFINE = ("Add", "Sub", "Mul", "Div")
_FAR = float(np.finfo(np.float32).max)


def fold(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold batch normalization into the preceding convolution, also across a ReLU.

    With `a * x + b` for a channel's normalization, `a * conv(x) + b` is a convolution with
    other weights. After a ReLU, `a * relu(z) + b` equals `max(a * z + b, b)`, or
    `min(a * z + b, b)` if a is negative: a convolution, then one comparison per value, which
    8-bit integers support, too. If max pooling follows, the comparison is moved after it, as
    they commute.

    Args:
        model: a model with Conv nodes in NCHW and constant scales and shifts per channel.

    Returns:
        A model with the same outputs up to rounding.

    Example:

    >>> import numpy as np
    >>> from onnx import TensorProto, helper, numpy_helper
    >>> from tutelage.exporters import fold_batch_norm
    >>> image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 2, 2])
    >>> output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 2, 2])
    >>> arrays = {"w": np.ones((1, 1, 1, 1)), "a": np.full((1, 1, 1, 1), 3.0)}
    >>> given = [numpy_helper.from_array(v.astype("float32"), k) for k, v in arrays.items()]
    >>> nodes = [
    ...     helper.make_node("Conv", ["x", "w"], ["z"]),
    ...     helper.make_node("Relu", ["z"], ["r"]),
    ...     helper.make_node("Mul", ["r", "a"], ["y"]),
    ... ]
    >>> graph = helper.make_graph(nodes, "net", [image], [output], given)
    >>> [node.op_type for node in fold_batch_norm.fold(helper.make_model(graph)).graph.node]
    ['Conv', 'Max']
    """
    graph = _Graph(model)
    for node in list(graph.nodes):
        if node.op_type == "Conv":
            graph.absorb(node)
        elif node.op_type == "ReduceMean":
            graph.pool(node)
    return graph.model()


class _Graph:
    """The nodes and constants of a model that is being changed."""

    def __init__(self, model: onnx.ModelProto):
        self._given = model
        self.nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in model.graph.node]
        self.constants = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
        self._kept = {output.name for output in model.graph.output}

    def absorb(self, conv: onnx.NodeProto) -> None:
        """Fold the scales and shifts that follow a convolution into it."""
        if conv.input[1] not in self.constants:
            return
        weights = self.constants[conv.input[1]]
        channels = len(weights)
        behind = self._alone(conv)
        relu = behind if behind is not None and behind.op_type == "Relu" else None
        scale, shift, chain = np.ones(channels), np.zeros(channels), list[onnx.NodeProto]()
        for node, values in self._affine(relu or conv, channels):
            if node.op_type in ("Add", "Sub"):
                shift = shift + (values if node.op_type == "Add" else -values)
            else:
                factor = values if node.op_type == "Mul" else 1 / values
                scale, shift = scale * factor, shift * factor
            chain.append(node)
        if not chain:
            return
        bias = self.constants[conv.input[2]] if len(conv.input) > 2 else np.zeros(channels)
        self._constant(conv, 1, weights * scale.reshape(-1, 1, 1, 1))
        self._constant(conv, 2, bias * scale + shift)
        end = chain[-1].output[0]
        self._remove([*([relu] if relu else []), *chain], into=conv)
        if relu is not None:
            self._bound(conv, end, scale, shift)

    def pool(self, mean: onnx.NodeProto) -> None:
        """Replace a mean over all positions by global average pooling."""
        axes = [self.constants[name].tolist() for name in mean.input[1:] if name in self.constants]
        kept = [a.i for a in mean.attribute if a.name == "keepdims"]
        if axes != [[2, 3]] or kept != [0]:
            return
        place, (output,) = self.nodes.index(mean), mean.output
        pooled = f"{output}_pooled"
        self.nodes[place : place + 1] = [
            helper.make_node("GlobalAveragePool", [mean.input[0]], [pooled], f"{pooled}_pool"),
            helper.make_node("Flatten", [pooled], [output], f"{pooled}_flatten"),
        ]

    def model(self) -> onnx.ModelProto:
        """The graph as a model of standard operators, without unused constants."""
        given = self._given.graph
        used = {name for node in self.nodes for name in node.input}
        constants = [
            numpy_helper.from_array(values, name)
            for name, values in self.constants.items()
            if name in used
        ]
        graph = helper.make_graph(self.nodes, "model", given.input, given.output, constants)
        versions = [x for x in self._given.opset_import if x.domain in ("", "ai.onnx")]
        made = helper.make_model(graph, opset_imports=versions, ir_version=self._given.ir_version)
        onnx.checker.check_model(made, full_check=True)
        return made

    def _affine(
        self, node: onnx.NodeProto, channels: int
    ) -> Iterator[tuple[onnx.NodeProto, np.ndarray]]:
        """The scales and shifts after a node, each with its value per channel."""
        while (behind := self._alone(node)) is not None and behind.op_type in _AFFINE:
            values = [self.constants[name] for name in behind.input if name in self.constants]
            swapped = behind.op_type in ("Sub", "Div") and behind.input[0] != node.output[0]
            if len(values) != 1 or swapped or not _by_channel(values[0], channels):
                return
            yield behind, np.broadcast_to(values[0].astype(np.float64).ravel(), (channels,))
            node = behind

    def _bound(self, conv: onnx.NodeProto, end: str, scale: np.ndarray, bound: np.ndarray) -> None:
        """Clip values to at least their channel's bound, or at most if the scale is negative."""
        last, shape = conv, (1, -1, 1, 1)
        behind = self._alone(conv)
        if behind is not None and behind.op_type == "MaxPool" and len(behind.output) == 1:
            last, end = behind, behind.output[0]
        pairs = [("Max", np.where(scale < 0, -_FAR, bound))]
        if (scale < 0).any():
            pairs.append(("Min", np.where(scale < 0, bound, _FAR)))
        raw = f"{end}_free"
        last.output[0] = raw
        nodes = []
        for place, (kind, values) in enumerate(pairs):
            name = f"{BOUND}_{kind.lower()}_{end}"
            self.constants[name] = values.astype(np.float32).reshape(shape)
            output = end if place == len(pairs) - 1 else f"{raw}_{kind.lower()}"
            nodes.append(helper.make_node(kind, [raw, name], [output], name))
            raw = output
        place = self.nodes.index(last) + 1
        self.nodes[place:place] = nodes

    def _alone(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        """The only reader of a node's output, if there is exactly one."""
        if len(node.output) != 1 or node.output[0] in self._kept:
            return None
        readers = [other for other in self.nodes if node.output[0] in other.input]
        return readers[0] if len(readers) == 1 else None

    def _constant(self, node: onnx.NodeProto, place: int, values: np.ndarray) -> None:
        """Give a node its own constant, as others may read the previous one."""
        name = f"{node.output[0]}_{('weights', 'bias')[place - 1]}"
        self.constants[name] = values.astype(np.float32)
        if place < len(node.input):
            node.input[place] = name
        else:
            node.input.append(name)

    def _remove(self, chain: list[onnx.NodeProto], into: onnx.NodeProto) -> None:
        for node in chain:
            self.nodes.remove(node)
        into.output[0] = chain[-1].output[0]


def _by_channel(values: np.ndarray, channels: int) -> bool:
    """Whether a constant combined with an NCHW value has one value per channel."""
    if values.size == 1:
        return True
    shape = (1,) * (4 - values.ndim) + values.shape
    return math.prod(shape) == channels and shape == (1, channels, 1, 1)
