"""The names of a model's classes, compared with those of the data."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np

from tutelage.errors import ModelError


def numbered(count: int) -> tuple[str, ...]:
    """Placeholders for names that are not known: `class 0` and so on."""
    return tuple(f"class {i}" for i in range(count))


def order(
    name: object, own: Sequence[str] | None, classes: Sequence[str], notes: list[str]
) -> np.ndarray | None:
    """Which of a model's outputs belongs to each class of the data, by the classes' names.

    Args:
        name: the model's, in the error.
        own: the names of the model's classes in the order of its outputs, None if not known.
        classes: the data's.
        notes: one is added where the order differs.

    Returns:
        The numbers of the outputs in the data's order, so that `outputs[:, order]` has it; None
        where the order is the same, or the names of either are not known.

    Raises:
        ModelError: if the names differ.

    Example:

    >>> from tutelage.models import class_names
    >>> class_names.order("mine", ["dog", "cat", "emu"], ["cat", "dog", "emu"], [])
    array([1, 0, 2])
    """
    # The same name is stored composed on one system and decomposed on another.
    ours, data = (
        [unicodedata.normalize("NFC", n) for n in names] for names in (own or (), classes)
    )
    if (
        not ours
        or ours == data
        or any(tuple(names) == numbered(len(names)) for names in (ours, data))
    ):
        return None
    strange, lacking = (
        next(iter(Counter(one) - Counter(other)), None)
        for one, other in ((ours, data), (data, ours))
    )
    if (strange, lacking) != (None, None) or len(set(ours)) < len(ours):
        raise ModelError(
            f"{name} was trained on {len(ours)} classes, the data has {len(data)}; the first name "
            f"that the other lacks is {strange!r} there and {lacking!r} here: each name must be "
            "in both, once; choose another model, or other data"
        )
    places = {name: number for number, name in enumerate(ours)}
    index = np.array([places[name] for name in data])
    moved = int((index != np.arange(len(index))).sum())
    notes.append(
        f"its classes are in another order than the data's ({moved} of {len(index)} are at other "
        "places): its outputs were put in the data's order by name"
    )
    return index
