"""Folders and archives of image data, read in place without extraction."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import lzma
import os
import posixpath
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PureWindowsPath

from tutelage import storage
from tutelage.errors import DataError

Reader = Callable[[], bytes]

# Files that list images with their labels, by their suffix.
LISTS = (".csv", ".parquet")
_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    struct.error,
    UnicodeDecodeError,
)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes of a file, which any process can read; a negative length: to the file's end."""

    path: str
    start: int = 0
    length: int = -1

    def __call__(self) -> bytes:
        """Read them; raises OSError, or EOFError if the file has become shorter."""
        with open(self.path, "rb") as file:
            file.seek(self.start)
            content = file.read(self.length)
        if len(content) < self.length:
            raise EOFError(f"{self.path} has become shorter")
        return content


@dataclass(frozen=True)
class Tree:
    """The files of a folder or of an archive, read one by one on demand.

    Args:
        path: the folder or the archive.
        files: the files' paths inside, with `/`, and functions that read them: a `ByteRange` in
            a folder or an archive without compression. Reading in this order is fastest; use one
            thread only, except for byte ranges.
        folders: the paths of the folders inside.
    """

    path: Path
    files: dict[str, Reader]
    folders: frozenset[str]

    def where(self, name: str) -> str:
        """A file's name for messages."""
        return str(self.path / name) if self.path.is_dir() else f"{self.path}: {name}"


@contextlib.contextmanager
def open_tree(path: Path) -> Iterator[Tree]:
    """Open a folder, a .zip (or .npz) or a .tar, plain or compressed; a list has itself alone.

    The kind of archive is detected by its content. Hidden files and those of macOS and
    Windows (`.DS_Store` and the like) are skipped.

    Args:
        path: the folder or the archive; must exist.

    Yields:
        The tree of its files, readable inside the block.

    Raises:
        DataError: if the archive is damaged, or a member is a link or points outside.
    """
    with contextlib.ExitStack() as stack:
        try:
            if path.is_dir():
                tree = _walk(path)
            elif path.suffix.casefold() in LISTS:
                tree = Tree(path, {path.name: ByteRange(str(path))}, frozenset())
            elif _head(path) == b"PK":
                tree = _zip_tree(path, stack.enter_context(zipfile.ZipFile(path)))
            else:
                tree = _tar_tree(path, stack.enter_context(_open_tar(path)))
            yield tree
        except DataError:
            raise
        except _DAMAGE as error:
            raise DataError(
                f"{path}: expected a complete folder, .zip, .npz, .tar, .tar.gz or .tar.xz, found "
                f"one that is damaged, truncated or of another kind ({one_line(error)}); "
                "delete it and download it again"
            ) from error
        except OSError as error:
            raise DataError(
                f"{error.filename or path}: can't be read ({error.strerror or one_line(error)}); "
                "check its permissions and the disk"
            ) from error


def addressable(tree: Tree, names: Collection[str]) -> Tree:
    """A tree whose files are byte ranges: of an archive that is compressed, of an unpacked copy.

    The copy is a file of the cache, made once for the same archive.

    Args:
        tree: the opened folder or archive.
        names: the files that are needed.

    Returns:
        A tree with these files.

    Raises:
        RunError: if the copy can't be written.
    """
    files = {name: tree.files[name] for name in names}
    if all(isinstance(read, ByteRange) for read in files.values()):
        return Tree(tree.path, files, tree.folders)
    status = tree.path.stat()
    key = f"{tree.path.resolve()} {status.st_size} {status.st_mtime_ns} {status.st_ino}"
    key += "".join(sorted(names))
    digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    path = storage.cache_folder() / "unpacked" / f"{digest}.bin"
    listing = path.with_suffix(".json")
    if not (path.is_file() and listing.is_file()):
        storage.make_folder(path.parent)
        places, start = dict[str, tuple[int, int]](), 0
        with storage.replacing(path) as temporary, temporary.open("wb") as file:
            for name in (name for name in tree.files if name in files):  # the order of reading
                content = files[name]()
                file.write(content)
                places[name] = start, len(content)
                start += len(content)
        with storage.replacing(listing) as temporary:
            temporary.write_text(json.dumps(places), encoding="utf-8")
        storage.evict()
    storage.mark_used(path)
    found = json.loads(listing.read_text(encoding="utf-8"))
    unpacked: dict[str, Reader] = {name: ByteRange(str(path), *found[name]) for name in names}
    return Tree(tree.path, unpacked, tree.folders)


