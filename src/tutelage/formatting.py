"""Figures as people read them: counts, bytes, seconds, spreads, differences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
