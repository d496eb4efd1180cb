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
RecipeName = Annotated[
    str,
    typer.Argument(metavar="RECIPE", help="digits, cifar10, distill, or the path of a .toml file."),
]
Place = Annotated[str | None, typer.Option(help="Where the data is: an archive or a folder.")]
Teachers = Annotated[
    list[str] | None,
    typer.Option(
        metavar="RUN|FILE",
        help="A trained teacher: a run's folder, a .keras or .onnx file; several: an ensemble.",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show the recipe, the models and the time; no more.")
]
TensorBoard = Annotated[
    bool, typer.Option("--tensorboard", help="Write event files too: tensorboard --logdir RUN.")
]


def overrides(settings: Settings, data: Place, teacher: Teachers) -> dict[str, object]:
    """What options say of a recipe, by dotted key.

    Args:
        settings: texts of the form `section.key=value`.
        data: where the data is.
        teacher: one or several.

    Returns:
        Values, as `recipe.load` takes them.
    """
    from tutelage import recipe as recipes

    found = dict(recipes.parse_setting(text) for text in settings or [])
    found |= {} if data is None else {"data.path": data}
    found |= {} if not teacher else {"teacher.file": one_or_all(teacher)}
    return found


def one_or_all(teachers: list[str]) -> str | list[str]:
    """A teacher as a recipe names it: several are a list."""
    return teachers[0] if len(teachers) == 1 else teachers
