"""A run's results as a table and a page; never recomputes what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from . import metrics

HEADINGS = (
    "model",
    "accuracy",
    "precision",
    "recall",
    "F1",
    "NLL",
    "ECE",
    "agreement",
    "KL",
    "parameters",
    "MACs",
    "file",
    "time",
)


def rows(models: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """The table's rows, a model each, formatted for people.

    Args:
        models: `models` of `results.json`: figures by name by model.

    Returns:
        A row for each model, a cell for each of `HEADINGS`.
    """
    return [
        (
            name,
            *(f"{100 * m[figure]:.2f} %" for figure in ("accuracy", "precision", "recall", "f1")),
            f"{m['nll']:.4f}",
            f"{100 * m['ece']:.2f} %",
            f"{100 * m['agreement']:.2f} %" if "agreement" in m else "",
            f"{m['kl']:.4f}" if "kl" in m else "",
            f"{m['parameters']:,}" if "parameters" in m else "",
            _thousands(m["macs"]) if "macs" in m else "",
            megabytes(m["bytes"]) if "bytes" in m else "",
            duration(m["seconds"]) if "seconds" in m else "",
        )
        for name, m in models.items()
    ]


def _thousands(count: int) -> str:
    return f"{count / 1e6:,.1f} M" if count >= 1e6 else f"{count / 1e3:,.1f} K"


def megabytes(count: int) -> str:
    """Bytes as people say them: `8.90 MB`."""
    return f"{count / 1e6:,.2f} MB"


def duration(seconds: float) -> str:
    """Seconds as people say them: `41 s`, `12 min 05 s`, `2 h 03 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def markdown(
    results: Mapping[str, Any], answers: Mapping[str, np.ndarray], labels: np.ndarray
) -> str:
    """The page `report.md`: the table, per-class figures and confusion matrices.

    Args:
        results: the contents of `results.json`.
        answers: each model's logits on the test part, (n, classes).
        labels: the test part's classes, (n,).

    Returns:
        Markdown.
    """
    data, environment = results["data"], results["environment"]
    classes = data["classes"]
    hardware = environment["hardware"]
    machine = f"{hardware['cores']} cores of {hardware['processor']}"
    if hardware["accelerator"]:
        machine = f"{hardware['accelerator']}, {machine}"
    held_out = ", ".join(
        f"{name} {100 * score['accuracy']:.2f} % (NLL {score['nll']:.4f})"
        for name, score in results["validation"].items()
    )
    lines = [
        f"# {results['name']} on {data['name']}",
        "",
        results["verdict"],
        "",
        *_table(HEADINGS, rows(results["models"])),
        "",
        f"Measured once on the {data['test']:,} test images, after training on "
        f"{data['train']:,} with {data['validation']:,} held out for validation; the weights are "
        "those of the last epoch. Precision, recall and F1 are means over classes, NLL is in nats, "
        f"ECE has {metrics.BINS} bins; agreement and KL are with the teacher.",
        "",
        f"On the validation images, by which settings may be chosen: {held_out}.",
        "",
        *_unseen(results),
        f"`{environment['command']}`, commit {environment['commit'] or 'unknown'}, "
        f"{environment['date']}, {machine}, {environment['precision']}.",
        "",
        "## Classes",
        "",
    ]
    headings = ["class", "images"]
    figures = {name: metrics.per_class(z, labels) for name, z in answers.items()}
    for name in answers:
        headings += [f"{name} precision", f"{name} recall"]
    body = []
    for i, label in enumerate(classes):
        row = [_cell(label), f"{int((labels == i).sum()):,}"]
        for figure in figures.values():
            row += [f"{100 * figure.precision[i]:.2f} %", f"{100 * figure.recall[i]:.2f} %"]
        body.append(tuple(row))
    lines += _table(headings, body)
    for name, z in answers.items():
        matrix = metrics.confusion(z, labels)
        lines += ["", f"## Confusion of the {name}", "", "Rows: true class. Columns: answer.", ""]
        body = [
            (_cell(label), *(str(count) for count in row))
            for label, row in zip(classes, matrix, strict=True)
        ]
        lines += _table(["", *(_cell(label) for label in classes)], body)
    return "\n".join(lines) + "\n"


def _unseen(results: Mapping[str, Any]) -> list[str]:
    """What becomes of the classes that only the teacher has seen."""
    if "corrected" not in results:
        return []
    told = ", ".join(
        f"{name} {100 * one['accuracy']:.2f} % ({one['offset']:+.2f})"
        for name, one in results["corrected"].items()
    )
    shown = ", ".join(results["recipe"]["data"]["transfer"])
    return [
        f"Baseline and student saw the {results['data']['transfer']:,} images of {shown} alone. "
        "With one number, chosen on the validation images, added to the logits of the other "
        f"classes: {told}.",
        "",
    ]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _table(headings: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    rule = "|".join(["---", *["---:"] * (len(headings) - 1)])
    lines = ["| " + " | ".join(headings) + " |", f"|{rule}|"]
    return lines + ["| " + " | ".join(row) + " |" for row in body]
