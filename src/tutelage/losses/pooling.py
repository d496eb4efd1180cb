"""Feature maps of one size, so that losses can compare them."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from tutelage.errors import ModelError


def same_size(one: Any, other: Any) -> tuple[Any, Any]:
    """Two maps, the larger averaged to the size of the smaller.

    Args:
        one: the teacher's, (batch, height, width, channels), or rows (batch, channels).
        other: the student's, as many axes.

    Returns:
        Both; rows as they are.

    Raises:
        ModelError: they are neither two maps nor two rows.
    """
    if len(one.shape) != len(other.shape) or len(one.shape) not in (2, 4):
        raise ModelError(
            "two maps (batch, height, width, channels) or two rows of features (batch, channels) "
            f"are expected, got {tuple(one.shape)} from the teacher and {tuple(other.shape)} from "
            "the student"
        )
    if len(one.shape) == 2:
        return one, other
    size = tuple(min(a, b) for a, b in zip(one.shape[1:3], other.shape[1:3], strict=True))
    return pooled(one, size), pooled(other, size)


def pooled(x: Any, size: tuple[int, int]) -> Any:
    """A map averaged to another size, adaptively: windows overlap where they don't divide.

    Args:
        x: (batch, height, width, channels).
        size: (height, width) to give.

    Returns:
        (batch, *size, channels).
    """
    if tuple(x.shape[1:3]) == size:
        return x
    down, across = (
        ops.convert_to_tensor(_averages(here, wanted), dtype=x.dtype)
        for here, wanted in zip(x.shape[1:3], size, strict=True)
    )
    return ops.einsum("ih,jw,bhwc->bijc", down, across, x)


def _averages(here: int, wanted: int) -> np.ndarray:
    """The matrix (wanted, here) that averages windows."""
    rows = np.zeros((wanted, here))
    for i in range(wanted):
        window = slice(i * here // wanted, -(-(i + 1) * here // wanted))
        rows[i, window] = 1 / (window.stop - window.start)
    return rows
