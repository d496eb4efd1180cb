"""A recipe for a folder of images, written from what its files' headers tell."""

from __future__ import annotations

import math
import shlex
from pathlib import Path

import numpy as np
import tomlkit

from tutelage import recipe as recipes
from tutelage.data import splitting
from tutelage.data.content import Part
from tutelage.data.summary import ImageSummary, training_labels
from tutelage.errors import DataError, RecipeError, RunError
from tutelage.formatting import printable, thousands
from tutelage.models.architectures import ARCHITECTURES
from tutelage.recipe import Schedules

BASE = "distill"
_STEP, _LARGEST = 32, 128  # sides that photographs are resized to: multiples, up to
_KEPT = 64  # largest side of equal images that keep their size
_UNCHANGED = "height and width; the images have this size"
_RESIZE = {"data.resize": ("crop", 'the central part; "stretch" changes the aspect ratio')}
_CROPS = {
    "views.crop": ("random-resized", "a random part of the image; see tutelage views"),
    "views.shift": (0, "crops move the image already"),
}
_SMALLEST = 8  # side that both models take
_STEPS = 1000  # number of training steps to aim at
_FRACTIONS = (0.05, 0.1, 0.2, 0.3, 0.4)  # of validation images


def check_target(path: Path) -> None:
    """Check that a recipe can be written to a path, before a long look at the images.

    Args:
        path: the file to write.

    Raises:
        RecipeError: if it exists, or is not called `*.toml`.
        RunError: if its folder doesn't exist.
    """
    if path.suffix != ".toml":
        raise RecipeError(f"--out: expected the path of a .toml file, found {str(path)!r}")
    if path.exists():
        raise RecipeError(f"{path} exists and was left unchanged: choose another --out")
    if not path.parent.is_dir():
        raise RunError(f"can't write {path}: there is no folder {path.parent}: make it")


def write(path: Path, summary: ImageSummary) -> None:
    """Write a commented recipe for images; an existing file is never overwritten.

    Args:
        path: the file to write.
        summary: the images, from `data.summary.summarize`.

    Raises:
        RecipeError: if the file exists, or the images' path can't be written.
        DataError: if the images can't be split into training, validation and test images.
        RunError: if the file can't be written.
    """
    text = template(summary, path)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise RecipeError(f"{path} exists and was left unchanged: choose another --out") from None
    except OSError as error:
        reason = error.strerror or error
        raise RunError(f"can't write {path}: {reason}: choose another --out") from error


def template(summary: ImageSummary, path: Path) -> str:
    """The text of a recipe for images, which runs as it is.

    Args:
        summary: the images, from `data.summary.summarize`.
        path: the file that it is written to, for its comments.

    Returns:
        A TOML file that extends the bundled recipe `distill`.

    Raises:
        RecipeError: if the images' path is not UTF-8.
        DataError: if the images can't be split into training, validation and test images.
    """
    labels = training_labels(summary)
    validation, held_out = _validation(summary, labels)
    count, base = len(labels) - held_out, recipes.load(BASE)
    size, size_comment = _size(summary)
    batch, teacher_epochs, epochs = _schedule(count, base.schedule)
    passes = f"passes over {count:,} images"
    if epochs > base.schedule.student.epochs:
        passes += f"; as these are few, more than in {BASE}"
    try:
        summary.path.encode()
    except UnicodeEncodeError:
        raise RecipeError(
            f"{summary.path!r} is not UTF-8, which a recipe has to be: rename the folder"
        ) from None
    resized = size_comment != _UNCHANGED
    settings = {
        "data.path": (summary.path, "a relative path is one from the current folder"),
        "data.size": (list(size), size_comment),
        **(_RESIZE if resized else {}),
        "data.validation": (
            validation,
            f"fraction of the training images: {held_out:,}"
            if held_out
            else "not used, as the data has validation images of its own",
        ),
        **(_CROPS if resized else {}),
        "views.flip": (True, "false if a mirrored image is of another class, as with digits"),
        "teacher.model": (base.teacher.model, _figures(base.teacher.model, size, summary)),
        "student.model": (base.student.model, _figures(base.student.model, size, summary)),
        "schedule.teacher.epochs": (teacher_epochs, passes),
        "schedule.teacher.batch_size": (batch, "images per step"),
        "schedule.student.epochs": (epochs, "also of the baseline, the student without a teacher"),
        "schedule.student.batch_size": (batch, "images per step"),
    }
    shell = shlex.quote(printable(str(path)))
    lines = [
        f"# Images in {printable(summary.path)}, as seen by `tutelage init`:",
        *(f"#   {heading}: {printable(text)}" for heading, text in summary.rows()),
        *(f"#   note: {printable(note)}" for note in summary.notes),
        f"# Train with: tutelage run {shell}; print every key, the models' sizes and the time it",
        "# takes by adding --dry-run. docs/concepts.md explains the keys.",
        f'extends = "{BASE}"',
    ]
    section = ""
    for key, (value, comment) in settings.items():
        home, _, name = key.rpartition(".")
        if home != section:
            lines += ["", f"[{home}]"]
            section = home
        lines.append(f"{f'{name} = {tomlkit.item(value).as_string()}':<28} # {comment}")
    return "\n".join(lines) + "\n"


def _validation(summary: ImageSummary, labels: np.ndarray) -> tuple[float, int]:
    """The fraction and the number of validation images; 0 if the data has some of its own."""
    if "validation" in summary.parts:
        return 0.1, 0
    count = len(labels)
    wanted = 0.05 if count >= 20_000 else 0.1 if count >= 2000 else 0.2
    names, part = list(map(repr, summary.classes)), Part(np.arange(count), labels)
    for fraction in (fraction for fraction in _FRACTIONS if fraction >= wanted):
        try:
            _, held_out = splitting.split(part, fraction, 0, names)
        except DataError as error:  # a class would have none
            failed = error
            continue
        return fraction, len(held_out)
    raise failed


def _size(summary: ImageSummary) -> tuple[tuple[int, int], str]:
    """The (height, width) to resize images to, and a comment."""
    if not summary.sizes:
        raise DataError(
            f"{summary.path}: expected images, found only files that can't be read as such, such "
            f"as {summary.unreadable[0]!r}; replace them"
        )
    first = next(iter(summary.sizes))
    if len(summary.sizes) == 1 and min(first) >= _SMALLEST and max(first) <= _KEPT:
        return first, _UNCHANGED
    shorter = np.repeat([min(size) for size in summary.sizes], list(summary.sizes.values()))
    side = _STEP * round(float(np.median(shorter)) / _STEP)
    side = min(max(side, _STEP), _LARGEST)
    comment = "height and width that images are resized to"
    return (side, side), comment if summary.sizes.keys() != {(side, side)} else _UNCHANGED


def _schedule(count: int, base: Schedules) -> tuple[int, int, int]:
    """The batch size, and the epochs of teacher and student, for a number of training images."""
    batch = base.student.batch_size
    while batch > 16 and count // batch < 30:
        batch //= 2
    steps = max(1, count // batch)
    epochs = min(max(math.ceil(_STEPS / steps), base.student.epochs), 3 * base.student.epochs)
    return batch, round(epochs * base.teacher.epochs / base.student.epochs), epochs


def _figures(model: str | None, size: tuple[int, int], summary: ImageSummary) -> str:
    channels = 1 if summary.gray == summary.sizes.total() else 3
    parameters, macs = ARCHITECTURES[str(model)].size((*size, channels), len(summary.classes))
    return f"{parameters:,} parameters, {thousands(macs)} MACs; see tutelage models"
