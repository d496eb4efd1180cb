"""The Python API for complete runs."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import keras
import numpy as np

from tutelage import recipe as recipes
from tutelage.data import splitting
from tutelage.data.content import (
    check_classes,
    checked_content,
    checked_part,
    class_name,
    fingerprint,
)
from tutelage.data.datasets import Dataset
from tutelage.data.image_files import ImageFiles
from tutelage.errors import DataError, RecipeError
from tutelage.experiment import runner
from tutelage.experiment.prepare import prepare
from tutelage.formatting import printable
from tutelage.models import class_names, loading
from tutelage.models.source import Source
from tutelage.progress import Progress
from tutelage.recipe import Recipe
from tutelage.runs import compare as comparison
from tutelage.runs import run_reader

Arrays: TypeAlias = tuple[np.ndarray, np.ndarray] | tuple[tuple[np.ndarray, np.ndarray], ...]
Data: TypeAlias = str | os.PathLike[str] | Dataset | Arrays


@dataclass(frozen=True, eq=False, repr=False)
class Outcome:
    """The outcome of a run.

    Attributes:
        student: the trained student, from uint8 images to logits.
        results: the contents of `results.json`: metrics of the three models on the test set.
        history: one row per epoch of each stage.
        folder: the run's folder, with `student.keras` and `report.md`.
    """

    student: keras.Model
    results: dict[str, Any]
    history: list[dict[str, Any]]
    folder: Path

    def __repr__(self) -> str:
        models = self.results["models"].items()
        accuracies = ", ".join(f"{name} {100 * m['accuracy']:.2f} %" for name, m in models)
        return f"<Outcome in {self.folder}: {accuracies}. {self.results['verdict']}>"


def run(
    recipe: str | os.PathLike[str] | Recipe,
    *,
    settings: Mapping[str, object] | None = None,
    out: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    tensorboard: bool = False,
) -> Outcome:
    """Run a recipe: train teacher, baseline and student, and compare them on the test set.

    Called again, it continues an interrupted run or returns the finished one.

    Args:
        recipe: the name of a bundled recipe, a TOML file, or a `Recipe`.
        settings: values by dotted key, such as `{"loss.alpha": 0.5}`, that override the recipe's.
        out: the run's folder; default: `runs/RECIPE-HASH`.
        progress: notified of each stage and epoch.
        tensorboard: adds `tensorboard` to the recipe's `track`.

    Returns:
        The student, its metrics and its history.

    Raises:
        TutelageError: says what was expected, what was found and what to do.

    Example:

    >>> import tempfile
    >>> import tutelage
    >>> short = {"schedule.teacher.epochs": 1, "schedule.student.epochs": 1}
    >>> outcome = tutelage.run("digits", settings=short, out=tempfile.mkdtemp())
    >>> outcome.student.output_shape
    (None, 10)
    """
    if isinstance(recipe, Recipe):
        if settings:
            raise RecipeError("settings: expected with a recipe's name or file, found a Recipe")
    else:
        recipe = recipes.load(recipe, settings)
    folder = Path(out) if out is not None else runner.default_folder(recipe)
    experiment = prepare(recipe, progress=progress)
    return _outcome(runner.run(experiment, folder, progress, tensorboard=tensorboard), folder)


def compare(
    runs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
) -> dict[str, Any]:
    """Compare finished runs: seeds of one recipe, and different recipes with each other.

    Args:
        runs: run folders, or folders of runs.

    Returns:
        As `tutelage.runs.compare.compare`: `data`, `test`, and `groups`, one per recipe.

    Raises:
        RunError: a run isn't finished, or the runs use different data.
    """
    paths = [runs] if isinstance(runs, str | os.PathLike) else runs
    folders = run_reader.find([Path(path) for path in paths])
    return comparison.compare([run_reader.read(folder) for folder in folders])


def distill(
    *,
    teacher: Source | Sequence[Source],
    student: Source = "student-300k",
    data: Data,
    unlabeled: str | os.PathLike[str] | np.ndarray | None = None,
    train_teacher: bool = False,
    recipe: str | os.PathLike[str] = "distill",
    settings: Mapping[str, object] | None = None,
    out: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    tensorboard: bool = False,
) -> Outcome:
    """Distill a teacher into a student, train the same student alone, and compare the three.

    Called again, it continues an interrupted run or returns the finished one.

    Args:
        teacher: a trained teacher: a Keras model, a PyTorch module, a `.keras`, `.onnx` or `.npy`
            file, a run folder, or `package.module:function`, which returns a model; or a list,
            for an ensemble. Or the name of one of `recipe.MODELS`, which the run trains.
        student: a Keras model, which is copied, a `.keras` file, `package.module:function`, or the
            name of one of `recipe.MODELS`.
        data: a data set's name, a folder or archive of images, a `Dataset`, or arrays:
            `(images, labels)` or `((images, labels), (test images, test labels))`, images uint8
            of shape (n, height, width, channels) and labels integers of shape (n,) or (n, 1).
        unlabeled: additional images on which the student learns from the teacher alone: a folder,
            or uint8 of shape (n, height, width, channels). Sets alpha to 1.
        train_teacher: whether `teacher` is not trained yet: a Keras model, which is copied, or
            `package.module:function`, which the run trains as `schedule.teacher` says.
        recipe: the name of a bundled recipe, or a TOML file.
        settings: values by dotted key, such as `{"loss.alpha": 0.5, "teacher.scale": 255}`.
        out: the run's folder; default: `runs/RECIPE-HASH`, a hash of everything it depends on.
        progress: notified of each stage and epoch.
        tensorboard: adds `tensorboard` to the recipe's `track`.

    Returns:
        The student, its metrics and its history.

    Raises:
        TutelageError: says what was expected, what was found and what to do.

    Example:

    >>> import tempfile
    >>> import keras
    >>> import tutelage
    >>> net = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Rescaling(1 / 16)])
    >>> net.add(keras.layers.Flatten())
    >>> net.add(keras.layers.Dense(10))
    >>> outcome = tutelage.distill(
    ...     teacher="digits-teacher", student=net, data="digits", recipe="digits",
    ...     settings={"schedule.teacher.epochs": 1, "schedule.student.epochs": 1},
    ...     out=tempfile.mkdtemp(),
    ... )
    >>> sorted(outcome.results["models"])
    ['baseline', 'student', 'teacher']
    """
    named = recipes.overrides(
        teacher=teacher,
        student=student,
        data=data,
        unlabeled=unlabeled,
        train_teacher=train_teacher,
    )
    loaded = recipes.load(recipe, named | dict(settings or {}))
    experiment = prepare(
        loaded,
        data=None if recipes.is_path(data) else _dataset(data),
        teacher=None if recipes.is_path(teacher) else teacher,
        student=None if recipes.is_path(student) else student,
        unlabeled=unlabeled if isinstance(unlabeled, np.ndarray) else None,
        train_teacher=train_teacher,
        progress=progress,
    )
    folder = (
        Path(out) if out is not None else Path("runs") / f"{loaded.name}-{experiment.key()[:8]}"
    )
    results = runner.run(experiment, folder, progress, tensorboard=tensorboard)
    return _outcome(results, folder)


def _outcome(results: dict[str, Any], folder: Path) -> Outcome:
    with (folder / "history.csv").open(newline="", encoding="utf-8") as file:
        history = [
            {name: _number(value) for name, value in row.items() if value}
            for row in csv.DictReader(file)
        ]
    return Outcome(loading.load_model(folder / "student.keras"), results, history, folder)


def _dataset(data: Any) -> Dataset:
    if isinstance(data, Dataset):
        in_files = isinstance(data.train.images, ImageFiles)  # checked when they were indexed
        return data if in_files else _checked(data)
    pairs = data if isinstance(data, tuple | list) else ()
    if len(pairs) == 2 and not isinstance(pairs[0], tuple | list):
        pairs = (pairs,)
    if len(pairs) not in (1, 2) or any(len(pair) != 2 for pair in pairs):
        raise DataError(
            "data: expected (images, labels) or ((images, labels), (test images, test labels)), "
            f"found {type(data).__name__}; or give a folder"
        )
    names = ("training data", "test data")
    train, *rest = (
        checked_part(np.asarray(images), np.asarray(labels), name)
        for name, (images, labels) in zip(names, pairs, strict=False)
    )
    test = rest[0] if rest else None
    count = max(int(part.labels.max()) for part in (train, *rest)) + 1
    content = checked_content("data", class_names.numbered(count), train, test)
    if test is None:
        train, test = splitting.split(train, splitting.TEST_FRACTION, splitting.TEST_SEED)
    return Dataset("arrays", content.classes, train, test, content.fingerprint, "memory")


def _checked(data: Dataset) -> Dataset:
    """A data set made in Python, by the rules of files."""
    train, test = (
        checked_part(np.asarray(part.images), np.asarray(part.labels), f"{data.name}: {name}")
        for name, part in (("training images", data.train), ("test images", data.test))
    )
    classes = tuple(map(class_name, data.classes))
    check_classes(data.name, classes, train, test)
    if not 0 <= data.held_out < len(train):
        raise DataError(
            f"{data.name}: expected held_out, the number of the last training images that are for "
            f"validation, from 0 to {len(train) - 1}, found {data.held_out}; change it"
        )
    if data.held_out:
        check_classes(data.name, classes, *splitting.at(train, len(train) - data.held_out))
    notes = tuple(
        f"class {name!r} is called {new}, as its name can't be printed"
        for name, new in zip(data.classes, classes, strict=True)
        if printable(str(name)) != name
    )
    return replace(
        data,
        classes=classes,
        train=train,
        test=test,
        fingerprint=data.fingerprint or fingerprint(classes, train, test),
        notes=data.notes + notes,
    )


def _number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text
