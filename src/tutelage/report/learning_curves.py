"""The section on training: validation accuracy and loss by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tutelage.report import charts
from tutelage.report.elements import Chart, Section, Table
from tutelage.runs.run_folder import STAGES
from tutelage.runs.run_reader import Record


def training(records: Sequence[Record]) -> Section:
    """Validation accuracy and loss by epoch."""
    section = Section("training", "Training")
    stages = [s for s in STAGES if any(row["stage"] == s for r in records for row in r.history)]
    if not stages:
        section.text.append("No epochs to show: history.csv is empty or unreadable.")
        return section
    for stage in STAGES:
        if stage not in stages:
            section.text.append(f"The {stage} was not trained in this run.")
    where = "On the validation images, after each epoch."
    if any(r.results and r.results["data"].get("validation_in_train") for r in records):
        where = "On the validation images, which baseline and student were trained on in this run."
    for column, scale, name, title, quantity in (
        ("val_accuracy", 100, "accuracy", "Accuracy during training", "validation accuracy (%)"),
        ("val_loss", 1, "loss", "Loss during training", "validation loss (nats)"),
    ):
        lines = {stage: _lines(records, stage, column, scale) for stage in stages}
        lines = {stage: seeds for stage, seeds in lines.items() if seeds}
        if not lines:
            continue
        section.charts.append(
            Chart(
                name,
                charts.curves(lines, quantity),
                title,
                f"{where} The first fifth of the epochs may be outside the axes."
                + (" One line per seed." if len(records) > 1 else ""),
                _epochs(lines, quantity),
            )
        )
    return section


def _lines(
    records: Sequence[Record], stage: str, column: str, scale: float
) -> list[tuple[list[float], list[float]]]:
    curves = []
    for record in records:
        logged = [
            r for r in record.history if r["stage"] == stage and {"epoch", column} <= r.keys()
        ]
        if logged:
            values = [scale * r[column] for r in logged]
            curves.append(([r["epoch"] for r in logged], values))
    return curves


def _epochs(lines: Mapping[str, list[tuple[list[float], list[float]]]], quantity: str) -> Table:
    known: dict[int, dict[str, list[float]]] = {}
    for stage, seeds in lines.items():
        for epochs, values in seeds:
            for epoch, value in zip(epochs, values, strict=True):
                known.setdefault(int(epoch), {}).setdefault(stage, []).append(value)
    body = [
        (str(e), *(f"{np.mean(known[e][s]):.4g}" if s in known[e] else "" for s in lines))
        for e in sorted(known)
    ]
    several = any(len(seeds) > 1 for seeds in lines.values())
    return Table(("epoch", *lines), body, quantity + (", mean over seeds" if several else ""))
