"""Batch normalization fused with adjacent ReLU and pooling layers.

On a CPU, a training step spends most of its time outside convolutions on passes over
feature maps, one per layer and direction. `fused_batch_norm.c` computes a normalization,
the ReLU before or after it and the following 2x2 pooling together, in two passes each way.
If it can't be compiled, the layers run one by one. Zero padding is moved into the
following convolution.
"""

from __future__ import annotations

import ctypes
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
from keras import layers

from tutelage import private_api
from tutelage.kernels import build

if keras.backend.backend() == "torch":
    import torch

_NAME = "fused_batch_norm"
_VARIABLES = (
    *("kernel", "bias", "depthwise_kernel", "pointwise_kernel"),
    *("gamma", "beta", "moving_mean", "moving_variance"),
)
_CONVOLUTIONS = (layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D)


@dataclass(frozen=True, eq=False)
class Chain:
    """A batch normalization and the adjacent layers fused with it.

    Attributes:
        norm: the normalization, over the last axis.
        source: the convolution before it whose ReLU is fused, if any.
        low: lower bound of the output: 0 if a ReLU follows.
        high: upper bound of the output: 6 if a ReLU6 follows.
        pool: whether 2x2 max pooling follows.
        behind: the following layers that are fused.
    """

    norm: keras.Layer
    source: keras.Layer | None
    low: float
    high: float
    pool: bool
    behind: tuple[keras.Layer, ...]


def chains(model: keras.Model) -> dict[keras.Layer, Chain]:
    """Find the chains of layers that can be fused.

    Args:
        model: a Functional or Sequential model, which may contain others.

    Returns:
        The chain of each fused layer.
    """
    wiring = _Wiring(model)
    found: dict[keras.Layer, Chain] = {}
    for node in wiring.nodes:
        if type(node.operation) is layers.BatchNormalization and wiring.once(node.operation):
            chain = _chain(node, wiring)
            if chain:
                members = (chain.norm, chain.source, *chain.behind)
                found |= {layer: chain for layer in members if layer is not None}
    return found


def borders(model: keras.Model) -> dict[keras.Layer, list[int]]:
    """Find zero padding that can be moved into the following convolution.

    Args:
        model: a Functional or Sequential model, which may contain others.

    Returns:
        For each such padding layer and its convolution, the number of zeros left, right, above
        and below.
    """
    wiring = _Wiring(model)
    found: dict[keras.Layer, list[int]] = {}
    for node in wiring.nodes:
        border = node.operation
        if type(border) is not layers.ZeroPadding2D or not (plain(border) and wiring.once(border)):
            continue
        reader = wiring.next_alone(node.outputs[0])
        if (
            type(reader) in _CONVOLUTIONS
            and reader.padding == "valid"
            and reader.data_format == border.data_format == "channels_last"
        ):
            (above, below), (left, right) = border.padding
            found[border] = found[reader] = [left, right, above, below]
    return found


class _Wiring:
    """The readers of each tensor in a model and its nested models."""

    def __init__(self, model: keras.Model):
        self.nodes = [node for graph in graphs(model) for node in private_api.nodes(graph)]
        self.uses = Counter(id(node.operation) for node in self.nodes)
        self.readers: dict[int, list[Any]] = {}
        for node in self.nodes:
            for tensor in node.input_tensors:
                self.readers.setdefault(id(tensor), []).append(node.operation)
        for graph in graphs(model):
            for tensor in keras.tree.flatten(graph.outputs):
                self.readers.setdefault(id(tensor), []).append(None)

    def once(self, layer: Any) -> bool:
        """Whether a layer is used only once."""
        return self.uses[id(layer)] == 1

    def next_alone(self, tensor: Any) -> Any:
        """The only reader of a tensor, if that layer is used only once."""
        (reader, *others) = self.readers[id(tensor)]
        return reader if not others and self.once(reader) and plain(reader) else None


def graphs(model: keras.Model) -> Iterator[Any]:
    """The graph of a Functional or Sequential model, and those of the models that it holds."""
    graph = private_api.graph(model)
    yield graph
    for layer in graph.layers:
        if isinstance(layer, keras.Model) and type(layer).__module__.startswith("keras."):
            yield from graphs(layer)


def _chain(node: Any, wiring: _Wiring) -> Chain | None:
    norm, (source,) = node.operation, node.input_tensors
    if len(source.shape) != 4 or norm.axis not in (-1, 3) or norm.renorm or not plain(norm):
        return None

    producer, _ = private_api.producer(source)
    takes_relu = (
        wiring.next_alone(source) is norm
        and wiring.once(producer)
        and type(producer) in _CONVOLUTIONS
        and plain(producer)
        and producer.activation is keras.activations.relu
        and producer.data_format == "channels_last"
    )
    low, high, pool = -math.inf, math.inf, False
    behind: list[keras.Layer] = []
    tensor = node.outputs[0]
    layer = wiring.next_alone(tensor)
    bounds = _bounds(layer)
    if bounds:
        low, high = bounds
        behind.append(layer)
        tensor = layer.output
        layer = wiring.next_alone(tensor)
    if type(layer) is layers.MaxPooling2D and _halves(layer, tensor.shape):
        pool = True
        behind.append(layer)
    return Chain(norm, producer if takes_relu else None, low, high, pool, tuple(behind))


