"""Files written whole or not at all."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tutelage import storage
from tutelage.errors import DataNotFoundError, RunError, TutelageError


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """A disk that is full after so many bytes, as the kernel has it."""
    resource = pytest.importorskip("resource", reason="only Unix can bound a file's size")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def write(path: Path, text: str, error: BaseException | None = None) -> None:
    with storage.replacing(path) as temporary:
        temporary.write_text(text)
        if error is not None:
            raise error


def test_a_file_is_made_and_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    write(tmp_path / "note.txt", "old")
    write(tmp_path / "note.txt", "new")
    assert [(f.name, f.read_text()) for f in tmp_path.iterdir()] == [("note.txt", "new")]


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "note.txt"
    write(target, "old")
    with storage.replacing(target) as temporary:
        temporary.write_text("half")
        # Beside it, for only within one folder is replacing a single step.
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".txt"
        assert target.read_text() == "old"
    assert target.read_text() == "half"


def test_two_that_write_the_same_file_do_not_meet(tmp_path: Path) -> None:
    target = tmp_path / "note.txt"
    with storage.replacing(target) as one, storage.replacing(target) as other:
        one.write_text("one")
        other.write_text("other")
    assert target.read_text() == "one"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ValueError, MemoryError])
def test_the_old_file_survives_a_block_that_fails(tmp_path: Path, kind: type) -> None:
    target = tmp_path / "note.txt"
    write(target, "old")
    with pytest.raises(kind):
        write(target, "half", kind())
    assert [(f.name, f.read_text()) for f in tmp_path.iterdir()] == [("note.txt", "old")]


def test_a_full_disk_leaves_the_old_file_and_says_so(tmp_path: Path) -> None:
    target = tmp_path / "state.npz"
    with storage.replacing(target) as temporary:
        np.savez(temporary, state=np.arange(3))
    told = r"can't write .*state\.npz: File too large; nothing already there was lost: make room"
    with (
        pytest.raises(RunError, match=told) as caught,
        files_no_larger_than(10_000),
        storage.replacing(target) as temporary,
    ):
        np.savez(temporary, state=np.zeros(100_000))
    assert "\n" not in str(caught.value)
    assert [f.name for f in tmp_path.iterdir()] == ["state.npz"]
    np.testing.assert_array_equal(np.load(target)["state"], np.arange(3))


def test_a_folder_that_is_missing_or_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder, reason in [("missing", "No such file"), ("file", "Not a directory")]:
        with pytest.raises(RunError, match=rf"{folder}.note\.txt: {reason}"):
            write(tmp_path / folder / "note.txt", "new")
    with pytest.raises(OSError, match="can't write"):  # as anyone would catch it
        write(tmp_path / "missing" / "note.txt", "new")


@pytest.mark.parametrize("error", [DataNotFoundError("no picture"), RunError("in use")], ids=str)
def test_an_error_that_already_says_what_to_do_passes(tmp_path: Path, error: TutelageError) -> None:
    with pytest.raises(type(error)) as caught:
        write(tmp_path / "note.txt", "half", error)
    assert caught.value is error
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="permissions are Unix's")
def test_a_file_has_the_permissions_that_its_user_gives_to_new_ones(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write(tmp_path / "note.txt", "new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "note.txt").stat().st_mode) == 0o640


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    content = np.random.default_rng(0).bytes(1_000_000)
    (tmp_path / "file").write_bytes(content)
    assert storage.sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def filled(cache: Path, ages: dict[str, float]) -> None:
    """A cache of entries of 1 MB, last used so many days ago."""
    for name, days in ages.items():
        path = cache / name
        file = path if path.suffix else path / "00000.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(1_000_000))
        os.utime(path, (time.time() - days * 86_400,) * 2)


OLDEST, OLDER = f"knowledge/{30:032x}", f"images/{10:032x}.npz"
OLD, NEWER = f"logits/{9:032x}", f"logits/{2:032x}-1"
NEW, KERNEL, DOWNLOAD = (
    f"images/{0:032x}.npz",
    f"kernels/winograd-{1:016x}.so",
    "downloads/mnist.npz",
)
# A user's own files in folders of these names.
OWN = ["mine/old.npz", "images/dog.npz", "images/holiday", "logits/old"]
AGES = {OLDEST: 30.0, OLDER: 10.0, OLD: 9.0, NEWER: 2.0, NEW: 0.1, KERNEL: 90.0, DOWNLOAD: 90.0}
AGES |= dict.fromkeys(OWN, 90.0)


@pytest.mark.parametrize(
    ("limit", "kept"),
    [
        ("20GB", set(AGES)),
        ("3.5MB", set(AGES) - {OLDEST, OLDER}),
        ("0B", {NEW, KERNEL, DOWNLOAD, *OWN}),
    ],
)
def test_the_least_recently_used_are_evicted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, kept: set[str]
) -> None:
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path))
    monkeypatch.setenv("TUTELAGE_CACHE_LIMIT", limit)
    filled(tmp_path, AGES)
    dropped = storage.evict()
    assert {name for name in AGES if (tmp_path / name).exists()} == kept
    assert len(dropped) == len(AGES) - len(kept)
    assert all(entry.bytes == 1_000_000 for entry in dropped)
    storage.delete(storage.cached())
    assert [name for name in AGES if (tmp_path / name).exists()] == OWN


def test_what_is_marked_as_used_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path))
    monkeypatch.setenv("TUTELAGE_CACHE_LIMIT", "0B")
    filled(tmp_path, AGES)
    storage.mark_used(tmp_path / OLD)
    storage.evict()
    assert (tmp_path / OLD / "00000.npy").exists()


def test_two_processes_evict_at_once(tmp_path: Path) -> None:
    filled(tmp_path, {f"logits/{i:032}": 10.0 + i for i in range(200)})
    environment = os.environ | {"TUTELAGE_CACHE": str(tmp_path), "TUTELAGE_CACHE_LIMIT": "50MB"}
    script = "from tutelage import storage; storage.evict()"
    processes = [
        subprocess.Popen([sys.executable, "-c", script], env=environment) for _ in range(2)
    ]
    assert [process.wait() for process in processes] == [0, 0]
    assert sorted(int(path.name) for path in (tmp_path / "logits").iterdir()) == list(range(50))


@pytest.mark.parametrize("bad", ["", "much", "-1GB", "5 apples", "1e9"])
def test_a_limit_that_is_no_size_is_refused(monkeypatch: pytest.MonkeyPatch, bad: str) -> None:
    monkeypatch.setenv("TUTELAGE_CACHE_LIMIT", bad)
    with pytest.raises(RunError, match="TUTELAGE_CACHE_LIMIT"):
        storage.cache_limit()
