"""Bias correction: an offset added to the logits of classes without training images."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from tutelage.errors import DataError
from tutelage.evaluation.metrics import Floats, checked, finite


class Correction(NamedTuple):
    """An offset that is added to the logits of some classes.

    Args:
        offset: the offset.
        errors: number of images that are misclassified with it.

    Example:
        >>> Correction(offset=3.5, errors=109).errors
        109
    """

    offset: float
    errors: int


def find(logits: ArrayLike, labels: ArrayLike, classes: Sequence[int]) -> Correction:
    """Find the offset on the logits of some classes that minimizes the errors.

    `offset = argmin_b sum_i [argmax_k (z_ik + b * [k in classes]) != y_i]`. The errors change
    only where b crosses a `max of the other logits - max of the classes' logits` of an image, so
    all values of b can be compared. The result is the middle of the longest optimal interval;
    for an unbounded interval, the point 1 beyond its end.

    Args:
        logits: finite logits of shape (images, classes).
        labels: class indices of shape (images,), integers.
        classes: indices of the classes whose logits are shifted, some but not all classes.

    Returns:
        The offset and the number of errors with it.

    Raises:
        ModelError: invalid logits.
        DataError: invalid labels, or no, all or unknown classes.

    Source:
        Section 3 of arXiv 1503.02531, which selects it on the test images.

    Example:
        >>> find([[4.0, 1.0], [3.0, 2.0], [0.0, 1.0]], [0, 1, 1], classes=[1])
        Correction(offset=2.0, errors=0)
    """
    values, truth = checked(logits, labels)
    shifted = np.isin(np.arange(values.shape[1]), classes)
    if shifted.sum() != len(set(classes)) or shifted.all() or not shifted.any():
        raise DataError(
            f"expected some but not all of the classes 0 to {values.shape[1] - 1}, "
            f"found {list(classes)}"
        )
    inside = np.where(shifted, values, -np.inf)
    outside = np.where(shifted, -np.inf, values)
    margins = outside.max(axis=1) - inside.max(axis=1)  # beyond it, b changes the prediction
    # When b crosses its margin, each image becomes an error, a correct one, or neither.
    change = (outside.argmax(axis=1) == truth).astype(int) - (inside.argmax(axis=1) == truth)
    thresholds, which = np.unique(margins, return_inverse=True)
    steps = np.bincount(which, weights=change).astype(int)
    errors = np.sum(outside.argmax(axis=1) != truth) + np.concatenate([[0], steps.cumsum()])
    ends = np.concatenate([[thresholds[0] - 2], thresholds, [thresholds[-1] + 2]])
    lengths = np.where(errors == errors.min(), np.diff(ends), -1)
    chosen = int(lengths.argmax())
    return Correction(float(ends[chosen : chosen + 2].mean()), int(errors[chosen]))


def add_offset(logits: ArrayLike, classes: Sequence[int], offset: float) -> Floats:
    """Add an offset to the logits of some classes.

    Args:
        logits: finite logits of shape (images, classes).
        classes: indices of the classes whose logits are shifted.
        offset: the offset, as in `Correction`.

    Returns:
        Logits of the same shape, float64.

    Raises:
        ModelError: invalid logits.

    Example:
        >>> add_offset([[4.0, 1.0]], classes=[1], offset=3.5).tolist()
        [[4.0, 4.5]]
    """
    values = finite(logits, "logits").copy()
    values[:, list(classes)] += offset
    return values
