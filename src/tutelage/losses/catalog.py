"""The losses that a recipe can name, described from their classes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from typing import Any

import keras

from tutelage import losses
from tutelage.recipe import LOSSES, SETTINGS

CLASSES: dict[str, type[keras.distillation.DistillationLoss]] = {
    "kd": losses.KD,
    "standardized-kd": losses.StandardizedKD,
    "dkd": losses.DKD,
    "nkd": losses.NKD,
    "dist": losses.DIST,
    "fitnet": losses.FitNet,
    "attention-transfer": losses.AttentionTransfer,
    "similarity-preserving": losses.SimilarityPreserving,
    "rkd": losses.RKD,
    "reviewkd": losses.ReviewKD,
}
_WEIGHTS = {
    "fitnet": 100.0,
    "attention-transfer": 1000.0,
    "similarity-preserving": 3000.0,
    "reviewkd": 5.0,
}


def weight(name: str) -> float:
    """The default weight of a loss, its authors'."""
    return _WEIGHTS.get(name, 1.0)


def argument(setting: str) -> str:
    """The name of a recipe's setting in the constructor of a loss."""
    return f"{setting}_name" if setting in ("teacher_layer", "student_layer") else setting


def table(names: Iterable[str] = LOSSES) -> list[dict[str, Any]]:
    """The losses that a recipe can name.

    Args:
        names: some of `recipe.LOSSES`; default: all.

    Returns:
        For each loss: `name`; `class`, that in `tutelage.losses`;
        `description` and `formula`, from its docstring; `needs`, among `"logits"`, `"labels"` and
        `"layers"`; `settings`, the recipe's keys with their defaults, None for layers that are
        chosen automatically; and `source`, an arXiv number.

    Example:

    >>> from tutelage.losses import catalog
    >>> (row,) = catalog.table(["nkd"])
    >>> row["description"], row["needs"], row["source"]
    ('Normalized distillation', ['logits', 'labels'], 'arXiv 2303.13005')
    >>> row["settings"]
    {'weight': 1.0, 'temperature': 1.0, 'gamma': 1.5}
    """
    return [_row(name) for name in names]


def _row(name: str) -> dict[str, Any]:
    loss = CLASSES[name]
    text = inspect.getdoc(loss) or ""
    description, _, formula = text.partition("\n\n")[0].partition(": ")
    source = re.search(r"arXiv \d{4}\.\d{4,5}", text)
    assert source is not None, f"the docstring of {loss.__name__} has no arXiv number"
    defaults = inspect.signature(loss).parameters
    settings = {key: defaults[argument(key)].default for key in SETTINGS if name in SETTINGS[key]}
    if issubclass(loss, losses.FeatureLoss):
        needs = ["layers"]
    else:
        needs = ["logits", "labels"] if issubclass(loss, losses.LabeledLoss) else ["logits"]
    return {
        "name": name,
        "class": loss.__name__,
        "description": description,
        "formula": " ".join(formula.replace("`", "").split()).removesuffix("."),
        "needs": needs,
        "settings": {"weight": weight(name)} | settings,
        "source": source[0],
    }
