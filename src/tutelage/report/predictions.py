"""Sections on the test predictions: confusion matrices, classes, calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tutelage.evaluation import metrics
from tutelage.formatting import images
from tutelage.models import class_names
from tutelage.report import charts, heatmaps
from tutelage.report.elements import Chart, Section, Table, percent, percent_rows
from tutelage.runs.run_folder import STAGES
from tutelage.runs.run_reader import Record


def classes(records: Sequence[Record]) -> list[str]:
    """The class names; numbers if no run has results."""
    count = next((z.shape[1] for r in records for z in r.logits.values()), 0)
    for record in records:
        if record.results and len(record.results["data"]["classes"]) == count:
            return list(record.results["data"]["classes"])
    return list(class_names.numbered(count))


def pooled(records: Sequence[Record]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The logits of all seeds, concatenated, of the models that all runs have, and the labels."""
    complete = [record for record in records if record.logits]
    shared = [s for s in STAGES if complete and all(s in record.logits for record in complete)]
    logits = {s: np.concatenate([record.logits[s] for record in complete]) for s in shared}
    labels = [record.labels for record in complete] or [np.empty(0, np.int64)]
    return logits, np.concatenate(labels)


def confusion(
    logits: Mapping[str, np.ndarray], labels: np.ndarray, names: Sequence[str]
) -> Section:
    """Confusion matrix of each model, and the difference of student and baseline."""
    section = Section("confusion", "Confusion matrices")
    counts = {stage: metrics.confusion(z, labels) for stage, z in logits.items()}
    wrong = {
        stage: matrix * (1 - np.eye(len(names), dtype=int)) for stage, matrix in counts.items()
    }
    peak = max(int(matrix.max()) for matrix in wrong.values())
    last = list(wrong)[-1]
    if wrong[last].max() > 1:
        i, j = np.unravel_index(wrong[last].argmax(), wrong[last].shape)
        others = [f"{stage} {wrong[stage][i, j]}" for stage in wrong if stage != last]
        section.text.append(
            f"Most frequent confusion of the {last}: {names[i]} as {names[j]}, "
            f"{wrong[last][i, j]} times" + (f" ({', '.join(others)})." if others else ".")
        )
    else:
        section.text.append(f"The {last} makes no confusion more than once.")
    for stage, matrix in counts.items():
        section.charts.append(
            Chart(
                f"confusion-{stage}",
                heatmaps.confusion(matrix, names, peak),
                f"Confusion matrix of the {stage}",
                f"Images by true class (row) and predicted class (column). Errors are colored on "
                f"the same scale for all models, up to {peak:,}.",
                _counts(matrix, names),
            )
        )
    if {"student", "baseline"} <= counts.keys():
        change = counts["student"] - counts["baseline"]
        section.charts.append(
            Chart(
                "confusion-difference",
                heatmaps.difference(change, names),
                "Confusion matrix: student - baseline",
                "Blue is better: more images on the diagonal, fewer off it. Orange is worse.",
                _counts(change, names, signed=True),
            )
        )
    return section


def _counts(matrix: np.ndarray, names: Sequence[str], signed: bool = False) -> Table:
    """All cells for few classes; for many, the largest off-diagonal ones."""
    form = "{:+d}" if signed else "{:d}"
    if len(names) <= heatmaps.NUMBERED:
        body = [
            (name, *(form.format(n) for n in row))
            for name, row in zip(names, matrix.tolist(), strict=True)
        ]
        return Table(("true class", *names), body)
    errors = np.abs(matrix) * (1 - np.eye(len(names), dtype=int))
    order = np.argsort(-errors, axis=None, kind="stable")[: charts.NAMED]
    places = [np.unravel_index(k, matrix.shape) for k in order]
    body = [(names[i], names[j], form.format(int(matrix[i, j]))) for i, j in places]
    return Table(("true class", "predicted class", "images"), body, f"The {len(body)} largest")


