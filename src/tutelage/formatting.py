"""Formatting for output: names, counts, bytes, durations, spreads, differences."""

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


def printable(text: str) -> str:
    r"""Escape what can't be printed, such as control characters, as in a Python string.

    Args:
        text: the text, in which bytes that are not UTF-8 are surrogates, as in file names.

    Returns:
        Text that can be printed and encoded.

    Example:
        >>> printable("red\x1b[0m")
        'red\\x1b[0m'
    """
    return "".join(map(_printable, text))


def _printable(character: str) -> str:
    if character.isprintable() or character in "\u200c\u200d":  # joiners of scripts and emoji
        return character
    if "\udc80" <= character <= "\udcff":  # a byte that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def rows(models: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Format a table of results.

    Args:
        models: `models` of `results.json`: metrics by model.

    Returns:
        One row per model, one cell per heading of `HEADINGS`.
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
    """Format multiply-accumulate operations: `55.7 M`."""
    return f"{count / 1e6:,.1f} M" if count >= 1e6 else f"{count / 1e3:,.1f} K"


def megabytes(count: int) -> str:
    """Format bytes: `8.90 MB`."""
    return f"{count / 1e6:,.2f} MB"


def duration(seconds: float) -> str:
    """Format seconds: `41 s`, `12 min 05 s`, `2 h 03 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


# The format of each metric: heading, scale, digits, unit.
_FORMATS = {
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
    """Format means and standard deviations over seeds.

    Args:
        models: `models` of a group from `runs.compare.compare`.

    Returns:
        One row per metric: its heading and one cell per model, empty if the model lacks it.
    """
    rows = []
    for figure, (heading, scale, digits, unit) in _FORMATS.items():
        cells = []
        for model in models.values():
            spread, cell = model.get(figure), ""
            if spread is not None:
                cell = f"{scale * spread['mean']:.{digits}f}"
                if spread["std"] is not None:
                    cell += f" ± {scale * spread['std']:.{digits}f}"
                cell += unit
            cells.append(cell)
        if any(cells):
            rows.append((heading, *cells))
    return rows


def points(difference: Mapping[str, Any], total: int | None = None) -> str:
    """Format a paired difference of accuracies: `+1.07 ± 0.22 points (..., 95 % interval ...)`.

    Args:
        difference: a `Difference` as a dict.
        total: the number of images; None if unknown.
    """
    behind = "" if total is None else f"{_of_images(difference['mean'], total)}, "
    mean = f"{100 * difference['mean']:+.2f}"
    if difference["std"] is None:
        return f"{mean} points ({behind}one seed)"
    low, high = (100 * difference[end] for end in ("low", "high"))
    return (
        f"{mean} ± {100 * difference['std']:.2f} points "
        f"({behind}95 % interval {low:z.2f} to {high:z.2f})"
    )


def amount(difference: float, total: int | None) -> str:
    """Format the size of a difference of accuracies: `4.17 points (2 of 48 images)`."""
    size = 100 * abs(difference)
    text = f"{size:.2f}" if size >= 0.005 else f"{size:.1g}"
    return f"{text} points" + ("" if total is None else f" ({_of_images(difference, total)})")


def _of_images(difference: float, total: int) -> str:
    return f"{images(abs(difference) * total)} of {total:,} images"


def images(count: float) -> str:
    """Format a number of images, which as a mean over seeds may be fractional: `241.7`."""
    return f"{count:,.1f}".removesuffix(".0")


def p_value(p: float) -> str:
    """Format a p-value: `p = 0.0312`, `p < 0.0001`."""
    return f"p = {p:.4f}" if p >= 0.0001 else "p < 0.0001"


def differences(group: Mapping[str, Any], total: int) -> list[str]:
    """Format the paired differences and McNemar tests of a recipe.

    Args:
        group: a group from `runs.compare.compare`.
        total: the number of test images.

    Returns:
        One line per comparison.
    """
    lines = [f"student - baseline: {points(group['worth'], total)}"]
    if "short" in group:
        lines.append(f"student - teacher: {points(group['short'], total)}")
    tests = "; ".join(
        f"seed {test['seed']}: {test['first']} / {test['second']}, {p_value(test['p'])}"
        for test in group["mcnemar"]
    )
    if tests:
        lines.append(f"images classified correctly by student / baseline only (McNemar): {tests}")
    return lines


def machine(environment: Mapping[str, Any]) -> str:
    """Format the hardware of a run: its accelerator, if any, and its processor."""
    hardware = environment["hardware"]
    processor = f"{hardware['cores']} cores of {hardware['processor']}"
    return f"{hardware['accelerator']}, {processor}" if hardware["accelerator"] else processor
