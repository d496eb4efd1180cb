"""What a teacher was worth over several seeds, and whether chance would do as much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from tutelage.errors import RunError
from tutelage.evaluation.statistics import Difference, mcnemar, paired
from tutelage.runs.run_reader import Record


def compare(records: Sequence[Record]) -> dict[str, Any]:
    """Compare finished runs: seeds of one recipe, and different recipes with each other.

    Args:
        records: of runs on the same test images, as `records.read` gives them.

    Returns:
        `data`, `test` (images) and `groups`, one for each recipe, seeds aside: `name` (what
        tells it from the others), `runs`, `seeds`, `models` (mean and standard deviation of each
        figure), `worth` (student less baseline), `short` (student less teacher, where its
        accuracy is known), `mcnemar` (student and baseline, a seed each) and `verdict`; of every
        group but the first also `against`: its students less the first group's, by seed.

    Raises:
        RunError: a run isn't done, or they are of different data.
    """
    _check(records)
    gathered: dict[str, list[Record]] = {}
    told = [_flat(record.settings) for record in records]
    varied = {
        key
        for key in set().union(*told)
        if key != "seed" and len({str(one.get(key)) for one in told}) > 1
    }
    for record, settings in sorted(
        zip(records, told, strict=True), key=lambda pair: int(pair[1]["seed"])
    ):
        given = [f"{k}={_plain(settings[k])}" for k in sorted(varied) if k in settings]
        name = ", ".join(given) or record.results["name"]
        gathered.setdefault(name, []).append(record)
    groups: list[dict[str, Any]] = []
    for name, own in gathered.items():
        group = _group(name, own)
        if groups:
            group["against"] = _against(own, next(iter(gathered.values())))
        groups.append(group)
    data = records[0].results["data"]
    return {"data": data["name"], "test": data["test"], "groups": groups}


def worth(difference: Difference, chance: Sequence[dict[str, Any]] = ()) -> str:
    """Say in one sentence whether the teacher was worth it.

    Args:
        difference: student less baseline, accuracies from 0 to 1.
        chance: McNemar's test of each seed, if known.

    Returns:
        A sentence, in points (hundredths of accuracy).

    Example:

    >>> from tutelage.evaluation.statistics import paired
    >>> from tutelage.runs.compare import worth
    >>> worth(paired([0.87, 0.88, 0.89], [0.86, 0.86, 0.86]))
    'Not shown: over 3 seeds the student is 2.00 points above the baseline, but its 95 % interval, \
-0.48 to 4.48, holds 0.'
    """
    points = 100 * difference.mean
    where = f"{abs(points):.2f} points {'below' if points < 0 else 'above'} the baseline"
    if f"{points:.2f}" in ("0.00", "-0.00"):
        where = "as accurate as the baseline"
    if difference.low is None or difference.high is None:
        beside = ""
        if chance:
            one = chance[0]
            beside = (
                f" ({one['first']} images right in the student alone, {one['second']} in the "
                f"baseline alone, McNemar's p = {_p(one['p'])})"
            )
        return (
            f"Not known: in one seed the student is {where}{beside}, and how much another seed "
            "would differ takes more of them, such as --seeds 5."
        )
    interval = f"{100 * difference.low:.2f} to {100 * difference.high:.2f}"
    over = f"over {difference.count} seeds the student is {where}"
    if difference.low > 0:
        return f"Yes: {over} (95 % interval {interval})."
    if difference.high < 0:
        return f"No, it did harm: {over} (95 % interval {interval})."
    if difference.low == difference.high:
        return f"No: {over} in every one of them."
    link = "but" if points > 0 else "and"
    return f"Not shown: {over}, {link} its 95 % interval, {interval}, holds 0."


def _group(name: str, records: Sequence[Record]) -> dict[str, Any]:
    models: dict[str, dict[str, Any]] = {}
    first = records[0].results["models"]
    for stage in first:
        if not all(stage in record.results["models"] for record in records):
            continue
        rows = [record.results["models"][stage] for record in records]
        models[stage] = {
            figure: _spread([row[figure] for row in rows])
            for figure in first[stage]
            if all(figure in row for row in rows)
        }
    tests = [
        {"seed": _seed(record)} | mcnemar(_right(record, "student"), _right(record, "baseline"))
        for record in records
        if {"student", "baseline"} <= record.answers.keys()
    ]
    gain = paired(_accuracies(records, "student"), _accuracies(records, "baseline"))
    group: dict[str, Any] = {
        "name": name,
        "runs": [str(record.folder) for record in records],
        "seeds": [_seed(record) for record in records],
        "models": models,
        "worth": asdict(gain),
        "mcnemar": tests,
        "verdict": worth(gain, tests),
    }
    if "teacher" in models:
        short = paired(_accuracies(records, "student"), _accuracies(records, "teacher"))
        group["short"] = asdict(short)
    return group


def _against(own: Sequence[Record], first: Sequence[Record]) -> dict[str, Any] | None:
    """Students less the first group's students, where both have a seed."""
    others = {_seed(record): record for record in first}
    pairs = [(record, others[_seed(record)]) for record in own if _seed(record) in others]
    if not pairs:
        return None
    mine, theirs = zip(*pairs, strict=True)
    return asdict(paired(_accuracies(mine, "student"), _accuracies(theirs, "student")))


def _check(records: Sequence[Record]) -> None:
    if not records:
        raise RunError("expected at least one run to compare, found none")
    for record in records:
        absent = [name for name in ("recipe.toml", "results.json") if _lacks(record, name)]
        if absent:
            told = "; ".join(line for line in record.missing if line.split()[0] in absent)
            raise RunError(
                f"{record.folder}: expected a finished run, but {told}: give the command that "
                "began it again"
            )
    known = {record.results["data"]["fingerprint"]: record for record in records}
    if len(known) > 1:
        one, other, *_ = known.values()
        raise RunError(
            f"{one.folder} and {other.folder} are of different data: only what was measured on "
            "the same images can be compared"
        )
    seen: dict[str, Record] = {}
    for record in records:
        same = seen.setdefault(str(sorted(_flat(record.settings).items(), key=str)), record)
        if same is not record:
            raise RunError(
                f"{same.folder} and {record.folder} are the same recipe with the same seed: "
                "give one of them"
            )


def _lacks(record: Record, name: str) -> bool:
    return any(line.split()[0] == name for line in record.missing)


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by dotted key; where data lies is none, as its fingerprint is compared."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{key}.")
        elif f"{prefix}{key}" != "data.path":
            found[f"{prefix}{key}"] = value
    return found


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _seed(record: Record) -> int:
    return int(record.settings["seed"])


def _accuracies(records: Sequence[Record], stage: str) -> list[float]:
    return [record.results["models"][stage]["accuracy"] for record in records]


def _right(record: Record, stage: str) -> np.ndarray:
    return np.asarray(record.answers[stage].argmax(axis=1) == record.labels)


def _spread(values: Sequence[float]) -> dict[str, Any]:
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "std": std}


def _p(value: float) -> str:
    return f"{value:.4f}" if value >= 0.0001 else f"{value:.0e}"
