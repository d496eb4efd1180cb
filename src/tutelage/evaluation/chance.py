"""Comparison with always choosing the most frequent class."""

from __future__ import annotations

import numpy as np
from scipy import stats

from tutelage.errors import RecipeError
from tutelage.evaluation.statistics import LEVEL


def beats_chance(correct: int, images: int, share: float, level: float = LEVEL) -> bool:
    """Whether a model is significantly better than always choosing the most frequent class.

    Args:
        correct: the number of images that the model classifies correctly.
        images: the number of images.
        share: the share of the most frequent class, 0 to 1.
        level: the level of significance, 0 to 1.

    Returns:
        Whether the one-sided exact binomial test is significant.

    Example:

    >>> from tutelage.evaluation import chance
    >>> chance.beats_chance(13, 48, 0.25), chance.beats_chance(24, 48, 0.25)
    (False, True)
    """
    return bool(stats.binom.sf(correct - 1, images, share) < level)


def warn_if_at_chance(logits: np.ndarray, labels: np.ndarray) -> str | None:
    """Warn of a teacher that is no better than always predicting the most frequent class.

    Args:
        logits: logits of shape (n, classes) of images it was not trained on.
        labels: integers of shape (n,).

    Returns:
        A one-line warning with the accuracy, or None if that is above the frequency of the most
        frequent class in a one-sided binomial test at 1 %.

    Raises:
        RecipeError: if there are no logits, or their number differs from the labels'.

    Example:

    >>> import numpy as np
    >>> from tutelage.evaluation import chance
    >>> labels = np.arange(40) % 4
    >>> chance.warn_if_at_chance(np.eye(4)[labels], labels) is None
    True
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(labels):
        raise RecipeError(
            "expected logits of shape (n, classes) and labels of shape (n,), "
            f"found {logits.shape} and {labels.shape}"
        )
    correct = int((logits.argmax(axis=1) == labels).sum())
    share = np.unique(labels, return_counts=True)[1].max() / len(labels)
    if beats_chance(correct, len(labels), share, level=0.01):
        return None
    return (
        f"the teacher is right on {correct / len(labels):.1%} of {len(labels)} images, no better "
        f"than always predicting the most frequent class ({share:.1%}): check the order of its "
        "classes and its preprocessing (size, scale, mean, std)"
    )
