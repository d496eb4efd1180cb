"""An index of image files: where each is, its size and its hash, but not its pixels."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from tutelage import storage
from tutelage.data import image_file
from tutelage.data.archives import ByteRange, Tree, one_line
from tutelage.errors import DataError
from tutelage.progress import Progress

# Increased when the same file gets another entry.
_READER = 1
_CHUNK = 1024  # files in memory at once
_NAMED = 3  # damaged files that an error names
_SAVE_SECONDS = 30.0
_CACHED = ("digests", "sizes", "channels")

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class FileIndex:
    """Image files by number.

    Args:
        paths: the file that contains each image, bytes as from `os.fsencode`, shape (n,).
        starts: where it begins in that file, int64 of shape (n,).
        lengths: its bytes, int64 of shape (n,).
        digests: SHA-256 of the bytes, uint8 of shape (n, 32).
        sizes: (height, width) upright, in pixels, int32 of shape (n, 2).
        channels: 1 for grayscale, 3 for color, uint8 of shape (n,).
    """

    paths: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    digests: np.ndarray
    sizes: np.ndarray
    channels: np.ndarray

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, numbers: np.ndarray | slice) -> FileIndex:
        """The index of some of the files."""
        return FileIndex(*(getattr(self, field.name)[numbers] for field in fields(self)))

    def range(self, number: int) -> ByteRange:
        """Where an image's bytes are."""
        path = os.fsdecode(bytes(self.paths[number]))
        return ByteRange(path, int(self.starts[number]), int(self.lengths[number]))

    def read(self, number: int) -> tuple[bytes, str]:
        """An image's bytes, and its name for messages; raises DataError if they can't be read."""
        place = self.range(number)
        name = f"{place.path} at byte {place.start:,}" if place.start else place.path
        try:
            return place(), name
        except (OSError, EOFError) as error:
            reason = getattr(error, "strerror", None) or one_line(error)
            raise DataError(
                f"{name}: can't be read any more ({reason}); restore it, then run the same "
                "command again"
            ) from error


def joined(indices: Sequence[FileIndex]) -> FileIndex:
    """One index after the other."""
    names = [field.name for field in fields(FileIndex)]
    return FileIndex(*(np.concatenate([getattr(one, name) for one in indices]) for name in names))


def build(tree: Tree, names: Sequence[str], progress: Progress | None = None) -> FileIndex:
    """Index images of a tree: each is decoded once, so that a damaged file is found now.

    The result is cached; files that have changed since are read again, by their size and times.

    Args:
        tree: the opened folder or archive without compression.
        names: the images' paths in the tree, at least one.
        progress: notified of each file, if many must be read.

    Returns:
        The index, in the order of `names`.

    Raises:
        DataError: if files can't be read as images; names the first ones.
    """
    index, reasons = _examined(tree, names, progress)
    if reasons:
        raise damaged(list(reasons.values()))
    return index


def unreadable(
    tree: Tree, names: Sequence[str], progress: Progress | None = None
) -> dict[str, str]:
    """Why files can't be read as images, by name; nothing of those that can.

    Arguments as in `build`.
    """
    return _examined(tree, names, progress)[1]


def damaged(reasons: Sequence[str]) -> DataError:
    """The error for files that can't be read as images; names the first ones."""
    more = f"; and {len(reasons) - _NAMED:,} more" if len(reasons) > _NAMED else ""
    count = "" if len(reasons) == 1 else f"{len(reasons):,} images can't be read: "
    return DataError(
        f"{count}{'; '.join(reasons[:_NAMED])}{more}; or leave damaged images out with "
        "--skip-damaged (data.skip_damaged)"
    )


def _examined(
    tree: Tree, names: Sequence[str], progress: Progress | None
) -> tuple[FileIndex, dict[str, str]]:
    ranges = [tree.files[name] for name in names]
    assert all(isinstance(one, ByteRange) for one in ranges)
    paths = np.array([os.fsencode(one.path) for one in ranges])  # type: ignore[attr-defined]
    starts = np.array([one.start for one in ranges], np.int64)  # type: ignore[attr-defined]
    stamps, lengths = _stamps(ranges)  # type: ignore[arg-type]
    count = len(names)
    index = FileIndex(
        paths=paths,
        starts=starts,
        lengths=lengths,
        digests=np.zeros((count, 32), np.uint8),
        sizes=np.zeros((count, 2), np.int32),
        channels=np.zeros(count, np.uint8),
    )
    cache = _cache_file(index)
    _load(cache, stamps, index)
    return index, _read(tree, names, index, lambda: _save(cache, stamps, index), progress)


