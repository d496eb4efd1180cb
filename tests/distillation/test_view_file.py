"""A view's file: written in blocks, gone on with, and whole or not there."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tutelage import storage
from tutelage.distillation import top_logits, view_file
from tutelage.distillation.view_file import ViewFile
from tutelage.errors import RunError

ROWS = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float16)


def opened(folder: Path, rows: np.ndarray = ROWS) -> ViewFile:
    return ViewFile(view_file.path_of(folder, 4), rows.shape, rows.dtype)


def write(folder: Path, *spans: tuple[int, int], rows: np.ndarray = ROWS) -> None:
    with opened(folder, rows) as file:
        for start, stop in spans:
            file.write(start, rows[start:stop])


def finish(folder: Path, rows: np.ndarray = ROWS) -> list[tuple[int, int]]:
    """Write what is missing, complete the file, and say what was missing."""
    with opened(folder, rows) as file:
        gaps = file.missing()
        for start, stop in gaps:
            file.write(start, rows[start:stop])
        file.finish()
    return gaps


@pytest.mark.parametrize("kind", ["float16", "float32", "rows"])
def test_the_file_is_that_of_numpy(tmp_path: Path, kind: str) -> None:
    rows = top_logits.pack(ROWS, 2) if kind == "rows" else ROWS.astype(kind)
    assert finish(tmp_path, rows) == [(0, 20)]
    np.save(tmp_path / "expected.npy", rows)
    path = tmp_path / "00004.npy"
    assert path.read_bytes() == (tmp_path / "expected.npy").read_bytes()
    assert view_file.is_complete(path)
    assert view_file.note(path)["sha256"] == storage.sha256(path)
    assert {file.name for file in tmp_path.iterdir()} == {"00004.npy", "00004.json", "expected.npy"}


def test_another_process_goes_on_with_what_is_recorded(tmp_path: Path) -> None:
    write(tmp_path, (5, 9), (9, 12))
    write(tmp_path, (18, 20), (0, 2))
    assert not (tmp_path / "00004.npy").exists()
    file = opened(tmp_path)
    assert file.recorded().tolist() == [0, 1, *range(5, 12), 18, 19]
    np.testing.assert_array_equal(file.rows(np.array([6, 1])), ROWS[[6, 1]])
    assert file.seconds > 0
    assert finish(tmp_path) == [(2, 5), (12, 18)]
    np.testing.assert_array_equal(np.load(tmp_path / "00004.npy"), ROWS)


def test_an_exception_loses_nothing(tmp_path: Path) -> None:
    def stopped() -> None:
        with opened(tmp_path) as file:
            file.write(0, ROWS[:7])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert finish(tmp_path) == [(7, 20)]


def test_a_record_is_written_as_time_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as file:
        file.write(0, ROWS[:4])
        assert opened(tmp_path).missing() == [(0, 20)]
        monkeypatch.setattr(view_file, "SAVE_SECONDS", 0.0)
        file.write(4, ROWS[4:8])
        assert opened(tmp_path).missing() == [(8, 20)]


@pytest.mark.parametrize(
    ("harm", "missing"),
    [
        ("a row", [(5, 12)]),
        ("cut", [(0, 20)]),
        ("part", [(0, 20)]),
        ("record", [(0, 20)]),
        ("type", [(0, 20)]),
        ("beyond", [(2, 20)]),
    ],
)
def test_blocks_that_do_not_match_are_written_again(
    tmp_path: Path, harm: str, missing: list[tuple[int, int]]
) -> None:
    write(tmp_path, (0, 5), (12, 20), (5, 12))  # three blocks, as they don't follow each other
    part, record = tmp_path / "00004.part", tmp_path / "00004.part.json"
    content: dict[str, Any] = json.loads(record.read_text())
    assert [block[:2] for block in content["blocks"]] == [[0, 5], [12, 20], [5, 12]]
    if harm == "a row":
        whole = bytearray(part.read_bytes())
        whole[-9 * ROWS[0].nbytes - 1] ^= 1
        part.write_bytes(whole)
    elif harm == "cut":
        part.write_bytes(part.read_bytes()[:-10])
    elif harm == "part":
        part.unlink()
    elif harm == "record":
        record.write_text("{")
    elif harm == "type":
        np.lib.format.open_memmap(part, "w+", np.dtype(np.float32), ROWS.shape)
    else:
        content["blocks"] = [[0, 2, content["blocks"][0][2]], [15, 30, ""], [9, 3, ""]]
        first = hashlib.sha256(ROWS[:2].tobytes()).hexdigest()
        content["blocks"][0][2] = first
        record.write_text(json.dumps(content))
    assert finish(tmp_path) == missing
    np.testing.assert_array_equal(np.load(tmp_path / "00004.npy"), ROWS)


def test_a_process_killed_while_it_completes_a_file_loses_nothing(tmp_path: Path) -> None:
    write(tmp_path, (0, 20))
    record = (tmp_path / "00004.part.json").read_text()
    part = (tmp_path / "00004.part").read_bytes()
    finish(tmp_path)
    # Before the file had its name: the note is there.
    (tmp_path / "00004.npy").unlink()
    (tmp_path / "00004.part").write_bytes(part)
    (tmp_path / "00004.part.json").write_text(record)
    assert not view_file.is_complete(tmp_path / "00004.npy")
    assert finish(tmp_path) == []
    # After that: a record is left over, which is of no file.
    (tmp_path / "00004.part.json").write_text(record)
    assert view_file.is_complete(tmp_path / "00004.npy")
    assert opened(tmp_path).missing() == [(0, 20)]


def test_seconds_are_those_of_all_processes(tmp_path: Path) -> None:
    write(tmp_path, (0, 3))
    record = tmp_path / "00004.part.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"seconds": 100.0}))
    finish(tmp_path)
    assert 100 < float(view_file.note(tmp_path / "00004.npy")["seconds"]) < 110


def test_a_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"gone/00004\.npy"), opened(tmp_path / "gone"):
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_an_error_and_not_a_signal(tmp_path: Path) -> None:
    def filled() -> None:
        with opened(tmp_path) as file:
            file.write(0, ROWS[:5])
            file.save()
            file._file.close()
            file._file = Path("/dev/full").open("rb+")  # noqa: SIM115
            file.write(5, ROWS[5:])

    with pytest.raises(RunError, match=r"00004\.npy: No space left"):
        filled()
    assert opened(tmp_path).missing() == [(5, 20)]
