"""Whether a model is better than always choosing the most frequent class."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

from tutelage.errors import RecipeError
from tutelage.evaluation import chance


def test_the_warning_follows_the_binomial_distribution() -> None:
    labels = np.arange(100) % 4  # the commonest class's share is a quarter

    def tail(right: int) -> float:
        return sum(comb(100, k) * 0.25**k * 0.75 ** (100 - k) for k in range(right, 101))

    first = next(right for right in range(101) if tail(right) < 0.01)
    for right in (0, first - 1, first, 100):
        guesses = np.where(np.arange(100) < right, labels, (labels + 1) % 4)
        warning = chance.warn_if_at_chance(np.eye(4)[guesses], labels)
        assert (warning is None) == (right >= first)
        if warning:
            assert f"right on {right}.0% of 100 images" in warning
            assert "\n" not in warning
    # Naming the commonest class is right more often than a quarter, and yet knows nothing.
    skewed = np.array([0] * 80 + [1] * 20)
    assert chance.warn_if_at_chance(np.eye(4)[np.zeros(100, int)], skewed) is not None


@pytest.mark.parametrize(("logits", "labels"), [((4, 3), (5,)), ((4,), (4,)), ((0, 3), (0,))])
def test_logits_that_do_not_fit_the_labels_are_refused(
    logits: tuple[int, ...], labels: tuple[int, ...]
) -> None:
    with pytest.raises(RecipeError, match="shape"):
        chance.warn_if_at_chance(np.zeros(logits), np.zeros(labels, int))
