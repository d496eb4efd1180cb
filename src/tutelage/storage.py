"""Atomic file writes and the cache folder."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import platformdirs

from tutelage.errors import RunError, TutelageError


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
