"""Folders of images, and what is refused in them."""

import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from tests.data.example_data import (
    encoded,
    noise,
    picture_files,
    refusal,
    same,
    tarred,
    without,
    written,
    zipped,
)
from tutelage.data.datasets import load
from tutelage.data.image_file import decode
from tutelage.progress import Progress


def test_classes_may_stand_at_the_top(tmp_path):
    files = picture_files(parts=("train",), count=10)
    flat = {name.removeprefix("train/"): data for name, data in files.items()}
    below = load("folder", written(tmp_path / "a", files))
    top = load("folder", written(tmp_path / "b", flat))
    np.testing.assert_array_equal(below.train.images, top.train.images)
    np.testing.assert_array_equal(below.test.images, top.test.images)
    assert np.bincount(top.test.labels).tolist() == [2, 2]
    test = {name: data for name, data in picture_files().items() if name.startswith("test/")}
    both = load(
        "folder", zipped(tmp_path / "c.zip", {f"in/{n}": d for n, d in (flat | test).items()})
    )
    np.testing.assert_array_equal(both.train.labels, [0] * 10 + [1] * 10)
    assert len(both.test) == 10


def test_reading_many_images_reports_each(tmp_path):
    shade = encoded(noise(2, 2, 3))
    files = {f"{name}/{i}.png": shade for name in ("cat", "dog") for i in range(600)}
    seen = []

    class Watch(Progress):
        def stage(self, name, epochs, done, steps, unit="epoch"):
            seen.append((name, epochs, done, steps))

        def step(self, step, logs):
            seen.append(step)

        def epoch(self, row):
            seen.append(row["epoch"])

    load("folder", written(tmp_path / "many", files), progress=Watch())
    assert seen == [("reading images", 1, 0, 1200), *range(1, 1201), 1]
    seen.clear()
    load("folder", tmp_path / "many", progress=Watch())  # from the cache
    few = {name: data for name, data in files.items() if name.endswith("9.png")}
    load("folder", written(tmp_path / "few", few), progress=Watch())
    assert not seen


def test_a_class_may_be_called_train(tmp_path):
    files = picture_files(classes=("plane", "train"), parts=("x",))
    flat = {name.removeprefix("x/"): data for name, data in files.items()}
    assert load("folder", written(tmp_path, flat)).classes == ("plane", "train")


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("1", (2, 2), 1), [[[255]] * 2] * 2),
        (Image.new("L", (2, 2), 7), [[[7]] * 2] * 2),
        (Image.fromarray(np.full((2, 2), 0x1234, np.uint16)), [[[0x12]] * 2] * 2),
        (Image.new("LA", (2, 2), (0, 0)), [[[255]] * 2] * 2),
        (Image.new("RGBA", (2, 2), (0, 0, 255, 255)), [[[0, 0, 255]] * 2] * 2),
        (Image.new("RGBA", (2, 2), (0, 0, 255, 0)), [[[255, 255, 255]] * 2] * 2),
        (Image.new("RGB", (2, 2), (9, 8, 7)).quantize(2), [[[9, 8, 7]] * 2] * 2),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else "",
)
def test_every_kind_of_colour_becomes_grey_or_rgb(tmp_path, image, expected):
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for number in range(5):
            image.save(tmp_path / label / f"{number}.png")
    data = load("folder", tmp_path)
    np.testing.assert_array_equal(data.train.images[0], expected)


def test_one_coloured_image_makes_all_rgb(tmp_path):
    files = picture_files(parts=("train",))
    grey = noise(6, 6)
    files["train/cat/0.png"] = encoded(grey)
    train = load("folder", written(tmp_path, files)).train
    assert train.images.shape[1:] == (6, 6, 3)
    assert any((image == grey[..., None]).all() for image in train.images)


