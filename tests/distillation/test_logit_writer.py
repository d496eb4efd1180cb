"""Storing a teacher's logits: killed, gone on with, and by several processes at once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from tutelage.distillation import logit_writer, view_file
from tutelage.distillation.logit_cache import LogitCache
from tutelage.distillation.origin import Origin
from tutelage.errors import LogitsError, RunError
from tutelage.progress import EpochLog, Progress

REPOSITORY = Path(__file__).parents[2]
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (300, 8, 8, 1), dtype=np.uint8)
WEIGHTS = RANDOM.normal(size=(64, 40)) / 100
CHUNK, BATCH, VIEWS = 30, 10, 3
SAVE_SECONDS, PAUSE = 0.05, 0.02  # of the processes that are killed; the pause is each batch's
NEEDS_SIGKILL = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")


def origin(kept: int = 0) -> Origin:
    views = {"seed": 3, "flip": True, "shift": 2, "cutout": 0}
    return Origin("t", "i", **views, precision="float32", shape=(300, 40), kept=kept)


def teacher(images: np.ndarray) -> np.ndarray:
    """Answers whose last digits depend on the other images of a batch, as a network's may."""
    answers = []
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH].reshape(-1, 64)
        answers.append(batch @ WEIGHTS * (1 + 1e-4 * batch.mean()))
    return np.concatenate(answers)


class Asked:
    """A teacher that keeps how many images it was asked for at a time."""

    def __init__(self) -> None:
        self.counts: list[int] = []

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.counts.append(len(images))
        return teacher(images)


class Heard(Progress):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.stages: list[tuple[int, int, int]] = []
        self.steps: list[int] = []
        self.rows: list[EpochLog] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def stage(self, name: str, epochs: int, done: int, steps: int, unit: str = "epoch") -> None:
        self.stages.append((epochs, done, steps))

    def step(self, step: int, logs: Mapping[str, float]) -> None:
        self.steps.append(step)

    def epoch(self, row: EpochLog) -> None:
        self.rows.append(row)


@pytest.fixture(autouse=True)
def chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logit_writer, "_CHUNK", CHUNK)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("[0-9]*.npy"))}


def undisturbed(folder: Path, kept: int) -> dict[str, bytes]:
    LogitCache(folder, origin(kept)).ask(teacher, IMAGES, VIEWS, batch=BATCH)
    return files(folder)


class Ends(Exception):
    pass


def interrupt(folder: Path, after: int, kept: int = 0) -> None:
    """Store logits until the teacher was asked for so many images."""
    asked = 0

    def ends(images: np.ndarray) -> np.ndarray:
        nonlocal asked
        if asked == after:
            raise Ends
        asked += len(images)
        return teacher(images)

    with pytest.raises(Ends):
        LogitCache(folder, origin(kept)).ask(ends, IMAGES, VIEWS)


# Killed, and gone on with


@NEEDS_SIGKILL
@pytest.mark.parametrize(
    ("kept", "workers", "most"),
    [(0, 0, 6), (5, 0, 6), pytest.param(5, 1, 2, marks=pytest.mark.slow)],
)
def test_a_process_killed_at_random_moments_goes_on_to_the_same_bits(
    tmp_path: Path, kept: int, workers: int, most: int
) -> None:
    expected = undisturbed(tmp_path / "whole", kept)
    folder, log = tmp_path / "killed", tmp_path / "log"
    moments, kills = random.Random(kept), 0
    while True:
        log.touch()
        before = log.stat().st_size
        process = started(folder, log, kept, workers)
        deadline = time.monotonic() + 60
        while log.stat().st_size == before and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        try:
            process.wait(moments.uniform(0.05, 0.6 if kills < most else 60))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            kills += 1
        _, err = process.communicate()
        if process.returncode != -signal.SIGKILL:
            assert process.returncode == 0, err
            break
    assert kills >= most // 2, "nobody was killed at work: the test shows nothing"
    assert files(folder) == expected
    assert {path.suffix for path in folder.glob("[0-9]*")} == {".npy", ".json"}
    # At most what it was asked for since the last record, and in the question that was cut off.
    repeated = sum(map(int, log.read_text().split())) - VIEWS * len(IMAGES)
    assert 0 <= repeated <= kills * (2 * SAVE_SECONDS / PAUSE * BATCH + 2 * BATCH)


