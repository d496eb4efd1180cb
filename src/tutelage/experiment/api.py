"""The Python API for complete runs."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import keras
import numpy as np

from tutelage import recipe as recipes
from tutelage.data.datasets import Dataset
from tutelage.errors import RecipeError
from tutelage.experiment import given_data, runner
from tutelage.experiment.prepare import prepare
from tutelage.models import loading
from tutelage.models.source import Source
from tutelage.progress import Progress
from tutelage.recipe import Recipe
from tutelage.runs import compare as comparison
from tutelage.runs import run_reader

Arrays: TypeAlias = tuple[np.ndarray, np.ndarray] | tuple[tuple[np.ndarray, np.ndarray], ...]
Loaders: TypeAlias = tuple[Iterable[Any] | Arrays, Iterable[Any] | Arrays, Iterable[Any] | Arrays]
Data: TypeAlias = str | os.PathLike[str] | Dataset | Arrays | Loaders


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
            Or `(training, validation, test)`, each arrays `(images, labels)` or a loader of
            batches: a `keras.utils.PyDataset`, a `tf.data.Dataset`, a grain dataset or
            `DataLoader`, or a `torch.utils.data.DataLoader`. With a training loader, an epoch is
            one pass over it; augmentation and batch size are the loader's, and settings of them
            are refused; the teacher is asked in each step. Student and baseline see the same
            images, and a resumed run has the weights of an undisturbed one, only if a pass with
            the same random seeds gives the same batches. `docs/data.md` says more.
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
    settings = dict(settings or {})
    loaded, content = recipes.load(recipe, named | settings), None
    if given_data.has_training_loader(data):
        _refuse_with_loader(teacher, unlabeled)
        unused = recipes.replaced_by_loader(loaded)
        loaded = recipes.load(recipe, named | settings | recipes.loader_overrides(settings))
        content = given_data.dataset(data, seed=loaded.seed, unused=unused, progress=progress)
        assert content.stream is not None
        loaded = recipes.with_batch_size(loaded, content.stream.largest)
    elif not recipes.is_path(data):
        _refuse_second_split(data, settings)
        content = given_data.dataset(data, seed=loaded.seed, progress=progress)
    experiment = prepare(
        loaded,
        data=content,
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


def _refuse_with_loader(teacher: Any, unlabeled: Any) -> None:
    """Raise RecipeError for what needs the training images one by one."""
    if unlabeled is not None:
        raise RecipeError(
            "unlabeled: expected none with a loader of training images, as each has its teacher's "
            "logits computed with its batch; leave it out, or give arrays or a folder as data"
        )
    for one in teacher if isinstance(teacher, list | tuple) else [teacher]:
        if isinstance(one, str | os.PathLike) and Path(one).suffix == ".npy":
            raise RecipeError(
                f"teacher: expected a model with a loader of training images, found {one}, the "
                "logits of images in a known order; give a model, or arrays or a folder as data"
            )


def _refuse_second_split(data: Any, settings: Mapping[str, object]) -> None:
    """Raise RecipeError for settings of a split that the data already has."""
    for key in ("data.validation", "data.split_seed"):
        if isinstance(data, tuple | list) and len(data) == 3 and key in settings:
            raise RecipeError(
                f"{key}: expected no such setting with (training, validation, test), found "
                f"{settings[key]!r}; leave it out, or give training images without validation data"
            )


def _outcome(results: dict[str, Any], folder: Path) -> Outcome:
    with (folder / "history.csv").open(newline="", encoding="utf-8") as file:
        history = [
            {name: _number(value) for name, value in row.items() if value}
            for row in csv.DictReader(file)
        ]
    return Outcome(loading.load_model(folder / "student.keras"), results, history, folder)


def _number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text
