"""Pooling of feature maps to a common size."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from tutelage.errors import ModelError


def same_size(one: Any, other: Any) -> tuple[Any, Any]:
    """Pool the larger of two maps to the size of the smaller.

    Args:
        one: the teacher's features, (batch, height, width, channels) or (batch, channels).
        other: the student's features, with the same number of axes.

    Returns:
        Both; features (batch, channels) are returned unchanged.

    Raises:
        ModelError: the shapes are invalid.
    """
    if len(one.shape) != len(other.shape) or len(one.shape) not in (2, 4):
        raise ModelError(
            "expected two maps (batch, height, width, channels) or two arrays of features "
            f"(batch, channels), got {tuple(one.shape)} from the teacher and {tuple(other.shape)} "
            "from the student"
        )
    if len(one.shape) == 2:
        return one, other
    size = tuple(min(a, b) for a, b in zip(one.shape[1:3], other.shape[1:3], strict=True))
    return pooled(one, size), pooled(other, size)


def pooled(x: Any, size: tuple[int, int]) -> Any:
    """Adaptive average pooling; windows overlap if the sizes don't divide.

    Args:
        x: (batch, height, width, channels).
        size: (height, width) of the result.

    Returns:
        (batch, *size, channels).
    """
    if tuple(x.shape[1:3]) == size:
        return x
    down, across = (
        ops.convert_to_tensor(_averages(old, new), dtype=x.dtype)
        for old, new in zip(x.shape[1:3], size, strict=True)
    )
    return ops.einsum("ih,jw,bhwc->bijc", down, across, x)


def _averages(old: int, new: int) -> np.ndarray:
    """The matrix (new, old) that averages over windows."""
    rows = np.zeros((new, old))
    for i in range(new):
        window = slice(i * old // new, -(-(i + 1) * old // new))
        rows[i, window] = 1 / (window.stop - window.start)
    return rows