@NEEDS_SIGKILL
def test_of_two_processes_at_once_one_asks_the_teacher_and_the_other_takes_over(
    tmp_path: Path,
) -> None:
    expected = undisturbed(tmp_path / "whole", 5)
    for killed in (False, True):
        folder, log = tmp_path / f"shared {killed}", tmp_path / f"log {killed}"
        both = [started(folder, log, 5) for _ in range(2)]
        if killed:
            deadline = time.monotonic() + 60
            while not log.exists() or log.stat().st_size < 40:
                assert time.monotonic() < deadline
                time.sleep(0.005)
            first = int(log.with_name(f"{log.name}.pid").read_text())
            (asks,) = [process for process in both if process.pid == first]
            asks.send_signal(signal.SIGKILL)
        ended = [process.communicate() for process in both]
        codes = sorted(process.returncode for process in both)
        assert codes == ([-signal.SIGKILL, 0] if killed else [0, 0]), ended
        assert files(folder) == expected
        asked = sum(map(int, log.read_text().split()))
        assert asked >= VIEWS * len(IMAGES)
        if not killed:
            assert asked == VIEWS * len(IMAGES)


def started(folder: Path, log: Path, kept: int, workers: int = 0) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "tests.distillation.test_logit_writer"]
    line += [str(folder), str(log), str(kept), str(workers)]
    return subprocess.Popen(
        line, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def main(folder: str, log: str, kept: str, workers: str) -> None:
    """Store logits with a teacher that takes its time and logs how much it was asked for."""
    logit_writer._CHUNK, view_file.SAVE_SECONDS = CHUNK, SAVE_SECONDS

    def slow(images: np.ndarray) -> np.ndarray:
        with open(log, "a") as file:
            file.write(f"{len(images)}\n")
        Path(f"{log}.pid").write_text(str(os.getpid()))
        time.sleep(PAUSE * -(-len(images) // BATCH))
        return teacher(images)

    cache = LogitCache(Path(folder), origin(int(kept)))
    cache.ask(slow, IMAGES, VIEWS, workers=int(workers), batch=BATCH)


@pytest.mark.parametrize("kept", [0, 5])
@pytest.mark.parametrize("after", [0, CHUNK, 300, 450])
def test_an_interrupted_view_goes_on_within(tmp_path: Path, kept: int, after: int) -> None:
    expected = undisturbed(tmp_path / "whole", kept)
    folder = tmp_path / "cut"
    interrupt(folder, after, kept)
    asked, heard, cache = Asked(), Heard(), LogitCache(folder, origin(kept))
    assert cache.missing(VIEWS) == list(range(after // 300, VIEWS))
    assert cache.agrees(teacher, IMAGES)
    cache.ask(asked, IMAGES, VIEWS, heard)
    assert sum(asked.counts) == VIEWS * 300 - after
    assert files(folder) == expected
    # What is shown: the views that are done, and the steps from the one that it goes on with.
    assert heard.stages == [(VIEWS, after // 300, 10)]
    first = after % 300 // CHUNK
    views = VIEWS - after // 300
    assert heard.steps == [*range(first + 1, 11), *(list(range(1, 11)) * (views - 1))]
    assert [row["epoch"] for row in heard.rows] == list(range(after // 300 + 1, VIEWS + 1))
    told = [note for note in heard.notes if "already" in note]
    assert len(told) == bool(first)
    if first:
        assert f"{after % 300} of 300 images" in told[0]


def test_a_damaged_block_alone_is_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = undisturbed(tmp_path / "whole", 0)
    monkeypatch.setattr(view_file, "SAVE_SECONDS", 0.0)  # each chunk is a block
    interrupt(tmp_path / "cut", 150)
    part = tmp_path / "cut" / "00000.part"
    whole = bytearray(part.read_bytes())
    head = len(whole) - 300 * 80
    whole[head + 70 * 80] ^= 1  # of an image in the third chunk
    part.write_bytes(whole)
    asked, heard = Asked(), Heard()
    LogitCache(tmp_path / "cut", origin()).ask(asked, IMAGES, VIEWS, heard)
    assert sum(asked.counts) == VIEWS * 300 - 120
    assert heard.steps[:6] == [3, 6, 7, 8, 9, 10]
    assert files(tmp_path / "cut") == expected


def test_a_part_of_another_teachers_logits_is_found_out(tmp_path: Path) -> None:
    interrupt(tmp_path, 150)
    cache = LogitCache(tmp_path, origin())
    assert cache.agrees(teacher, IMAGES)
    assert not cache.agrees(lambda images: -teacher(images), IMAGES)


# How the teacher is asked


def test_a_slow_teacher_is_asked_for_a_few_batches_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = undisturbed(tmp_path / "whole", 0)
    whole, cut = Asked(), Asked()
    LogitCache(tmp_path / "at once", origin()).ask(whole, IMAGES, VIEWS)
    assert set(whole.counts) == {CHUNK}
    monkeypatch.setattr(view_file, "SAVE_SECONDS", 0.0)  # any teacher is slow then
    LogitCache(tmp_path / "cut", origin()).ask(cut, IMAGES, VIEWS, batch=BATCH)
    assert set(cut.counts) == {BATCH}
    assert files(tmp_path / "at once") == files(tmp_path / "cut") == expected


def test_the_size_is_told_before_the_teacher_is_asked(tmp_path: Path) -> None:
    heard = Heard()

    def check(images: np.ndarray) -> np.ndarray:
        assert len(heard.notes) == 1
        return teacher(images)

    cache = LogitCache(tmp_path, origin(5))
    cache.ask(check, IMAGES, VIEWS, heard, about="KL 0.001")
    (note,) = heard.notes
    for words in ("3 views of 300 images", "the 5 largest of 40 classes (KL 0.001)", "MB free"):
        assert words in note
    assert f"{VIEWS * 300 * (5 * 4 + 16) / 1e6:.2f} MB in all" in note
    cache.ask(check, IMAGES, VIEWS, heard)
    assert len(heard.notes) == 1  # nothing was computed


def test_what_does_not_fit_on_the_disk_is_refused_before_it_is_begun(tmp_path: Path) -> None:
    views = {"seed": 3, "flip": True, "shift": 2, "cutout": 0}
    huge = Origin("t", "i", **views, precision="float32", shape=(10**13, 1000), kept=10)
    asked = Asked()
    with pytest.raises(RunError, match=r"MB free: make room.*stored_classes"):
        LogitCache(tmp_path, huge).ask(asked, IMAGES, 1)
    assert not asked.counts
    assert not list(tmp_path.glob("[0-9]*"))


def test_a_logit_that_can_not_be_stored_ends_the_view_with_what_was_stored(tmp_path: Path) -> None:
    def broken(images: np.ndarray) -> np.ndarray:
        answers = teacher(images)
        if len(asked.counts) == 4:
            answers[3, 7] = -np.inf
        asked(images)
        return answers

    asked = Asked()
    with pytest.raises(LogitsError, match="finite"):
        LogitCache(tmp_path, origin(5)).ask(broken, IMAGES, 1)
    again = Asked()
    LogitCache(tmp_path, origin(5)).ask(again, IMAGES, 1)
    assert sum(again.counts) == 300 - 4 * CHUNK


if __name__ == "__main__":
    main(*sys.argv[1:])
