"""`report.md`: the results of a run as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tutelage.evaluation import metrics
from tutelage.formatting import HEADINGS, machine, rows


def conditions(results: Mapping[str, Any]) -> tuple[str, str]:
    """Describe the data splits and the validation results.

    Args:
        results: the contents of `results.json`.

    Returns:
        Two paragraphs.
    """
    data = results["data"]
    trained = f"{data['train']:,} with {data['validation']:,} held out for validation"
    role = "used to select settings"
    if data.get("validation_in_train"):
        trained = f"{data['train']:,}, including the {data['validation']:,} validation images"
        role = "which are training images of baseline and student here"
    held_out = ", ".join(
        f"{name} {100 * score['accuracy']:.2f} % (NLL {score['nll']:.4f})"
        for name, score in results["validation"].items()
    )
    stopped = ", ".join(
        f"{name} {one['best_epoch']} of {one['epochs']}"
        for name, one in results.get("early_stopping", {}).items()
    )
    epoch = "the last epoch"
    if stopped:
        epoch += f" or, with early stopping, of the best on the validation images ({stopped})"
    return (
        f"Measured once on the {data['test']:,} test images with the weights of {epoch}, "
        f"after training on {trained}. Precision, recall and F1 are macro averages, NLL is in "
        f"nats, ECE has {metrics.BINS} bins; agreement and KL are relative to the teacher.",
        f"On the validation images, {role}: {held_out}.",
    )


def markdown(
    results: Mapping[str, Any], logits: Mapping[str, np.ndarray], labels: np.ndarray
) -> str:
    """Write `report.md`: results, results by class and confusion matrices.

    Args:
        results: the contents of `results.json`.
        logits: logits of each model on the test set, (n, classes).
        labels: labels of the test set, (n,).

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
    figures = {name: metrics.per_class(z, labels) for name, z in logits.items()}
    for name in logits:
        headings += [f"{name} precision", f"{name} recall"]
    body = []
    for i, label in enumerate(classes):
        row = [_cell(label), f"{int((labels == i).sum()):,}"]
        for figure in figures.values():
            row += [f"{100 * figure.precision[i]:.2f} %", f"{100 * figure.recall[i]:.2f} %"]
        body.append(tuple(row))
    lines += _table(headings, body)
    for name, z in logits.items():
        matrix = metrics.confusion(z, labels)
        lines += [
            "",
            f"## Confusion matrix of the {name}",
            "",
            "Rows: true class. Columns: predicted class.",
            "",
        ]
        body = [
            (_cell(label), *(str(count) for count in row))
            for label, row in zip(classes, matrix, strict=True)
        ]
        lines += _table(["", *(_cell(label) for label in classes)], body)
    return "\n".join(lines) + "\n"


def _unseen(results: Mapping[str, Any]) -> list[str]:
    """The results with bias correction, if only the teacher was trained on all classes."""
    if "corrected" not in results:
        return []
    scores = ", ".join(
        f"{name} {100 * one['accuracy']:.2f} % ({one['offset']:+.2f})"
        for name, one in results["corrected"].items()
    )
    classes = ", ".join(results["recipe"]["data"]["transfer"])
    return [
        f"Baseline and student were trained only on the {results['data']['transfer']:,} images of "
        f"{classes}. With one offset, selected on the validation images, added to the logits of "
        f"the other classes: {scores}.",
        "",
    ]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _table(headings: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    rule = "|".join(["---", *["---:"] * (len(headings) - 1)])
    lines = ["| " + " | ".join(headings) + " |", f"|{rule}|"]
    return lines + ["| " + " | ".join(row) + " |" for row in body]
