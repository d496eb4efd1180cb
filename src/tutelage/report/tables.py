"""A run's figures as people read them, in tables and in the page `report.md`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tutelage import metrics

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
            thousands(m["macs"]) if "macs" in m else "",
            megabytes(m["bytes"]) if "bytes" in m else "",
            duration(m["seconds"]) if "seconds" in m else "",
        )
        for name, m in models.items()
    ]


def thousands(count: int) -> str:
    """Multiply-accumulates as people say them: `55.7 M`."""
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


# How a figure is said: its heading, what it is multiplied by, digits, unit.
_SAID = {
    "accuracy": ("accuracy", 100.0, 2, " %"),
    "precision": ("precision", 100.0, 2, " %"),
    "recall": ("recall", 100.0, 2, " %"),
    "f1": ("F1", 100.0, 2, " %"),
    "nll": ("NLL", 1.0, 4, ""),
    "ece": ("ECE", 100.0, 2, " %"),
    "agreement": ("agreement", 100.0, 2, " %"),
    "kl": ("KL", 1.0, 4, ""),
}


def spreads(models: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Mean and standard deviation over seeds, a row for each figure that was measured.

    Args:
        models: `models` of one of `comparison.compare`'s groups.

    Returns:
        Rows of a heading, then a cell for each model, empty where it has no such figure.
    """
    rows = []
    for figure, (heading, scale, digits, unit) in _SAID.items():
        cells = []
        for model in models.values():
            spread, told = model.get(figure), ""
            if spread is not None:
                told = f"{scale * spread['mean']:.{digits}f}"
                if spread["std"] is not None:
                    told += f" ± {scale * spread['std']:.{digits}f}"
                told += unit
            cells.append(told)
        if any(cells):
            rows.append((heading, *cells))
    return rows


def points(difference: Mapping[str, Any]) -> str:
    """A paired difference of accuracies as people say it: `+1.07 ± 0.22 points (0.52 to 1.62)`."""
    told = f"{100 * difference['mean']:+.2f}"
    if difference["std"] is None:
        return f"{told} points (one seed)"
    low, high = (100 * difference[end] for end in ("low", "high"))
    return f"{told} ± {100 * difference['std']:.2f} points (95 % interval {low:.2f} to {high:.2f})"


def differences(group: Mapping[str, Any]) -> list[str]:
    """A recipe's paired differences and McNemar's tests, a line each.

    Args:
        group: one of `comparison.compare`'s.

    Returns:
        Lines for people.
    """
    lines = [f"student - baseline: {points(group['worth'])}"]
    if "short" in group:
        lines.append(f"student - teacher: {points(group['short'])}")
    tests = "; ".join(
        f"seed {test['seed']}: {test['first']} to {test['second']}, p = {test['p']:.2g}"
        for test in group["mcnemar"]
    )
    if tests:
        lines.append(f"images right in student or baseline alone (McNemar): {tests}")
    return lines


def machine(environment: Mapping[str, Any]) -> str:
    """Where a run was made: its accelerator, if it had one, and its processor."""
    hardware = environment["hardware"]
    told = f"{hardware['cores']} cores of {hardware['processor']}"
    return f"{hardware['accelerator']}, {told}" if hardware["accelerator"] else told


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
