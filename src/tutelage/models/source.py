"""Sources of given models: an object, a path, or the name of a function that returns one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import keras
import torch

from tutelage.errors import ModelError, RecipeError, reason
from tutelage.recipe import reference

Source: TypeAlias = str | os.PathLike[str] | keras.Model | torch.nn.Module


def find(
    source: Source, expected: str, offered: Mapping[str, Any], seed: int | None = None
) -> tuple[str, Any]:
    """The name of a source, and its model, module or path.

    Args:
        source: the source.
        expected: what is expected of it, for messages.
        offered: the keyword arguments of a function, which gets those that it accepts.
        seed: Keras' seed before a function is called; None: unchanged.
    """
    if isinstance(source, keras.Model):
        return source.name, source
    if isinstance(source, torch.nn.Module) and not isinstance(source, keras.Layer):
        return type(source).__name__, source
    if not isinstance(source, str | os.PathLike):
        raise RecipeError(f"expected a model, {expected}, found {type(source).__name__}")
    name = str(source)
    if reference.is_reference(name) and not Path(name).exists():
        return name, _called(name, offered, seed)
    if name.startswith("<") and name.endswith(">") and not Path(name).exists():
        raise RecipeError(f"{name} was a model in memory, which no recipe contains: give it again")
    return name, Path(name)


def _called(name: str, offered: Mapping[str, Any], seed: int | None) -> Any:
    """Call the function named `package.module:function`."""
    function = reference.find(name)
    if seed is not None:
        keras.utils.set_random_seed(seed)
    with reference.current_folder_importable():
        try:
            made = function(**reference.accepted(function, offered))
        except Exception as error:
            raise ModelError(f"{name} raised {reason(error)}") from error
    if not isinstance(made, keras.Model | torch.nn.Module):
        raise ModelError(
            f"{name} returned {type(made).__name__}: expected a Keras model or PyTorch module"
        )
    return made
