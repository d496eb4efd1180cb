"""Stratified split of a part of a data set."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tutelage.data.content import Part
from tutelage.errors import DataError, RecipeError

TEST_FRACTION = 0.2
TEST_SEED = 0


def split(part: Part, fraction: float, seed: int, names: Sequence[str] = ()) -> tuple[Part, Part]:
    """Split a part in two, stratified by class.

    Args:
        part: the part to split.
        fraction: fraction of the images in the second part, above 0 and below 1.
        seed: an integer, 0..2**32 - 1; the same seed gives the same split.
        names: the classes' names for messages; default: their numbers.

    Returns:
        The rest and the fraction, each in the original order.

    Raises:
        RecipeError: if the fraction or the seed is invalid.
        DataError: if a class would have no image in one of the two.

    Example:
        >>> from tutelage.data.datasets import load
        >>> rest, fraction = split(load("digits").train, 0.1, seed=0)
        >>> len(rest), len(fraction)
        (1293, 144)
    """
    # Importing scikit-learn takes a second; avoid that for usage errors.
    from sklearn.model_selection import train_test_split

    if isinstance(fraction, bool) or not (math.isfinite(fraction) and 0 < fraction < 1):
        raise RecipeError(
            f"fraction: expected a number above 0 and below 1, got {fraction!r}; change it"
        )
    if isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise RecipeError(f"seed: expected an integer 0..{2**32 - 1}, got {seed!r}; change it")
    if not len(part):
        raise DataError(
            "expected training images in train/<class>/ or <class>/, found only a test part; "
            "add them"
        )
    classes = set(np.unique(part.labels).tolist())
    try:
        sides = train_test_split(
            np.arange(len(part)), test_size=fraction, stratify=part.labels, random_state=seed
        )
    except ValueError:
        sides = []
    if not sides or any(set(part.labels[side].tolist()) != classes for side in sides):
        counts = np.bincount(part.labels)
        fewest = min(classes, key=lambda label: int(counts[label]))
        name = names[fewest] if names else fewest
        raise DataError(
            f"expected an image of each of {len(classes)} classes on both sides when {fraction} of "
            f"{len(part)} images is split off, but class {name} has only {counts[fewest]}; "
            "add images or change the fraction"
        )
    rest, chosen = (np.sort(side) for side in sides)
    return part.take(rest), part.take(chosen)


def titles(classes: Sequence[str], places: Sequence[str]) -> list[str]:
    """The classes' names for `split`, with the place of each class's images where known."""
    if not any(places):
        return list(map(repr, classes))
    return [f"{name!r} ({place})" for name, place in zip(classes, places, strict=True)]


def at(part: Part, index: int) -> tuple[Part, Part]:
    """The images before an index and the rest."""
    return part.take(np.s_[:index]), part.take(np.s_[index:])
