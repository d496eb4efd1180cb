"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, nothing else.")]
DataPath = Annotated[
    str,
    typer.Option(
        "--data",
        help="The data: an archive, a folder, or the name of a data set (digits, mnist, cifar10).",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(help="The run's folder.  [default: runs/RECIPE-HASH, of the whole recipe]"),
]
Seed = Annotated[int | None, typer.Option(help="Of weights, order and views.")]
Seeds = Annotated[
    int,
    typer.Option(min=1, help="How many seeds, from --seed on, each a run; then they are compared."),
]
Alpha = Annotated[float | None, typer.Option(help="Weight of the distillation loss, 0 to 1.")]
Temperature = Annotated[
    float | None, typer.Option(help="Temperature of the soft targets, above 0.")
]
Epochs = Annotated[int | None, typer.Option(help="Epochs of every stage.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override any key of the recipe."),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show the recipe, the models and the time; no more.")
]
TensorBoard = Annotated[
    bool, typer.Option("--tensorboard", help="Write event files too: tensorboard --logdir RUN.")
]
