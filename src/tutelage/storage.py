"""Atomic file writes and the cache folder."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from tutelage.errors import RunError, TutelageError

# The names of the entries of each kind: TUTELAGE_CACHE may be a folder with other files.
_NAMES = {
    "downloads": r"cifar-10-binary\.tar\.gz|mnist\.npz",
    "images": r"[0-9a-f]{32}\.npz",
    "indices": r"[0-9a-f]{32}\.npz",
    "kernels": r"\w+-[0-9a-f]{16}\.so",
    "knowledge": r"[0-9a-f]{32}",
    "logits": r"[0-9a-f]{32}(-\d+)?",
    "unpacked": r"[0-9a-f]{32}\.(bin|json)",
}
_EVICTED = (
    "images",
    "indices",
    "knowledge",
    "logits",
    "unpacked",
)  # large, and made anew in minutes
_DAY = 24 * 3600

log = logging.getLogger(__name__)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` if the block succeeds.

    If the process is killed or the disk fills up, either the old file or the new one
    remains, never a partial one.

    Args:
        path: the file to write; its folder must exist. The temporary path has its suffix.

    Yields:
        The path to write to.

    Raises:
        RunError: if the disk can't be written.

    Example:

    >>> import pathlib, tempfile
    >>> from tutelage import storage
    >>> target = pathlib.Path(tempfile.mkdtemp()) / "note.txt"
    >>> with storage.replacing(target) as temporary:
    ...     _ = temporary.write_text("whole")
    >>> target.read_text()
    'whole'
    """
    temporary = path.with_name(f".{path.stem}-{secrets.token_hex(4)}{path.suffix}")
    try:
        temporary.touch(exist_ok=False)
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except TutelageError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunError(
            f"can't write {path}: {reason}; nothing already there was lost: "
            "make room or choose another folder, then run the same command again"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def cache_folder() -> Path:
    """The cache folder: `TUTELAGE_CACHE`, or the platform's user cache folder."""
    named = os.environ.get("TUTELAGE_CACHE")
    return Path(named).expanduser() if named else Path(platformdirs.user_cache_dir("tutelage"))


@dataclass(frozen=True)
class CacheEntry:
    """One file or folder of the cache.

    Attributes:
        kind: its subfolder: `images`, `indices`, `logits`, `kernels`, `unpacked`, `downloads`, or
            `knowledge`, as version 0.1 called the logits.
        path: the file or folder.
        bytes: its size.
        used: when it was last written or read, in seconds since 1970.
    """

    kind: str
    path: Path
    bytes: int
    used: float


def cached() -> list[CacheEntry]:
    """List what is in the cache folder, ordered by kind and path; other files are left out."""
    entries = []
    for kind, name in _NAMES.items():
        for path in sorted((cache_folder() / kind).glob("*")):
            if not re.fullmatch(name, path.name):
                continue
            with contextlib.suppress(FileNotFoundError):  # deleted by another process meanwhile
                files = [file for file in (path, *path.rglob("*")) if file.is_file()]
                size = sum(file.stat().st_size for file in files)
                entries.append(CacheEntry(kind, path, size, path.stat().st_mtime))
    return entries


def mark_used(path: Path) -> None:
    """Record that an entry of the cache is in use, which keeps it from `evict` for a day."""
    with contextlib.suppress(OSError):  # a cache of another user can be read only
        os.utime(path)


def delete(entries: Iterable[CacheEntry]) -> None:
    """Delete entries of the cache."""
    for entry in entries:
        if entry.path.is_dir():
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            entry.path.unlink(missing_ok=True)


def evict() -> list[CacheEntry]:
    """Delete the least recently used images and logits while they exceed `cache_limit`.

    What was used within a day is kept, as a process may be using it.

    Returns:
        What was deleted, also named in a warning.
    """
    limit = cache_limit()
    entries = [entry for entry in cached() if entry.kind in _EVICTED]
    total, dropped = sum(entry.bytes for entry in entries), list[CacheEntry]()
    for entry in sorted(entries, key=lambda entry: entry.used):
        if total <= limit or time.time() - entry.used < _DAY:
            break
        dropped.append(entry)
        total -= entry.bytes
    delete(dropped)
    if dropped:
        size = sum(entry.bytes for entry in dropped) / 1e9
        log.warning(
            "deleted %d cache entries (%.2f GB) not used for a day, as the cache in %s exceeded "
            "%.2f GB (TUTELAGE_CACHE_LIMIT)",
            *(len(dropped), size, cache_folder(), limit / 1e9),
        )
    return dropped


def cache_limit() -> int:
    """The bound of `evict` in bytes: `TUTELAGE_CACHE_LIMIT`, such as `5GB`, or 20 GB.

    Raises:
        RunError: if the variable is not a size.
    """
    text = os.environ.get("TUTELAGE_CACHE_LIMIT", "20GB")
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kMGT]?B)", text.strip())
    if match is None:
        raise RunError(
            f"TUTELAGE_CACHE_LIMIT: expected a size such as 500MB or 20GB, found {text!r}"
        )
    return round(float(match[1]) * 1000 ** ("B", "kB", "MB", "GB", "TB").index(match[2]))


def make_folder(path: Path) -> None:
    """Create a folder and its parents if they don't exist.

    Args:
        path: the folder.

    Raises:
        RunError: if it can't be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"can't create the folder {path}: {error.strerror or error}") from error


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
