"""The section on a sweep: validation accuracy by alpha and temperature for each method."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.errors import RunError
from tutelage.report import charts, heatmaps
from tutelage.report.elements import Chart, Section, Table

FILE = "sweep.json"
_QUANTITY = "validation accuracy (%)"
_LARGEST = 12  # rows or columns of a heatmap with numbers in its cells
# Accuracy and NLL of each seed, by alpha and temperature.
Points = dict[tuple[float, float], list[tuple[float, float]]]


@dataclass(frozen=True)
class Sweep:
    """The content of a sweep folder.

    Attributes:
        folder: the sweep folder.
        trials: the complete trials.
        said: the result in sentences.
        missing: one line per missing or damaged file.
    """

    folder: Path
    trials: list[dict[str, Any]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    missing: tuple[str, ...] = ()


def read(folder: Path) -> Sweep:
    """Read a sweep folder, without pruned and failed trials.

    Args:
        folder: the sweep folder.

    Returns:
        Everything that could be read.
    """
    try:
        tree = json.loads((folder / FILE).read_text(encoding="utf-8"))
        trials = [trial for one in tree["trials"] if (trial := _trial(one)) is not None]
        sentences = [str(line) for line in tree.get("said", [])]
        return Sweep(folder, trials, sentences, () if sentences else ("the sweep is not finished",))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Sweep(folder, missing=(f"{FILE} is damaged",))


def _trial(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """A trial with numeric values; None if it is not complete."""
    if row.get("accuracy") is None or row.get("state", "complete") != "complete":
        return None
    degree = row.get("temperature")
    return {
        "method": str(row["method"]),
        "alpha": float(row["alpha"]),
        "temperature": np.nan if degree is None else float(degree),
        "accuracy": float(row["accuracy"]),
        "nll": float(row["nll"]),
    }


def section(sweep: Sweep, name: str) -> Section:
    """Build the section on a sweep, with one heatmap per method.

    Args:
        sweep: from `read`.
        name: its anchor in the page.

    Returns:
        A section.

    Raises:
        RunError: it has no complete trial.
    """
    if not sweep.trials:
        reason = "; ".join(sweep.missing) or "no trial is complete yet"
        raise RunError(f"{sweep.folder}: expected a sweep with complete trials, but {reason}")
    methods = dict.fromkeys(trial["method"] for trial in sweep.trials)
    result = Section(name, f"Alpha and temperature: {sweep.folder.name}", points=list(sweep.said))
    result.text.append("Students are scored on the validation images; the test set is not used.")
    for method in methods:
        gathered: Points = {}
        for trial in sweep.trials:
            if trial["method"] == method:
                place = trial["alpha"], trial["temperature"]
                gathered.setdefault(place, []).append((trial["accuracy"], trial["nll"]))
        gathered = dict(sorted(gathered.items(), key=lambda item: str(item[0])))
        if method == "baseline" or len(gathered) < 2:
            result.points += [_line(method, *item) for item in gathered.items()]
        else:
            result.charts.append(_chart(method, gathered, f"{name}-{_slug(method)}"))
    return result


def _on_grid(gathered: Points) -> tuple[np.ndarray, list[float], list[float]]:
    """Mean accuracies by ascending alpha and temperature, nan if missing."""
    alphas = sorted({alpha for alpha, _ in gathered})
    degrees = sorted({degree for _, degree in gathered})
    values = np.full((len(alphas), len(degrees)), np.nan)
    for (alpha, degree), seeds in gathered.items():
        values[alphas.index(alpha), degrees.index(degree)] = np.mean([a for a, _ in seeds])
    return values, alphas, degrees


def _chart(method: str, gathered: Points, name: str) -> Chart:
    means = {place: float(np.mean([a for a, _ in seeds])) for place, seeds in gathered.items()}
    alpha, degree = best = max(means, key=lambda place: means[place])
    values, alphas, degrees = _on_grid(gathered)
    dense = max(values.shape) <= _LARGEST and 2 * len(gathered) >= values.size
    if dense:
        figure = heatmaps.grid(100 * values, alphas, degrees, _QUANTITY)
        how = "The best cell is framed; blank cells were not run."
    else:
        x, y = np.array(list(means)).T
        figure = charts.scatter(100 * np.array(list(means.values())), x, y, _QUANTITY)
        how = "The star marks the best."
    counts = {len(seeds) for seeds in gathered.values()}
    per_setting = f"{min(counts)} to {max(counts)}" if len(counts) > 1 else f"{counts.pop()}"
    where = f"alpha {alpha:.3g}" + ("" if np.isnan(degree) else f", temperature {degree:.3g}")
    body = [
        (f"{a:.3g}", _degree(t), str(len(seeds)), *_means(seeds))
        for (a, t), seeds in sorted(gathered.items(), key=lambda item: -means[item[0]])
    ]
    return Chart(
        name,
        figure,
        f"Students distilled with {method}",
        f"Accuracy on the validation images, mean over seeds ({per_setting} per setting). {how} "
        f"Best: {where}, with {100 * means[best]:.2f} %.",
        Table(("alpha", "temperature", "seeds", "accuracy", "NLL"), body, "Best first"),
    )


def _line(method: str, place: tuple[float, float], seeds: Sequence[tuple[float, float]]) -> str:
    accuracy, nll = _means(seeds)
    where = (
        "" if method == "baseline" else f", alpha {place[0]:.3g}, temperature {_degree(place[1])}"
    )
    count = f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}"
    return f"{method}{where}: {accuracy}, NLL {nll} ({count})."


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower())


def _degree(degree: float) -> str:
    return "default" if np.isnan(degree) else f"{degree:.3g}"


def _means(seeds: Sequence[tuple[float, float]]) -> tuple[str, str]:
    accuracy, nll = np.mean(seeds, axis=0)
    return f"{100 * accuracy:.2f} %", f"{nll:.4f}"
