"""`tutelage views`: a picture of augmented images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tutelage.cli.options import Place, RecipeName, Seed, Settings, overrides


def views(
    source: Annotated[str, RecipeName.__metadata__[0]] = "distill",
    data: Place = None,
    role: Annotated[
        str, typer.Option(help="teacher or student: whose cutout and shift are shown.")
    ] = "student",
    rows: Annotated[int, typer.Option(min=1, max=100, help="Number of images.")] = 8,
    columns: Annotated[int, typer.Option(min=1, max=100, help="Views of each image.")] = 8,
    seed: Seed = None,
    settings: Settings = None,
    out: Annotated[Path, typer.Option(help="Output file, .png or .jpg.")] = Path("views.png"),
) -> None:
    """Draw training images and their augmented views, as a recipe makes them.

    The first picture of a row is the image as in validation.
    """
    from tutelage import recipe as recipes
    from tutelage.cli.console import ConsoleProgress
    from tutelage.errors import RecipeError
    from tutelage.experiment.prepare import training_views

    if role not in ("teacher", "student"):
        raise RecipeError(f"--role: expected teacher or student, found {role!r}")
    if out.suffix.casefold() not in (".png", ".jpg", ".jpeg"):
        raise RecipeError(f"--out: expected a name that ends in .png or .jpg, found {out}")
    values = overrides(settings, data, None) | ({} if seed is None else {"seed": seed})
    recipe = recipes.load(source, values)
    with ConsoleProgress() as progress:
        augmented, labels, classes = training_views(recipe, role, progress)
        from tutelage import storage
        from tutelage.report import contact_sheet

        sheet = contact_sheet.draw(augmented, labels, classes, rows=rows, columns=columns)
        with storage.replacing(out) as temporary:
            sheet.save(temporary)
    print(f"Views: {out}")
