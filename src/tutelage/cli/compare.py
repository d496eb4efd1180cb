"""`tutelage compare`: was the teacher worth it?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tutelage.cli.options import Json
from tutelage.cli.output import show_comparison


def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Runs' folders, or folders of runs.")
    ],
    as_json: Json = False,
) -> None:
    """Compare runs: what the teacher was worth over seeds, and one recipe with another.

    Mean and standard deviation over seeds, paired differences with their 95 % interval,
    McNemar's test on the test images, and whether the teacher was worth it in one sentence.
    """
    from tutelage.runs import compare, run_reader

    found = [run_reader.read(folder) for folder in run_reader.find(runs)]
    show_comparison(compare.compare(found), as_json)
