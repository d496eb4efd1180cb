"""What runs of one recipe show, a section for each question; no figure is measured again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tutelage.evaluation import metrics
from tutelage.formatting import HEADINGS, differences, megabytes, points, rows, spreads
from tutelage.report import charts, heatmaps
from tutelage.report.elements import Chart, Section, Table
from tutelage.report.markdown import conditions
from tutelage.runs.run_folder import STAGES
from tutelage.runs.run_reader import Record

_SIZES = ("parameters", "MACs", "file", "time")


def classes(records: Sequence[Record]) -> list[str]:
    """The names of the classes; numbers where no results say them."""
    count = next((z.shape[1] for r in records for z in r.answers.values()), 0)
    for record in records:
        if record.results and len(record.results["data"]["classes"]) == count:
            return list(record.results["data"]["classes"])
    return [f"class {i}" for i in range(count)]


def pooled(records: Sequence[Record]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The answers of all seeds, one after the other, of the models that all have, with labels."""
    have = [record for record in records if record.answers]
    shared = [s for s in STAGES if have and all(s in record.answers for record in have)]
    answers = {s: np.concatenate([record.answers[s] for record in have]) for s in shared}
    labels = [record.labels for record in have] or [np.empty(0, np.int64)]
    return answers, np.concatenate(labels)


def results(records: Sequence[Record], group: Mapping[str, Any]) -> Section:
    """The table, over seeds with its spread, and whether the teacher was worth it."""
    first, section = records[0].results, Section("results", "Results")
    names, *lines = zip(HEADINGS, *rows(first["models"]), strict=True)
    if len(records) == 1:
        section.text.append(group["verdict"])
        told = [line for line in lines if any(line[1:])]
    else:
        names = ("", *group["models"])
        own = {name: first["models"][name] for name in group["models"]}
        sizes = zip(HEADINGS, *rows(own), strict=True)
        told = spreads(group["models"]) + [x for x in sizes if x[0] in _SIZES[:3] and any(x[1:])]
    section.tables.append(Table(("", *names[1:]), told))
    section.points = differences(group)
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
        model: [record.results["models"][model]["accuracy"] for record in records]
        for model in group["models"]
    }
    return Chart(
        "seeds",
        charts.dots(_hundredfold(values), names, "test accuracy (%)"),
        "Test accuracy, seed by seed",
        "A teacher is worth something where the student's mark lies right of the baseline's, seed "
        f"after seed. Student less baseline: {points(group['worth'])}.",
        Table(("", *values), _by_row(names, values)),
    )


def comparison(told: Mapping[str, Any]) -> Section:
    """Recipes beside each other, a row each."""
    groups = told["groups"]
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
                points(group["worth"]),
                points(against) if against else "",
            )
        )
    beside = f"student less the student of {groups[0]['name']}"
    headings = ("recipe", "seeds", *models, "student less baseline", beside)
    return Section(
        "comparison",
        "Recipes compared",
        [f"Accuracy on the {told['test']:,} test images of {told['data']}."],
        [f"{group['name']}: {group['verdict']}" for group in groups],
        [Table(headings, body)],
    )


def training(records: Sequence[Record]) -> Section:
    """How accuracy and loss on the validation images went with the epochs."""
    section = Section("training", "Training")
    stages = [s for s in STAGES if any(row["stage"] == s for r in records for row in r.history)]
    if not stages:
        section.text.append("Of the epochs nothing is known: history.csv says nothing.")
        return section
    for stage in STAGES:
        if stage not in stages:
            section.text.append(f"No epoch of the {stage} was trained here.")
    where = "On the validation images, after each epoch."
    if any(r.results and r.results["data"].get("validation_in_train") for r in records):
        where = "On the validation images, of which baseline and student have learned here."
    for column, scale, name, title, quantity in (
        ("val_accuracy", 100, "accuracy", "Accuracy while training", "validation accuracy (%)"),
        ("val_loss", 1, "loss", "Loss while training", "validation loss (nats)"),
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
                f"{where} The first fifth of the epochs may lie outside the frame."
                + (" A line for each seed." if len(records) > 1 else ""),
                _epochs(lines, quantity),
            )
        )
    return section


def _lines(
    records: Sequence[Record], stage: str, column: str, scale: float
) -> list[tuple[list[float], list[float]]]:
    found = []
    for record in records:
        own = [r for r in record.history if r["stage"] == stage and {"epoch", column} <= r.keys()]
        if own:
            found.append(([r["epoch"] for r in own], [scale * r[column] for r in own]))
    return found


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


