"""Operations for losses that keep precision and have finite gradients."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

# Stands for minus infinity, the logit of a masked class: its probability is 0, and 0 times the
# logarithm of another's is 0, where infinities would give NaN.
_LOWEST = -1e9


def wide(x: Any) -> Any:
    """Convert an array or tensor of any float type to float32, or leave it if it is wider."""
    x = ops.convert_to_tensor(x)
    enough = keras.backend.standardize_dtype(x.dtype) in {"float32", "float64"}
    return x if enough else ops.cast(x, "float32")


def wide_logits(logits: Any) -> Any:
    """Convert logits to float32 or wider, as a softmax in half precision loses small probabilities.

    Args:
        logits: an array or tensor of any float type.

    Returns:
        A tensor of at least -1e9, otherwise unchanged if it is float32 or float64.
    """
    logits = wide(logits)
    # Not `maximum`, which rounds float64 to float32 on the PyTorch backend. NaN remains.
    return ops.where(logits < _LOWEST, _LOWEST, logits)


def mean(x: Any, axis: int | None = None, keepdims: bool = False) -> Any:
    """The mean in the tensor's own precision.

    `keras.ops.mean` rounds float64 to float32 on the PyTorch backend, like its matmul.

    Args:
        x: a tensor of any shape; the batch size may be unknown.
        axis: axis to average over; None: all axes.
        keepdims: whether to keep the axis with size 1.

    Returns:
        A tensor of the same type.
    """
    shape = ops.shape(x)
    count: Any = 1
    for size in shape if axis is None else (shape[axis],):
        count = count * (size if isinstance(size, int) else ops.cast(size, x.dtype))
    return ops.sum(x, axis=axis, keepdims=keepdims) / count


def safe_sqrt(square: Any) -> Any:
    """Square root with a finite gradient at zero: the argument is clipped to at least 1e-20."""
    # Keras' maximum would round float64 to float32.
    return ops.sqrt(ops.where(square > 1e-20, square, 1e-20))


def kl_divergence(log_p: Any, log_q: Any) -> Any:
    """Kullback-Leibler divergence of each row, from log-probabilities (batch, classes)."""
    return ops.sum(ops.exp(log_p) * (log_p - log_q), axis=-1)


def flat(features: Any) -> Any:
    """Flatten features (batch, ...) to (batch, values)."""
    return ops.reshape(features, (-1, math.prod(features.shape[1:])))


def unit_vectors(x: Any) -> Any:
    """Normalize vectors along the last axis to unit length."""
    square = ops.sum(x * x, axis=-1, keepdims=True)
    return x / ops.sqrt(ops.where(square > 1e-24, square, 1e-24))
