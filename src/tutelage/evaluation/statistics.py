"""Paired differences over seeds and McNemar's test."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from tutelage.errors import RunError

LEVEL = 0.05  # below it, a p-value is significant


@dataclass(frozen=True)
class Difference:
    """A paired difference of two models' metrics over seeds.

    Attributes:
        count: the number of seeds.
        mean: mean of the differences.
        std: their standard deviation (n - 1); None for a single one.
        low: lower end of the mean's 95 % interval by Student's t; None for a single one.
        high: upper end of that interval.
        p: p-value of the two-sided paired t-test; None for a single one.
    """

    count: int
    mean: float
    std: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None


def paired(one: ArrayLike, other: ArrayLike, images: int | None = None) -> Difference:
    """The paired difference `one - other`, with its 95 % interval.

    `mean +- t(0.975, n - 1) * std / sqrt(n)`. The seeds are the sample: the interval estimates
    the mean over all seeds on the same test images.

    Args:
        one: a model's metric per seed, (n,).
        other: the other model's metric for the same seeds, (n,).
        images: the number of images, if the metrics are accuracies. A standard deviation of less
            than half an image then counts as half an image in the interval: a few seeds that
            agree to the image do not show that all seeds would.

    Returns:
        The difference; without an interval if n is 1.

    Raises:
        RunError: the numbers of seeds differ, or are 0.

    Source: Student 1908, The probable error of a mean.

    Example:

    >>> from tutelage.evaluation import statistics
    >>> statistics.paired([0.87, 0.88, 0.89], [0.86, 0.86, 0.86]).mean.__round__(4)
    0.02
    """
    gaps = np.asarray(one, np.float64) - np.asarray(other, np.float64)
    if gaps.ndim != 1 or not len(gaps):
        raise RunError(f"expected two figures a seed, at least one seed, found shape {gaps.shape}")
    count, mean = len(gaps), float(gaps.mean())
    if count == 1:
        return Difference(count, mean)
    std = float(gaps.std(ddof=1))
    error = (max(std, 0.5 / images) if images else std) / math.sqrt(count)
    half = float(stats.t.ppf(1 - LEVEL / 2, count - 1)) * error
    if not error:  # every seed says the same
        return Difference(count, mean, 0.0, mean, mean, 0.0 if mean else 1.0)
    p = float(2 * stats.t.sf(abs(mean) / error, count - 1))
    return Difference(count, mean, std, mean - half, mean + half, p)


def mcnemar(one: ArrayLike, other: ArrayLike) -> dict[str, Any]:
    """McNemar's exact test of whether two models are correct equally often.

    Among the `n` images on which exactly one model is correct, the number for the first model
    is binomial with probability 1/2 if the models are equally good.

    Args:
        one: whether the first model is correct, bool of shape (images,).
        other: whether the second model is correct.

    Returns:
        `first` and `second` (images on which only this model is correct) and the two-sided `p`.

    Raises:
        RunError: the numbers of images differ.

    Source: McNemar 1947, doi 10.1007/BF02295996, in its exact form.

    Example:

    >>> from tutelage.evaluation import statistics
    >>> statistics.mcnemar([True, True, True, False], [False, False, True, False])
    {'first': 2, 'second': 0, 'p': 0.5}
    """
    first, second = (np.asarray(x, bool) for x in (one, other))
    if first.shape != second.shape or first.ndim != 1:
        raise RunError(f"expected the same images, found shapes {first.shape} and {second.shape}")
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    n = only_first + only_second
    p = float(stats.binomtest(only_first, n).pvalue) if n else 1.0
    return {"first": only_first, "second": only_second, "p": p}
