"""Stored logits: what the teacher said, whole or asked again, and never another's."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from tutelage import storage
from tutelage.data import augmentation
from tutelage.distillation import logit_cache, logit_writer
from tutelage.distillation.logit_cache import LogitCache, Origin
from tutelage.errors import LogitsError
from tutelage.progress import EpochLog, Progress

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (50, 8, 8, 1), dtype=np.uint8)
WEIGHTS = RNG.normal(size=(64, 3)) / 300
VIEWS = {"seed": 3, "flip": True, "shift": 2, "cutout": 3}
ORIGIN = Origin("t", "i", **VIEWS, precision="float32", shape=(50, 3))


def teacher(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1) @ WEIGHTS


class Asked:
    """A teacher that counts the images it was shown."""

    def __init__(self) -> None:
        self.images = 0

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.images += len(images)
        return teacher(images)


def held(folder: Path, count: int = 2) -> LogitCache:
    made = LogitCache(folder, ORIGIN)
    made.ask(teacher, IMAGES, count)
    return made


def test_logits_are_the_teachers_on_the_views_of_that_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logit_writer, "_CHUNK", 7)
    made = held(tmp_path, count=3)
    index = np.array([49, 0, 13, 0])
    for number in range(3):
        shown = augmentation.view(IMAGES, index, epoch=number, **VIEWS)
        got = made.logits(number, index)
        assert (got.dtype, got.shape) == (np.float32, (4, 3))
        expected = teacher(shown)
        expected = expected - expected.max(axis=1, keepdims=True)
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)
    assert (made.logits(0, index) != made.logits(1, index)).any()


def test_file_is_float16_and_memory_mapped(tmp_path: Path) -> None:
    made = held(tmp_path)
    assert np.load(tmp_path / "00001.npy").dtype == np.float16
    made.logits(1, np.array([0]))
    assert isinstance(made._open[1], np.memmap)
    assert made.seconds(2) >= 0


def test_teacher_is_asked_once_and_a_larger_count_asks_the_rest_alone(tmp_path: Path) -> None:
    asked = Asked()
    for count, images in ((2, 100), (2, 100), (1, 100), (3, 150)):
        LogitCache(tmp_path, ORIGIN).ask(asked, IMAGES, count)
        assert asked.images == images


def test_interrupted_writing_goes_on(tmp_path: Path) -> None:
    class Stop(Progress):
        def epoch(self, row: EpochLog) -> None:
            if row["epoch"] == 2:
                raise KeyboardInterrupt

    whole = held(tmp_path / "whole", count=4)
    with pytest.raises(KeyboardInterrupt):
        LogitCache(tmp_path / "cut", ORIGIN).ask(teacher, IMAGES, 4, Stop())
    # The next view's logits are there, but nothing says that they are whole.
    np.save(tmp_path / "cut" / "00002.npy", np.zeros((50, 3), np.float16))
    asked, cut = Asked(), LogitCache(tmp_path / "cut", ORIGIN)
    assert cut.missing(4) == [2, 3]
    cut.ask(asked, IMAGES, 4)
    assert asked.images == 100
    for number in range(4):
        one, other = (k.logits(number, np.arange(50)) for k in (whole, cut))
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("harm", ["cut", "changed", "gone", "note"])
def test_torn_file_is_found_before_a_student_learns_from_it(tmp_path: Path, harm: str) -> None:
    held(tmp_path)
    file = tmp_path / "00001.npy"
    content = file.read_bytes()
    if harm == "cut":
        file.write_bytes(content[:-10])
    elif harm == "changed":
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif harm == "gone":
        file.unlink()
    else:
        file.with_suffix(".json").write_text("{")
    again = LogitCache(tmp_path, ORIGIN)
    with pytest.raises(LogitsError, match=r"00001\.npy"):
        again.logits(1, np.array([0]))
    asked = Asked()
    again.ask(asked, IMAGES, 2)
    assert (asked.images, file.read_bytes()) == (50, content)


def test_logits_of_a_teacher_that_answers_otherwise_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path))
    told: list[str] = []

    class Notes(Progress):
        def note(self, text: str) -> None:
            told.append(text)

    def swapped(images: np.ndarray) -> np.ndarray:
        return teacher(images)[:, ::-1]

    def found(by: logit_cache.TeacherOfViews) -> LogitCache:
        cache = logit_cache.find(ORIGIN, by, IMAGES, Notes())
        cache.ask(by, IMAGES, 2)
        return cache

    first, again, second = found(teacher), found(teacher), found(swapped)
    assert first.folder == again.folder != second.folder
    assert len(told) == 1
    assert found(swapped).folder == second.folder
    assert found(teacher).folder == first.folder
    assert len(told) == 1  # both are known now
    index = np.arange(50)
    np.testing.assert_array_equal(second.logits(1, index), first.logits(1, index)[:, ::-1])
    # One damaged view does not hide the others.
    (first.folder / "00000.npy").write_bytes(b"")
    assert not LogitCache(first.folder, ORIGIN).agrees(swapped, IMAGES)
    assert len(list(logit_cache.stored())) == 2


def test_exact_logits_are_the_teachers_to_the_last_digit(tmp_path: Path) -> None:
    def offset(views: np.ndarray) -> np.ndarray:
        return (1000 + teacher(views)).astype(np.float32)

    made = LogitCache(tmp_path, replace(ORIGIN, exact=True))
    made.ask(offset, IMAGES, 2)
    index = np.array([49, 0, 13])
    shown = augmentation.view(IMAGES, index, epoch=1, **VIEWS)
    np.testing.assert_array_equal(made.logits(1, index), offset(shown))
    assert made.agrees(offset, IMAGES)
    assert not made.agrees(lambda views: -offset(views), IMAGES)
    assert made.origin.key() != ORIGIN.key()
    with pytest.raises(LogitsError, match="exact"):
        LogitCache(tmp_path, ORIGIN)
    with pytest.raises(LogitsError, match="finite"):
        made.ask(lambda views: np.full((len(views), 3), np.nan, np.float32), IMAGES, 3)


def test_another_origin_is_refused_and_what_differs_is_said(tmp_path: Path) -> None:
    held(tmp_path)
    changed = {
        "teacher": "u",
        "images": "j",
        "seed": 4,
        "flip": False,
        "shift": 1,
        "cutout": 2,
        "precision": "bfloat16",
        "shape": (50, 4),
        "transforms": {"hue": 0.1},
        "exact": True,
        "kept": 2,
    }
    assert set(changed) == set(asdict(ORIGIN))
    for name, value in changed.items():
        other = replace(ORIGIN, **{name: value})
        assert other.key() != ORIGIN.key()
        with pytest.raises(LogitsError, match=f"{name} is"):
            LogitCache(tmp_path, other)
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(LogitsError, match="damaged"):
        LogitCache(tmp_path, ORIGIN)


KEPT = replace(ORIGIN, shape=(50, 30), kept=5)


def of_thirty(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1) @ np.random.default_rng(1).normal(size=(64, 30)) / 100


def test_an_origin_that_keeps_all_has_the_key_it_always_had() -> None:
    assert ORIGIN.key() == "c22c8ec3f991d1c4d8d6ea77a52e1f2f"
    assert KEPT.key() != replace(KEPT, kept=0).key() != replace(KEPT, kept=6).key()


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_largest_logits_are_read_for_a_temperature(tmp_path: Path, temperature: float) -> None:
    cache = LogitCache(tmp_path, KEPT)
    cache.ask(of_thirty, IMAGES, 2)
    file = np.load(tmp_path / "00001.npy", mmap_mode="r")
    assert (file.shape, file.dtype.itemsize) == ((50,), 36)
    index = np.array([49, 0, 13, 0])
    got = cache.at(temperature).logits(1, index)
    assert (got.dtype, got.shape) == (np.float32, (4, 30))
    shown = of_thirty(augmentation.view(IMAGES, index, epoch=1, **VIEWS))
    p, q = (softmax(x / temperature, axis=1) for x in (shown, got))
    largest = np.argsort(-shown, axis=1)[:, :5]
    want, found = (np.take_along_axis(x, largest, 1) for x in (p, q))
    np.testing.assert_allclose(found, want, atol=1e-3)
    assert cache.at(1.0).logits(1, index).tobytes() != cache.at(3.0).logits(1, index).tobytes()
    whole = LogitCache(tmp_path / "whole", ORIGIN)
    assert whole.at(temperature) is whole


def test_a_teacher_that_differs_in_the_other_classes_alone_is_found_out(tmp_path: Path) -> None:
    cache = LogitCache(tmp_path, KEPT)
    cache.ask(of_thirty, IMAGES, 1)
    assert cache.agrees(of_thirty, IMAGES)
    assert not cache.agrees(lambda views: of_thirty(views)[:, ::-1], IMAGES)

    def lower(views: np.ndarray) -> np.ndarray:
        answers = of_thirty(views)
        fifth = np.sort(answers, axis=1)[:, -5:-4]
        return np.where(answers < fifth, answers - 3, answers)

    assert not cache.agrees(lower, IMAGES)
    assert not cache.agrees(lambda views: of_thirty(views)[:, :29], IMAGES)


def test_members_of_an_ensemble_have_their_own_largest_logits(tmp_path: Path) -> None:
    def both(views: np.ndarray) -> np.ndarray:
        return np.stack([of_thirty(views), -of_thirty(views)], axis=1)

    cache = LogitCache(tmp_path, replace(KEPT, shape=(50, 2, 30)))
    cache.ask(both, IMAGES, 1)
    got, index = cache.logits(0, np.arange(50)), np.arange(50)
    assert got.shape == (50, 2, 30)
    shown = both(augmentation.view(IMAGES, index, epoch=0, **VIEWS))
    np.testing.assert_array_equal(got.argmax(axis=-1), shown.argmax(axis=-1))
    assert cache.agrees(both, IMAGES)


@pytest.mark.parametrize("kept", [0, 10, 50])
def test_the_size_that_is_announced_is_that_of_the_files(tmp_path: Path, kept: int) -> None:
    origin = replace(ORIGIN, shape=(50, 1000), kept=kept)
    random = np.random.default_rng(0)
    LogitCache(tmp_path, origin).ask(
        lambda views: random.normal(size=(len(views), 1000)), IMAGES, count=8
    )
    sizes = [file.stat().st_size for file in tmp_path.glob("*.npy")]
    assert len(sizes) == 8
    assert 8 * 64 <= sum(sizes) - origin.bytes(8) <= 8 * 256  # the files' heads


@pytest.mark.parametrize("offset", [0.0, 3_000.0, -30_000.0, 1e6])
def test_a_common_offset_takes_no_digits(tmp_path: Path, offset: float) -> None:
    rows = np.random.default_rng(0).normal(scale=5, size=(len(IMAGES), 3))
    made = LogitCache(tmp_path, ORIGIN)
    made.ask(lambda views: rows[: len(views)] + offset, IMAGES, 1)
    got = made.logits(0, np.arange(len(IMAGES)))
    assert (got.max(axis=1) == 0).all()
    for temperature in (1, 4, 20):
        expected = softmax(rows / temperature, axis=1)
        np.testing.assert_allclose(softmax(got / temperature, axis=1), expected, atol=2e-4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1e6])
def test_logit_that_float16_can_not_hold_is_refused(tmp_path: Path, bad: float) -> None:
    def broken(images: np.ndarray) -> np.ndarray:
        answers = teacher(images)
        answers[-1, -1] = bad
        return answers

    with pytest.raises(LogitsError, match="logits"):
        LogitCache(tmp_path, ORIGIN).ask(broken, IMAGES, 1)
    assert LogitCache(tmp_path, ORIGIN).missing(1) == [0]


def test_what_is_kept_is_shown_and_cleared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path))
    assert list(logit_cache.stored()) == []
    held(logit_cache.home() / ORIGIN.key())
    broken = logit_cache.home() / f"{1:032x}"
    broken.mkdir()
    (broken / "manifest.json").write_text("{")
    first, second = sorted(logit_cache.stored(), key=lambda entry: len(entry["origin"]))
    assert (first["origin"], first["views"]) == ({}, 0)
    assert (second["views"], second["parts"]) == (2, 0)
    assert second["origin"] == json.loads(json.dumps(ORIGIN.tree()))
    assert not {"exact", "transforms", "kept"} & second["origin"].keys()  # as in version 0.1
    files = (logit_cache.home() / ORIGIN.key()).iterdir()
    assert second["bytes"] == sum(file.stat().st_size for file in files)
    storage.delete(storage.cached())
    assert list(logit_cache.stored()) == []


def test_disk_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="folder"):
        LogitCache(tmp_path / "file" / "here", ORIGIN).ask(teacher, IMAGES, 1)
    assert storage.sha256(tmp_path / "file")
