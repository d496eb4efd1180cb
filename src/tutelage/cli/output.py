"""Output shared by the commands: result tables and one-line errors."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typer import Exit

from tutelage.formatting import printable

if TYPE_CHECKING:
    from tutelage.cli.console import ConsoleProgress


def fail(text: str) -> None:
    """Print an error in one line on standard error."""
    print("tutelage: " + printable(" ".join(text.split())), file=sys.stderr)


@contextmanager
def resumable(progress: ConsoleProgress, folder: Path) -> Iterator[None]:
    """On Ctrl-C print how to resume."""
    try:
        yield
    except KeyboardInterrupt:
        progress.close()
        fail(f"interrupted at {progress.where()}; run the same command again to resume in {folder}")
        raise Exit(130) from None


def show(models: dict[str, Any], title: str) -> None:
    """Print a table of results."""
    from rich.console import Console

    from tutelage.cli.console import table

    Console(highlight=False).print(table(models, title))


def show_comparison(comparison: dict[str, Any], as_json: bool) -> None:
    """Print the result of `runs.compare.compare` as JSON or as tables."""
    if as_json:
        print(json.dumps(comparison, indent=1))
        return
    from rich.console import Console

    from tutelage.cli.console import spreads
    from tutelage.formatting import differences, points

    console = Console(highlight=False)
    for line in comparison["mixed"]:
        print(f"warning: {line}")
    for group in comparison["groups"]:
        console.print(spreads(group, comparison["data"]))
        for line in differences(group, comparison["test"]):
            print(line)
        print(group["verdict"])
        if (against := group.get("against")) and (first := comparison["groups"][0]["name"]):
            print(f"Student - student of {first}: {points(against, comparison['test'])}.")
    print("Runs: " + " ".join(run for group in comparison["groups"] for run in group["runs"]))
