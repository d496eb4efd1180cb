"""Known data sets, their names and sizes."""

import gzip
import tarfile

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from tests.data.example_data import (
    picture_files,
    refusal,
    same,
    written,
)
from tutelage.data.cifar10 import CIFAR10_CLASSES
from tutelage.data.datasets import load
from tutelage.errors import RecipeError


def test_digits_are_scikit_learns_scaled_to_bytes():
    data = load("digits")
    values, labels = load_digits(return_X_y=True)
    pixels = np.round(values * 255 / 16).astype(np.uint8)
    assert (data.name, data.source, data.classes) == ("digits", "scikit-learn", (*"0123456789",))
    rows = {image.tobytes() + bytes([label]) for image, label in zip(pixels, labels, strict=True)}
    both = [data.train, data.test]
    rows_found = [
        image.tobytes() + bytes([label])
        for part in both
        for image, label in zip(part.images, part.labels, strict=True)
    ]
    assert len(rows_found) == len(labels) == 1797
    assert set(rows_found) == rows
    assert len(data.test) == 360
    assert {part.images.dtype.name for part in both} == {"uint8"}
    assert {part.labels.dtype.name for part in both} == {"int64"}


def test_digits_test_part_is_the_same_each_time():
    same(load("digits"), load("digits"))


def test_mnist_is_bit_exact(shared_data):
    data = load("mnist", shared_data / "mnist")
    assert data.name == "MNIST"
    # Of the four idx files, which hold the arrays behind headers of 16 and 8 bytes.
    for part, shape, images, labels in (
        (data.train, (60000, 28, 28, 1), "train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
        (data.test, (10000, 28, 28, 1), "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
    ):
        assert part.images.shape == shape
        with gzip.open(shared_data / "mnist" / f"{images}.gz") as file:
            assert file.read()[16:] == part.images.tobytes()
        with gzip.open(shared_data / "mnist" / f"{labels}.gz") as file:
            assert file.read()[8:] == part.labels.astype(np.uint8).tobytes()
    assert np.bincount(data.train.labels)[:3].tolist() == [5923, 6742, 5958]


def test_the_jpeg_copy_of_cifar10_is_read_whole_and_named_as_such(shared_data, monkeypatch):
    monkeypatch.setenv("TUTELAGE_DATA", str(shared_data))
    data = load("cifar10")
    assert data.name == "CIFAR-10 (JPEG q75 copy)"
    assert data.classes == CIFAR10_CLASSES
    assert np.bincount(data.train.labels).tolist() == [5000] * 10
    assert np.bincount(data.test.labels).tolist() == [1000] * 10
    assert data.train.images.shape == (50000, 32, 32, 3)
    # The figures its README states.
    np.testing.assert_allclose(
        data.train.images.mean((0, 1, 2)) / 255, [0.4913, 0.4821, 0.4465], atol=5e-5
    )
    with tarfile.open(data.source) as archive:
        for _ in range(3):
            member = archive.next()
            part, label, file = member.name.split("/")
            pixels = np.asarray(Image.open(archive.extractfile(member)))
            chosen = getattr(data, part)
            images = chosen.images[chosen.labels == data.classes.index(label)]
            np.testing.assert_array_equal(images[int(file.removesuffix(".jpg"))], pixels)
    same(data, load("cifar10"))


def test_a_folder_can_not_take_an_official_name_by_being_called_so(tmp_path):
    for name in ("CIFAR-10", "mnist", "cats"):
        written(tmp_path / name, picture_files())
    assert load("folder", tmp_path / "CIFAR-10").name == "CIFAR-10 (unknown copy)"
    assert load("folder", tmp_path / "mnist").name == "mnist (unknown copy)"
    assert load("folder", tmp_path / "cats").name == "cats"


def test_images_that_have_the_size_already_are_the_same_data(tmp_path):
    folder = written(tmp_path, picture_files())
    same(load("folder", folder), load("folder", folder, size=(6, 6)))
    assert load("folder", folder, size=(6, 6)).name == tmp_path.name
    small = load("digits", size=(4, 4))
    assert small.train.images.shape == (1437, 4, 4, 1)
    assert small.name == "digits, resized to 4x4"
    assert small.fingerprint != load("digits").fingerprint
    image = Image.fromarray(load("digits").test.images[3, ..., 0])
    expected = np.asarray(image.resize((4, 4), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(small.test.images[3, ..., 0], expected)


@pytest.mark.parametrize("size", [(0, 4), (4,), (4, 4, 3), (4.0, 4), (True, 4), (-1, 4)])
def test_bad_sizes_are_refused(size):
    assert "data.size" in refusal(load, "digits", size=size, kind=RecipeError)
