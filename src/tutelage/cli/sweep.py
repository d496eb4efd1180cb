"""`tutelage sweep`: which alpha, which temperature?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from tutelage.cli.options import Json, Place, RecipeName, Seed, Settings, Teachers, overrides
from tutelage.cli.output import resumable


def sweep(
    source: RecipeName,
    alpha: Annotated[
        str | None,
        typer.Option(
            metavar="VALUES", help="0:1:0.1 (a range), 0.5,0.9 (a list), or 0.9. 0: the baseline."
        ),
    ] = None,
    temperature: Annotated[str | None, typer.Option(metavar="VALUES", help="Likewise.")] = None,
    method: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Losses, such as kd,dkd.")
    ] = None,
    seeds: Annotated[
        int, typer.Option(metavar="N", help="How many seeds of each setting, from --seed on.")
    ] = 1,
    search: Annotated[
        Literal["grid", "random", "guided"],
        typer.Option(
            help="grid: all combinations; random: drawn; guided: drawn by what was found so far. "
            "Where values are drawn, 0:1 is everything between."
        ),
    ] = "grid",
    trials: Annotated[
        int | None, typer.Option(metavar="N", help="How many settings are drawn.")
    ] = None,
    prune: Annotated[
        bool,
        typer.Option("--prune", help="Stop students early that are behind the others' median."),
    ] = False,
    workers: Annotated[
        int, typer.Option(metavar="N", help="How many processes train students here.")
    ] = 1,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="For several machines: postgresql://USER@HOST/DATABASE, and the same command on "
            "each.  [default: a file in the folder]",
        ),
    ] = None,
    data: Place = None,
    teacher: Teachers = None,
    seed: Seed = None,
    settings: Settings = None,
    out: Annotated[
        Path | None, typer.Option(help="The sweep's folder.  [default: runs/RECIPE-sweep-HASH]")
    ] = None,
    as_json: Json = False,
) -> None:
    """Try alphas, temperatures and methods with one teacher, on the validation images.

    The best setting is trained anew on training and validation images, and tested once. Give
    the same command again to go on after an interruption; a finished sweep prints its answer.
    """
    from tutelage import recipe as recipes
    from tutelage.sweeps import search_space

    given = overrides(settings, data, teacher) | ({} if seed is None else {"seed": seed})
    recipe = recipes.load(source, given)
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

    from tutelage.cli.console import ConsoleProgress, table
    from tutelage.cli.console import settings as drawn
    from tutelage.experiment.prepare import prepare
    from tutelage.sweeps import runner as sweeps

    progress, folder = ConsoleProgress(), out or sweeps.default_folder(recipe, plan)
    with resumable(progress, folder):
        with progress.console.status("reading the data"):  # seen on a terminal alone
            experiment = prepare(recipe)
        progress.note(
            f"{recipe.name} on {experiment.data.name}, {experiment.precision}: "
            f"{plan.students(recipe)} students, in {folder}"
        )
        told = sweeps.run(
            experiment, plan, folder, workers=workers, storage_url=storage, progress=progress
        )
    if as_json:
        print(json.dumps(told, indent=1))
        return
    from rich.console import Console

    console, name = Console(highlight=False), f"{recipe.name} on {experiment.data.name}"
    for one in drawn(told["found"], plan.search, name):
        console.print(one)
    console.print(table(told["best"]["models"], f"{name}, the best setting, test part"))
    for line in told["said"]:
        print(line)
    print(f"Files: {folder} (sweep.json, trials.csv, trials/, best/)")