def confusion(
    answers: Mapping[str, np.ndarray], labels: np.ndarray, names: Sequence[str]
) -> Section:
    """What each model takes for what, and what the teacher changed in that."""
    section = Section("confusion", "What is taken for what")
    counts = {stage: metrics.confusion(z, labels) for stage, z in answers.items()}
    wrong = {
        stage: matrix * (1 - np.eye(len(names), dtype=int)) for stage, matrix in counts.items()
    }
    peak = max(int(matrix.max()) for matrix in wrong.values())
    last = list(wrong)[-1]
    if wrong[last].max() > 1:
        i, j = np.unravel_index(wrong[last].argmax(), wrong[last].shape)
        beside = [f"{stage} {wrong[stage][i, j]}" for stage in wrong if stage != last]
        section.text.append(
            f"What the {last} mistakes most: {names[i]} for {names[j]}, {wrong[last][i, j]} times"
            + (f" ({', '.join(beside)})." if beside else ".")
        )
    else:
        section.text.append(f"The {last} makes no mistake twice.")
    for stage, matrix in counts.items():
        section.charts.append(
            Chart(
                f"confusion-{stage}",
                heatmaps.confusion(matrix, names, peak),
                f"Mistakes of the {stage}",
                f"Images by true class (row) and the {stage}'s answer (column). Mistakes are "
                f"coloured, the more the stronger, up to {peak:,}, alike for all models.",
                _counts(matrix, names),
            )
        )
    if {"student", "baseline"} <= counts.keys():
        change = counts["student"] - counts["baseline"]
        section.charts.append(
            Chart(
                "confusion-difference",
                heatmaps.difference(change, names),
                "What the teacher changed: student less baseline",
                "Blue is better: more images on the diagonal, fewer beside it. Orange is worse.",
                _counts(change, names, signed=True),
            )
        )
    return section


def _counts(matrix: np.ndarray, names: Sequence[str], signed: bool = False) -> Table:
    """All cells of few classes; of many the largest beside the diagonal."""
    form = "{:+d}" if signed else "{:d}"
    if len(names) <= heatmaps.NUMBERED:
        body = [
            (name, *(form.format(n) for n in row))
            for name, row in zip(names, matrix.tolist(), strict=True)
        ]
        return Table(("true class", *names), body)
    beside = np.abs(matrix) * (1 - np.eye(len(names), dtype=int))
    order = np.argsort(-beside, axis=None, kind="stable")[: charts.NAMED]
    places = [np.unravel_index(k, matrix.shape) for k in order]
    body = [(names[i], names[j], form.format(int(matrix[i, j]))) for i, j in places]
    return Table(("true class", "answer", "images"), body, f"The {len(body)} largest")


def by_class(
    answers: Mapping[str, np.ndarray], labels: np.ndarray, names: Sequence[str]
) -> Section:
    """Precision, recall and agreement with the teacher, class by class."""
    section = Section("classes", "Class by class")
    found = {stage: metrics.per_class(z, labels) for stage, z in answers.items()}
    last = list(found)[-1]
    present = found[last].support > 0
    weakest = int(np.where(present, found[last].recall, np.inf).argmin())
    said = f"The {last} finds {names[weakest]} least often: {_percent(found[last].recall[weakest])}"
    said += f" of its {found[last].support[weakest]:,} images."
    order = np.arange(len(names))
    if {"student", "baseline"} <= found.keys():
        gain = found["student"].recall - found["baseline"].recall
        best, worst = int(gain.argmax()), int(gain.argmin())
        said += (
            f" Student less baseline, recall by class: from {100 * gain[worst]:+.2f} points "
            f"({names[worst]}) to {100 * gain[best]:+.2f} ({names[best]})."
        )
        order = np.argsort(-np.abs(gain), kind="stable")
    section.text.append(said)
    cut = ""
    if len(names) > charts.NAMED:
        order = order[: charts.NAMED]
        cut = f" The {charts.NAMED} of {len(names)} classes whose recall the teacher changed most."
    else:
        order = np.arange(len(names))
    for figure, meaning in (
        ("precision", "Of what was called this class, the part that is of it."),
        ("recall", "Of the images of this class, the part that was called so."),
    ):
        values = {stage: getattr(one, figure) for stage, one in found.items()}
        section.charts.append(
            _classes(figure, f"{figure.capitalize()} by class", meaning + cut, values, names, order)
        )
    if "teacher" in answers and len(answers) > 1:
        top = answers["teacher"].argmax(axis=1)
        agreement = {
            stage: np.array(
                [
                    (z.argmax(axis=1) == top)[labels == i].mean() if n else np.nan
                    for i, n in enumerate(found[stage].support)
                ]
            )
            for stage, z in answers.items()
            if stage != "teacher"
        }
        meaning = "Of the images of this class, the part to which the teacher's answer is given."
        title = "Agreement with the teacher by class"
        section.charts.append(_classes("agreement", title, meaning + cut, agreement, names, order))
    return section


