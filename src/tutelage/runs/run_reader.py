"""Reads run folders, including unfinished and damaged ones."""

from __future__ import annotations

import csv
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tutelage import recipe as recipes
from tutelage.errors import RunError

_DAMAGE = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, eq=False)
class Record:
    """The content of a run folder; parts of an unfinished or damaged run are empty.

    Attributes:
        folder: the run folder.
        settings: the recipe as nested dicts.
        results: the content of `results.json`.
        history: one row per epoch of each stage: `stage`, `epoch` and the metrics.
        logits: logits of each model on the test set, float32 of shape (n, classes).
        labels: labels of the test set, integers of shape (n,); empty without logits.
        pictures: the arrays of `example_images.save`.
        costs: one row per file measured by `tutelage profile`.
        missing: one line per missing or damaged file.
    """

    folder: Path
    settings: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    logits: dict[str, np.ndarray] = field(default_factory=dict)
    labels: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    pictures: dict[str, np.ndarray] = field(default_factory=dict)
    costs: list[dict[str, Any]] = field(default_factory=list)
    missing: tuple[str, ...] = ()


def read(folder: Path) -> Record:
    """Read a run folder, skipping missing and damaged files.

    Args:
        folder: the run folder.

    Returns:
        Everything that could be read.

    Raises:
        RunError: it is not a run folder.
    """
    if not (folder / "run.json").is_file():
        raise RunError(f"{folder} contains no run: expected a folder written by `tutelage run`")
    missing: list[str] = []

    def part(name: str, reader: Callable[[bytes], Any], otherwise: Any) -> Any:
        try:
            return reader((folder / name).read_bytes())
        except FileNotFoundError:
            missing.append(f"{name} is missing")
        except _DAMAGE:
            missing.append(f"{name} is damaged")
        return otherwise

    settings = part("recipe.toml", lambda _: _settings(folder / "recipe.toml"), {})
    history = part("history.csv", _rows, [])
    results = part("results.json", _results, {})
    logits, labels = part("predictions.npz", _predictions, ({}, np.empty(0, np.int64)))
    pictures = part("pictures.npz", lambda content: _pictures(content, len(labels)), {})
    costs: list[dict[str, Any]] = []
    if (folder / "profile.json").exists():  # optional
        costs = part("profile.json", _costs, [])
    return Record(
        folder, settings, results, history, logits, labels, pictures, costs, tuple(missing)
    )


def find(paths: Iterable[Path]) -> list[Path]:
    """List the run folders at the given paths.

    Args:
        paths: run folders, or folders that contain them.

    Returns:
        Run folders in the given order, without duplicates.

    Raises:
        RunError: a path contains no run.
    """
    folders: list[Path] = []
    for path in paths:
        inside = sorted(manifest.parent for manifest in path.glob("*/run.json"))
        if (path / "run.json").is_file():
            inside = [path]
        if not inside:
            raise RunError(f"{path} contains no run: expected a run folder, or a folder of runs")
        folders += inside
    return list(dict.fromkeys(folders))


def _settings(path: Path) -> dict[str, Any]:
    return recipes.to_dict(recipes.load(path))


def _rows(content: bytes) -> list[dict[str, Any]]:
    rows = csv.DictReader(io.StringIO(content.decode()))
    return [{k: v if k == "stage" else float(v) for k, v in row.items() if v} for row in rows]


def _results(content: bytes) -> dict[str, Any]:
    results: dict[str, Any] = json.loads(content)
    for stage in results["models"].values():
        float(stage["accuracy"])
    return results


def _costs(content: bytes) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(content)["models"]
    for row in rows:
        texts = [row[key] for key in ("name", "format", "precision")]
        numbers = [row["bytes"], row["single"]["median"], row["single"]["threads"]]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError(texts)
        if min(float(number) for number in numbers) <= 0 or not 0 <= row.get("accuracy", 0) <= 1:
            raise ValueError(numbers)
    return rows


def _predictions(content: bytes) -> tuple[dict[str, np.ndarray], np.ndarray]:
    with np.load(io.BytesIO(content)) as stored:
        parts = {name: stored[name] for name in stored.files}
    labels = parts.pop("labels")
    parts.pop("index")
    for name, logits in parts.items():
        if logits.ndim != 2 or len(logits) != len(labels):
            raise ValueError(name)
    return parts, labels


def _pictures(content: bytes, count: int) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(content)) as stored:
        parts = {name: stored[name] for name in stored.files}
    float(parts["temperature"])
    for name in ("missed", "telling"):
        index, images = parts[name], parts[f"{name}_images"]
        if index.dtype.kind not in "iu" or (index < 0).any() or (count and (index >= count).any()):
            raise ValueError(name)
        if images.dtype != np.uint8 or images.ndim != 4 or len(images) != len(index):
            raise ValueError(name)
    return parts