def _stamps(ranges: Sequence[ByteRange]) -> tuple[np.ndarray, np.ndarray]:
    """What changes with a file's content, (n, 4), and the length of each image."""
    stamps, lengths = np.empty((len(ranges), 4), np.int64), np.empty(len(ranges), np.int64)
    last: tuple[str, os.stat_result] | None = None
    for number, one in enumerate(ranges):
        if last is None or last[0] != one.path:
            last = one.path, os.stat(one.path)
        status = last[1]
        stamps[number] = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        lengths[number] = status.st_size if one.length < 0 else one.length
    return stamps, lengths


def _read(
    tree: Tree,
    names: Sequence[str],
    index: FileIndex,
    save: Callable[[], None],
    progress: Progress | None,
) -> dict[str, str]:
    """Fill in the rows of the files that are not known yet, whose `channels` are 0.

    Returns why files can't be read, by name.
    """
    missing = np.flatnonzero(index.channels == 0)
    if not len(missing):
        return {}
    shown = progress if progress is not None and len(missing) > _CHUNK else Progress()
    shown.stage("reading images", 1, 0, len(missing), "pass")
    began = saved = time.monotonic()
    reasons, done = dict[str, str](), 0
    with image_file.strict_pillow(), ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(missing), _CHUNK):
            chunk = missing[start : start + _CHUNK].tolist()
            rows = pool.map(partial(_row, tree), (names[number] for number in chunk))
            for number, row in zip(chunk, rows, strict=True):
                if isinstance(row, str):
                    reasons[names[number]] = row
                else:
                    index.digests[number], index.sizes[number], index.channels[number] = row
                done += 1
                shown.step(done, {})
            if time.monotonic() - saved > _SAVE_SECONDS:
                save()
                saved = time.monotonic()
    save()
    shown.epoch({"epoch": 1, "seconds": time.monotonic() - began})
    return reasons


def _row(tree: Tree, name: str) -> tuple[np.ndarray, tuple[int, int], int] | str:
    """A file's SHA-256, size and channels, or why it can't be read as an image."""
    try:
        data = tree.files[name]()
        # A JPEG is decoded at an eighth of its size, which reads the whole file all the same.
        image = image_file.open_image(data, tree.where(name), (1, 1))
        size = image_file.natural_size(data)
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        return f"{tree.where(name)}: can't be read ({reason})"
    except DataError as error:
        return str(error)
    digest = np.frombuffer(hashlib.sha256(data).digest(), np.uint8)
    return digest, size, 1 if image.mode == "L" else 3


def _cache_file(index: FileIndex) -> Path:
    key = hashlib.sha256(f"{_READER} {PIL.__version__} {image_file.FORMATS}".encode())
    key.update(b"\0".join(index.paths.tolist()))
    key.update(index.starts.tobytes())
    return storage.cache_folder() / "indices" / f"{key.hexdigest()[:32]}.npz"


def _load(path: Path, stamps: np.ndarray, index: FileIndex) -> None:
    """Fill in the cached rows of the files that are unchanged."""
    try:
        storage.mark_used(path)
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            same = (arrays["stamps"] == stamps).all(axis=1)
            for name in _CACHED:
                getattr(index, name)[same] = arrays[name][same]
    except FileNotFoundError:
        pass
    except Exception as error:  # a damaged file can make NumPy and zipfile raise anything
        log.warning("%s is damaged (%s): reading the images again", path, one_line(error))
        index.channels[:] = 0


def _save(path: Path, stamps: np.ndarray, index: FileIndex) -> None:
    """Save the rows for `_load`; only warns if they can't be written."""
    arrays: dict[str, Any] = {name: getattr(index, name) for name in _CACHED}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with storage.replacing(path) as temporary:
            np.savez(temporary, stamps=stamps, **arrays)
        storage.evict()
    except OSError as error:
        log.warning("the index of the images is not cached: %s", error)
