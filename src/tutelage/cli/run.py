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
    Labels,
    Out,
    Place,
    RecipeName,
    Seed,
    Seeds,
    Settings,
    SkipDamaged,
    Teachers,
    Temperature,
    TensorBoard,
    Threads,
    one_or_all,
    overrides,
    use_threads,
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
    threads: Threads = None,
    teacher: Teachers = None,
    settings: Settings = None,
    labels: Labels = None,
    skip_damaged: SkipDamaged = False,
    tensorboard: TensorBoard = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Train a teacher, a baseline without it and a distilled student, and compare them.

    Run the same command again to resume after an interruption; a finished run prints its
    results.
    """
    from tutelage import recipe as recipes

    values = _with_labels(labels) | overrides(settings, data, teacher)
    values |= _shortcuts(seed, alpha, temperature, epochs, skip_damaged)
    use_threads(threads)
    _execute(recipes.load(source, values), seeds, out, tensorboard, dry_run, as_json)


def distill(
    teacher: Annotated[
        list[str],
        typer.Option(
            help="Trained teacher: .keras, .onnx or .npy (logits) file, run folder, or "
            "package.module:function; repeat for an ensemble. Or the name of a model to train."
        ),
    ],
    data: DataPath,
    student: Annotated[
        str,
        typer.Option(help=".keras file, package.module:function, or name of a model."),
    ] = "student-300k",
    unlabeled: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER", help="Unlabeled images, used with the teacher's soft targets only."
        ),
    ] = None,
    train_teacher: Annotated[
        bool,
        typer.Option(
            "--train-teacher",
            help="Train the network that package.module:function of --teacher returns.",
        ),
    ] = False,
    source: Annotated[
        str,
        typer.Option("--recipe", help="Recipe for all other settings: bundled or a .toml file."),
    ] = "distill",
    out: Out = None,
    seed: Seed = None,
    seeds: Seeds = 1,
    alpha: Alpha = None,
    temperature: Temperature = None,
    epochs: Epochs = None,
    threads: Threads = None,
    settings: Settings = None,
    labels: Labels = None,
    skip_damaged: SkipDamaged = False,
    tensorboard: TensorBoard = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Distill your own teacher into a student, on your own images.

    Also trains the same student without the teacher and compares the three. Set a model's
    preprocessing with --set teacher.size=[64,64], --set teacher.scale=255 and so on.
    """
    from tutelage import recipe as recipes

    values = recipes.overrides(
        teacher=one_or_all(teacher),
        student=student,
        data=data,
        unlabeled=unlabeled,
        train_teacher=train_teacher,
    )
    values |= _with_labels(labels) | overrides(settings, None, None)
    values |= _shortcuts(seed, alpha, temperature, epochs, skip_damaged)
    use_threads(threads)
    _execute(recipes.load(source, values), seeds, out, tensorboard, dry_run, as_json)


def _with_labels(fraction: Labels) -> dict[str, Any]:
    """Recipe overrides of `--labels`."""
    return {} if fraction is None else {"data.labels": fraction, "loss.alpha": 1.0}


def _shortcuts(
    seed: Seed,
    alpha: Alpha,
    temperature: Temperature,
    epochs: Epochs,
    skip_damaged: SkipDamaged,
) -> dict[str, Any]:
    """Recipe overrides of the options with their own names."""
    options = {
        "seed": seed,
        "loss.alpha": alpha,
        "loss.temperature": temperature,
        "schedule.teacher.epochs": epochs,
        "schedule.student.epochs": epochs,
        "data.skip_damaged": skip_damaged or None,
    }
    return {key: value for key, value in options.items() if value is not None}


def _execute(
    recipe: Recipe, seeds: int, out: Path | None, tensorboard: bool, dry_run: bool, as_json: bool
) -> None:
    """Run a recipe with each seed, or print the plan."""
    from tutelage import recipe as recipes
    from tutelage.runs import compare, run_reader

    each = recipes.with_seeds(recipe, seeds)
    if dry_run:
        from tutelage.experiment import runner

        _show_plan(runner.plan(recipe), recipes.to_toml(recipe), as_json)
        if seeds > 1 and not as_json:
            print(f"for each of {seeds} seeds")
        return
    if seeds == 1:
        results, folder, _ = _run(recipe, out, tensorboard)
        if as_json:
            print(json.dumps(results, indent=1))
        else:
            show(results["models"], f"{recipe.name} on {results['data']['name']}")
            print(results["verdict"])
            print(f"Files: {folder} (report.md, student.keras, results.json)")
            print(f"HTML report: tutelage report {shlex.quote(str(folder))}")
        return
    folders, data = [], None
    for seeded in each:
        target = None if out is None else out / f"seed-{seeded.seed}"
        _, folder, data = _run(seeded, target, tensorboard, data)
        folders.append(folder)
    show_comparison(compare.compare([run_reader.read(folder) for folder in folders]), as_json)


def _run(
    recipe: Recipe, out: Path | None, tensorboard: bool, data: Dataset | None = None
) -> tuple[dict[str, Any], Path, Dataset]:
    """Run a recipe with progress on standard error; returns results, folder and data."""
    from tutelage.cli.console import ConsoleProgress

    with ConsoleProgress() as progress:
        from tutelage.experiment import runner  # takes seconds
        from tutelage.experiment.prepare import prepare

        folder = out or runner.default_folder(recipe)
        with resumable(progress, folder):
            experiment = prepare(recipe, data=data, progress=progress)
            data = experiment.data
            progress.note(f"{recipe.name} on {data.name}, {experiment.precision}, in {folder}")
            return runner.run(experiment, folder, progress, tensorboard=tensorboard), folder, data


def _show_plan(plan: dict[str, Any], toml: str, as_json: bool) -> None:
    if as_json:
        print(json.dumps(plan, indent=1))
        return
    from tutelage.formatting import duration

    print(toml)
    for name, model in plan["models"].items():
        if "taken from" in model:
            print(f"{name}: loaded from {model['taken from']}")
            continue
        macs = f"{model['macs']:,} MACs, " if "macs" in model else ""
        time = duration(model["seconds"])
        print(f"{name}: {model['parameters']:,} parameters, {macs}about {time}")
    print(
        f"in total about {duration(plan['seconds'])} on this machine in {plan['precision']}"
        f"{'' if plan['data']['found'] else '; the data set was not found on this machine'}"
    )
