"""Recipes: the data, augmentation, models, loss and schedule of an experiment."""

from tutelage.recipe.data import Data
from tutelage.recipe.loader import (
    BUNDLED,
    flat,
    key,
    load,
    parse_setting,
    to_dict,
    to_toml,
    with_seeds,
)
from tutelage.recipe.loader_overrides import (
    loader_overrides,
    replaced_by_loader,
    with_batch_size,
)
from tutelage.recipe.loss import LOSSES, SETTINGS, Loss, Term
from tutelage.recipe.network import MODELS, Network
from tutelage.recipe.overrides import is_path, overrides
from tutelage.recipe.schedule import GAMMA, MILESTONES, MOMENTUM, Schedule, Schedules
from tutelage.recipe.schema import Recipe
from tutelage.recipe.views import Views

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
    "flat",
    "is_path",
    "key",
    "load",
    "loader_overrides",
    "overrides",
    "parse_setting",
    "replaced_by_loader",
    "to_dict",
    "to_toml",
    "with_batch_size",
    "with_seeds",
]
