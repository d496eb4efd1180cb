"""`tutelage compare`: several runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tutelage.cli.options import Json
from tutelage.cli.output import show_comparison


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Run folders, or folders that contain them."),
    ],
    as_json: Json = False,
) -> None:
    """Compare finished runs: seeds of one recipe, and different recipes.

    Prints means and standard deviations over seeds, paired differences with 95 % confidence
    intervals, McNemar's test on the test images, and whether the teacher helped.
    """
    from tutelage.runs import compare, run_reader

    records = [run_reader.read(folder) for folder in run_reader.find(runs)]
    show_comparison(compare.compare(records), as_json)
