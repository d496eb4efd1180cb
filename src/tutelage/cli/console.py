"""Terminal output: training progress and result tables."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

from rich import progress as bars
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tutelage import formatting
from tutelage.formatting import HEADINGS, duration, rows
from tutelage.progress import Progress

# Metrics shown in a comparison.
_COMPARED = ("accuracy", "precision", "recall", "NLL", "ECE", "agreement")


def table(models: Mapping[str, Mapping[str, Any]], title: str) -> Table:
    """Table of results with one column per model that fits 80 characters.

    Args:
        models: metrics by model, as in `results.json`.
        title: title of the table.

    Returns:
        A `rich` table without the metrics that no model has.
    """
    names, *figures = zip(HEADINGS, *rows(models), strict=True)
    # Text, because rich would read brackets in a name as a style.
    drawn = Table(title=Text(title), title_justify="left")
    for i, name in enumerate(("", *names[1:])):
        drawn.add_column(Text(name), justify="right" if i else "left", overflow="fold")
    for line in figures:
        if any(line[1:]):
            drawn.add_row(*line)
    return drawn


def costs(models: Sequence[Mapping[str, Any]]) -> Table:
    """Table of size, memory and latency with one column per model.

    Args:
        models: `models` from `profiling.profile`.

    Returns:
        A `rich` table.
    """
    drawn = Table(title="Size, memory and latency", title_justify="left")
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
        ("95th percentile", f"{1000 * single['p95']:.2f}"),
        ("threads", str(single["threads"])),
        (f"{batch['images']} images, ms", f"{1000 * batch['median']:.1f}"),
        ("95th percentile", f"{1000 * batch['p95']:.1f}"),
        ("threads", str(batch["threads"])),
        ("images/s", f"{batch['images_per_second']:,.0f}"),
    ]


def models_table(rows: Sequence[Mapping[str, Any]], title: str) -> Table:
    """Table of the models that can be named.

    Args:
        rows: from `models.architectures.table`.
        title: title of the table.

    Returns:
        A `rich` table.
    """
    drawn = Table(title=Text(title), title_justify="left")
    for heading in ("model", "parameters", "MACs", "architecture"):
        right = heading in ("parameters", "MACs")
        drawn.add_column(heading, justify="right" if right else "left", no_wrap=heading == "model")
    for row in rows:
        sizes = (f"needs {row['smallest']}x{row['smallest']}", "")
        if row["parameters"] is not None:
            sizes = (f"{row['parameters']:,}", formatting.thousands(row["macs"]))
        drawn.add_row(row["name"], *sizes, row["description"])
    return drawn


def losses_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Table of the losses that can be named.

    Args:
        rows: from `losses.catalog.table`.

    Returns:
        A `rich` table.
    """
    drawn = Table(title="Distillation losses", title_justify="left", show_lines=True)
    for heading in ("loss", "needs", "settings", "arXiv"):
        drawn.add_column(heading, no_wrap=heading != "loss")
    for row in rows:
        settings = [
            name if value is None else f"{name} = {value:g}"
            for name, value in row["settings"].items()
        ]
        drawn.add_row(
            f"{row['name']}\n{row['description']}",
            "\n".join(row["needs"]),
            "\n".join(settings),
            row["source"].removeprefix("arXiv "),
        )
    return drawn


def summary_table(rows: Sequence[tuple[str, str]], title: str) -> Table:
    """Table of what a folder of images contains.

    Args:
        rows: from `data.summary.ImageSummary.rows`.
        title: title of the table.

    Returns:
        A `rich` table.
    """
    drawn = Table(title=Text(title), title_justify="left", show_header=False)
    for heading, text in rows:
        drawn.add_row(heading, Text(formatting.printable(text)))
    return drawn


