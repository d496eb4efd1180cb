"""Bias correction: one number added to the logits of classes without training images."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from tutelage.errors import DataError
from tutelage.evaluation.metrics import Floats, checked, finite


class Correction(NamedTuple):
    """A number that is added to the logits of some classes.

    Args:
        offset: that number.
        errors: how many images are then misclassified.

    Example:
        >>> Correction(offset=3.5, errors=109).errors
        109
    """

    offset: float
    errors: int


def find(logits: ArrayLike, labels: ArrayLike, classes: Sequence[int]) -> Correction:
    """Find the one number that, added to the logits of some classes, leaves the fewest errors.

    `offset = argmin_b sum_i [argmax_k (z_ik + b * [k in classes]) != y_i]`. The errors change
    only where b passes a `max of the other logits - max of the classes' logits` of an image, so
    all values of b are compared. Of the best intervals, the middle of the longest is
    taken; of an unbounded one, the point 1 beyond its end.

    Args:
        logits: of shape (images, classes), finite.
        labels: class numbers of shape (images,), integers.
        classes: the class numbers whose logits are moved, some but not all of them.

    Returns:
        The offset and the number of errors with it.

    Raises:
        ModelError: invalid logits.
        DataError: invalid labels, or classes that are none, all or unknown.

    Source:
        Section 3 of arXiv 1503.02531, where it is chosen on the test images.

    Example:
        >>> find([[4.0, 1.0], [3.0, 2.0], [0.0, 1.0]], [0, 1, 1], classes=[1])
        Correction(offset=2.0, errors=0)
    """
    values, truth = checked(logits, labels)
    moved = np.isin(np.arange(values.shape[1]), classes)
    if moved.sum() != len(set(classes)) or moved.all() or not moved.any():
        raise DataError(
            f"expected some but not all of the classes 0 to {values.shape[1] - 1}, "
            f"found {list(classes)}"
        )
    inside = np.where(moved, values, -np.inf)
    outside = np.where(moved, -np.inf, values)
    margins = outside.max(axis=1) - inside.max(axis=1)  # beyond it, b changes the prediction
    # Each image gains an error, loses one, or neither, when b passes its margin.
    change = (outside.argmax(axis=1) == truth).astype(int) - (inside.argmax(axis=1) == truth)
    places, which = np.unique(margins, return_inverse=True)
    steps = np.bincount(which, weights=change).astype(int)
    errors = np.sum(outside.argmax(axis=1) != truth) + np.concatenate([[0], steps.cumsum()])
    ends = np.concatenate([[places[0] - 2], places, [places[-1] + 2]])
    lengths = np.where(errors == errors.min(), np.diff(ends), -1)
    chosen = int(lengths.argmax())
    return Correction(float(ends[chosen : chosen + 2].mean()), int(errors[chosen]))


def add_offset(logits: ArrayLike, classes: Sequence[int], offset: float) -> Floats:
    """Add a number to the logits of some classes.

    Args:
        logits: of shape (images, classes), finite.
        classes: the class numbers whose logits are moved.
        offset: the number, as `find` returns it.

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
