"""Files written whole or not at all, and where they are kept."""

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
    """A temporary path beside `path`, which takes its place when the block ends well.

    A process killed at any moment, or a disk that fills up, leaves either the old
    file or the new one, never half of it.

    Args:
        path: the file to write; its folder exists. The temporary has its suffix.

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
            "make room or choose another folder, then give the same command again"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def cache_folder() -> Path:
    """Where images, downloads and knowledge are kept: `TUTELAGE_CACHE`, or the user's cache."""
    named = os.environ.get("TUTELAGE_CACHE")
    return Path(named).expanduser() if named else Path(platformdirs.user_cache_dir("tutelage"))


def make_folder(path: Path) -> None:
    """Make a folder and those above it, if absent.

    Args:
        path: the folder.

    Raises:
        RunError: if it can't be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"can't make the folder {path}: {error.strerror or error}") from error


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
