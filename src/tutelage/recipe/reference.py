"""Code of one's own that a recipe names: `package.module:name`."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tutelage.errors import RecipeError, reason
from tutelage.recipe import suggestions

FORM = "package.module:name"
_REFERENCE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


def is_reference(text: str) -> bool:
    """Whether a text has the form `package.module:name`.

    Args:
        text: the text.

    Returns:
        False for names and for paths, also for those of Windows.

    Example:

    >>> from tutelage.recipe.reference import is_reference
    >>> is_reference("my.networks:small"), is_reference("teacher-2m"), is_reference("C:/t.keras")
    (True, False, False)
    """
    return _REFERENCE.fullmatch(text) is not None


def find(reference: str) -> Callable[..., Any]:
    """Import the function or class that a reference names, also from the current folder.

    Args:
        reference: `package.module:name`.

    Returns:
        The function or class.

    Raises:
        RecipeError: the module can't be imported, or has no function or class of this name.

    Example:

    >>> from tutelage.recipe import reference
    >>> reference.find("math:sqrt")(9)
    3.0
    """
    module, _, name = reference.partition(":")
    with current_folder_importable():
        try:
            imported = importlib.import_module(module)
        except (Exception, SystemExit) as error:  # a module's code can raise anything
            raise RecipeError(f"{reference}: can't import {module}: {reason(error)}") from error
    found = getattr(imported, name, None)
    if not callable(found):
        named = [key for key, value in vars(imported).items() if callable(value)]
        hint = suggestions.did_you_mean(name, named)
        raise RecipeError(f"{reference}: {module} has no function or class {name}{hint}")
    return found


def accepted(function: Callable[..., Any], offered: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the offered keyword arguments that a function has parameters for.

    Args:
        function: a function or class.
        offered: the arguments by name.

    Returns:
        The arguments; none for a function in C without a signature.

    Example:

    >>> from tutelage.recipe import reference
    >>> def network(classes, width=8): ...
    >>> reference.accepted(network, {"input_shape": (8, 8, 1), "classes": 10})
    {'classes': 10}
    """
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {
        name: value
        for name, value in offered.items()
        if name in parameters and parameters[name].kind in kinds
    }


@contextmanager
def current_folder_importable() -> Iterator[None]:
    """Import modules from the current folder, too, in this block."""
    folder = os.getcwd()
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