def spreads(group: Mapping[str, Any], data: str) -> Table:
    """Table of means and standard deviations over seeds, one column per model.

    Args:
        group: one of `groups` from `runs.compare.compare`.
        data: name of the data set.

    Returns:
        A `rich` table.
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


def settings(findings: Mapping[str, Any], search: str, title: str) -> list[Table]:
    """Results of a sweep: one table of alpha by temperature per method.

    Args:
        findings: from `findings.find`.
        search: `grid`, or a search whose ten best settings are listed instead.
        title: title of the tables.

    Returns:
        `rich` tables of mean validation accuracies in %, the best one marked.
    """
    ranked, best = findings["settings"], findings["best"]
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
        cells = {
            (one["alpha"], one["temperature"]): one for one in ranked if one["method"] == method
        }
        degrees = sorted({degree for _, degree in cells}, key=lambda x: x or 0)
        drawn = Table(title=Text(f"{title}, {method}: mean accuracy in %"), title_justify="left")
        drawn.add_column("alpha", justify="right")
        for degree in degrees:
            drawn.add_column("" if degree is None else f"T = {degree:g}", justify="right")
        baseline = f"{100 * findings['baseline']['accuracy']:.2f}"
        drawn.add_row("0", *(baseline for _ in degrees))
        for alpha in sorted({alpha for alpha, _ in cells}):
            row = [_mean(cells.get((alpha, degree)), best) for degree in degrees]
            drawn.add_row(f"{alpha:g}", *row)
        tables.append(drawn)
    return tables


def _mean(one: Mapping[str, Any] | None, best: Mapping[str, Any]) -> Text:
    if one is None:
        return Text("")  # pruned, failed or not part of the search
    accuracy = f"{100 * one['accuracy']:.2f}"
    same = all(one[axis] == best[axis] for axis in ("method", "alpha", "temperature"))
    return Text(f"* {accuracy}", style="bold") if same else Text(accuracy)


_SILENCE = 3.0  # seconds without a line, at most
_WAITING = 0.05  # share of the time from which waiting for images is shown


class ConsoleProgress(Progress):
    """Shows stages and epochs on standard error: a bar on a terminal, plain lines elsewhere.

    As a context manager it prints a line whenever there was none, and no bar, for a few seconds.
    """

    def __init__(self, console: Console | None = None):
        self.console = console or Console(stderr=True)
        self.bar: bars.Progress | None = None
        self.task: bars.TaskID | None = None
        self.name, self.now, self.epochs, self.after = "", 0, 0, 0.0
        self.single = False  # whether the stage is one pass, whose steps are counted
        self.said = self.heard = time.monotonic()  # of the last line, without and with the watch's
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        self._watch = threading.Thread(target=self._break_silence, daemon=True)
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._watch.join()
        self.close()

    def _break_silence(self) -> None:
        while not self._ended.wait(_SILENCE / 10):
            now = time.monotonic()
            if self.bar is None and now - self.heard >= _SILENCE:
                self.heard = now
                text = f"still working after {duration(now - self.said)}"
                if self.now < self.epochs:
                    step = "" if self.single else f", step {self.at} of {self.steps}"
                    text = f"{self._title()}{step}: {text}{self._left(now)}"
                self.console.print(Text(text), soft_wrap=True)

    def note(self, text: str) -> None:
        """Print a line."""
        self.said = self.heard = time.monotonic()
        self.console.print(Text(formatting.printable(text)), soft_wrap=True)

    def stage(self, name: str, epochs: int, done: int, steps: int, unit: str = "epoch") -> None:
        """Start a stage: number of epochs, epochs already done, steps per epoch."""
        self.close()
        self.name, self.epochs, self.steps, self.now = name, epochs, steps, done
        self.began, self.done, self.accuracy = time.monotonic(), done, ""
        self.at, self.before, self.after = 0, 0, 0.0
        self.single = unit == "pass" and epochs == 1
        plural = "" if epochs == 1 else "es" if unit.endswith("s") else "s"
        resumed = f"resuming after {unit} {done} of {epochs}"
        if not self.single:
            self.note(f"{name}: {resumed if done else f'{epochs} {unit}{plural}'}")
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
                self._title(), total=epochs * steps or None, completed=done * steps, figures=""
            )

    def then(self, epochs: float) -> None:
        """Count work that follows the stage's epochs in the time left, in epochs."""
        self.after = epochs

    def step(self, step: int, logs: Mapping[str, float]) -> None:
        """Show a finished step of the current epoch; steps count from 1."""
        if not self.single and self.now == self.done and not self.at:
            self.before = step - 1  # of an interrupted epoch
        self.at = step
        if self.bar is not None and self.task is not None:
            done = self.now * self.steps + step
            figures = f"loss {logs['loss']:.3f}{self.accuracy}" if "loss" in logs else ""
            self.bar.update(self.task, completed=done, description=self._title(), figures=figures)

    def epoch(self, row: Mapping[str, float]) -> None:
        """Show a finished epoch, which is saved on disk."""
        if self.single:
            self.now = 1
            self.note(f"{self.name}: {self.steps or self.at:,}  {duration(row['seconds'])}")
            self.close()
            return
        self.now, self.at = int(row["epoch"]), 0
        # The seconds of a resumed epoch include those before the interruption.
        self.began, self.before = min(self.began, time.monotonic() - row["seconds"]), 0
        spent = (time.monotonic() - self.began) / max(1, self.now - self.done)
        left = duration(spent * (self.epochs - self.now + self.after))
        figures = ""
        if "loss" in row:
            self.accuracy = f"  validation accuracy {100 * row['val_accuracy']:.2f} %"
            figures = f"  loss {row['loss']:.4f}{self.accuracy}"
        if "images_per_second" in row:
            figures += f"  {row['images_per_second']:,.0f} images/s"
            if (share := row.get("waiting", 0.0)) >= _WAITING:
                figures += f", {share:.0%} waiting for images"
        self.note(
            f"{self.name} {self.now}/{self.epochs}{figures}  "
            f"{duration(row['seconds'])}  {left} left"
        )
        if self.now == self.epochs:
            self.close()

    def close(self) -> None:
        """Remove the progress bar."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def where(self) -> str:
        """The current stage and epoch."""
        return self._title() if self.name else "the start"

    def _left(self, now: float) -> str:
        """The stage's time left by its steps so far, if they tell it."""
        steps = (self.now - self.done) * self.steps + self.at - self.before
        left = (self.epochs - self.now + self.after) * self.steps - self.at
        if steps <= 0 or left <= 0:
            return ""
        return f", {duration((now - self.began) / steps * left)} left"

    def _title(self) -> str:
        if self.single:
            of = f" of {self.steps:,}" if self.steps else ""
            return f"{self.name}: {self.at:,}{of}"
        return f"{self.name} {min(self.now + 1, self.epochs)}/{self.epochs}"
