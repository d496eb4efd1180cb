"""Paired differences over seeds, and McNemar's test on the same images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from tutelage.errors import RunError

_LEVEL = 0.95


@dataclass(frozen=True)
class Difference:
    """A paired difference of two models' figures over seeds.

    Attributes:
        count: how many seeds.
        mean: of the differences.
        std: their standard deviation (n - 1); None of a single one.
        low: of the 95 % interval of the mean by Student's t; None of a single one.
        high: likewise.
        p: of the paired t-test against no difference, two-sided; None of a single one.
    """

    count: int
    mean: float
    std: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None


def paired(one: ArrayLike, other: ArrayLike) -> Difference:
    """The paired difference `one - other`, with its 95 % interval.

    `mean +- t(0.975, n - 1) * std / sqrt(n)`. The seeds are the sample: the interval says where
    the mean over further seeds would lie on the same test images.

    Args:
        one: a model's figure for each seed, (n,).
        other: the other model's for the same seeds, (n,).

    Returns:
        The difference; without an interval where n is 1.

    Raises:
        RunError: not as many of both, or none.

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
    error = std / math.sqrt(count)
    half = float(stats.t.ppf((1 + _LEVEL) / 2, count - 1)) * error
    if not error:  # every seed says the same
        return Difference(count, mean, 0.0, mean, mean, 0.0 if mean else 1.0)
    p = float(2 * stats.t.sf(abs(mean) / error, count - 1))
    return Difference(count, mean, std, mean - half, mean + half, p)


def mcnemar(one: ArrayLike, other: ArrayLike) -> dict[str, Any]:
    """McNemar's exact test: are two models right equally often on the same images?

    Of the `n` images that exactly one of them is right on, the number on which it is the first
    has, if they are equally good, the binomial distribution of `n` fair coins.

    Args:
        one: whether the first model is right, bool of shape (images,).
        other: whether the second is.

    Returns:
        `first` and `second` (images that this one alone is right on) and the two-sided `p`.

    Raises:
        RunError: not the same images.

    Source: McNemar 1947, doi 10.1007/BF02295996, in its exact form.

    Example:

    >>> from tutelage.evaluation import statistics
    >>> statistics.mcnemar([True, True, True, False], [False, False, True, False])
    {'first': 2, 'second': 0, 'p': 0.5}
    """
    first, second = (np.asarray(x, bool) for x in (one, other))
    if first.shape != second.shape or first.ndim != 1:
        raise RunError(f"expected the same images, found shapes {first.shape} and {second.shape}")
    alone, beside = int((first & ~second).sum()), int((second & ~first).sum())
    p = float(stats.binomtest(alone, alone + beside).pvalue) if alone + beside else 1.0
    return {"first": alone, "second": beside, "p": p}
