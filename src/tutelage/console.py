"""What a person at a terminal sees: progress while training goes on, then the table."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from .report import HEADINGS, duration, rows


def table(models: Mapping[str, Mapping[str, Any]], title: str) -> Table:
    """The table of results for a terminal.

    Args:
        models: figures by name by model, as in `results.json`.
        title: what stands above the table.

    Returns:
        A table that `rich` can print; columns without a figure are left out.
    """
    body = rows(models)
    kept = [i for i in range(len(HEADINGS)) if any(row[i] for row in body)]
    drawn = Table(title=title, title_justify="left")
    for i in kept:
        drawn.add_column(HEADINGS[i], justify="left" if i == 0 else "right", no_wrap=True)
    for row in body:
        drawn.add_row(*(row[i] for i in kept))
    return drawn


def show(drawn: Table, *, stderr: bool = False) -> None:
    """Print a table, as wide as it needs to be where the output is no terminal."""
    console = Console(stderr=stderr)
    if not console.is_terminal:
        console = Console(stderr=stderr, width=200)
    console.print(drawn)


class ConsoleProgress:
    """Shows stages and epochs on standard error: a bar on a terminal, plain lines elsewhere.

    It stands in for `training.Progress`, which can't be imported here without Keras.
    """

    def __init__(self, console: Console | None = None):
        self.console = console or Console(stderr=True, soft_wrap=True, highlight=False)
        self.bar: Progress | None = None
        self.task: TaskID | None = None

    def note(self, text: str) -> None:
        """Something a person should know."""
        self.console.print(text, markup=False)

    def stage(self, name: str, epochs: int, done: int, steps: int) -> None:
        """A stage begins: its epochs, how many are already done, steps an epoch."""
        self.close()
        self.name, self.epochs, self.steps, self.now = name, epochs, steps, done
        self.began, self.ran, self.shown = time.monotonic(), 0, 0.0
        where = f"going on after epoch {done} of {epochs}" if done else f"{epochs} epochs"
        self.note(f"{name}: {where}")
        if self.console.is_terminal:
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[figures]}"),
                TimeRemainingColumn(),
                console=self.console,
                transient=True,
            )
            self.bar.start()
            self.task = self.bar.add_task(
                self._title(), total=epochs * steps, completed=done * steps, figures=""
            )

    def step(self, step: int, logs: Mapping[str, float]) -> None:
        """A step of the current epoch has ended; steps count from 1."""
        if self.bar is not None and self.task is not None:
            done = self.now * self.steps + step
            figures = f"loss {logs['loss']:.3f}"
            self.bar.update(
                self.task, completed=done, description=self._title(), figures=figures
            )

    def epoch(self, row: Mapping[str, float]) -> None:
        """An epoch has ended and is safe on disk."""
        self.now, self.ran = int(row["epoch"]), self.ran + 1
        spent = (time.monotonic() - self.began) / self.ran
        left = duration(spent * (self.epochs - self.now))
        self.note(
            f"{self.name} {self.now}/{self.epochs}  loss {row['loss']:.4f}  "
            f"validation accuracy {100 * row['val_accuracy']:.2f} %  "
            f"{duration(row['seconds'])}  {left} left"
        )
        if self.now == self.epochs:
            self.close()

    def close(self) -> None:
        """Take the bar off the screen."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def where(self) -> str:
        """The stage and epoch under way, for the line that follows an interrupt."""
        return self._title() if hasattr(self, "name") else "before the first stage"

    def _title(self) -> str:
        return f"{self.name} {min(self.now + 1, self.epochs)}/{self.epochs}"

