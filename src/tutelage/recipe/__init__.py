"""Recipes: the data, augmentation, models, loss and schedule of an experiment."""

from tutelage.recipe.loader import BUNDLED, key, load, parse_setting, to_dict, to_toml, with_seeds
from tutelage.recipe.overrides import is_path, overrides
from tutelage.recipe.schema import (
    GAMMA,
    LOSSES,
    MILESTONES,
    MODELS,
    MOMENTUM,
    SETTINGS,
    Data,
    Loss,
    Network,
    Recipe,
    Schedule,
    Schedules,
    Term,
    Views,
)

__all__ = [
    "BUNDLED",
    "GAMMA",
    "LOSSES",
    "MILESTONES",
    "MODELS",
    "MOMENTUM",
    "SETTINGS",
    "Data",
    "Loss",
    "Network",
    "Recipe",
    "Schedule",
    "Schedules",
    "Term",
    "Views",
    "is_path",
    "key",
    "load",
    "overrides",
    "parse_setting",
    "to_dict",
    "to_toml",
    "with_seeds",
]