def _walk(root: Path) -> Tree:
    def fail(error: OSError) -> None:
        raise error

    files: dict[str, Reader] = {}
    folders: set[str] = set()
    for at, inner, names in os.walk(root, onerror=fail, followlinks=True):
        inner[:] = sorted(name for name in inner if not _junk(name))
        base = Path(at)
        folders.update((base / name).relative_to(root).as_posix() for name in inner)
        for name in sorted(names):
            if not _junk(name):
                file = base / name
                files[file.relative_to(root).as_posix()] = ByteRange(str(file))
    return Tree(root, files, frozenset(folders))


def _zip_tree(path: Path, archive: zipfile.ZipFile) -> Tree:
    files: dict[str, Reader] = {}
    folders: set[str] = set()
    for info in archive.infolist():
        name = _member(path, info.filename)
        if stat.S_ISLNK(info.external_attr >> 16):
            raise _refused(path, info.filename, "is a link")
        if info.flag_bits & 1:
            raise _refused(path, info.filename, "is encrypted")
        _add(path, name, None if info.is_dir() else partial(archive.read, info), files, folders)
    return Tree(path, files, frozenset(folders))


def _open_tar(path: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(path)
    except tarfile.ReadError:
        # The original message lists the errors of every compressor.
        raise tarfile.ReadError("it can't be opened as any of them") from None


def _tar_tree(path: Path, archive: tarfile.TarFile) -> Tree:
    files: dict[str, Reader] = {}
    folders: set[str] = set()
    for member in archive:
        name = _member(path, member.name)
        if not (member.isfile() or member.isdir()):
            raise _refused(path, member.name, "is a link or a special file")
        _add(path, name, None if member.isdir() else _reader(archive, member), files, folders)
    # tarfile takes a broken header, or a cut between two members, for the end; the
    # real end is two blocks of zeros. Reading to the end verifies the compressor's checksum.
    stream = archive.fileobj
    assert stream is not None
    stream.seek(archive.offset)
    if stream.read(2 * tarfile.BLOCKSIZE) != bytes(2 * tarfile.BLOCKSIZE):
        raise EOFError("no end mark")
    while stream.read(1 << 20):
        pass
    return Tree(path, files, frozenset(folders))


def _reader(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Reader:
    # Of a compressed archive `fileobj` is the decompressor, and of a sparse member parts lack.
    if isinstance(archive.fileobj, io.BufferedReader) and not member.issparse():
        return ByteRange(str(archive.name), member.offset_data, member.size)
    return partial(_read_member, archive, member)


def _read_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file is not None
    return file.read()


def _add(
    path: Path, name: str, read: Reader | None, files: dict[str, Reader], folders: set[str]
) -> None:
    if _junk(name):
        return
    if read is None:
        folders.add(name)
    elif name in files:
        raise _refused(path, name, "occurs twice")
    else:
        files[name] = read


def _member(path: Path, name: str) -> str:
    plain = name.replace("\\", "/")
    if plain.startswith("/") or ".." in plain.split("/") or PureWindowsPath(name).drive:
        raise _refused(path, name, "points outside the archive")
    return posixpath.normpath(plain)


def _refused(path: Path, name: str, why: str) -> DataError:
    return DataError(
        f"{path}: expected plain files and folders, but member {name!r} {why}; "
        "recreate the archive without it"
    )


def _junk(name: str) -> bool:
    return any(
        step.startswith(".") or step in {"__MACOSX", "Thumbs.db"} for step in name.split("/")
    )


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(2)


def one_line(error: BaseException) -> str:
    """An error's text, shortened to one line, for use in another message."""
    return " ".join(str(error).split())[:120] or type(error).__name__