def by_class(logits: Mapping[str, np.ndarray], labels: np.ndarray, names: Sequence[str]) -> Section:
    """Precision, recall and agreement with the teacher by class."""
    section = Section("classes", "Results by class")
    figures = {stage: metrics.per_class(z, labels) for stage, z in logits.items()}
    last = list(figures)[-1]
    recall, support = figures[last].recall, figures[last].support
    weakest = int(np.where(support > 0, recall, np.inf).argmin())
    text = f"Lowest recall of the {last}: {names[weakest]}, {percent(recall[weakest])}"
    text += f" of {support[weakest]:,} images."
    order = np.arange(len(names))
    if {"student", "baseline"} <= figures.keys():
        gain = figures["student"].recall - figures["baseline"].recall
        best, worst = int(gain.argmax()), int(gain.argmin())
        low, high = (
            f"{100 * gain[i]:+.2f} points ({names[i]}, {images(abs(gain[i]) * support[i])} of "
            f"{support[i]:,} images)"
            for i in (worst, best)
        )
        text += f" Recall, student - baseline: from {low} to {high}."
        order = np.argsort(-np.abs(gain), kind="stable")
    section.text.append(text)
    cut = ""
    if len(names) > charts.NAMED:
        order = order[: charts.NAMED]
        cut = f" The {charts.NAMED} of {len(names)} classes with the largest change in recall."
    else:
        order = np.arange(len(names))
    for figure, meaning in (
        ("precision", "Fraction of the images predicted as this class that belong to it."),
        ("recall", "Fraction of the images of this class that are predicted correctly."),
    ):
        values = {stage: getattr(one, figure) for stage, one in figures.items()}
        section.charts.append(
            _classes(figure, f"{figure.capitalize()} by class", meaning + cut, values, names, order)
        )
    if "teacher" in logits and len(logits) > 1:
        top = logits["teacher"].argmax(axis=1)
        agreement = {
            stage: np.array(
                [
                    (z.argmax(axis=1) == top)[labels == i].mean() if n else np.nan
                    for i, n in enumerate(figures[stage].support)
                ]
            )
            for stage, z in logits.items()
            if stage != "teacher"
        }
        meaning = "Fraction of the images of this class with the same prediction as the teacher's."
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
    return Chart(
        name, figure, title, caption, Table(("class", *values), percent_rows(names, values))
    )


def calibration(
    records: Sequence[Record], logits: Mapping[str, np.ndarray], labels: np.ndarray
) -> Section:
    """Confidence against accuracy: reliability diagrams and ECE."""
    section = Section("calibration", "Calibration")
    for stage, z in logits.items():
        bins = metrics.calibration(z, labels)
        filled = bins.support > 0
        share = bins.support[filled] / bins.support.sum()
        confidence, accuracy = (
            float((x[filled] * share).sum()) for x in (bins.confidence, bins.accuracy)
        )
        known = [r.results["models"][stage]["ece"] for r in records if r.results]
        error = f"; ECE {percent(float(np.mean(known)))}" if known else ""
        section.points.append(
            f"{stage}: mean confidence {percent(confidence)}, accuracy {percent(accuracy)}{error}."
        )
        edges = [
            f"{100 * i / metrics.BINS:.0f} to {100 * (i + 1) / metrics.BINS:.0f} %"
            for i in range(metrics.BINS)
        ]
        body = [
            (edge, f"{n:,}", *("" if np.isnan(x) else percent(x) for x in (c, a)))
            for edge, n, c, a in zip(edges, bins.support, *bins[:2], strict=True)
        ]
        section.charts.append(
            Chart(
                f"reliability-{stage}",
                charts.reliability(bins, charts.COLORS[stage]),
                f"Reliability diagram of the {stage}",
                "Bars that end on the dashed line are calibrated; below it the model is "
                "overconfident, above it underconfident. Lower chart: images per bin.",
                Table(("confidence", "images", "mean confidence", "accuracy"), body),
            )
        )
    return section
