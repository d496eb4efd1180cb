"""The state of a training after its last finished epoch, in one file."""

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
    """How many epochs a checkpoint has behind it; 0 where there is none."""
    return len(_read(checkpoint)[0]["history"]) if checkpoint.exists() else 0


def save(path: Path, key: str, history: list[EpochLog], state: list[keras.Variable]) -> None:
    """Write a training's state, whole or not at all.

    Args:
        path: the file.
        key: what the training is.
        history: a row for each epoch so far.
        state: all variables that it goes on from.
    """
    arrays = {f"v{i}": ops.convert_to_numpy(v.value) for i, v in enumerate(state)}
    note = json.dumps({"key": key, "history": history})
    with storage.replacing(path) as temporary:
        np.savez(temporary, note=np.array(note), **arrays)


def restore(path: Path, key: str, state: list[keras.Variable]) -> list[EpochLog]:
    """Set variables to a checkpoint's values; the history so far, empty where there is no file."""
    if not path.exists():
        return []
    note, arrays = _read(path)
    if note["key"] != key or [a.shape for a in arrays] != [tuple(v.shape) for v in state]:
        raise RunError(
            f"{path} belongs to another training: delete it to train this stage from its start"
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
            f"{path} is damaged ({error}): delete it to train this stage again from its start"
        ) from error