def test_mixed_sizes_are_refused_or_resized_as_asked(tmp_path):
    files = picture_files(side=8)
    files["train/dog/2.png"] = encoded(noise(8, 9, 3))
    folder = written(tmp_path / "pets", files)
    message = refusal(load, "folder", folder)
    for word in ("train/dog/2.png", "8x9", "8x8", "data.size", "--set data.size=[h,w]"):
        assert word in message
    data = load("folder", folder, size=(4, 6))
    assert data.train.images.shape == (10, 4, 6, 3)
    image = Image.open(folder / "train/dog/2.png").resize((6, 4), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(data.train.images[7], np.asarray(image))
    assert data.name == "pets, resized to 4x6"
    # From an archive and from the cache alike.
    same(data, load("folder", zipped(tmp_path / "pets.zip", files), size=(4, 6)))
    same(data, load("folder", folder, size=(4, 6)))
    again = load("folder", tmp_path / "pets.zip", size=(5, 6))
    image = Image.open(folder / "train/dog/2.png").resize((6, 5), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(again.train.images[7], np.asarray(image))
    assert again.fingerprint != data.fingerprint


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"README.txt": b"no images"}, "found none of them"),
        (picture_files(classes=("cat",)), "only 'cat'"),
        (without(picture_files(), "test/dog"), "'dog'"),
        (without(picture_files(classes=("cat", "dog", "emu")), "train/emu"), "'emu'"),
        (picture_files() | {"val/cat/0.png": encoded(noise(6, 6, 3))}, "'dog'"),
        (picture_files() | {"other.png": encoded(noise(6, 6, 3))}, "other.png"),
        (picture_files() | {"train/0.png": encoded(noise(6, 6, 3))}, "train/0.png"),
        (picture_files() | {"train/cat/deep/0.png": encoded(noise(6, 6, 3))}, "cat/deep/0.png"),
        (picture_files() | {"train/dog/3.png": b"no image"}, "train/dog/3.png"),
        (picture_files() | {"train/dog/3.jpg": b""}, "train/dog/3.jpg"),
        (picture_files() | {"test/cat/3.png": encoded(noise(9, 9, 3))[:-40]}, "test/cat/3.png"),
        (picture_files(parts=("train",), count=1), "no test part"),
    ],
)
def test_a_bad_folder_is_refused_and_the_offender_named(tmp_path, files, says):
    assert says in refusal(load, "folder", written(tmp_path / "a", files))
    assert says in refusal(load, "folder", tarred(tmp_path / "a.tar.gz", files))
    assert not (tmp_path / "cache" / "images").exists() or "test part" in says


def test_an_empty_class_is_named(tmp_path):
    files = picture_files()
    (tmp_path / "pets" / "train" / "emu").mkdir(parents=True)
    assert "emu" in refusal(load, "folder", written(tmp_path / "pets", files))
    flat = {name.removeprefix("train/"): data for name, data in files.items()}
    (tmp_path / "flat" / "emu").mkdir(parents=True)
    assert "emu" in refusal(load, "folder", written(tmp_path / "flat", flat))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, data in files.items():
            archive.writestr(f"in/{name}", data)
        archive.writestr("in/test/emu/", b"")
    assert "emu" in refusal(load, "folder", tmp_path / "a.zip")


def test_an_image_too_large_to_be_honest_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    for side in (8, 11):  # between the limit and twice the limit Pillow only warns
        files = picture_files() | {"train/cat/3.png": encoded(noise(side, side, 3))}
        message = refusal(load, "folder", tarred(tmp_path / f"{side}.tar", files, "w"))
        assert "train/cat/3.png" in message
        assert "50 pixels" in message


def test_more_images_than_fit_in_memory_are_refused_at_once(tmp_path):
    image = encoded(np.zeros((600, 600, 3), np.uint8))
    files = {f"{label}/{i}.png": image for label in ("cat", "dog") for i in range(200)}
    script = """
import resource, sys
from pathlib import Path
from tutelage.data import datasets, decoding
from tutelage.errors import DataError
decoding._FIRST = 8
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 250_000_000,) * 2)
try:
    datasets.load("folder", sys.argv[1])
except DataError as error:
    print(error)
"""
    command = [sys.executable, "-c", script, str(written(tmp_path / "pets", files))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "400 images" in done.stdout
    assert "data.size" in done.stdout
    assert ".png" not in done.stdout


def test_a_failed_allocation_is_not_blamed_on_a_file(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise MemoryError("Unable to allocate 3.1 MiB")

    monkeypatch.setattr(Image, "open", fail)
    message = refusal(decode, encoded(noise(6, 6, 3)), "it.png", None)
    assert "it.png" not in message
    assert "memory" in message
