"""`tutelage init`: a recipe for one's own images."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from tutelage.formatting import printable


def init(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", help="Folder or archive of images: train/<class>/, or <class>/."
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Recipe to write.")] = Path(
        "recipe.toml"
    ),
) -> None:
    """Look at your images and write a commented recipe for them.

    Reads the headers of the files, not their pixels, and prints what is there: images per part,
    classes, sizes. An existing file is not overwritten.
    """
    from tutelage.cli.console import ConsoleProgress, summary_table
    from tutelage.data.summary import summarize
    from tutelage.experiment import template

    template.check_target(out)
    with ConsoleProgress() as progress:
        summary = summarize(folder, progress)
        template.write(out, summary)
    from rich.console import Console

    Console(highlight=False).print(summary_table(summary.rows(), printable(str(folder))))
    for note in summary.notes:
        print(f"Note: {printable(note)}")
    print(
        f"Recipe: {printable(str(out))}, to adapt; train with: tutelage run {shlex.quote(str(out))}"
    )
