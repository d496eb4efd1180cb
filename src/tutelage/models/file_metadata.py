"""What a `.keras` file tells beside its model: the classes' names, and how images are resized."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tutelage.data.geometry import Geometry
from tutelage.errors import RecipeError
from tutelage.models.class_names import numbered

MEMBER = "tutelage.json"  # of a `.keras` file, which is a zip archive; Keras skips it


def write(path: Path, classes: Sequence[str], geometry: Geometry | None = None) -> None:
    """Add the classes' names, and how images are resized, to a `.keras` file that has none.

    Args:
        path: the file, whole.
        classes: the names, in the order of the model's outputs.
        geometry: how images get the model's size; None: they had it.

    Example:

    >>> import pathlib, tempfile
    >>> import keras
    >>> from tutelage.models import file_metadata
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.keras"
    >>> keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(path)
    >>> file_metadata.write(path, ("cat", "dog"))
    >>> file_metadata.classes(path)
    ('cat', 'dog')
    """
    content: dict[str, Any] = {"classes": list(classes)}
    if geometry is not None:
        content["images"] = geometry.settings()
    with zipfile.ZipFile(path, "a") as file:
        if MEMBER not in file.namelist():
            # With a date of its own, the same content would not be the same file.
            file.writestr(zipfile.ZipInfo(MEMBER), json.dumps(content))


def classes(path: Path) -> tuple[str, ...] | None:
    """The classes' names of a `.keras` file, from `results.json` beside an older run's file.

    Args:
        path: the file.

    Returns:
        The names in the order of the model's outputs; None where they are not known.
    """
    try:
        return _names(_content(path)["classes"])
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        pass
    try:
        results = json.loads((path.parent / "results.json").read_text(encoding="utf-8"))
        return _names(results["data"]["classes"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def geometry(path: Path, size: tuple[int, int]) -> Geometry | None:
    """How an image gets the size of a `.keras` file's model.

    Args:
        path: the file.
        size: (height, width) of the model's images.

    Returns:
        As in training; None if those images had the size, or the file tells nothing.
    """
    try:
        return geometry_of(_content(path), size)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def geometry_of(metadata: Any, size: tuple[int, int]) -> Geometry | None:
    """As `geometry`, from the metadata of any file."""
    try:
        return Geometry(size, **metadata["images"])
    except (KeyError, TypeError, RecipeError):
        return None


def _content(path: Path) -> Any:
    with zipfile.ZipFile(path) as file:
        return json.loads(file.read(MEMBER))


def _names(content: object) -> tuple[str, ...] | None:
    if not isinstance(content, list) or not all(isinstance(name, str) for name in content):
        return None
    return None if tuple(content) == numbered(len(content)) else tuple(content)
