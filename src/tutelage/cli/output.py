"""What every command says: figures as a table, a mistake in one line."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typer import Exit

if TYPE_CHECKING:
    from tutelage.cli.console import ConsoleProgress


def fail(text: str) -> None:
    """Say what went wrong, in one line on standard error."""
    print("tutelage: " + " ".join(text.split()), file=sys.stderr)


@contextmanager
def resumable(progress: ConsoleProgress, folder: Path) -> Iterator[None]:
    """Close the progress at the end of work in a folder; of Ctrl-C say how the work goes on."""
    try:
        yield
    except KeyboardInterrupt:
        progress.close()
        fail(
            f"interrupted at {progress.where()}: give the same command again to go on, in {folder}"
        )
        raise Exit(130) from None
    finally:
        progress.close()


def show(models: dict[str, Any], title: str) -> None:
    """Print models' figures as a table."""
    from rich.console import Console

    from tutelage.cli.console import table

    Console(highlight=False).print(table(models, title))


def show_comparison(told: dict[str, Any], as_json: bool) -> None:
    """Print what `comparison.compare` has found, as JSON or for people."""
    if as_json:
        print(json.dumps(told, indent=1))
        return
    from rich.console import Console

    from tutelage.cli.console import spreads
    from tutelage.formatting import differences, points

    console = Console(highlight=False)
    for group in told["groups"]:
        console.print(spreads(group, told["data"]))
        for line in differences(group):
            print(line)
        print(group["verdict"])
        if (against := group.get("against")) and (first := told["groups"][0]["name"]):
            print(f"Its students less those of {first}: {points(against)}.")
    print("Runs: " + " ".join(run for group in told["groups"] for run in group["runs"]))
