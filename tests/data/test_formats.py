"""idx files and .npz files."""

import gzip

import numpy as np
import pytest

from tests.data.example_data import (
    idx,
    idx_files,
    noise,
    refusal,
    same,
    written,
)
from tutelage.data.datasets import load


def test_idx_files_read_the_same_packed_or_not_and_as_npz(tmp_path):
    files = idx_files()
    plain = load("mnist", written(tmp_path / "plain", files))
    packed = {f"{name}.gz": gzip.compress(data) for name, data in files.items()}
    same(plain, load("mnist", written(tmp_path / "packed", packed)))
    images = files["train-images-idx3-ubyte"][16:]
    assert plain.train.images.shape == (20, 5, 7, 1)
    assert plain.train.images.tobytes() == images
    assert plain.name == "mnist (unknown copy)"
    np.savez(
        tmp_path / "mnist.npz",
        x_train=plain.train.images[..., 0],
        y_train=plain.train.labels.astype(np.uint8),
        x_test=plain.test.images[..., 0],
        y_test=plain.test.labels.astype(np.uint8),
    )
    same(plain, load("mnist", tmp_path / "mnist.npz"))


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("train-images-idx3-ubyte", idx(noise(20, 5, 7))[:-1], "train-images-idx3-ubyte"),
        ("train-images-idx3-ubyte", b"\0\0\x0d\x03", "train-images-idx3-ubyte"),
        ("t10k-labels-idx1-ubyte", idx(np.zeros(19, np.uint8)), "19 labels"),
        ("t10k-labels-idx1-ubyte", idx(np.full(20, 10, np.uint8)), "label 10"),
        ("t10k-labels-idx1-ubyte", idx(np.zeros(20, np.uint8)), "class '1'"),
        ("t10k-images-idx3-ubyte", idx(noise(20, 5, 6)), "(5, 6, 1)"),
    ],
)
def test_a_bad_idx_file_is_named(tmp_path, name, data, says):
    assert says in refusal(load, "mnist", written(tmp_path, idx_files() | {name: data}))


def test_a_cut_or_missing_idx_file_is_named(tmp_path):
    files = {f"{name}.gz": gzip.compress(data) for name, data in idx_files().items()}
    name = "train-images-idx3-ubyte.gz"
    cut = files | {name: files[name][:-9]}
    assert name in refusal(load, "mnist", written(tmp_path / "a", cut))
    del files["t10k-labels-idx1-ubyte.gz"]
    assert "t10k-labels" in refusal(load, "mnist", written(tmp_path / "b", files))


def test_npz_names_its_classes(tmp_path):
    images, labels = noise(20, 4, 4), np.arange(20) % 2
    np.savez(tmp_path / "pets.npz", x_train=images, y_train=labels, classes=["cat", "dog"])
    data = load("folder", tmp_path / "pets.npz")
    assert (data.name, data.classes) == ("pets", ("cat", "dog"))
    assert (len(data.train), len(data.test)) == (16, 4)
    assert np.bincount(data.test.labels).tolist() == [2, 2]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"x_train": np.zeros((4, 4, 4), np.float32)}, "float32"),
        ({"x_train": np.zeros((4, 16), np.uint8)}, "(4, 16)"),
        ({"x_train": np.zeros((4, 4, 4, 4), np.uint8)}, "(4, 4, 4, 4)"),
        ({"y_train": np.eye(4)}, "(4, 4)"),
        ({"y_train": np.array([0.0, 1, 0, 1])}, "float64"),
        ({"y_train": np.array([0, 1, -1, 1])}, "label -1"),
        ({"y_train": np.array([0, 2, 0, 2])}, "class '1'"),
        ({"y_train": np.zeros(4, int)}, "two classes"),
        ({"y_train": np.array([0, 1, 0])}, "3 labels"),
        ({"y_train": np.array([0, 1, None], object)}, "y_train"),
        ({"classes": np.array(["a", "a"])}, "different names"),
        ({"classes": np.array(["a", "b", "c"])}, "class 'c'"),
        ({"x_test": np.zeros((2, 4, 4), np.uint8)}, "`y_test`"),
        ({"y_test": np.zeros(2, int)}, "`x_test`"),
    ],
)
def test_a_bad_npz_is_refused_with_what_is_wrong(tmp_path, change, says):
    arrays = {"x_train": noise(4, 4, 4), "y_train": np.array([0, 1, 0, 1])} | change
    np.savez(tmp_path / "a.npz", **arrays)
    message = refusal(load, "folder", tmp_path / "a.npz")
    assert says in message
    assert "a.npz" in message


def test_validation_arrays_of_an_npz_are_held_out(tmp_path):
    arrays = {}
    for part, count in (("train", 12), ("val", 6), ("test", 4)):
        arrays |= {f"x_{part}": noise(count, 5, 5, 1), f"y_{part}": np.arange(count) % 2}
    np.savez(tmp_path / "a.npz", **arrays, extra=np.zeros(3))
    data = load("folder", tmp_path / "a.npz")
    rest, validation = data.split(0.5, seed=0)
    np.testing.assert_array_equal(rest.images, arrays["x_train"])
    np.testing.assert_array_equal(validation.images, arrays["x_val"])
    np.testing.assert_array_equal(validation.labels, arrays["y_val"])
    assert "extra.npy" in data.notes[0]
    del arrays["y_val"]
    np.savez(tmp_path / "b.npz", **arrays)
    assert "y_val" in refusal(load, "folder", tmp_path / "b.npz")
