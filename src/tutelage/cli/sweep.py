"""`tutelage sweep`: a search over alpha, temperature and method."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from tutelage.cli.options import (
    Json,
    Place,
    RecipeName,
    Seed,
    Settings,
    Teachers,
    Threads,
    overrides,
    use_threads,
)
from tutelage.cli.output import resumable


def sweep(
    source: RecipeName,
    alpha: Annotated[
        str | None,
        typer.Option(
            metavar="VALUES", help="Range 0:1:0.1, list 0.5,0.9, or one value. 0 is the baseline."
        ),
    ] = None,
    temperature: Annotated[
        str | None, typer.Option(metavar="VALUES", help="Range, list or value, like --alpha.")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="List of losses, see tutelage losses: kd,dkd."),
    ] = None,
    seeds: Annotated[
        int, typer.Option(metavar="N", help="Seeds per setting, consecutive from --seed.")
    ] = 1,
    search: Annotated[
        Literal["grid", "random", "guided"],
        typer.Option(
            help="grid: all combinations; random: random settings; guided: Optuna's TPE. For "
            "random and guided, 0:1 is a continuous range."
        ),
    ] = "grid",
    trials: Annotated[
        int | None, typer.Option(metavar="N", help="Number of settings for random and guided.")
    ] = None,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune", help="Stop students early that are below the median of the others."
        ),
    ] = False,
    workers: Annotated[
        int, typer.Option(metavar="N", help="Processes that train students on this machine.")
    ] = 1,
    threads: Threads = None,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="To share a sweep between machines: postgresql://USER@HOST/DATABASE, with the "
            "same command on each.  [default: a file in the folder]",
        ),
    ] = None,
    data: Place = None,
    teacher: Teachers = None,
    seed: Seed = None,
    settings: Settings = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the sweep.  [default: runs/RECIPE-sweep-HASH]")
    ] = None,
    as_json: Json = False,
) -> None:
    """Search alpha, temperature and method with one teacher, scored on the validation images.

    Retrains the best setting on training and validation images and tests it once. Run the same
    command again to resume after an interruption; a finished sweep prints its results.
    """
    from tutelage import recipe as recipes
    from tutelage.sweeps import search_space

    values = overrides(settings, data, teacher) | ({} if seed is None else {"seed": seed})
    recipe = recipes.load(source, values)
    plan = search_space.plan(
        recipe,
        alpha=alpha,
        temperature=temperature,
        method=method,
        seeds=seeds,
        search=search,
        trials=trials,
        prune=prune,
    )

    use_threads(threads)
    from tutelage.cli.console import ConsoleProgress, table
    from tutelage.cli.console import settings as setting_tables
    from tutelage.experiment.prepare import prepare
    from tutelage.sweeps import runner as sweeps

    folder = out or sweeps.default_folder(recipe, plan)
    with ConsoleProgress() as progress, resumable(progress, folder):
        experiment = prepare(recipe, progress=progress)
        progress.note(
            f"{recipe.name} on {experiment.data.name}, {experiment.precision}: "
            f"{plan.students(recipe)} students, in {folder}"
        )
        result = sweeps.run(
            experiment, plan, folder, workers=workers, storage_url=storage, progress=progress
        )
    if as_json:
        print(json.dumps(result, indent=1))
        return
    from rich.console import Console

    console, name = Console(highlight=False), f"{recipe.name} on {experiment.data.name}"
    for one in setting_tables(result["found"], plan.search, name):
        console.print(one)
    console.print(table(result["best"]["models"], f"{name}: best setting, test set"))
    for line in result["said"]:
        print(line)
    print(f"Files: {folder} (sweep.json, trials.csv, trials/, best/)")
