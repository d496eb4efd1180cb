"""Stock Keras layers computed by PyTorch's fused kernels, in one memory layout."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
from keras import layers

from tutelage.kernels import fused_batch_norm, winograd

if keras.backend.backend() == "torch":
    import torch
    import torch.nn.functional as F


@dataclass(frozen=True)
class Pass:
    """How a model is run.

    Attributes:
        training: whether for training.
        dtype: what fast layers compute in.
        fast: the layers to run by `FAST_LAYERS`.
        chains: layers to run together, from `fused_batch_norm.chains`.
        borders: paddings that convolutions do, from `fused_batch_norm.borders`.
    """

    training: bool
    dtype: Any
    fast: frozenset[keras.Layer]
    chains: dict[keras.Layer, fused_batch_norm.Chain]
    borders: dict[keras.Layer, list[int]]


# A function returns None for settings that it doesn't support; the stock layer runs then.
# Keras' layout is channels-last, PyTorch's channels-first: a permuted view converts between
# them without copying.


def _first(x: Any) -> Any:
    return x.permute(0, 3, 1, 2)


def _last(x: Any) -> Any:
    return x.permute(0, 2, 3, 1)


def _activated(layer: keras.Layer, x: Any, how: Pass) -> Any:
    if layer in how.chains:
        return x  # done by the next normalization
    # In place: a convolution's backward pass doesn't need its output.
    return F.relu_(x) if layer.activation is keras.activations.relu else layer.activation(x)


def _padding(layer: Any, x: Any, window: tuple[int, ...]) -> list[int]:
    """The padding before and after both axes, last axis first."""
    if layer.padding == "valid":
        return [0, 0, 0, 0]
    strides = layer.strides if isinstance(layer.strides, tuple) else (layer.strides,) * 2
    pads: list[int] = []
    for size, length, stride in zip(x.shape[1:3], window, strides, strict=True):
        total = max((math.ceil(size / stride) - 1) * stride + length - size, 0)
        pads = [total // 2, total - total // 2, *pads]
    return pads


def _border(layer: Any, x: Any, window: tuple[int, ...], how: Pass) -> list[int]:
    """The padding of a convolution, including padding moved from the layer before it."""
    return how.borders.get(layer) or _padding(layer, x, window)


def _even(pads: list[int]) -> bool:
    return pads[0] == pads[1] and pads[2] == pads[3]


def _convolved(layer: Any, x: Any, kernel: Any, bias: Any, groups: int, how: Pass) -> Any:
    """A convolution with a kernel in PyTorch's layout and the layer's other settings."""
    dtype = how.dtype
    sizes = zip(kernel.shape[2:], layer.dilation_rate, strict=True)
    window = tuple(rate * (size - 1) + 1 for size, rate in sizes)
    pads = _border(layer, x, window, how)
    x = _first(x.to(dtype).contiguous())
    if not _even(pads):
        x, pads = F.pad(x, pads), [0, 0, 0, 0]
    kernel = kernel.to(dtype)
    bias = None if bias is None else bias.value.to(dtype)
    padding = [pads[2], pads[0]]
    return F.conv2d(x, kernel, bias, layer.strides, padding, layer.dilation_rate, groups)


def _conv(layer: Any, x: Any, how: Pass) -> Any:
    if layer.data_format != "channels_last":
        return None
    x = x.to(how.dtype)
    if _simple(layer, how):
        bias = None if layer.bias is None else layer.bias.value
        y = winograd.convolve(x, layer.kernel.value, bias)
        if y is not None:
            return _activated(layer, y, how)
    y = _multiplied(layer, x, how)
    if y is not None:
        return _activated(layer, y, how)
    kernel = layer.kernel.value.permute(3, 2, 0, 1)
    y = _convolved(layer, x, kernel, layer.bias, layer.groups, how)
    return _last(_activated(layer, y, how))


def _multiplied(layer: Any, x: Any, how: Pass) -> Any:
    """A convolution as a matrix product of patches and the kernel in Keras' layout.

    PyTorch's own copies the kernel to another layout, and its gradient back. This one copies the
    patches if the window is larger than 1x1; returns None if they are larger than the kernel.
    """
    if layer.groups != 1 or tuple(layer.dilation_rate) != (1, 1):
        return None
    window, (down, across) = layer.kernel_size, layer.strides
    pads = left, right, above, below = _border(layer, x, window, how)
    images, height, width = x.shape[:3]
    height = (height + above + below - window[0]) // down + 1
    width = (width + left + right - window[1]) // across + 1
    pixels = images * height * width
    if tuple(window) != (1, 1) and (pixels > layer.filters or x.device.type != "cpu"):
        return None
    if any(pads):
        x = F.pad(x, [0, 0, *pads])
    patches = [
        x[:, i : i + height * down : down, j : j + width * across : across]
        for i in range(window[0])
        for j in range(window[1])
    ]
    rows = (torch.cat(patches, -1) if len(patches) > 1 else patches[0]).reshape(pixels, -1)
    kernel = layer.kernel.value.reshape(rows.shape[1], layer.filters)
    return _product(rows, kernel, layer.bias, how).view(images, height, width, layer.filters)


def _product(rows: Any, kernel: Any, bias: Any, how: Pass) -> Any:
    bias = None if bias is None else bias.value.to(how.dtype)
    return F.linear(rows.to(how.dtype), kernel.to(how.dtype).t(), bias)


def _simple(layer: Any, how: Pass) -> bool:
    one = (1, 1)
    steps = tuple(layer.strides) == tuple(layer.dilation_rate) == one
    same = layer.padding == "same" or how.borders.get(layer) == [1, 1, 1, 1]
    return steps and layer.groups == 1 and same


def _depthwise_kernel(kernel: Any) -> Any:
    height, width, channels, multiplier = kernel.shape
    return kernel.permute(2, 3, 0, 1).reshape(channels * multiplier, 1, height, width)


def _depthwise(layer: Any, x: Any, how: Pass) -> Any:
    if layer.data_format != "channels_last":
        return None
    kernel = _depthwise_kernel(layer.kernel.value)
    y = _convolved(layer, x, kernel, layer.bias, x.shape[-1], how)
    return _last(_activated(layer, y, how))


def _separable(layer: Any, x: Any, how: Pass) -> Any:
    if layer.data_format != "channels_last":
        return None
    kernel = _depthwise_kernel(layer.depthwise_kernel.value)
    y = _convolved(layer, x, kernel, None, x.shape[-1], how)
    y = _last(y)
    pointwise = layer.pointwise_kernel.value[0, 0]
    z = _product(y.reshape(-1, y.shape[-1]), pointwise, layer.bias, how)
    return _activated(layer, z.view(*y.shape[:3], -1), how)


def _dense(layer: Any, x: Any, how: Pass) -> Any:
    return _activated(layer, _product(x, layer.kernel.value, layer.bias, how), how)


def _batch_norm(layer: Any, x: Any, how: Pass) -> Any:
    if layer.axis not in (-1, x.ndim - 1) or x.ndim not in (2, 4) or layer.renorm:
        return None
    chain = how.chains.get(layer)
    if chain is None:
        return _normalized(layer, x, how)
    y = fused_batch_norm.normalize(chain, x, how.training)
    if y is not None:
        return y
    y = _first(x)
    y = _first(_normalized(layer, _last(F.relu_(y) if chain.source else y), how))
    if chain.low == 0:
        y = F.hardtanh_(y, 0.0, chain.high) if chain.high < math.inf else F.relu_(y)
    return _last(F.max_pool2d(y, 2) if chain.pool else y)


def _normalized(layer: Any, x: Any, how: Pass) -> Any:
    gamma = layer.gamma.value if layer.scale else None
    beta = layer.beta.value if layer.center else None
    channels_first = _first(x) if x.ndim == 4 else x
    mean, variance = layer.moving_mean.value, layer.moving_variance.value
    if how.training and layer.trainable:
        y, batch_mean, inverse_std = torch.native_batch_norm(
            channels_first, gamma, beta, None, None, True, 0.0, layer.epsilon
        )
        with torch.no_grad():
            # Keras' moving variance is biased, PyTorch's is not.
            batch_variance = inverse_std.pow(-2) - layer.epsilon
            mean.lerp_(batch_mean, 1 - layer.momentum)
            variance.lerp_(batch_variance, 1 - layer.momentum)
    else:
        y = F.batch_norm(channels_first, mean, variance, gamma, beta, False, 0.0, layer.epsilon)
    return _last(y) if x.ndim == 4 else y


def _layer_norm(layer: Any, x: Any, how: Pass) -> Any:
    if list(layer.axis) not in ([-1], [x.ndim - 1]) or layer.rms_scaling:
        return None
    gamma = layer.gamma.value.to(x.dtype) if layer.scale else None
    beta = layer.beta.value.to(x.dtype) if layer.center else None
    return F.layer_norm(x, x.shape[-1:], gamma, beta, layer.epsilon)


def _max_pooling(layer: Any, x: Any, how: Pass) -> Any:
    if layer.data_format != "channels_last":
        return None
    pads, x = _padding(layer, x, layer.pool_size), _first(x)
    if not _even(pads):
        x, pads = F.pad(x, pads, value=-math.inf), [0, 0, 0, 0]
    return _last(F.max_pool2d(x, layer.pool_size, layer.strides, [pads[2], pads[0]]))


def _average_pooling(layer: Any, x: Any, how: Pass) -> Any:
    pads = _padding(layer, x, layer.pool_size)
    if layer.data_format != "channels_last" or not _even(pads):
        return None  # uneven padding must not count in the mean
    padding = [pads[2], pads[0]]
    y = F.avg_pool2d(_first(x), layer.pool_size, layer.strides, padding, count_include_pad=False)
    return _last(y)


def _average(layer: Any, x: Any, how: Pass) -> Any:
    if layer.data_format != "channels_last":
        return None
    return x.mean((1, 2), keepdim=layer.keepdims)


def _maximum(layer: Any, x: Any, how: Pass) -> Any:
    if layer.data_format != "channels_last":
        return None
    return x.amax((1, 2), keepdim=layer.keepdims)


def _flatten(layer: Any, x: Any, how: Pass) -> Any:
    return x.reshape(x.shape[0], -1) if layer.data_format == "channels_last" else None


def _dropout(layer: Any, x: Any, how: Pass) -> Any:
    if not how.training or not layer.rate:
        return x
    if layer.noise_shape is not None or layer.rate == 1:
        return None
    # Uses the layer's own seed, which is part of a checkpoint. One random 64-bit word serves
    # four values, as PyTorch's CPU generator is slow.
    first, second = (int(word) & 0xFFFFFFFF for word in layer.seed_generator.next())
    generator = torch.Generator(x.device).manual_seed(first << 32 | second)
    words = torch.empty(math.ceil(x.numel() / 4), dtype=torch.int64, device=x.device)
    words.random_(-(2**63), None, generator=generator)
    draws = words.view(torch.int16)[: x.numel()].view(x.shape)
    kept = draws >= round(layer.rate * 2**16) - 2**15
    return x * kept.to(x.dtype).mul_(1 / (1 - layer.rate))


def _elementwise(layer: Any, x: Any, how: Pass) -> Any:
    # Stock, but without the cast to float32 in the layer's `__call__`.
    return layer.call(x)


FAST_LAYERS: dict[type, Callable[[Any, Any, Pass], Any]] = {
    layers.Conv2D: _conv,
    layers.DepthwiseConv2D: _depthwise,
    layers.SeparableConv2D: _separable,
    layers.Dense: _dense,
    layers.BatchNormalization: _batch_norm,
    layers.LayerNormalization: _layer_norm,
    layers.MaxPooling2D: _max_pooling,
    layers.AveragePooling2D: _average_pooling,
    layers.GlobalAveragePooling2D: _average,
    layers.GlobalMaxPooling2D: _maximum,
    layers.Flatten: _flatten,
    layers.Dropout: _dropout,
    **dict.fromkeys(
        [
            *(layers.Activation, layers.ReLU, layers.LeakyReLU, layers.ELU, layers.Softmax),
            *(layers.Add, layers.Subtract, layers.Multiply, layers.Average),
            *(layers.Maximum, layers.Minimum, layers.Concatenate),
            *(layers.ZeroPadding2D, layers.Cropping2D, layers.Reshape),
        ],
        _elementwise,
    ),
}
