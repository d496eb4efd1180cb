"""A run's figures as people read them, in tables and in the page `report.md`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tutelage.evaluation import metrics
from tutelage.formatting import HEADINGS, machine, rows


def conditions(results: Mapping[str, Any]) -> tuple[str, str]:
    """On which images models were trained and measured, and what the validation images say.

    Args:
        results: the contents of `results.json`.

    Returns:
        Two paragraphs.
    """
    data = results["data"]
    trained = f"{data['train']:,} with {data['validation']:,} held out for validation"
    by = "by which settings may be chosen"
    if data.get("validation_in_train"):
        trained = f"{data['train']:,}, the {data['validation']:,} validation images among them"
        by = "which baseline and student have learned from here"
    held_out = ", ".join(
        f"{name} {100 * score['accuracy']:.2f} % (NLL {score['nll']:.4f})"
        for name, score in results["validation"].items()
    )
    return (
        f"Measured once on the {data['test']:,} test images, after training on {trained}; the "
        "weights are those of the last epoch. Precision, recall and F1 are means over classes, "
        f"NLL is in nats, ECE has {metrics.BINS} bins; agreement and KL are with the teacher.",
        f"On the validation images, {by}: {held_out}.",
    )


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
    measured, chosen = conditions(results)
    lines = [
        f"# {results['name']} on {data['name']}",
        "",
        results["verdict"],
        "",
        *_table(HEADINGS, rows(results["models"])),
        "",
        measured,
        "",
        chosen,
        "",
        *_unseen(results),
        f"`{environment['command']}`, commit {environment['commit'] or 'unknown'}, "
        f"{environment['date']}, {machine(environment)}, {environment['precision']}.",
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