def _classes(
    name: str,
    title: str,
    caption: str,
    values: Mapping[str, np.ndarray],
    names: Sequence[str],
    order: np.ndarray,
) -> Chart:
    shown = {stage: 100 * row[order] for stage, row in values.items()}
    figure = charts.dots(shown, [names[i] for i in order], f"{name} (%)")
    return Chart(name, figure, title, caption, Table(("class", *values), _by_row(names, values)))


def calibration(
    records: Sequence[Record], answers: Mapping[str, np.ndarray], labels: np.ndarray
) -> Section:
    """Whether the models are right as often as they are sure."""
    section = Section("calibration", "As sure as right?")
    for stage, z in answers.items():
        found = metrics.calibration(z, labels)
        some = found.support > 0
        share = found.support[some] / found.support.sum()
        sure, right = (float((x[some] * share).sum()) for x in (found.confidence, found.accuracy))
        known = [r.results["models"][stage]["ece"] for r in records if r.results]
        error = f"; ECE {_percent(float(np.mean(known)))}" if known else ""
        section.points.append(
            f"The {stage} is {_percent(sure)} sure on average, and {_percent(right)} right{error}."
        )
        edges = [
            f"{100 * i / metrics.BINS:.0f} to {100 * (i + 1) / metrics.BINS:.0f} %"
            for i in range(metrics.BINS)
        ]
        body = [
            (edge, f"{n:,}", *("" if np.isnan(x) else _percent(x) for x in (c, a)))
            for edge, n, c, a in zip(edges, found.support, *found[:2], strict=True)
        ]
        section.charts.append(
            Chart(
                f"reliability-{stage}",
                charts.reliability(found, charts.COLOURS[stage]),
                f"Reliability of the {stage}",
                "Bars that end on the dashed line are as right as they are sure; below it the "
                "model is too sure, above it not sure enough. Below: how many images are in a bin.",
                Table(("confidence", "images", "mean confidence", "right"), body),
            )
        )
    return section


def size(records: Sequence[Record], group: Mapping[str, Any]) -> Section:
    """Accuracy against what a model costs."""
    section = Section("size", "Accuracy against size")
    models = group["models"]
    for key, name, unit in (
        ("parameters", "parameters", "parameters"),
        ("macs", "operations", "multiply-accumulates an image"),
    ):
        found = {
            model: (spread[key]["mean"], 100 * spread["accuracy"]["mean"], _hundred(spread))
            for model, spread in models.items()
            if key in spread
        }
        if not found:
            continue
        body = [
            (model, f"{count:,.0f}", f"{accuracy:.2f} %")
            for model, (count, accuracy, _) in found.items()
        ]
        section.charts.append(
            Chart(
                name,
                charts.trade(found, unit),
                f"Test accuracy against {name}",
                "Further up is better, further left is smaller."
                + (" Bars: standard deviation over seeds." if len(records) > 1 else ""),
                Table(("model", unit, "test accuracy"), body),
            )
        )
    if not section.charts:
        section.text.append("The models' sizes are not known.")
    timed = next((record for record in records if record.costs), None)
    if timed is None:
        section.text.append(
            "How long they take to answer is not known: tutelage export writes files for "
            "elsewhere, and tutelage profile RUN/*.keras RUN/*.onnx measures."
        )
    else:
        section.charts += _latency(timed)
    return section


def _latency(record: Record) -> list[Chart]:
    """Accuracy against the time that an image takes, of each file that was measured."""
    known = {name: one["accuracy"] for name, one in record.results.get("models", {}).items()}
    found, body = {}, []
    for row in record.costs:
        label = f"{row['name']}, {row['format']} {row['precision']}"
        accuracy = row.get("accuracy", known.get(row["name"]))
        milliseconds, threads = 1000 * row["single"]["median"], str(row["single"]["threads"])
        told = "" if accuracy is None else f"{100 * accuracy:.2f} %"
        body.append((label, f"{milliseconds:.3g}", threads, megabytes(row["bytes"]), told))
        if accuracy is not None:
            found[label] = milliseconds, 100 * accuracy, None
    if not found:
        return []
    return [
        Chart(
            "latency",
            charts.trade(found, "milliseconds for one image"),
            "Test accuracy against time",
            "The median of one image at a time, with one thread or all cores, whichever is faster. "
            "Further up is better, further left is faster.",
            Table(("file", "ms for one image", "threads", "size", "test accuracy"), body),
        )
    ]


def _hundred(spread: Mapping[str, Any]) -> float | None:
    std = spread["accuracy"]["std"]
    return None if std is None else 100 * std


def _percent(part: float) -> str:
    return f"{100 * part:.2f} %"


def _hundredfold(values: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: 100 * np.asarray(row, float) for name, row in values.items()}


def _by_row(names: Sequence[str], values: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (name, *("" if np.isnan(row[i]) else _percent(row[i]) for row in values.values()))
        for i, name in enumerate(names)
    ]
