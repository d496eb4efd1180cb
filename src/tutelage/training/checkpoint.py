"""Checkpoints: the training state after the last finished epoch, in one file."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from tutelage import storage
from tutelage.errors import RunError
from tutelage.progress import EpochLog


def epochs_done(checkpoint: Path) -> int:
    """The number of finished epochs of a checkpoint; 0 if there is none."""
    return len(_read(checkpoint)[0]["history"]) if checkpoint.exists() else 0


def save(path: Path, key: str, history: list[EpochLog], state: list[keras.Variable]) -> None:
    """Save the training state atomically.

    Args:
        path: the file.
        key: identifies the training.
        history: one row per epoch so far.
        state: all variables needed to resume.
    """
    arrays = {f"v{i}": ops.convert_to_numpy(v.value) for i, v in enumerate(state)}
    note = json.dumps({"key": key, "history": history})
    with storage.replacing(path) as temporary:
        np.savez(temporary, note=np.array(note), **arrays)


def restore(path: Path, key: str, state: list[keras.Variable]) -> list[EpochLog]:
    """Restore variables from a checkpoint; returns the history, empty if there is no file."""
    if not path.exists():
        return []
    note, arrays = _read(path)
    if note["key"] != key or [a.shape for a in arrays] != [tuple(v.shape) for v in state]:
        raise RunError(
            f"{path} belongs to another training: delete it to train this stage from the start"
        )
    for variable, array in zip(state, arrays, strict=True):
        variable.assign(array)
    return list(note["history"])


def _read(path: Path) -> tuple[dict[str, Any], list[np.ndarray]]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            note = json.loads(str(stored["note"]))
            return note, [stored[f"v{i}"] for i in range(len(stored) - 1)]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise RunError(
            f"{path} is damaged ({error}): delete it to train this stage again from the start"
        ) from error
