"""`tutelage run` and `tutelage distill`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cli.options import (
    Alpha,
    DataPath,
    DryRun,
    Epochs,
    Json,
    Out,
    Place,
    RecipeName,
    Seed,
    Seeds,
    Settings,
    Teachers,
    Temperature,
    TensorBoard,
    one_or_all,
    overrides,
)
from tutelage.cli.output import resumable, show, show_comparison

if TYPE_CHECKING:
    from tutelage.data.datasets import Dataset
    from tutelage.recipe import Recipe


def run(
    source: RecipeName,
    data: Place = None,
    out: Out = None,
    seed: Seed = None,
    seeds: Seeds = 1,
    alpha: Alpha = None,
    temperature: Temperature = None,
    epochs: Epochs = None,
    teacher: Teachers = None,
    settings: Settings = None,
    tensorboard: TensorBoard = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Train a teacher, the student without it and with it, and compare the three.

    Give the same command again to go on after an interruption; a finished run
    prints its table.
    """
    from tutelage import recipe as recipes

    given = overrides(settings, data, teacher) | _given(seed, alpha, temperature, epochs)
    _go(recipes.load(source, given), seeds, out, tensorboard, dry_run, as_json)


def distill(
    teacher: Annotated[
        list[str],
        typer.Option(
            help="A .keras, .onnx or .npy file, a run folder, package.module:function, or the "
            "name of a model to train; again for an ensemble."
        ),
    ],
    data: DataPath,
    student: Annotated[
        str,
        typer.Option(help="A .keras file, package.module:function, or a model's name."),
    ] = "student-300k",
    unlabeled: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER", help="Further pictures, learned from by the teacher's answers alone."
        ),
    ] = None,
    source: Annotated[
        str, typer.Option("--recipe", help="All else: a bundled recipe or a .toml file.")
    ] = "distill",
    out: Out = None,
    seed: Seed = None,
    seeds: Seeds = 1,
    alpha: Alpha = None,
    temperature: Temperature = None,
    epochs: Epochs = None,
    settings: Settings = None,
    tensorboard: TensorBoard = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Distil a teacher of your own into a student, on your own images.

    The same student is trained without the teacher too, and the three are compared. How a
    model takes its images is told by --set teacher.size=[64,64], teacher.scale=255 and so on.
    """
    from tutelage import recipe as recipes

    taught = one_or_all(teacher)
    given = recipes.overrides(teacher=taught, student=student, data=data, unlabeled=unlabeled)
    given |= overrides(settings, None, None) | _given(seed, alpha, temperature, epochs)
    _go(recipes.load(source, given), seeds, out, tensorboard, dry_run, as_json)


def _given(seed: Seed, alpha: Alpha, temperature: Temperature, epochs: Epochs) -> dict[str, Any]:
    """What was given of the options that stand for keys of a recipe."""
    options = {
        "seed": seed,
        "loss.alpha": alpha,
        "loss.temperature": temperature,
        "schedule.teacher.epochs": epochs,
        "schedule.student.epochs": epochs,
    }
    return {key: value for key, value in options.items() if value is not None}


def _go(
    recipe: Recipe, seeds: int, out: Path | None, tensorboard: bool, dry_run: bool, as_json: bool
) -> None:
    """Run a recipe with each seed, or show what that would be."""
    from tutelage import recipe as recipes
    from tutelage.experiment import runner
    from tutelage.runs import compare, run_reader

    each = recipes.with_seeds(recipe, seeds)
    if dry_run:
        _show_plan(runner.plan(recipe), recipes.to_toml(recipe), as_json)
        if seeds > 1 and not as_json:
            print(f"and as much for each of the {seeds} seeds")
        return
    if seeds == 1:
        results, folder, _ = _run(recipe, out, tensorboard)
        if as_json:
            print(json.dumps(results, indent=1))
        else:
            show(results["models"], f"{recipe.name} on {results['data']['name']}")
            print(results["verdict"])
            print(f"Files: {folder} (report.md, student.keras, results.json)")
            print(f"As a page with charts: tutelage report {shlex.quote(str(folder))}")
        return
    folders, data = [], None
    for own in each:
        place = None if out is None else out / f"seed-{own.seed}"
        _, folder, data = _run(own, place, tensorboard, data)
        folders.append(folder)
    told = compare.compare([run_reader.read(folder) for folder in folders])
    show_comparison(told, as_json)


def _run(
    recipe: Recipe, out: Path | None, tensorboard: bool, data: Dataset | None = None
) -> tuple[dict[str, Any], Path, Dataset]:
    """A recipe's results, with progress on standard error, their folder and the data."""
    from tutelage.cli.console import ConsoleProgress
    from tutelage.experiment import runner
    from tutelage.experiment.prepare import prepare

    progress = ConsoleProgress()
    folder = out or runner.default_folder(recipe)
    with resumable(progress, folder):
        with progress.console.status("reading the data"):  # seen on a terminal alone
            experiment = prepare(recipe, data=data)
        progress.note(
            f"{recipe.name} on {experiment.data.name}, {experiment.precision}, in {folder}"
        )
        return (
            runner.run(experiment, folder, progress, tensorboard=tensorboard),
            folder,
            experiment.data,
        )


def _show_plan(plan: dict[str, Any], toml: str, as_json: bool) -> None:
    if as_json:
        print(json.dumps(plan, indent=1))
        return
    from tutelage.formatting import duration

    print(toml)
    for name, model in plan["models"].items():
        if "taken from" in model:
            print(f"{name}: taken from {model['taken from']}")
            continue
        macs = f"{model['macs']:,} MACs, " if "macs" in model else ""
        took = duration(model["seconds"])
        print(f"{name}: {model['parameters']:,} parameters, {macs}about {took}")
    print(
        f"about {duration(plan['seconds'])} on this machine in {plan['precision']}"
        f"{'' if plan['data']['found'] else '; the data is not here yet'}"
    )
