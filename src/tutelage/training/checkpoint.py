"""Checkpoints: the training state at the end of an epoch or within one, in one file."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from tutelage import storage
from tutelage.errors import RunError
from tutelage.progress import EpochLog


@dataclass(frozen=True)
class Position:
    """A position within an epoch.

    Attributes:
        batches: the number of its batches that have been trained on; 0: the epoch has not begun.
        seconds: the time spent on them.
        metrics: the values of the metrics' variables, by name.
    """

    batches: int = 0
    seconds: float = 0.0
    metrics: Mapping[str, np.ndarray] = field(default_factory=dict)


def epochs_done(checkpoint: Path) -> int:
    """The number of finished epochs of a checkpoint; 0 if there is none."""
    return position(checkpoint)[0]


def position(checkpoint: Path) -> tuple[int, int]:
    """The finished epochs of a checkpoint, and the batches of the next one; zeros without one."""
    if not checkpoint.exists():
        return 0, 0
    note, _, _ = _read(checkpoint)
    return len(note["history"]), note.get("batches", 0)


def save(
    path: Path,
    key: str,
    history: list[EpochLog],
    state: list[keras.Variable],
    within: Position | None = None,
) -> None:
    """Save the training state atomically.

    Args:
        path: the file.
        key: identifies the training.
        history: one row per epoch so far.
        state: all variables needed to resume.
        within: the position in the epoch after these; None: it has not begun.
    """
    within = within or Position()
    arrays = {f"v{i}": ops.convert_to_numpy(v.value) for i, v in enumerate(state)}
    arrays |= {f"m{i}": array for i, array in enumerate(within.metrics.values())}
    note: dict[str, Any] = {"key": key, "history": history}
    if within.batches:
        note |= {"batches": within.batches, "seconds": within.seconds}
        note["metrics"] = list(within.metrics)
    with storage.replacing(path) as temporary:
        np.savez(temporary, note=np.array(json.dumps(note)), **arrays)


def restore(path: Path, key: str, state: list[keras.Variable]) -> tuple[list[EpochLog], Position]:
    """Restore variables from a checkpoint.

    Args:
        path: the file; if there is none, the variables stay as they are.
        key: identifies the training.
        state: the variables, as in `save`.

    Returns:
        The history and the position in the epoch after it.

    Raises:
        RunError: if the file is damaged or belongs to another training.
    """
    if not path.exists():
        return [], Position()
    note, arrays, metrics = _read(path)
    if note["key"] != key or [a.shape for a in arrays] != [tuple(v.shape) for v in state]:
        raise RunError(
            f"{path} belongs to another training: delete it to train this stage from the start"
        )
    for variable, array in zip(state, arrays, strict=True):
        variable.assign(array)
    named = dict(zip(note.get("metrics", []), metrics, strict=True))
    within = Position(note.get("batches", 0), note.get("seconds", 0.0), named)
    return list(note["history"]), within


def _read(path: Path) -> tuple[dict[str, Any], list[np.ndarray], list[np.ndarray]]:
    """A checkpoint's note, and the values of its state and of its metrics."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            note = json.loads(str(stored["note"]))
            metrics = [stored[f"m{i}"] for i in range(len(note.get("metrics", [])))]
            state = [stored[f"v{i}"] for i in range(len(stored) - 1 - len(metrics))]
            return note, state, metrics
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise RunError(
            f"{path} is damaged ({error}): delete it to train this stage again from the start"
        ) from error
