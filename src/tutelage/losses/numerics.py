"""Operations of losses that keep their precision and have finite slopes."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops


def wide(logits: Any) -> Any:
    """Logits as a tensor of float32 or wider: a softmax in half precision loses small classes.

    Args:
        logits: an array or tensor of any float type.

    Returns:
        A tensor, unchanged where it is of float32 or float64.
    """
    logits = ops.convert_to_tensor(logits)
    enough = keras.backend.standardize_dtype(logits.dtype) in {"float32", "float64"}
    return logits if enough else ops.cast(logits, "float32")


def mean(x: Any, axis: int | None = None, keepdims: bool = False) -> Any:
    """A mean in its tensor's own precision.

    Keras' own rounds float64 to float32 on the PyTorch backend, as its matmul does.

    Args:
        x: a tensor of any shape; its batch size may be unknown until it runs.
        axis: over which; None: over all.
        keepdims: whether the axis stays, of size 1.

    Returns:
        A tensor of the same type.
    """
    shape = ops.shape(x)
    count: Any = 1
    for size in shape if axis is None else (shape[axis],):
        count = count * (size if isinstance(size, int) else ops.cast(size, x.dtype))
    return ops.sum(x, axis=axis, keepdims=keepdims) / count


def safe_sqrt(square: Any) -> Any:
    """A square root whose slope is finite at zero, as the smallest square is 1e-20."""
    # Keras' maximum would round float64 to float32.
    return ops.sqrt(ops.where(square > 1e-20, square, 1e-20))


def kl_divergence(log_p: Any, log_q: Any) -> Any:
    """Kullback-Leibler divergence of each row, from log-probabilities (batch, classes)."""
    return ops.sum(ops.exp(log_p) * (log_p - log_q), axis=-1)


def flat(features: Any) -> Any:
    """Features (batch, ...) as rows (batch, values)."""
    return ops.reshape(features, (-1, math.prod(features.shape[1:])))


def unit_vectors(x: Any) -> Any:
    """Vectors along the last axis, divided by their length."""
    square = ops.sum(x * x, axis=-1, keepdims=True)
    return x / ops.sqrt(ops.where(square > 1e-24, square, 1e-24))
