"""Pictures without labels: what is read, in which order, and what is refused."""

import shutil

import numpy as np
import pytest
from PIL import Image

from tutelage.data import decoding, unlabeled
from tutelage.errors import DataError, DataNotFoundError
from tutelage.progress import Progress


def like(*shape):
    return np.zeros((1, *shape), np.uint8)


def test_all_pictures_are_read_in_the_order_of_their_names(tmp_path):
    shades = {"b/2.png": 20, "a/deep/9.jpg": 30, "c.bmp": 40, "b/10.png": 10}
    for name, shade in shades.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (9, 7), shade).save(file)
    (tmp_path / "b" / "notes.txt").write_text("no picture")
    found, notes = unlabeled.read(tmp_path, like=like(6, 5, 3))
    assert "b/notes.txt" in notes[0]
    assert found.shape == (4, 6, 5, 3)
    assert found.dtype == np.uint8
    expected = [shades[name] for name in sorted(shades)]
    assert np.abs(found.mean(axis=(1, 2, 3)) - expected).max() < 1


def test_files_are_images_by_the_rules_of_labeled_ones(tmp_path):
    for name in ("a.jfif", ".hidden/b.png", "noextension"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (4, 4), 9).save(tmp_path / name, "JPEG")
    (tmp_path / "text").write_text("no picture")
    found, notes = unlabeled.read(tmp_path, like=like(4, 4, 1))
    assert len(found) == 2
    assert "'text'" in notes[0]
    archive = shutil.make_archive(str(tmp_path / "all"), "zip", tmp_path)
    np.testing.assert_array_equal(unlabeled.read(archive, like=like(4, 4, 1))[0], found)


def test_more_images_than_fit_in_memory_are_refused_before_one_is_decoded(tmp_path, monkeypatch):
    for i in range(9):
        (tmp_path / f"{i}.png").write_bytes(b"can't be decoded")
    monkeypatch.setattr(decoding, "available_memory", lambda: 9 * 8 * 7 * 3 - 1)
    with pytest.raises(DataError, match=r"9 images need .* data\.size"):
        unlabeled.read(tmp_path, like=like(8, 7, 3))
    monkeypatch.setattr(decoding, "available_memory", lambda: 9 * 8 * 7 * 3)
    with pytest.raises(DataError, match=r"\.png: expected an image"):
        unlabeled.read(tmp_path, like=like(8, 7, 3))


def test_reading_many_reports_each(tmp_path):
    first = tmp_path / "0.png"
    Image.new("L", (4, 4), 9).save(first)
    for i in range(1, 1025):
        shutil.copy(first, tmp_path / f"{i}.png")
    seen = []

    class Watch(Progress):
        def stage(self, name, epochs, done, steps, unit="epoch"):
            seen.append((name, steps))

        def step(self, step, logs):
            seen.append(step)

    found, _ = unlabeled.read(tmp_path, like=like(4, 4, 1), progress=Watch())
    assert seen == [("reading images", 1025), *range(1, 1026)]
    assert (found == 9).all()


def test_what_holds_no_pictures_is_refused(tmp_path):
    with pytest.raises(DataNotFoundError, match="absent"):
        unlabeled.read(tmp_path / "absent", like=like(8, 8, 1))
    (tmp_path / "a.txt").write_text("no picture")
    with pytest.raises(DataError, match=r"1 file \('a.txt'\)"):
        unlabeled.read(tmp_path, like=like(8, 8, 1))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"broken.png"):
        unlabeled.read(tmp_path, like=like(8, 8, 1))
