"""The file of a view's array, written in blocks by one process or by several after each other."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np

from tutelage import storage
from tutelage.errors import RunError

SAVE_SECONDS = 20.0  # between records of what is written: a killed process loses what follows one


class ViewFile:
    """A `.npy` file that is written in blocks of rows, and goes on where a killed process ended.

    Rows are written as they come to a file with the suffix `.part`. Every 20 seconds a record next
    to it names the rows written since the last one and their checksum; it is replaced atomically,
    after they are on the disk. Rows whose content does not match the record are missing. The whole
    file gets its name once the note next to it says its checksum.

    Only one process at a time may write; used as a context manager, it records at the end what was
    written, also after an exception.

    Args:
        path: the file, `NAME.npy`, in a folder that exists.
        shape: shape of the array; its first axis are the rows.
        dtype: its type.

    Attributes:
        seconds: the seconds that earlier processes spent on it.

    Example:

    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from tutelage.distillation import view_file
    >>> path = view_file.path_of(pathlib.Path(tempfile.mkdtemp()), 0)
    >>> with view_file.ViewFile(path, (4,), np.dtype(np.float32)) as file:
    ...     file.write(2, np.ones(2))
    >>> with view_file.ViewFile(path, (4,), np.dtype(np.float32)) as file:
    ...     print(file.missing())
    ...     file.write(0, np.zeros(2))
    ...     _ = file.finish()
    [(0, 2)]
    >>> np.load(path).tolist(), view_file.is_complete(path)
    ([0.0, 0.0, 1.0, 1.0], True)
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype):
        self.path, self.shape, self.dtype = path, shape, dtype
        self._part, self._record = path.with_suffix(".part"), path.with_suffix(".part.json")
        self._blocks: list[tuple[int, int, str]] = []  # first row, the one behind, SHA-256
        self.seconds = 0.0
        self._read()

    def missing(self) -> list[tuple[int, int]]:
        """The rows that are not recorded: the first and the one behind the last of each gap."""
        gaps, end = [], 0
        for start, stop, _ in [*sorted(self._blocks), (self.shape[0], self.shape[0], "")]:
            if start > end:
                gaps.append((end, start))
            end = max(end, stop)
        return gaps

    def recorded(self) -> np.ndarray:
        """The indices of the rows that are recorded, int64, ascending."""
        blocks = [np.arange(start, stop) for start, stop, _ in sorted(self._blocks)]
        return np.concatenate(blocks) if blocks else np.empty(0, np.int64)

    def rows(self, index: np.ndarray) -> np.ndarray:
        """Rows that are recorded."""
        return np.asarray(np.load(self._part, mmap_mode="r")[index])

    def __enter__(self) -> Self:
        self._began = self._saved = time.monotonic()
        self._unsaved: tuple[int, int] | None = None
        self._digest = hashlib.sha256()
        with _reported(self.path):
            if not self._blocks:
                # Its pages are never touched: if the disk were full, that would kill the process,
                # where a write raises an error.
                np.lib.format.open_memmap(self._part, "w+", self.dtype, self.shape)
            self._offset = np.load(self._part, mmap_mode="r").offset
            self._file: BinaryIO = self._part.open("rb+")
        return self

    def __exit__(self, *_: object) -> None:
        if not self._file.closed:
            with _reported(self.path):
                try:
                    self.save()
                finally:
                    self._file.close()

    def write(self, start: int, rows: np.ndarray) -> None:
        """Write rows.

        Args:
            start: the index of the first.
            rows: the rows, of the file's shape and type, or of one that is converted to it.

        Raises:
            RunError: if the disk can't be written.
        """
        block = np.empty((len(rows), *self.shape[1:]), self.dtype)
        block[...] = rows
        if self._unsaved is not None and self._unsaved[1] != start:
            self.save()
        content = block.tobytes()
        with _reported(self.path):
            self._file.seek(self._offset + start * (len(content) // len(rows)))
            self._file.write(content)
        self._digest.update(content)
        first = start if self._unsaved is None else self._unsaved[0]
        self._unsaved = first, start + len(rows)
        if time.monotonic() - self._saved > SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Record the rows written so far.

        Raises:
            RunError: if the disk can't be written.
        """
        if self._unsaved is None:
            return
        with _reported(self.path):
            self._file.flush()
            os.fsync(self._file.fileno())
        self._blocks.append((*self._unsaved, self._digest.hexdigest()))
        self._unsaved, self._digest = None, hashlib.sha256()
        record = {"blocks": self._blocks, "seconds": round(self._spent(), 3)}
        with storage.replacing(self._record) as temporary:
            temporary.write_text(json.dumps(record) + "\n")
        self._saved = time.monotonic()

    def finish(self) -> float:
        """Complete the file, of which no row is missing, and give it its name.

        Returns:
            The seconds that all processes spent on it.

        Raises:
            RunError: if the disk can't be written.
        """
        self.save()
        self._file.close()
        seconds = self._spent()
        with _reported(self.path):
            content = {"sha256": storage.sha256(self._part), "seconds": round(seconds, 3)}
            with storage.replacing(self.path.with_suffix(".json")) as temporary:
                temporary.write_text(json.dumps(content) + "\n")
            # Last: a process that is killed before it finds all rows, and finishes again.
            os.replace(self._part, self.path)
            self._record.unlink(missing_ok=True)
        return seconds

    def _spent(self) -> float:
        return self.seconds + time.monotonic() - self._began

    def _read(self) -> None:
        """Take over what an earlier process recorded, as far as the content is that."""
        try:
            record = json.loads(self._record.read_text())
            blocks = [(int(a), int(b), str(digest)) for a, b, digest in record["blocks"]]
            seconds, stored = float(record["seconds"]), np.load(self._part, mmap_mode="r")
        except (OSError, ValueError, KeyError, TypeError, EOFError):
            return
        if stored.shape != self.shape or stored.dtype != self.dtype:
            return
        self.seconds = seconds
        for start, stop, digest in blocks:
            if 0 <= start < stop <= len(stored):
                content = hashlib.sha256(stored[start:stop].tobytes()).hexdigest()
                self._blocks += [(start, stop, digest)] if content == digest else []


def path_of(folder: Path, number: int) -> Path:
    """The file of a view in a folder."""
    return folder / f"{number:05d}.npy"


def note(path: Path) -> dict[str, float | str]:
    """What is noted of a complete file: `sha256`, and the `seconds` that it took.

    Raises:
        OSError, ValueError: if there is no readable note.
    """
    content: dict[str, float | str] = json.loads(path.with_suffix(".json").read_text())
    return content


def is_complete(path: Path) -> bool:
    """Whether a file is there, with the content that was noted when it was completed."""
    try:
        return note(path)["sha256"] == storage.sha256(path)
    except (OSError, ValueError, KeyError, TypeError):
        return False


@contextlib.contextmanager
def _reported(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if isinstance(error, RunError):
            raise
        reason = error.strerror or str(error)
        raise RunError(
            f"can't write {path}: {reason}; what was recorded is kept: make room, then run the "
            "same command again"
        ) from error
