"""`tutelage report`: an HTML report of runs and sweeps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tutelage.cli.output import fail


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...", help="Run or sweep folders, or folders that contain them."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Output file.  [default: report.html, in the run folder if there is one run]"
        ),
    ] = None,
) -> None:
    """Write an HTML report of runs and sweeps: one file that needs no network.

    It contains result tables, training curves, confusion matrices, calibration, example images
    and sweep results. Charts are also saved as PNG and SVG in a folder next to it. Missing or
    damaged parts of a run are listed.
    """
    from tutelage.report import html

    written = html.write(runs, out)
    if written.missing:
        fail(f"could not read all files: {'; '.join(written.missing)}")
    print(f"Report: {written.path}, charts: {written.figures}")
