"""What a sweep shows: validation accuracy over alpha and temperature, a map for each method."""

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
_LARGEST = 12  # rows or columns of a map whose cells still have room for their numbers
# Seeds by alpha and temperature: accuracies and NLLs.
Points = dict[tuple[float, float], list[tuple[float, float]]]


@dataclass(frozen=True)
class Sweep:
    """A sweep as it lies on disk.

    Attributes:
        folder: where.
        trials: those that have been trained and measured.
        said: what it has found, in sentences.
        missing: what is not there or can't be read, a line each.
    """

    folder: Path
    trials: list[dict[str, Any]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    missing: tuple[str, ...] = ()


def read(folder: Path) -> Sweep:
    """Read a sweep's folder; trials that came to nothing are left out.

    Args:
        folder: the folder of a sweep.

    Returns:
        All that could be read.
    """
    try:
        tree = json.loads((folder / FILE).read_text(encoding="utf-8"))
        trials = [trial for one in tree["trials"] if (trial := _trial(one)) is not None]
        said = [str(line) for line in tree.get("said", [])]
        return Sweep(folder, trials, said, () if said else ("the sweep is not finished",))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Sweep(folder, missing=(f"{FILE} is damaged",))


def _trial(told: Mapping[str, Any]) -> dict[str, Any] | None:
    """A trial with its figures as numbers; None if it has none."""
    if told.get("accuracy") is None or told.get("state", "complete") != "complete":
        return None
    degree = told.get("temperature")
    return {
        "method": str(told["method"]),
        "alpha": float(told["alpha"]),
        "temperature": np.nan if degree is None else float(degree),
        "accuracy": float(told["accuracy"]),
        "nll": float(told["nll"]),
    }


def section(sweep: Sweep, name: str) -> Section:
    """What a sweep has found, with a map for each method.

    Args:
        sweep: from `read`.
        name: of its place in the page.

    Returns:
        A section.

    Raises:
        RunError: it has no trial to show.
    """
    if not sweep.trials:
        told = "; ".join(sweep.missing) or "no trial has been measured yet"
        raise RunError(f"{sweep.folder}: expected a sweep with trials, but {told}")
    methods = dict.fromkeys(trial["method"] for trial in sweep.trials)
    found = Section(name, f"Alpha and temperature: {sweep.folder.name}", points=list(sweep.said))
    found.text.append(
        "Each student was judged on the validation images; the test part has no say in this."
    )
    for method in methods:
        gathered: Points = {}
        for trial in sweep.trials:
            if trial["method"] == method:
                place = trial["alpha"], trial["temperature"]
                gathered.setdefault(place, []).append((trial["accuracy"], trial["nll"]))
        gathered = dict(sorted(gathered.items(), key=lambda item: str(item[0])))
        if method == "baseline" or len(gathered) < 2:
            found.points += [_line(method, *item) for item in gathered.items()]
        else:
            found.charts.append(_chart(method, gathered, f"{name}-{_slug(method)}"))
    return found


def _on_grid(gathered: Points) -> tuple[np.ndarray, list[float], list[float]]:
    """Mean accuracies, nan where there is none, of rising alphas by rising temperatures."""
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
        how = "The framed cell is the best; an empty one was not tried."
    else:
        found = 100 * np.array(list(means.values()))
        tried, degrees_tried = np.array(list(means)).T
        figure = charts.tries(found, tried, degrees_tried, _QUANTITY)
        how = "The star is the best."
    counts = {len(seeds) for seeds in gathered.values()}
    seeds = f"{min(counts)} to {max(counts)}" if len(counts) > 1 else f"{counts.pop()}"
    where = f"alpha {alpha:.3g}" + ("" if np.isnan(degree) else f", temperature {degree:.3g}")
    body = [
        (f"{a:.3g}", _degree(t), str(len(of)), *_means(of))
        for (a, t), of in sorted(gathered.items(), key=lambda item: -means[item[0]])
    ]
    return Chart(
        name,
        figure,
        f"Students taught by {method}",
        f"Accuracy on the validation images, mean over seeds ({seeds} a setting). {how} "
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
    return "its own" if np.isnan(degree) else f"{degree:.3g}"


def _means(seeds: Sequence[tuple[float, float]]) -> tuple[str, str]:
    accuracy, nll = np.mean(seeds, axis=0)
    return f"{100 * accuracy:.2f} %", f"{nll:.4f}"
