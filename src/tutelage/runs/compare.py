"""Compares runs over seeds and recipes, with confidence intervals and significance tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from tutelage import recipe as recipes
from tutelage.errors import RunError
from tutelage.evaluation.statistics import paired
from tutelage.runs import verdict
from tutelage.runs.run_reader import Record

_BACKENDS = ("torch", "jax", "tensorflow")


def compare(records: Sequence[Record]) -> dict[str, Any]:
    """Compare finished runs: seeds of one recipe, and different recipes.

    Args:
        records: from `run_reader.read`, of runs on the same test images.

    Returns:
        `data`, `test` (images) and `groups`, one per recipe regardless of the seed: `name` (the
        keys that differ), `runs`, `seeds`, `models` (mean and standard deviation of each metric),
        `worth` (student - baseline), `short` (student - teacher, if its accuracy is known),
        `mcnemar` (student and baseline, per seed), and of `runs.verdict` the `conclusion` and
        its sentences, `verdict`; all groups but the first also `against`: student - student of
        the first group, paired by seed. `mixed` lists differences other than recipe and seed: the
        compiled kernels or the backend.

    Raises:
        RunError: a run is not finished, or the data differ.
    """
    _check(records)
    gathered: dict[str, list[Record]] = {}
    settings = [_flat(record.settings) for record in records]
    varied = {
        key
        for key in set().union(*settings)
        if key != "seed" and len({str(recipe.get(key)) for recipe in settings}) > 1
    }
    for record, recipe in sorted(
        zip(records, settings, strict=True), key=lambda pair: int(pair[1]["seed"])
    ):
        differing = [f"{k}={_plain(recipe[k])}" for k in sorted(varied) if k in recipe]
        name = ", ".join(differing) or record.results["name"]
        gathered.setdefault(name, []).append(record)
    groups: list[dict[str, Any]] = []
    for name, seeds in gathered.items():
        group = _group(name, seeds)
        if groups:
            group["against"] = _against(seeds, next(iter(gathered.values())))
        groups.append(group)
    data = records[0].results["data"]
    return {
        "data": data["name"],
        "test": data["test"],
        "groups": groups,
        "mixed": _mixed(records),
    }


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
    gain, judged = verdict.evidence(records, "student", "baseline"), verdict.of(records)
    group: dict[str, Any] = {
        "name": name,
        "runs": [str(record.folder) for record in records],
        "seeds": [_seed(record) for record in records],
        "models": models,
        "worth": asdict(gain.difference),
        "mcnemar": list(gain.tests),
        "conclusion": judged.conclusion,
        "verdict": judged.text,
    }
    if "teacher" in models:
        group["short"] = asdict(verdict.evidence(records, "student", "teacher").difference)
    return group


def _against(records: Sequence[Record], first: Sequence[Record]) -> dict[str, Any] | None:
    """Student - student of the first group, over the seeds of both."""
    others = {_seed(record): record for record in first}
    pairs = [(record, others[_seed(record)]) for record in records if _seed(record) in others]
    if not pairs:
        return None
    own, other = zip(*pairs, strict=True)
    total = records[0].results["data"]["test"]
    return asdict(paired(_accuracies(own), _accuracies(other), total))


def _check(records: Sequence[Record]) -> None:
    if not records:
        raise RunError("expected at least one run to compare, found none")
    for record in records:
        absent = [name for name in ("recipe.toml", "results.json") if _lacks(record, name)]
        if absent:
            lines = "; ".join(line for line in record.missing if line.split()[0] in absent)
            raise RunError(
                f"{record.folder}: expected a finished run, but {lines}: run its command again"
            )
    by_data = {record.results["data"]["fingerprint"]: record for record in records}
    if len(by_data) > 1:
        first, second, *_ = by_data.values()
        raise RunError(
            f"{first.folder} and {second.folder} differ in data: compare runs on the same images"
        )
    seen: dict[str, Record] = {}
    for record in records:
        same = seen.setdefault(str(sorted(_flat(record.settings).items(), key=str)), record)
        if same is not record:
            raise RunError(
                f"{same.folder} and {record.folder} have the same recipe and seed: compare only one"
            )


def _mixed(records: Sequence[Record]) -> list[str]:
    """Describe differences in backend and compiled kernels, one line per variant."""
    variants: dict[str, list[str]] = {}
    for record in records:
        environment = record.results.get("environment", {})
        compiled = environment.get("compiled", [])
        # Version 0.1.0 called it `fusion`.
        parts = [part.replace("fusion", "fused_batch_norm") for part in compiled]
        versions = environment.get("versions", {})
        backend = next((b for b in _BACKENDS if b in versions), "an unknown backend")
        variant = f"{backend} with {' and '.join(sorted(parts)) or 'no compiled kernels'}"
        variants.setdefault(variant, []).append(str(record.folder))
    if len(variants) < 2:
        return []
    return [f"computed by {name}: {', '.join(folders)}" for name, folders in variants.items()]


def _lacks(record: Record, name: str) -> bool:
    return any(line.split()[0] == name for line in record.missing)


def _flat(tree: dict[str, Any]) -> dict[str, Any]:
    """Settings by dotted key, without the path of the data, whose fingerprint is compared."""
    return {key: value for key, value in recipes.flat(tree).items() if key != "data.path"}


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _seed(record: Record) -> int:
    return int(record.settings["seed"])


def _accuracies(records: Sequence[Record]) -> list[float]:
    return [record.results["models"]["student"]["accuracy"] for record in records]


def _spread(values: Sequence[float]) -> dict[str, Any]:
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "std": std}
