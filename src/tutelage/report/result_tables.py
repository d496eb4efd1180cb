"""Sections on accuracy and cost: result tables, seeds, recipes, model size and latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tutelage.formatting import HEADINGS, differences, megabytes, points, rows, spreads
from tutelage.report import charts
from tutelage.report.elements import Chart, Section, Table, percent_rows
from tutelage.report.markdown import conditions
from tutelage.runs.run_folder import STAGES
from tutelage.runs.run_reader import Record

_SIZES = ("parameters", "MACs", "file")


def results(records: Sequence[Record], group: Mapping[str, Any]) -> Section:
    """The results of one recipe, with their spread over seeds."""
    first, section = records[0].results, Section("results", "Results")
    names, *lines = zip(HEADINGS, *rows(first["models"]), strict=True)
    if len(records) == 1:
        table = [line for line in lines if any(line[1:])]
    else:
        names = ("", *group["models"])
        shared = {name: first["models"][name] for name in group["models"]}
        sizes = zip(HEADINGS, *rows(shared), strict=True)
        table = spreads(group["models"]) + [x for x in sizes if x[0] in _SIZES and any(x[1:])]
    section.tables.append(Table(("", *names[1:]), table))
    section.points = differences(group, first["data"]["test"])
    measured, chosen = conditions(first)
    section.text.append(measured)
    if len(records) == 1:
        section.text.append(chosen)
    else:
        section.text.append(f"Mean ± standard deviation over {len(records)} seeds.")
        section.charts.append(_seeds(records, group))
    return section


def _seeds(records: Sequence[Record], group: Mapping[str, Any]) -> Chart:
    names = [f"seed {seed}" for seed in group["seeds"]]
    values = {
        model: np.array([record.results["models"][model]["accuracy"] for record in records])
        for model in group["models"]
    }
    return Chart(
        "seeds",
        charts.dots({m: 100 * x for m, x in values.items()}, names, "test accuracy (%)"),
        "Test accuracy by seed",
        "Further right is more accurate. Student - baseline: "
        f"{points(group['worth'], records[0].results['data']['test'])}.",
        Table(("", *values), percent_rows(names, values)),
    )


def comparison(compared: Mapping[str, Any]) -> Section:
    """A comparison of recipes, one row each."""
    groups, total = compared["groups"], compared["test"]
    models = [m for m in STAGES if any(m in group["models"] for group in groups)]
    body = []
    for group in groups:
        against = group.get("against")
        accuracy = dict(zip(group["models"], spreads(group["models"])[0][1:], strict=True))
        body.append(
            (
                group["name"],
                str(len(group["seeds"])),
                *(accuracy.get(m, "") for m in models),
                points(group["worth"], total),
                points(against, total) if against else "",
            )
        )
    difference = f"student - student of {groups[0]['name']}"
    headings = ("recipe", "seeds", *models, "student - baseline", difference)
    return Section(
        "comparison",
        "Comparison of recipes",
        [f"Accuracy on the {total:,} test images of {compared['data']}."],
        [f"{group['name']}: {group['verdict']}" for group in groups],
        [Table(headings, body)],
    )


def size(records: Sequence[Record], group: Mapping[str, Any]) -> Section:
    """Accuracy against model size and latency."""
    section = Section("size", "Accuracy, size and latency")
    models = group["models"]
    for key, name, unit in (
        ("parameters", "parameters", "parameters"),
        ("macs", "operations", "multiply-accumulates per image"),
    ):
        known = {
            model: (spread[key]["mean"], 100 * spread["accuracy"]["mean"], _hundred(spread))
            for model, spread in models.items()
            if key in spread
        }
        if not known:
            continue
        body = [
            (model, f"{count:,.0f}", f"{accuracy:.2f} %")
            for model, (count, accuracy, _) in known.items()
        ]
        section.charts.append(
            Chart(
                name,
                charts.trade(known, unit),
                f"Test accuracy against {name}",
                "Higher is more accurate, further left is smaller."
                + (" Error bars: standard deviation over seeds." if len(records) > 1 else ""),
                Table(("model", unit, "test accuracy"), body),
            )
        )
    if not section.charts:
        section.text.append("The model sizes are unknown.")
    timed = next((record for record in records if record.costs), None)
    if timed is None:
        section.text.append(
            "Latency was not measured. Export the models with tutelage export, then run "
            "tutelage profile RUN/*.keras RUN/*.onnx."
        )
    else:
        section.charts += _latency(timed)
    return section


def _latency(record: Record) -> list[Chart]:
    """Accuracy against latency, for each measured file."""
    known = {name: one["accuracy"] for name, one in record.results.get("models", {}).items()}
    measured, body = {}, []
    for row in record.costs:
        label = f"{row['name']}, {row['format']} {row['precision']}"
        accuracy = row.get("accuracy", known.get(row["name"]))
        milliseconds, threads = 1000 * row["single"]["median"], str(row["single"]["threads"])
        cell = "" if accuracy is None else f"{100 * accuracy:.2f} %"
        body.append((label, f"{milliseconds:.3g}", threads, megabytes(row["bytes"]), cell))
        if accuracy is not None:
            measured[label] = milliseconds, 100 * accuracy, None
    if not measured:
        return []
    return [
        Chart(
            "latency",
            charts.trade(measured, "milliseconds for one image"),
            "Test accuracy against latency",
            "Median latency for one image, with one thread or all cores, whichever is faster. "
            "Higher is more accurate, further left is faster.",
            Table(("file", "ms for one image", "threads", "size", "test accuracy"), body),
        )
    ]


def _hundred(spread: Mapping[str, Any]) -> float | None:
    std = spread["accuracy"]["std"]
    return None if std is None else 100 * std
