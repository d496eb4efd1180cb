"""Winograd convolution: 3x3 with stride 1 and a quarter of the multiplications.

Convolutions dominate a training step on a CPU, and PyTorch's already run at the speed of
a matrix product: only fewer multiplications are faster. `winograd.c` needs 36 instead of
144, forward and for both gradients. Its rounding error is larger, 1e-5 of the largest
value instead of 1e-6.
"""

from __future__ import annotations

import ctypes
import math
from typing import Any

import keras

from tutelage.kernels import build

if keras.backend.backend() == "torch":
    import torch

_NAME = "winograd"
_TILE = 4  # side of an output tile
_CHANNELS = 32  # channels that the C code processes at once
_FEWEST_TILES = 128  # below, transforming the kernel takes longer than it saves
_LARGEST_WASTE = 1.7  # area of all tiles relative to the image


def convolve(x: Any, kernel: Any, bias: Any) -> Any:
    """A 3x3 convolution with stride 1 and zero padding to the same size, on the CPU.

    Args:
        x: a tensor of shape (images, height, width, in), float32.
        kernel: a tensor of shape (3, 3, in, out), float32, in Keras' layout.
        bias: a tensor of shape (out,), or None.

    Returns:
        A tensor of shape (images, height, width, out), with gradients. None if direct
        convolution is faster or this one isn't available: without a compiler, on another device
        or type, for few or tiny images, or channels that are not multiples of 32.

    Source: F(4x4, 3x3) of arXiv 1509.09308, section 4.

    Example:

    >>> import torch
    >>> from tutelage.kernels import winograd
    >>> y = winograd.convolve(torch.ones(2, 32, 32, 32), torch.ones(3, 3, 32, 64), None)
    >>> y is None or tuple(y.shape)
    (2, 32, 32, 64)
    """
    images, height, width, _ = x.shape
    across, down = math.ceil(width / _TILE), math.ceil(height / _TILE)
    if (
        x.device.type != "cpu"
        or x.dtype != torch.float32
        or kernel.shape[:2] != (3, 3)
        or kernel.shape[2] % _CHANNELS
        or kernel.shape[3] % _CHANNELS
        or images * across * down < _FEWEST_TILES
        or across * down * _TILE**2 > _LARGEST_WASTE * height * width
        or build.library(_NAME) is None
    ):
        return None
    return _Convolution.apply(x.contiguous(), kernel.contiguous(), bias)


class _Shape(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_int64)
        for name in ("images", "height", "width", "channels", "filters", "threads")
    )


def _call(name: str, x: Any, kernel: Any, *arrays: Any) -> None:
    shape = _Shape(*x.shape, kernel.shape[3], torch.get_num_threads())
    build.call(_NAME, name, shape, x, kernel, *arrays)


def _convolved(x: Any, kernel: Any, bias: Any) -> Any:
    y = x.new_empty((*x.shape[:3], kernel.shape[3]))
    _call("convolve", x, kernel, bias, y)
    return y


if keras.backend.backend() == "torch":

    class _Convolution(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, kernel: Any, bias: Any) -> Any:
            ctx.save_for_backward(x, kernel)
            return _convolved(x, kernel, bias)

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, dy: Any) -> Any:
            x, kernel = ctx.saved_tensors
            dy = dy.contiguous()
            dx = dkernel = dbias = None
            if ctx.needs_input_grad[0]:
                flipped = kernel.flip(0, 1).transpose(2, 3).contiguous()
                dx = _convolved(dy, flipped, None)
            if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
                dkernel, dbias = torch.empty_like(kernel), kernel.new_empty(kernel.shape[3])
                _call("slopes", x, dkernel, dy, dbias)
            return dx, dkernel, dbias if ctx.needs_input_grad[2] else None
