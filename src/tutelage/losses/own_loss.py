"""Distillation losses of one's own, named by `package.module:name` in a recipe."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Mapping
from typing import Any

import keras

from tutelage.errors import RecipeError, TutelageError, reason
from tutelage.losses.feature_loss import FeatureLoss
from tutelage.recipe import reference

_EXPECTED = (
    "expected a class or function that returns a distillation loss on logits, such as a subclass "
    "of tutelage.losses.LogitsLoss"
)
# Packages whose code is identified by their version, as that of the bundled losses.
_LIBRARIES = {"keras", "torch", "tutelage", *sys.stdlib_module_names}


def make(name: str, settings: Mapping[str, Any]) -> keras.distillation.DistillationLoss:
    """Make the loss that a recipe names.

    Args:
        name: `package.module:name` of a class or function.
        settings: its keyword arguments.

    Returns:
        The loss.

    Raises:
        RecipeError: it can't be imported or made, or is no distillation loss on logits.

    Example:

    >>> from tutelage.losses import own_loss
    >>> own_loss.make("tutelage.losses:KD", {"temperature": 2}).temperature
    2.0
    """
    function = reference.find(name)
    with reference.current_folder_importable():
        try:
            loss = function(**settings)
        except TutelageError as error:
            raise RecipeError(f"{name}: {error}") from error
        except Exception as error:  # code of others can raise anything
            given = ", ".join(settings) or "none"
            raise RecipeError(
                f"{name}: {_EXPECTED}, found one that raised {reason(error)} with the arguments "
                f"in settings ({given})"
            ) from error
    if not isinstance(loss, keras.distillation.DistillationLoss):
        raise RecipeError(f"{name}: {_EXPECTED}, found one that returns {type(loss).__name__}")
    layers = [getattr(loss, f"{role}_layer_name", None) for role in ("teacher", "student")]
    if any(layers) and not isinstance(loss, FeatureLoss):
        raise RecipeError(
            f"{name}: {_EXPECTED}, found one that compares layers; derive it from "
            "tutelage.losses.FeatureLoss"
        )
    return loss


def code_digest(name: str, loss: keras.distillation.DistillationLoss) -> str:
    """Hash the code of a loss: the source files that define it and the classes it derives from.

    Other modules that these import are not seen.

    Args:
        name: `package.module:name`.
        loss: the loss made by it.

    Returns:
        SHA-256 in hexadecimal; the same in every process.
    """
    modules = {name.partition(":")[0], *(kind.__module__ for kind in type(loss).__mro__)}
    own = sorted(module for module in modules if module.partition(".")[0] not in _LIBRARIES)
    return hashlib.sha256("\0".join([name, *map(_source, own)]).encode()).hexdigest()


def _source(module: str) -> str:
    try:
        return inspect.getsource(sys.modules[module])
    except (OSError, TypeError):  # not from a file
        return module
