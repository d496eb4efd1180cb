"""The settings of a recipe that a loader of training images takes the place of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from tutelage.errors import RecipeError
from tutelage.recipe.data import Data
from tutelage.recipe.loader import to_dict
from tutelage.recipe.schema import Recipe
from tutelage.recipe.views import Views

_ROLES = ("teacher", "student")
_OF_SCHEDULE = {"batch_size": None, "cutout": 0, "shift": None, "sampling": None}
_OF_VIEWS = {"flip": False, "shift": 0, "distinct": 0}
_KEPT = ("name", "path", "validation", "split_seed")  # a recipe can't be without them
_INSTEAD = {
    "batch_size": "the loader's batches are the steps",
    "validation": "give validation data, as data=(train, validation, test)",
    "split_seed": "give validation data, as data=(train, validation, test)",
    "size": "let the loader resize the images",
}


def loader_overrides(settings: Mapping[str, object]) -> dict[str, object]:
    """What a recipe's settings of data and views become with a loader.

    Args:
        settings: the user's own, by dotted key.

    Returns:
        Values by dotted key: no augmentation, no other size, no sampling.

    Raises:
        RecipeError: if the user sets one of them, or the batch size or the validation images,
            which are the loader's, too.

    Example:

    >>> from tutelage.recipe import loader_overrides
    >>> values = loader_overrides({"loss.alpha": 0.5})
    >>> values["views.flip"], values["data.size"], values["schedule.student.cutout"]
    (False, None, 0)
    """
    values: dict[str, object] = {f"data.{field.name}": None for field in fields(Data)}
    values |= {f"views.{field.name}": _OF_VIEWS.get(field.name) for field in fields(Views)}
    for role in _ROLES:
        values |= {f"schedule.{role}.{name}": value for name, value in _OF_SCHEDULE.items()}
    for key in settings:
        if key in values:
            instead = _INSTEAD.get(key.split(".")[-1], "let the loader do it, or give arrays")
            raise RecipeError(
                f"{key}: expected no such setting with a loader of training images, found "
                f"{settings[key]!r}; {instead}"
            )
    kept = {f"data.{name}" for name in _KEPT} | {f"schedule.{role}.batch_size" for role in _ROLES}
    return {key: value for key, value in values.items() if key not in kept}


def replaced_by_loader(recipe: Recipe) -> tuple[str, ...]:
    """The settings of a recipe that are not used with a loader, as `key = value`.

    Args:
        recipe: the recipe without `loader_overrides`.

    Returns:
        Those that have another value than in `loader_overrides`, and the batch sizes.

    Example:

    >>> from tutelage import recipe
    >>> recipe.replaced_by_loader(recipe.load("digits"))[0]
    'views.shift = 1'
    """
    values = loader_overrides({}) | {f"schedule.{role}.batch_size": None for role in _ROLES}
    tree = to_dict(recipe)
    found = ((key, _value(tree, key), neutral) for key, neutral in values.items())
    return tuple(
        f"{key} = {json.dumps(value)}"
        for key, value, neutral in found
        if value is not None and value != neutral
    )


def with_batch_size(recipe: Recipe, images: int) -> Recipe:
    """A recipe whose batches have so many images."""
    schedule = recipe.schedule
    return replace(
        recipe,
        schedule=replace(
            schedule,
            teacher=replace(schedule.teacher, batch_size=images),
            student=replace(schedule.student, batch_size=images),
        ),
    )


def _value(tree: dict[str, Any], key: str) -> Any:
    """A value of a recipe by dotted key; None where there is none."""
    value: Any = tree
    for name in key.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value
