"""The served models: compatible exported files, and example images."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from tutelage.errors import ModelError, RecipeError, RunError
from tutelage.models.onnx_model import ExportedModel

FIRST = ("teacher.onnx", "student.onnx", "student-int8.onnx")
EXAMPLES = 12


class Model(NamedTuple):
    """An exported file and its title.

    Args:
        title: unique title, such as `student int8`.
        file: the file's name, with its folder's if two would be the same.
        size: size of the file in bytes.
        exported: the model.
    """

    title: str
    file: str
    size: int
    exported: ExportedModel

    def describe(self) -> dict[str, Any]:
        """The file's metadata, ready for JSON."""
        about = self.exported.about
        data, figures = about.get("data"), about.get("figures")
        return {
            "title": self.title,
            "name": self.exported.name,
            "precision": self.exported.precision,
            "file": self.file,
            "bytes": self.size,
            "shape": list(self.exported.shape),
            "parameters": about.get("parameters"),
            "macs": about.get("macs"),
            "data": data.get("name") if isinstance(data, dict) else None,
            "figures": {
                name: value
                for name, value in (figures if isinstance(figures, dict) else {}).items()
                if isinstance(value, (int, float)) and math.isfinite(value)
            },
        }


class Served(NamedTuple):
    """The models and examples of a server.

    Args:
        models: at least one, all with the same classes, each in an order of its own.
        classes: their names, in the first model's order.
        examples: PNG files to try.
    """

    models: tuple[Model, ...]
    classes: tuple[str, ...]
    examples: tuple[bytes, ...]


def find(paths: Sequence[Path]) -> list[Path]:
    """Find exported files: all of a folder, teacher and student first.

    Args:
        paths: files and run folders.

    Returns:
        The files, in the order of the paths.

    Raises:
        RunError: if a folder contains none.
        RecipeError: if there is no path, or a file is given twice.
    """
    if not paths:
        raise RecipeError("expected a run's folder or exported files, found none")
    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        inside = sorted(path.glob("*.onnx"), key=lambda file: (_place(file.name), file.name))
        if not inside:
            raise RunError(f"{path} has no .onnx file: export one first: tutelage export {path}")
        files += inside
    seen: set[Path] = set()
    for file in files:
        if file.resolve() in seen:
            raise RecipeError(f"{file} is given twice: give each file once")
        seen.add(file.resolve())
    return files


def _place(name: str) -> int:
    return FIRST.index(name) if name in FIRST else len(FIRST)


def load(paths: Sequence[Path]) -> Served:
    """Open exported files and run each once, so that errors are found before serving.

    Args:
        paths: files and run folders; the first with a `pictures.npz` provides examples.

    Returns:
        The models to serve.

    Raises:
        RunError: if a folder contains no exported file.
        RecipeError: if there is no path, or a file is given twice.
        ModelError: if a file is not an exported model, its outputs don't match its metadata, or
            its classes differ from the first file's.
    """
    files = find(paths)
    opened = [ExportedModel(file) for file in files]
    for exported in opened:
        _check(exported, opened[0])
    models: list[Model] = []
    names = [file.name for file in files]
    titles = [_title(exported) for exported in opened]
    for file, exported, title in zip(files, opened, titles, strict=True):
        name = file.name
        if names.count(name) > 1:
            name = f"{file.resolve().parent.name}/{name}"
        title = title if titles.count(title) == 1 else f"{title} ({name})"
        while any(model.title == title for model in models):
            title += "'"  # two folders with the same name
        models.append(Model(title, name, exported.bytes, exported))
    classes = tuple(map(str, opened[0].classes))
    return Served(tuple(models), classes, _examples(paths))


def _title(exported: ExportedModel) -> str:
    full = exported.precision == "float32"
    return exported.name if full else f"{exported.name} {exported.precision}"


def _check(exported: ExportedModel, first: ExportedModel) -> None:
    if sorted(map(str, exported.classes)) != sorted(map(str, first.classes)):
        raise ModelError(
            f"{exported.path} has other classes than {first.path}: serve them separately"
        )
    height, width, channels = exported.shape
    if channels not in (1, 3):
        raise ModelError(f"{exported.path} takes images of {channels} channels: expected 1 or 3")
    try:
        probabilities = exported.probabilities(np.zeros((1, height, width, channels), np.uint8))
    except Exception as error:  # ONNX Runtime's errors have no public base class
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{exported.path} can't classify an image: {reason}") from error
    if probabilities.shape != (1, len(exported.classes)):
        raise ModelError(
            f"{exported.path} names {len(exported.classes)} classes, "
            f"but returns outputs of shape {probabilities.shape} for one image"
        )


def _examples(paths: Sequence[Path]) -> tuple[bytes, ...]:
    """The telling and then the missed test images of the first run that has some."""
    for path in paths:
        file = path / "pictures.npz"
        if not file.is_file():
            continue
        try:
            with np.load(file, allow_pickle=False) as stored:
                chosen = {
                    int(number): image
                    for part in ("telling", "missed")
                    for number, image in zip(stored[part], stored[f"{part}_images"], strict=True)
                }
            return tuple(png(image) for image in list(chosen.values())[:EXAMPLES])
        except Exception as error:  # a damaged file can make NumPy and zipfile raise anything
            raise RunError(f"{file} is damaged: remove it to serve without examples") from error
    return ()


def png(pixels: np.ndarray) -> bytes:
    """Encode pixels as PNG.

    Args:
        pixels: uint8 of shape (height, width, 1 or 3).
    """
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(file, "PNG")
    return file.getvalue()
