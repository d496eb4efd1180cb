"""What a person at a terminal sees: progress while training goes on, then the table."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich import progress as bars
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tutelage import formatting
from tutelage.formatting import HEADINGS, duration, rows
from tutelage.progress import Progress

# What a comparison shows at a glance.
_COMPARED = ("accuracy", "precision", "recall", "NLL", "ECE", "agreement")


def table(models: Mapping[str, Mapping[str, Any]], title: str) -> Table:
    """The table of results for a terminal: a column for each model, so that it fits 80 characters.

    Args:
        models: figures by name by model, as in `results.json`.
        title: what stands above the table.

    Returns:
        A table that `rich` can print; figures that no model has are left out.
    """
    names, *figures = zip(HEADINGS, *rows(models), strict=True)
    # As Text, for a name may hold brackets, which rich would take for a style.
    drawn = Table(title=Text(title), title_justify="left")
    for i, name in enumerate(("", *names[1:])):
        drawn.add_column(Text(name), justify="right" if i else "left", overflow="fold")
    for line in figures:
        if any(line[1:]):
            drawn.add_row(*line)
    return drawn


def costs(models: Sequence[Mapping[str, Any]]) -> Table:
    """The table of what models cost, a column for each model.

    Args:
        models: as `profiling.profile` gives them.

    Returns:
        A table that `rich` can print.
    """
    drawn = Table(title="What they cost", title_justify="left")
    drawn.add_column("")
    for one in models:
        heading = f"{one['name']}\n{one['format']}\n{one['precision']}"
        drawn.add_column(Text(heading), justify="right", overflow="fold")
    for line in zip(*(_costs(one) for one in models), strict=True):
        drawn.add_row(line[0][0], *(value for _, value in line))
    return drawn


def _costs(one: Mapping[str, Any]) -> list[tuple[str, str]]:
    single, batch = one["single"], one["batch"]
    return [
        ("parameters", f"{one['parameters']:,}" if "parameters" in one else ""),
        ("MACs", formatting.thousands(one["macs"]) if "macs" in one else ""),
        ("file", formatting.megabytes(one["bytes"])),
        ("peak memory", f"{one['peak_memory'] / 1e6:,.0f} MB"),
        ("1 image, ms", f"{1000 * single['median']:.2f}"),
        ("95 % within", f"{1000 * single['p95']:.2f}"),
        ("threads", str(single["threads"])),
        (f"{batch['images']} images, ms", f"{1000 * batch['median']:.1f}"),
        ("95 % within", f"{1000 * batch['p95']:.1f}"),
        ("threads", str(batch["threads"])),
        ("images/s", f"{batch['images_per_second']:,.0f}"),
    ]


def spreads(group: Mapping[str, Any], data: str) -> Table:
    """The table of a recipe's seeds: mean and standard deviation, a column for each model.

    Args:
        group: one of `comparison.compare`'s.
        data: what the images are called.

    Returns:
        A table that `rich` can print.
    """
    count = len(group["seeds"])
    title = f"{group['name']} on {data}, {count} seed{'s' if count > 1 else ''}"
    drawn = Table(title=Text(title), title_justify="left")
    drawn.add_column("")
    for name in group["models"]:
        drawn.add_column(Text(name), justify="right", overflow="fold")
    for line in formatting.spreads(group["models"]):
        if line[0] in _COMPARED:
            drawn.add_row(*line)
    return drawn


def settings(found: Mapping[str, Any], search: str, title: str) -> list[Table]:
    """What a sweep's settings reached: a map of alpha and temperature for each method.

    Args:
        found: from `findings.find`.
        search: how it was searched; what is no grid is told as a list of the best ten.
        title: what stands above.

    Returns:
        Tables that `rich` can print, of mean validation accuracies in %; the best is marked.
    """
    ranked, best = found["settings"], found["best"]
    if search != "grid":
        drawn = Table(title=Text(f"{title}: the best of {len(ranked)} settings"))
        for heading in ("method", "alpha", "T", "accuracy"):
            drawn.add_column(heading, justify="left" if heading == "method" else "right")
        for one in ranked[:10]:
            degree = "" if one["temperature"] is None else f"{one['temperature']:.3g}"
            drawn.add_row(one["method"], f"{one['alpha']:.3g}", degree, _mean(one, best))
        return [drawn]
    tables = []
    for method in dict.fromkeys(one["method"] for one in ranked):
        own = {(one["alpha"], one["temperature"]): one for one in ranked if one["method"] == method}
        degrees = sorted({degree for _, degree in own}, key=lambda x: x or 0)
        drawn = Table(title=Text(f"{title}, {method}: mean accuracy in %"), title_justify="left")
        drawn.add_column("alpha", justify="right")
        for degree in degrees:
            drawn.add_column("" if degree is None else f"T = {degree:g}", justify="right")
        alone = f"{100 * found['baseline']['accuracy']:.2f}"
        drawn.add_row("0", *(alone for _ in degrees))
        for alpha in sorted({alpha for alpha, _ in own}):
            cells = [_mean(own.get((alpha, degree)), best) for degree in degrees]
            drawn.add_row(f"{alpha:g}", *cells)
        tables.append(drawn)
    return tables


def _mean(one: Mapping[str, Any] | None, best: Mapping[str, Any]) -> Text:
    if one is None:
        return Text("")  # pruned, or it came to nothing
    told = f"{100 * one['accuracy']:.2f}"
    same = all(one[axis] == best[axis] for axis in ("method", "alpha", "temperature"))
    return Text(f"* {told}", style="bold") if same else Text(told)


class ConsoleProgress(Progress):
    """Shows stages and epochs on standard error: a bar on a terminal, plain lines elsewhere."""

    def __init__(self, console: Console | None = None):
        self.console = console or Console(stderr=True)
        self.bar: bars.Progress | None = None
        self.task: bars.TaskID | None = None
        self.name = ""

    def note(self, text: str) -> None:
        """Something a person should know."""
        self.console.print(Text(text), soft_wrap=True)

    def stage(self, name: str, epochs: int, done: int, steps: int, unit: str = "epoch") -> None:
        """A stage begins: its epochs, how many are already done, steps an epoch."""
        self.close()
        self.name, self.epochs, self.steps, self.now = name, epochs, steps, done
        self.began, self.ran, self.accuracy = time.monotonic(), 0, ""
        begun = f"going on after {unit} {done} of {epochs}"
        where = begun if done else f"{epochs} {unit}{'s' if epochs > 1 else ''}"
        self.note(f"{name}: {where}")
        if self.console.is_terminal:
            self.bar = bars.Progress(
                bars.TextColumn("{task.description}"),
                bars.BarColumn(),
                bars.TextColumn("{task.fields[figures]}"),
                bars.TimeRemainingColumn(),
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
            figures = f"loss {logs['loss']:.3f}{self.accuracy}" if "loss" in logs else ""
            self.bar.update(self.task, completed=done, description=self._title(), figures=figures)

    def epoch(self, row: Mapping[str, float]) -> None:
        """An epoch has ended and is safe on disk."""
        self.now, self.ran = int(row["epoch"]), self.ran + 1
        spent = (time.monotonic() - self.began) / self.ran
        left = duration(spent * (self.epochs - self.now))
        figures = ""
        if "loss" in row:
            self.accuracy = f"  validation accuracy {100 * row['val_accuracy']:.2f} %"
            figures = f"  loss {row['loss']:.4f}{self.accuracy}"
        self.note(
            f"{self.name} {self.now}/{self.epochs}{figures}  "
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
        return self._title() if self.name else "the start"

    def _title(self) -> str:
        return f"{self.name} {min(self.now + 1, self.epochs)}/{self.epochs}"
