"""Ranks the settings of a sweep and describes the result in sentences."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from statistics import fmean, stdev
from typing import Any

from tutelage.errors import RunError
from tutelage.evaluation.statistics import Difference, paired
from tutelage.formatting import points
from tutelage.runs.verdict import Evidence, conclude

ALPHA, TEMPERATURE = 0.8, 4.0  # the most common choices
_NOTHING = 1e-12  # larger than rounding differences between orders of summation
AXES = ("method", "alpha", "temperature")

Trial = Mapping[str, Any]


def find(rows: Sequence[Trial], images: int | None = None) -> dict[str, Any]:
    """Rank the settings of a sweep by mean validation accuracy.

    All differences are paired by seed. A setting with a pruned or failed seed is not ranked.

    Args:
        rows: per student, `method` (`baseline`: no teacher), `alpha`, `temperature` (or
            None), `seed`, `accuracy` (0 to 1, None if it failed), `nll` and `state`, which is
            `complete`, `pruned` or `failed`.
        images: the number of validation images; None if unknown.

    Returns:
        `seeds`; `images`; `baseline` and `best`, each with `accuracy`, `nll` (means over seeds)
        and the standard deviation `std` of the `accuracies`; `gain`, best - baseline; `settings`,
        ranked, each with its difference from the best, `short`, and whether that is not
        significant, `level`; `alpha` and `temperature`, the best setting with the values closest
        to 0.8 and 4; `dropped`, the number of settings not ranked.

    Raises:
        RunError: no setting is complete.

    Example:

    >>> from tutelage.runs import findings
    >>> row = {"temperature": 4.0, "nll": 0.1, "state": "complete"}
    >>> ranking = findings.find([
    ...     row | {"method": "baseline", "alpha": 0.0, "seed": 0, "accuracy": 0.90},
    ...     row | {"method": "kd", "alpha": 0.5, "seed": 0, "accuracy": 0.91},
    ... ])
    >>> ranking["best"]["alpha"], round(ranking["gain"]["mean"], 4)
    (0.5, 0.01)
    """
    gathered: dict[tuple[Any, ...], dict[int, Trial]] = {}
    for row in rows:
        gathered.setdefault(tuple(row[name] for name in AXES), {})[row["seed"]] = row
    seeds = sorted({row["seed"] for row in rows})
    complete = {
        key: [by_seed[seed] for seed in seeds]
        for key, by_seed in gathered.items()
        if set(by_seed) == set(seeds)
        and all(row["state"] == "complete" for row in by_seed.values())
    }
    baselines = [key for key in complete if key[0] == "baseline"]
    distilled = [key for key in complete if key[0] != "baseline"]
    if not baselines or not distilled:
        raise RunError(
            "expected a baseline and a setting with every seed trained, found none: all others "
            "were pruned or failed; try lower learning rates, or no --prune"
        )
    figures = {key: _figures(key, trials) for key, trials in complete.items()}
    baseline = figures[baselines[0]]
    ranked = sorted((figures[key] for key in distilled), key=_rank)
    best = ranked[0]
    for setting in ranked:
        short = paired(setting["accuracies"], best["accuracies"], images)
        setting["short"] = asdict(short)
        # Without an interval (one seed), nothing counts as level.
        setting["level"] = short.high is not None and short.high >= -_NOTHING
    return {
        "seeds": seeds,
        "images": images,
        "baseline": baseline,
        "best": best,
        "gain": asdict(paired(best["accuracies"], baseline["accuracies"], images)),
        "settings": ranked,
        "alpha": _nearest(ranked, "alpha", lambda x: abs(x - ALPHA)),
        "temperature": _nearest(ranked, "temperature", lambda x: abs(math.log(x / TEMPERATURE))),
        "dropped": len(gathered) - len(complete),
    }


def say(ranking: Mapping[str, Any]) -> list[str]:
    """Describe the result of a sweep.

    Args:
        ranking: from `find`.

    Returns:
        Sentences, one per line; the first says whether the teacher helped.
    """
    best, baseline, images = ranking["best"], ranking["baseline"], ranking["images"]
    count, tried = len(ranking["seeds"]), len(ranking["settings"]) + ranking["dropped"]
    over = f"mean of {count} seeds" if count > 1 else "one seed"
    gain = Evidence(Difference(**ranking["gain"]), images=images, tried=tried)
    lines = [conclude(gain, "the best setting", " on the validation images")[1]]
    lines.append(
        f"Best setting on the validation images: {name(best)}, {_accuracy(best)} ({over}); "
        f"baseline {_accuracy(baseline)}."
    )
    if gain.sign() <= 0:
        lines.append("No setting has a higher accuracy than the baseline.")
    if count == 1:
        lines.append("Run several seeds to measure the spread, e.g. --seeds 3.")
    level = [one for one in ranking["settings"][1:] if one["level"]]
    if level:
        more = f" and {len(level) - 5} more" if len(level) > 5 else ""
        lines.append(
            f"Not significantly different from the best: {len(level)} of "
            f"{len(ranking['settings']) - 1} other settings: "
            f"{'; '.join(map(name, level[:5]))}{more}."
        )
    elif count > 1 and len(ranking["settings"]) > 1:
        lines.append("Every other setting is significantly worse than the best.")
    for axis, usual, letter in (("alpha", ALPHA, "alpha"), ("temperature", TEMPERATURE, "T")):
        if one := ranking[axis]:
            nearest = "" if one[axis] == usual else f", the closest to the common {usual:g}"
            rest = "the best setting overall"
            if name(one) != name(best):
                rest = f"{name(one)}; difference from the best {points(one['short'], images)}"
            lines.append(f"Best with {letter} = {one[axis]:g}{nearest}: {_accuracy(one)}, {rest}.")
    if ranking["dropped"]:
        lines.append(
            f"Not ranked because a seed was pruned or failed: {ranking['dropped']} settings."
        )
    if len(ranking["settings"]) > 1:
        lines.append(
            "The validation accuracy of the best setting is optimistic, as it was selected on "
            "these images; its accuracy on the test set is not."
        )
    return lines


def name(setting: Mapping[str, Any]) -> str:
    """Format a setting."""
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
    """The best setting with the value closest to the common one; None for a constant axis."""
    present = {one[axis] for one in ranked if one[axis] is not None}
    if len(present) < 2:
        return None
    near = min(present, key=lambda x: (distance(x), x))
    return next(one for one in ranked if one[axis] == near)


def _accuracy(figures: Mapping[str, Any]) -> str:
    spread = "" if figures["std"] is None else f" ± {100 * figures['std']:.2f}"
    return f"{100 * figures['accuracy']:.2f}{spread} %"