def plain(layer: Any) -> bool:
    """Whether a layer is no more than its stock class: nothing added, quantized or overridden.

    Args:
        layer: a layer of a stock class.

    Returns:
        False for another dtype than float32, an activity regularizer, a quantized kernel, LoRA's
        matrices or any other variable that the stock class has not, and for a `call` of its own.
    """
    if not isinstance(layer, keras.Layer) or layer.compute_dtype != "float32":
        return False
    known = [getattr(layer, name, None) for name in _VARIABLES]
    seeds = getattr(layer, "seed_generator", None)
    state = {id(variable) for variable in (*known, getattr(seeds, "state", None))}
    return (
        not layer.activity_regularizer
        and "call" not in vars(layer)
        and all(id(variable) in state for variable in layer.variables)
    )


def _bounds(layer: Any) -> tuple[float, float] | None:
    """The interval that a layer clips to, if it does nothing else."""
    if type(layer) is layers.ReLU and not layer.negative_slope and not layer.threshold:
        return 0.0, math.inf if layer.max_value is None else float(layer.max_value)
    if type(layer) is layers.Activation:
        known = {keras.activations.relu: math.inf, keras.activations.relu6: 6.0}
        return (0.0, known[layer.activation]) if layer.activation in known else None
    return None


def _halves(layer: Any, shape: tuple[int | None, ...]) -> bool:
    even = all(size is not None and size % 2 == 0 for size in shape[1:3])
    windows = tuple(layer.pool_size) == tuple(layer.strides) == (2, 2)
    return even and windows and layer.data_format == "channels_last"


def normalize(chain: Chain, x: Any, training: bool) -> Any:
    """Run a chain on the CPU.

    Args:
        chain: the chain.
        x: a tensor of shape (images, height, width, channels), float32 or bfloat16. In training,
            a fused ReLU of the source is applied in place.
        training: whether to normalize by the batch and update the moving statistics; otherwise
            normalizes by the moving statistics, without gradients.

    Returns:
        A tensor of the same type, of half the height and width if the chain pools. None if not
        supported: without a compiler, on another device, or with gradients through moving
        statistics.
    """
    norm = chain.norm
    gamma = norm.gamma.value if norm.scale else None
    beta = norm.beta.value if norm.center else None
    batch = training and norm.trainable
    if (
        build.library(_NAME) is None
        or x.device.type != "cpu"
        or (not batch and torch.is_grad_enabled())
    ):
        return None
    x = x.contiguous()
    mean, variance = norm.moving_mean.value, norm.moving_variance.value
    if batch:
        about = x.new_empty((4, x.shape[-1]), dtype=torch.float32)
        z = _Normalize.apply(x, gamma, beta, about, chain)
        with torch.no_grad():
            mean.lerp_(about[0], 1 - norm.momentum)
            variance.lerp_(about[1], 1 - norm.momentum)
        return z
    scale = torch.rsqrt(variance + norm.epsilon)
    scale = scale if gamma is None else scale * gamma
    offset = -mean * scale if beta is None else beta - mean * scale
    z = _output(chain, x)
    _call("normalize", _shape(chain, x), x, z, scale, offset)
    return z


class _Shape(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("images", "height", "width", "channels")),
        *((name, ctypes.c_int64) for name in ("relu", "pool", "threads")),
        *((name, ctypes.c_float) for name in ("low", "high")),
        ("epsilon", ctypes.c_double),
    )


def _shape(chain: Chain, x: Any) -> _Shape:
    return _Shape(
        *x.shape,
        *(chain.source is not None, chain.pool, torch.get_num_threads()),
        *(chain.low, chain.high, chain.norm.epsilon),
    )


def _output(chain: Chain, x: Any) -> Any:
    images, height, width, channels = x.shape
    part = 2 if chain.pool else 1
    return x.new_empty((images, height // part, width // part, channels))


if keras.backend.backend() == "torch":

    class _Normalize(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, gamma: Any, beta: Any, about: Any, chain: Chain) -> Any:
            ctx.shape, z = _shape(chain, x), _output(chain, x)
            _call("forward", ctx.shape, x, z, gamma, beta, about)
            ctx.save_for_backward(x, about)
            ctx.affine = gamma is not None, beta is not None
            return z

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, dz: Any) -> Any:
            x, about = ctx.saved_tensors
            dx, slopes = torch.empty_like(x), torch.empty_like(about[:2])
            _call("backward", ctx.shape, x, dz.contiguous(), dx, about, *slopes)
            dgamma, dbeta = (
                s if wanted else None for s, wanted in zip(slopes, ctx.affine, strict=True)
            )
            return dx, dgamma, dbeta, None, None


def _call(name: str, shape: _Shape, x: Any, *arrays: Any) -> None:
    stored = str(x.dtype).removeprefix("torch.")
    build.call(_NAME, f"{name}_{stored}", shape, x, *arrays)
