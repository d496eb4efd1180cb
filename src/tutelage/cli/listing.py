"""`tutelage models` and `losses`: what a recipe can name."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Annotated

import typer

from tutelage.cli.options import Json

if TYPE_CHECKING:
    from tutelage.models.architectures import Shape


def models(
    pattern: Annotated[
        str, typer.Argument(metavar="PATTERN", help="Names, with wildcards: 'student*'.")
    ] = "*",
    size: Annotated[
        str, typer.Option(metavar="H,W[,C]", help="Height, width and channels of the images.")
    ] = "32,32,3",
    classes: Annotated[int, typer.Option(min=2, help="Number of classes.")] = 10,
    as_json: Json = False,
) -> None:
    """List the models that can be named, with their parameters and MACs.

    For teacher.model and student.model in a recipe, and for --teacher and --student of distill. A
    model of your own is package.module:function: see docs/concepts.md.
    """
    from tutelage.models import architectures
    from tutelage.recipe import MODELS, suggestions

    shape, names = _shape(size), suggestions.matching(pattern, MODELS, "model")
    rows = architectures.table(names, shape=shape, classes=classes)
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    from rich.console import Console

    from tutelage.cli.console import models_table

    title = f"Models for images of {'x'.join(map(str, shape))} and {classes:,} classes"
    Console(highlight=False).print(models_table(rows, title))


def losses(
    pattern: Annotated[
        str, typer.Argument(metavar="PATTERN", help="Names, with wildcards: '*kd'.")
    ] = "*",
    as_json: Json = False,
) -> None:
    """List the distillation losses that can be named, with their settings and sources.

    For loss.name in a recipe, and for --method of sweep. Each loss also has the settings ramp and
    warmup; a layer that is not named is chosen automatically. A loss of your own is
    package.module:name: see docs/concepts.md.
    """
    from tutelage.recipe import LOSSES, suggestions

    names = suggestions.matching(pattern, LOSSES, "loss")
    from tutelage.losses import catalog  # takes seconds

    rows = catalog.table(names)
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    from rich.console import Console

    from tutelage.cli.console import losses_table

    Console(highlight=False).print(losses_table(rows))


def _shape(text: str) -> Shape:
    """Read the value of `--size`."""
    from tutelage.errors import RecipeError

    match = re.fullmatch(r"\s*(\d+)\s*,\s*(\d+)\s*(?:,\s*(\d+)\s*)?", text)
    if match is None or not all(0 < int(side) <= 4096 for side in match.groups("3")):
        raise RecipeError(
            "--size: expected height, width and, unless 3, channels, each from 1 to 4096, such as "
            f"32,32,3, found {text!r}"
        )
    height, width, channels = map(int, match.groups("3"))
    return height, width, channels
