"""The losses that a recipe can name."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tutelage import losses, recipe
from tutelage.errors import RecipeError
from tutelage.losses import catalog, from_recipe

ROWS = {row["name"]: row for row in catalog.table()}
CONCEPTS = Path(__file__).parents[2] / "docs" / "concepts.md"


def test_every_loss_of_the_schema_has_its_row() -> None:
    assert tuple(ROWS) == recipe.LOSSES
    assert set(catalog.CLASSES) == set(recipe.LOSSES)
    for row in ROWS.values():
        assert all(row[key] for key in ("description", "formula", "source"))


@pytest.mark.parametrize("name", recipe.LOSSES)
def test_settings_are_what_a_recipe_takes_and_the_loss_has(name: str) -> None:
    settings = dict(ROWS[name]["settings"])
    section = recipe.Loss(name=name)
    (made,) = from_recipe.losses(section)
    assert from_recipe.weights(section, 1) == [settings.pop("weight")]
    config = made.get_config()
    assert settings == {key: config[catalog.argument(key)] for key in settings}
    given = {f"loss.{key}": 0.5 for key, value in settings.items() if value is not None}
    recipe.load("digits", {"loss.name": name} | given)
    for other in set(recipe.SETTINGS) - set(settings):
        with pytest.raises(RecipeError, match=other):
            recipe.load("digits", {"loss.name": name, f"loss.{other}": 0.5})


@pytest.mark.parametrize("name", recipe.LOSSES)
def test_needs_are_what_the_loss_asks_for(name: str) -> None:
    loss, needs = catalog.CLASSES[name](), ROWS[name]["needs"]
    assert (needs == ["layers"]) == isinstance(loss, losses.FeatureLoss)
    if needs == ["layers"]:
        return
    logits = np.random.default_rng(0).normal(size=(4, 5))
    try:
        loss.compute_loss(logits, logits)
        asked = False
    except RecipeError as error:
        asked = "labels" in str(error)
    assert ("labels" in needs) == asked


def test_the_table_of_the_documentation_has_the_same_names_and_sources() -> None:
    lines = re.findall(r"^\| `([\w-]+)` \| `(\w+)` \|.*\| (arXiv [\d.]+) \|", CONCEPTS.read_text(
        encoding="utf-8"), flags=re.MULTILINE)  # fmt: skip
    assert lines == [(row["name"], row["class"], row["source"]) for row in ROWS.values()]
