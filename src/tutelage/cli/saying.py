"""What every command says: figures as a table, a mistake in one line."""

from __future__ import annotations

import sys
from typing import Any


def fail(text: str) -> None:
    """Say what went wrong, in one line on standard error."""
    print("tutelage: " + " ".join(text.split()), file=sys.stderr)


def show(models: dict[str, Any], title: str) -> None:
    """Print models' figures as a table."""
    from rich.console import Console

    from tutelage.console import table

    Console(highlight=False).print(table(models, title))
