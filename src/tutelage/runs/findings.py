"""What a sweep has found: which setting is best, by how much, and what can't be told apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from statistics import fmean, stdev
from typing import Any

from tutelage.errors import RunError
from tutelage.evaluation.statistics import paired
from tutelage.formatting import points

ALPHA, TEMPERATURE = 0.8, 4.0  # what is quoted most
_NOTHING = 1e-12  # sums of the same figures in another order differ by less
AXES = ("method", "alpha", "temperature")

Trial = Mapping[str, Any]


def find(rows: Sequence[Trial]) -> dict[str, Any]:
    """Rank a sweep's settings by what their students reached on the validation images.

    All differences are paired by seed. A setting that a seed is missing of, as it was pruned or
    came to nothing, is not ranked.

    Args:
        rows: of each student `method` (`baseline` of those without a teacher), `alpha`,
            `temperature` (or None), `seed`, `accuracy` (0 to 1, None if it came to nothing),
            `nll` and `state`, which is `complete`, `pruned` or `failed`.

    Returns:
        `seeds`; `baseline` and `best`, each with its `accuracy` and `nll` (means over seeds) and
        the `accuracies`' standard deviation `std`; `gain`, best less baseline; `settings`, ranked,
        each with its difference to the best, `short`, and whether it is `level` with the best,
        that is, can't be told from it; `alpha` and `temperature`, what the nearest to 0.8 and to
        4 gives at best; `dropped`, how many were not ranked.

    Raises:
        RunError: no setting is complete.

    Example:

    >>> from tutelage.runs import findings
    >>> row = {"temperature": 4.0, "nll": 0.1, "state": "complete"}
    >>> found = findings.find([
    ...     row | {"method": "baseline", "alpha": 0.0, "seed": 0, "accuracy": 0.90},
    ...     row | {"method": "kd", "alpha": 0.5, "seed": 0, "accuracy": 0.91},
    ... ])
    >>> found["best"]["alpha"], round(found["gain"]["mean"], 4)
    (0.5, 0.01)
    """
    gathered: dict[tuple[Any, ...], dict[int, Trial]] = {}
    for row in rows:
        gathered.setdefault(tuple(row[name] for name in AXES), {})[row["seed"]] = row
    seeds = sorted({row["seed"] for row in rows})
    whole = {
        key: [of[seed] for seed in seeds]
        for key, of in gathered.items()
        if set(of) == set(seeds) and all(row["state"] == "complete" for row in of.values())
    }
    alone = [key for key in whole if key[0] == "baseline"]
    taught = [key for key in whole if key[0] != "baseline"]
    if not alone or not taught:
        raise RunError(
            "expected a baseline and a setting whose students have all been trained, found none: "
            "all were pruned or came to nothing; try lower learning rates, or no --prune"
        )
    figures = {key: _figures(key, own) for key, own in whole.items()}
    baseline = figures[alone[0]]
    ranked = sorted((figures[key] for key in taught), key=_rank)
    best = ranked[0]
    for one in ranked:
        short = paired(one["accuracies"], best["accuracies"])
        one["short"] = asdict(short)
        # A single seed tells nothing apart but what is equal.
        one["level"] = short.high is not None and short.high >= -_NOTHING
    return {
        "seeds": seeds,
        "baseline": baseline,
        "best": best,
        "gain": asdict(paired(best["accuracies"], baseline["accuracies"])),
        "settings": ranked,
        "alpha": _nearest(ranked, "alpha", lambda x: abs(x - ALPHA)),
        "temperature": _nearest(ranked, "temperature", lambda x: abs(math.log(x / TEMPERATURE))),
        "dropped": len(gathered) - len(whole),
    }


def say(found: Mapping[str, Any]) -> list[str]:
    """Say in plain sentences what a sweep has found.

    Args:
        found: from `find`.

    Returns:
        Sentences, each a line. That the teacher did not help is said first, where it is so.
    """
    best, baseline, gain = found["best"], found["baseline"], found["gain"]
    count = len(found["seeds"])
    over = f"mean of {count} seeds" if count > 1 else "one seed"
    lines = []
    if gain["mean"] <= _NOTHING:
        lines.append(
            "The teacher did not help on the validation images: no setting is better than the "
            f"baseline, {_accuracy(baseline)}."
        )
    lines.append(
        f"Best on the validation images: {name(best)}, with {_accuracy(best)} ({over}); the "
        f"baseline has {_accuracy(baseline)}. Best less baseline: {points(gain)}."
    )
    if count == 1:
        lines.append(
            "How much of that another seed would leave is not known: give several, such as "
            "--seeds 3."
        )
    elif gain["mean"] > _NOTHING >= gain["low"]:
        lines.append("The interval holds 0: these seeds do not tell it from the baseline.")
    level = [one for one in found["settings"][1:] if one["level"]]
    if level:
        more = f" and {len(level) - 5} more" if len(level) > 5 else ""
        lines.append(
            f"As good for all that these seeds can tell ({len(level)} of "
            f"{len(found['settings']) - 1} others): {'; '.join(map(name, level[:5]))}{more}."
        )
    elif count > 1 and len(found["settings"]) > 1:
        lines.append("Every other setting is worse, by these seeds.")
    for axis, usual, letter in (("alpha", ALPHA, "alpha"), ("temperature", TEMPERATURE, "T")):
        if one := found[axis]:
            nearest = "" if one[axis] == usual else f", the nearest here to the usual {usual:g}"
            rest = "which is the best of all"
            if name(one) != name(best):
                rest = f"{name(one)}; less the best of all: {points(one['short'])}"
            lines.append(
                f"With {letter} = {one[axis]:g}{nearest}: {_accuracy(one)} at best, {rest}."
            )
    if found["dropped"]:
        lines.append(f"Not ranked, as pruned or come to nothing: {found['dropped']} settings.")
    if len(found["settings"]) > 1:
        lines.append(
            "The best of many is flattered by having been chosen on these images; the test part, "
            "on which nothing was chosen, says what it is worth."
        )
    return lines


def name(setting: Mapping[str, Any]) -> str:
    """What a setting is called."""
    if setting["method"] == "baseline":
        return "baseline"
    degree = setting["temperature"]
    return f"{setting['method']}, alpha {setting['alpha']:g}" + (
        "" if degree is None else f", T {degree:g}"
    )


def _figures(key: tuple[Any, ...], rows: Sequence[Trial]) -> dict[str, Any]:
    accuracies = [row["accuracy"] for row in rows]
    return dict(zip(AXES, key, strict=True)) | {
        "accuracies": accuracies,
        "accuracy": fmean(accuracies),
        "std": stdev(accuracies) if len(rows) > 1 else None,
        "nll": fmean(row["nll"] for row in rows),
    }


def _rank(figures: Mapping[str, Any]) -> tuple[float, float]:
    return -round(figures["accuracy"] / _NOTHING) * _NOTHING, figures["nll"]


def _nearest(
    ranked: Sequence[dict[str, Any]], axis: str, distance: Callable[[float], float]
) -> dict[str, Any] | None:
    """The best of those nearest to the usual; None where the axis was not varied."""
    present = {one[axis] for one in ranked if one[axis] is not None}
    if len(present) < 2:
        return None
    near = min(present, key=lambda x: (distance(x), x))
    return next(one for one in ranked if one[axis] == near)


def _accuracy(figures: Mapping[str, Any]) -> str:
    spread = "" if figures["std"] is None else f" ± {100 * figures['std']:.2f}"
    return f"{100 * figures['accuracy']:.2f}{spread} %"
