"""Sources of given models: an object, a path, or the name of a function that returns one."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import keras
import torch

from tutelage.errors import ModelError, RecipeError
from tutelage.models.probing import reason

Source: TypeAlias = str | os.PathLike[str] | keras.Model | torch.nn.Module
_REFERENCE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


def find(source: Source, expected: str, seed: int | None = None) -> tuple[str, Any]:
    """The name of a source, and its model, module or path."""
    if isinstance(source, keras.Model):
        return source.name, source
    if isinstance(source, torch.nn.Module) and not isinstance(source, keras.Layer):
        return type(source).__name__, source
    if not isinstance(source, str | os.PathLike):
        raise RecipeError(f"expected a model, {expected}, found {type(source).__name__}")
    name = str(source)
    if is_reference(name) and not Path(name).exists():
        return name, _called(name, seed)
    return name, Path(name)


def is_reference(name: str) -> bool:
    """Whether a name has the form `package.module:name`."""
    return _REFERENCE.fullmatch(name) is not None


@contextmanager
def imported(reference: str) -> Iterator[Callable[..., Any]]:
    """Import a function or class from an installed module or one in the current folder.

    Args:
        reference: `package.module:name`.

    Yields:
        The function or class. Within the block it can import from the current folder, too.

    Raises:
        RecipeError: if there is none.

    Example:

    >>> from tutelage.models.source import imported
    >>> with imported("math:sqrt") as function:
    ...     print(function(4))
    2.0
    """
    module, _, name = reference.partition(":")
    with _current_folder_importable():
        try:
            found = getattr(importlib.import_module(module), name, None)
        except Exception as error:
            raise RecipeError(f"{reference}: can't import {module}: {reason(error)}") from error
        if not callable(found):
            raise RecipeError(f"{reference}: {module} has no function {name}")
        yield found


def _called(reference: str, seed: int | None) -> Any:
    """Call the function named `package.module:function`, which returns a model."""
    with imported(reference) as make:
        if seed is not None:
            keras.utils.set_random_seed(seed)
        try:
            made = make()
        except Exception as error:
            raise ModelError(f"{reference} raised {reason(error)}") from error
    if not isinstance(made, keras.Model | torch.nn.Module):
        raise ModelError(
            f"{reference} returned {type(made).__name__}: expected a Keras model or PyTorch module"
        )
    return made


@contextmanager
def _current_folder_importable() -> Iterator[None]:
    folder = os.getcwd()
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
