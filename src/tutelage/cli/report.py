"""`tutelage report`: runs as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tutelage.cli.output import fail


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Folders of runs or sweeps, or folders of those."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="The page.  [default: report.html, in the run's folder if there is one run]"
        ),
    ] = None,
) -> None:
    """Write a page that shows what the teacher was worth: one HTML file that needs no network.

    Tables, training curves, mistakes, calibration, pictures and what a sweep has found. The charts
    also come as PNG and SVG, in a folder beside the page. What an unfinished or damaged run
    lacks is said.
    """
    from tutelage.report import html

    written = html.write(runs, out)
    if written.missing:
        fail(f"not all could be read: {'; '.join(written.missing)}")
    print(f"Page: {written.path}, its charts in {written.figures}")
