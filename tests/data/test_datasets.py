import functools
import gzip
import hashlib
import http.server
import io
import logging
import os
import pickle
import struct
import tarfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from tutelage.data import finding
from tutelage.data.cifar10 import CIFAR10_CLASSES
from tutelage.data.content import Part
from tutelage.data.datasets import load
from tutelage.data.image_file import read_image
from tutelage.data.splitting import split
from tutelage.errors import DataError, DataNotFoundError, RecipeError

random = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def own_places(tmp_path, monkeypatch, request):
    if "shared_data" in request.fixturenames:
        return  # decoded once a session
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("TUTELAGE_OFFLINE", "1")
    monkeypatch.delenv("TUTELAGE_DATA", raising=False)


def encoded(pixels, kind="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def noise(*shape):
    return random.integers(0, 256, shape, np.uint8)


def picture_files(side=6, count=5, classes=("cat", "dog"), parts=("train", "test")):
    return {
        f"{part}/{label}/{number}.png": encoded(noise(side, side, 3))
        for part in parts
        for label in classes
        for number in range(count)
    }


def written(folder, files):
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def tarred(path, files, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def zipped(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def refusal(call, *arguments, kind=DataError, **options):
    with pytest.raises(kind) as caught:
        call(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def same(one, other):
    assert one.classes == other.classes
    assert one.fingerprint == other.fingerprint
    for part in ("train", "test"):
        np.testing.assert_array_equal(getattr(one, part).images, getattr(other, part).images)
        np.testing.assert_array_equal(getattr(one, part).labels, getattr(other, part).labels)


# --- the data sets that are known


def test_digits_are_scikit_learns_scaled_to_bytes():
    data = load("digits")
    values, labels = load_digits(return_X_y=True)
    pixels = np.round(values * 255 / 16).astype(np.uint8)
    assert (data.name, data.source, data.classes) == ("digits", "scikit-learn", (*"0123456789",))
    rows = {image.tobytes() + bytes([label]) for image, label in zip(pixels, labels, strict=True)}
    both = [data.train, data.test]
    found = [
        image.tobytes() + bytes([label])
        for part in both
        for image, label in zip(part.images, part.labels, strict=True)
    ]
    assert len(found) == len(labels) == 1797
    assert set(found) == rows
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


# --- CIFAR-10's own formats


def python2_pickle(rows, labels):
    """The bytes that Python 2's cPickle wrote, as in the real archive, short of memos."""

    def short(text):
        return b"U" + bytes([len(text)]) + text

    def number(value):
        return b"J" + struct.pack("<i", value)

    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
        + (number(0) + b"\x85" + short(b"b") + b"\x87R")
        + (b"(K\x01" + number(rows.shape[0]) + number(rows.shape[1]) + b"\x86")
        + (b"cnumpy\ndtype\n" + short(b"u1") + b"K\x00K\x01\x87R")
        + (b"(K\x03" + short(b"|") + b"NNN" + number(-1) + number(-1) + b"K\x00tb")
        + (b"\x89T" + struct.pack("<i", rows.nbytes) + rows.tobytes() + b"tb")
    )
    listed = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    items = short(b"batch_label") + short(b"training batch 1 of 5")
    return b"\x80\x02}(" + items + short(b"labels") + listed + short(b"data") + array + b"u."


@pytest.fixture(scope="module")
def cifar():
    """Six batches of 20 images, as (rows, labels)."""
    return [(noise(20, 3072), np.arange(20) % 10) for _ in range(6)]


BATCHES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]


def binary_files(cifar, folder="cifar-10-batches-bin/"):
    files = {
        f"{folder}{name}.bin": np.column_stack([labels.astype(np.uint8), rows]).tobytes()
        for name, (rows, labels) in zip(BATCHES, cifar, strict=True)
    }
    names = "\n".join(CIFAR10_CLASSES) + "\n\n"
    return files | {f"{folder}batches.meta.txt": names.encode(), f"{folder}readme.html": b"<p>"}


def python_files(cifar, dump=python2_pickle, folder="cifar-10-batches-py/"):
    files = {
        f"{folder}{name}": dump(rows, labels.tolist())
        for name, (rows, labels) in zip(BATCHES, cifar, strict=True)
    }
    meta = {b"label_names": [name.encode() for name in CIFAR10_CLASSES]}
    return files | {f"{folder}batches.meta": pickle.dumps(meta, protocol=2)}


def python3_pickle(rows, labels):
    return pickle.dumps({b"data": rows, b"labels": labels}, protocol=2)


def numpy1_pickle(rows, labels):
    return python3_pickle(rows, labels).replace(b"numpy._core", b"numpy.core")


def test_python2_pickles_are_pickles(cifar):
    rows, labels = cifar[0]
    found = pickle.loads(python2_pickle(rows, labels.tolist()), encoding="bytes")
    np.testing.assert_array_equal(found[b"data"], rows)


@pytest.mark.parametrize("dump", [python2_pickle, python3_pickle, numpy1_pickle])
def test_cifar10_reads_the_same_from_python_and_binary(cifar, tmp_path, dump):
    binary = load("cifar10", tarred(tmp_path / "small-bin.tar.gz", binary_files(cifar)))
    folder = written(tmp_path, python_files(cifar, dump)) / "cifar-10-batches-py"
    python = load("cifar10", folder)
    same(binary, python)
    same(python, load("cifar10", tarred(tmp_path / "p.tgz", python_files(cifar, dump))))
    rows, labels = cifar[5]
    # A row is the red, the green and the blue plane.
    planes = binary.test.images.transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(planes.reshape(20, -1), rows)
    np.testing.assert_array_equal(binary.test.labels, labels)
    assert binary.classes == CIFAR10_CLASSES
    assert len(binary.train) == 100


def test_a_pickle_with_columns_first_is_read_too(cifar, tmp_path):
    rows = load("cifar10", written(tmp_path / "c", python_files(cifar, python3_pickle)))
    columns = [(np.asfortranarray(images), labels) for images, labels in cifar]
    same(rows, load("cifar10", written(tmp_path / "f", python_files(columns, python3_pickle))))


def test_a_pickle_that_lies_about_its_memory_can_do_no_harm(cifar, tmp_path):
    rows, _ = cifar[0]
    files = python_files(cifar)
    batch = "cifar-10-batches-py/data_batch_1"
    whole = files[batch]
    flags = whole.index(b"J" + struct.pack("<i", -1) + b"K\x00tb") + 6
    lie = whole[:flags] + b"\x3f" + whole[flags + 1 :]  # NumPy's own dtype ends the process
    true = load("cifar10", written(tmp_path / "true", files))
    same(true, load("cifar10", written(tmp_path / "flags", files | {batch: lie})))
    lie = whole.replace(b"J" + struct.pack("<i", len(rows)), b"J" + struct.pack("<i", 1 << 30))
    assert "data_batch_1" in refusal(
        load, "cifar10", written(tmp_path / "shape", files | {batch: lie})
    )


def test_only_the_original_is_called_cifar10(cifar, tmp_path, monkeypatch):
    folder = written(tmp_path, binary_files(cifar)) / "cifar-10-batches-bin"
    assert load("cifar10", folder).name == "cifar10 (unknown copy)"
    written(tmp_path, python_files(cifar))
    original = [hashlib.sha256((folder / f"{name}.bin").read_bytes()) for name in BATCHES]
    digests = tuple(digest.hexdigest() for digest in original)
    monkeypatch.setattr(finding, "_CIFAR10_BATCHES", digests)
    data = load("folder", folder)
    assert data.name == "CIFAR-10"
    assert load("cifar10", tmp_path / "cifar-10-batches-py").name == "CIFAR-10"
    arrays = {"x_train": data.train.images, "y_train": data.train.labels[:, None]}
    arrays |= {"x_test": data.test.images, "y_test": data.test.labels[:, None]}
    np.savez(tmp_path / "c.npz", **arrays)
    same(data, load("cifar10", tmp_path / "c.npz"))
    assert load("cifar10", tmp_path / "c.npz").name == "CIFAR-10"
    assert load("cifar10", folder, size=(16, 16)).name == "CIFAR-10, resized to 16x16"
    arrays["x_test"] = arrays["x_test"] ^ np.uint8(1)
    np.savez(tmp_path / "c.npz", **arrays)
    assert load("cifar10", tmp_path / "c.npz").name == "cifar10 (unknown copy)"


def test_a_folder_can_not_take_an_official_name_by_being_called_so(tmp_path):
    for name in ("CIFAR-10", "mnist", "cats"):
        written(tmp_path / name, picture_files())
    assert load("folder", tmp_path / "CIFAR-10").name == "CIFAR-10 (unknown copy)"
    assert load("folder", tmp_path / "mnist").name == "mnist (unknown copy)"
    assert load("folder", tmp_path / "cats").name == "cats"


class _Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_pickle_that_would_run_code_is_refused_and_not_run(cifar, tmp_path):
    files = python_files(cifar)
    trap = tmp_path / "sprung"
    files["cifar-10-batches-py/data_batch_3"] = pickle.dumps({b"data": _Evil(str(trap))})
    message = refusal(load, "cifar10", tarred(tmp_path / "c.tar.gz", files))
    assert "data_batch_3" in message
    assert "posix.mkdir" in message or "nt.mkdir" in message
    assert not trap.exists()
    pickle.loads(files["cifar-10-batches-py/data_batch_3"])  # it is a trap
    assert trap.exists()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("data_batch_2", b"\x80\x02}q"),
        ("data_batch_2", pickle.dumps([1, 2], protocol=2)),
        ("data_batch_2", pickle.dumps({b"data": np.zeros((2, 9), np.uint8), b"labels": [0, 1]})),
        ("data_batch_2", python3_pickle(np.zeros((2, 3072)), [0, 1])),
        ("data_batch_2", python3_pickle(np.zeros((2, 3072), np.int8), [0, 1])),
        ("data_batch_2", python3_pickle(np.zeros((2, 3072), np.uint8), [0])),
        ("data_batch_2", python3_pickle(np.zeros((2, 3072), np.uint8), ["a", "b"])),
        ("batches.meta", pickle.dumps({b"num_vis": 3072}, protocol=2)),
    ],
)
def test_a_damaged_python_batch_is_named(cifar, tmp_path, name, data):
    files = python_files(cifar) | {f"cifar-10-batches-py/{name}": data}
    assert name in refusal(load, "cifar10", written(tmp_path, files))


def test_a_pickle_that_would_take_all_memory_is_refused(cifar, tmp_path):
    bomb = b"\x80\x02}r\xff\xff\xff\x3f."  # a note of the number 2**30 - 1
    files = python_files(cifar) | {"cifar-10-batches-py/test_batch": bomb}
    message = refusal(load, "cifar10", written(tmp_path, files))
    assert "test_batch" in message
    assert "1073741823 notes" in message


def test_a_missing_or_short_binary_batch_is_named(cifar, tmp_path):
    files = binary_files(cifar, "")
    del files["data_batch_4.bin"]
    assert "data_batch_4.bin" in refusal(load, "cifar10", written(tmp_path / "a", files))
    files = binary_files(cifar, "")
    files["test_batch.bin"] = files["test_batch.bin"][:-1]
    assert "test_batch.bin" in refusal(load, "cifar10", written(tmp_path / "b", files))


def test_an_official_file_name_with_another_content_is_refused(cifar, tmp_path):
    path = tarred(tmp_path / "cifar-10-binary.tar.gz", binary_files(cifar))
    message = refusal(load, "cifar10", path)
    assert str(path) in message
    assert "get it again" in message


# --- MNIST's idx files and .npz


def idx(array):
    shape = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes((0, 0, 8, array.ndim)) + shape + array.tobytes()


def idx_files(test=True):
    parts = ("train", "t10k") if test else ("train",)
    files = {}
    for part in parts:
        files[f"{part}-images-idx3-ubyte"] = idx(noise(20, 5, 7))
        files[f"{part}-labels-idx1-ubyte"] = idx(np.arange(20, dtype=np.uint8) % 10)
    return files


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


# --- folders of images, and archives of them


def test_archives_and_folders_of_the_same_files_are_the_same_data(tmp_path):
    files = picture_files()
    junk = {"README.txt": b"hello", "__MACOSX/train/cat/._0.png": b"x", ".DS_Store": b"x"}
    junk |= {"train/cat/Thumbs.db": b"x", "train/.hidden/0.png": b"x"}
    folder = written(tmp_path / "pets", files)
    wrapped = {f"pets/{name}": data for name, data in files.items()}
    shuffled = dict(reversed(files.items()))
    sources = [
        folder,
        written(tmp_path / "wrapped", wrapped | {"pets/README.txt": b"hello"}),
        tarred(tmp_path / "pets.tar", files, "w"),
        tarred(tmp_path / "pets.tar.gz", files | junk),
        tarred(tmp_path / "pets.tar.xz", wrapped | junk, "w:xz"),
        zipped(tmp_path / "pets.zip", shuffled | junk),
        zipped(tmp_path / "wrapped.zip", wrapped),
        tarred(tmp_path / "dotted.tar", {f"./{name}": data for name, data in files.items()}, "w"),
    ]
    first = load("folder", folder)
    assert (first.name, first.classes) == ("pets", ("cat", "dog"))
    for which in ("train", "test"):
        part = getattr(first, which)
        expected = [
            np.asarray(Image.open(folder / which / label / f"{number}.png"))
            for label in ("cat", "dog")
            for number in range(5)
        ]
        np.testing.assert_array_equal(part.images, expected)
        assert part.labels.tolist() == [0] * 5 + [1] * 5
    for source in sources[1:]:
        same(first, load("folder", source))
    files["train/cat/0.png"] = encoded(noise(6, 6, 3))
    changed = load("folder", tarred(tmp_path / "changed.tar", files, "w"))
    assert changed.fingerprint != first.fingerprint


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


def test_a_class_may_be_called_train(tmp_path):
    files = picture_files(classes=("plane", "train"), parts=("x",))
    flat = {name.removeprefix("x/"): data for name, data in files.items()}
    assert load("folder", written(tmp_path, flat)).classes == ("plane", "train")


def test_the_kind_of_a_file_is_told_by_its_content(tmp_path):
    files = picture_files()
    path = zipped(tmp_path / "pets.tar.gz", files)
    same(load("folder", path), load("folder", tarred(tmp_path / "pets.zip", files, "w:xz")))


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


def test_images_are_turned_upright_as_the_camera_says(tmp_path):
    pixels = noise(4, 6, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    (tmp_path / "a.png").write_bytes(encoded(pixels, exif=exif))
    found = read_image(tmp_path / "a.png", size=(6, 4), channels=3)
    np.testing.assert_array_equal(found, np.rot90(pixels, -1))


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


def without(files, prefix):
    return {name: data for name, data in files.items() if not name.startswith(prefix)}


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"README.txt": b"no images"}, "found none of them"),
        (picture_files(classes=("cat",)), "only 'cat'"),
        (without(picture_files(), "test/dog"), "'dog'"),
        (without(picture_files(classes=("cat", "dog", "emu")), "train/emu"), "'emu'"),
        (without(picture_files(), "train/"), "only test/"),
        (picture_files() | {"val/cat/0.png": encoded(noise(6, 6, 3))}, "val/cat/0.png"),
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


# --- archives that can't be trusted


@pytest.mark.parametrize("name", ["/etc/0.png", "train/../../0.png", "C:\\0.png", "..\\0.png"])
def test_a_member_outside_of_the_archive_is_refused(tmp_path, name):
    files = picture_files() | {name: b"x"}
    for path in (tarred(tmp_path / "a.tar", files, "w"), zipped(tmp_path / "a.zip", files)):
        message = refusal(load, "folder", path)
        assert "points outside" in message
        assert repr(name) in message


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_a_link_in_a_tar_is_refused(tmp_path, kind):
    path = tarred(tmp_path / "a.tar", picture_files(), "w")
    with tarfile.open(path, "a") as archive:
        info = tarfile.TarInfo("train/cat/link.png")
        info.type, info.linkname = kind, "train/cat/0.png"
        archive.addfile(info)
    assert "'train/cat/link.png' is a link" in refusal(load, "folder", path)


def test_a_link_or_a_repeated_name_in_a_zip_is_refused(tmp_path):
    path = zipped(tmp_path / "a.zip", picture_files())
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo("train/cat/link.png")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    assert "'train/cat/link.png' is a link" in refusal(load, "folder", path)
    path = tarred(tmp_path / "a.tar", picture_files(), "w")
    with tarfile.open(path, "a") as archive:
        archive.addfile(tarfile.TarInfo("train/cat/0.png"))
    assert "'train/cat/0.png' is there twice" in refusal(load, "folder", path)


@pytest.mark.parametrize("kind", ["w", "w:gz", "w:xz", "w:bz2", "zip"])
def test_an_archive_cut_anywhere_is_refused(tmp_path, kind):
    files = picture_files(side=3)
    whole = tmp_path / "whole"
    path = zipped(whole, files) if kind == "zip" else tarred(whole, files, kind)
    data = path.read_bytes()
    # The zeros that fill a plain tar's last record tell nothing.
    end = len(data.rstrip(b"\0")) if kind == "w" else len(data)
    cut = tmp_path / "cut"
    for length in [*range(0, end, end // 40), end - 1]:
        cut.write_bytes(data[:length])
        assert str(cut) in refusal(load, "folder", cut)


def test_a_flipped_bit_in_an_archive_is_never_taken_for_the_same_data(tmp_path):
    files = picture_files(side=3)
    for path in (zipped(tmp_path / "a.zip", files), tarred(tmp_path / "a.tar", files, "w")):
        data = path.read_bytes()
        first = load("folder", path)
        for place in random.integers(0, len(data.rstrip(b"\0")), 60).tolist():
            damaged = bytearray(data)
            damaged[place] ^= 1 << place % 8
            path.write_bytes(damaged)
            try:
                found = load("folder", path)
            except DataError as error:
                assert "\n" not in str(error)  # noqa: PT017
            else:
                if found.fingerprint == first.fingerprint:
                    same(found, first)


# --- the cache


def cached(tmp_path):
    return list((tmp_path / "cache" / "images").iterdir())


def test_decoded_images_are_read_from_the_cache(tmp_path, monkeypatch):
    path = tarred(tmp_path / "pets.tar.xz", picture_files(), "w:xz")
    first = load("folder", path)
    assert len(cached(tmp_path)) == 1
    monkeypatch.setattr(Image, "open", None)  # nothing is decoded any more
    same(first, load("folder", path))


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text"])
def test_a_damaged_cache_is_made_again(tmp_path, caplog, damage):
    path = tarred(tmp_path / "pets.tar.xz", picture_files(), "w:xz")
    first = load("folder", path)
    (kept,) = cached(tmp_path)
    data = kept.read_bytes()
    middle = data.index(first.train.images.tobytes()) + 7
    flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    damaged = {"cut": data[: len(data) // 2], "flip": flipped, "empty": b"", "text": b"hello"}
    kept.write_bytes(damaged[damage])
    with caplog.at_level(logging.WARNING):
        same(first, load("folder", path))
    assert "decoding the images again" in caplog.text
    assert kept.read_bytes() != damaged[damage]
    same(first, load("folder", path))


def test_a_cache_that_can_not_be_written_is_only_warned_of(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "file" / "cache"))
    path = tarred(tmp_path / "pets.tar.xz", picture_files(), "w:xz")
    assert len(load("folder", path).train) == 10
    assert "not kept" in caplog.text


def test_a_changed_folder_is_not_read_from_the_cache(tmp_path):
    folder = written(tmp_path / "pets", picture_files())
    first = load("folder", folder)
    pixels = noise(6, 6, 3)
    (folder / "train/cat/0.png").write_bytes(encoded(pixels))
    second = load("folder", folder)
    np.testing.assert_array_equal(second.train.images[0], pixels)
    assert second.fingerprint != first.fingerprint


# --- finding


def npz(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = np.arange(50) % 10
    np.savez(path, x_train=np.full((50, 4, 4), value, np.uint8), y_train=labels)
    return path


def test_places_are_searched_in_order(tmp_path, monkeypatch):
    keras = npz(tmp_path / "keras" / "datasets" / "mnist.npz", 3)
    assert load("mnist").source == str(keras)
    second = npz(tmp_path / "second" / "mnist.npz", 2)
    folders = [tmp_path / "first", tmp_path / "second"]
    monkeypatch.setenv("TUTELAGE_DATA", os.pathsep.join(map(str, folders)))
    assert load("mnist").source == str(second)
    first = written(tmp_path / "first" / "mnist", idx_files())
    assert load("mnist").source == str(first)
    given = npz(tmp_path / "given.npz", 1)
    data = load("mnist", given)
    assert data.source == str(given)
    assert (data.train.images == 1).all()


@pytest.mark.parametrize(
    "name",
    ["cifar-10-batches-py-target", "cifar-10-batches-py-target_archive", "cifar-10-batches-py"],
)
def test_what_keras_keeps_of_cifar10_is_found(cifar, tmp_path, name):
    place = tmp_path / "keras" / "datasets"
    place.mkdir(parents=True)
    if name.endswith("_archive"):
        tarred(place / name, python_files(cifar))
    elif name.endswith("-target"):
        written(place / name, python_files(cifar))
    else:
        written(place, python_files(cifar))
    assert load("cifar10").source == str(place / name)


def test_what_is_found_nowhere_says_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTELAGE_DATA", str(tmp_path / "mine"))
    message = refusal(load, "cifar10", kind=DataNotFoundError)
    for word in ("'cifar10'", str(tmp_path / "mine"), str(tmp_path / "keras"), "give --data PATH"):
        assert word in message


@pytest.fixture
def server(tmp_path):
    """A real web server over tmp_path/served."""
    served = tmp_path / "served"
    served.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=served)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_a_download_is_checked_and_kept(tmp_path, monkeypatch, server):
    monkeypatch.setenv("TUTELAGE_OFFLINE", "0")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    file = npz(tmp_path / "served" / "mnist.npz", 5)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    wrong = {"mnist": (f"{server}/mnist.npz", "0" * 64)}
    monkeypatch.setattr(finding, "_DOWNLOADS", wrong)
    message = refusal(load, "mnist", kind=DataNotFoundError)
    assert "could not be downloaded" in message
    assert not (tmp_path / "cache" / "downloads" / "mnist.npz").exists()
    monkeypatch.setattr(finding, "_DOWNLOADS", {"mnist": (f"{server}/mnist.npz", digest)})
    data = load("mnist")
    assert data.source == str(tmp_path / "cache" / "downloads" / "mnist.npz")
    monkeypatch.setenv("TUTELAGE_OFFLINE", "1")
    same(data, load("mnist"))


def test_bad_names_and_paths_are_refused(tmp_path):
    message = refusal(load, "cifar", kind=RecipeError)
    assert "'cifar'" in message
    assert "cifar10" in message
    assert "--data PATH" in refusal(load, "folder", kind=DataNotFoundError)
    missing = tmp_path / "none.tar"
    assert str(missing) in refusal(load, "folder", missing, kind=DataNotFoundError)
    (tmp_path / "a.txt").write_text("hello")
    assert "a.txt" in refusal(load, "folder", tmp_path / "a.txt")


@pytest.mark.parametrize("size", [(0, 4), (4,), (4, 4, 3), (4.0, 4), (True, 4), (-1, 4)])
def test_bad_sizes_are_refused(size):
    assert "data.size" in refusal(load, "digits", size=size, kind=RecipeError)


# --- splitting


def test_a_split_is_stratified_whole_and_repeatable():
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    part = Part(np.arange(100, dtype=np.uint8).reshape(100, 1, 1, 1), labels)
    rest, chosen = split(part, 0.2, seed=3)
    assert np.bincount(chosen.labels).tolist() == [12, 6, 2]
    both = np.concatenate([rest.images, chosen.images]).ravel()
    assert sorted(both.tolist()) == list(range(100))
    for side in (rest, chosen):
        np.testing.assert_array_equal(side.labels, labels[side.images.ravel()])
    again = split(part, 0.2, seed=3)
    other = split(part, 0.2, seed=4)
    assert all((np.diff(side.images.ravel().astype(int)) > 0).all() for side in (rest, chosen))
    np.testing.assert_array_equal(again[1].images, chosen.images)
    assert not np.array_equal(other[1].images, chosen.images)


@pytest.mark.parametrize(
    ("labels", "fraction"),
    [([0, 0, 0, 1], 0.5), ([0] * 50 + [1] * 2, 0.05), ([0, 1], 0.5), ([0, 0, 1, 1], 0.1)],
)
def test_a_split_that_leaves_a_class_out_is_refused(labels, fraction):
    part = Part(np.zeros((len(labels), 1, 1, 1), np.uint8), np.array(labels))
    assert "class" in refusal(split, part, fraction, 0)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan"), float("inf"), True])
def test_an_impossible_fraction_is_refused(fraction):
    assert repr(fraction) in refusal(split, load("digits").train, fraction, 0, kind=RecipeError)


@pytest.mark.parametrize("seed", [-1, 2**32, True])
def test_an_impossible_seed_is_refused(seed):
    assert repr(seed) in refusal(split, load("digits").train, 0.5, seed, kind=RecipeError)


# --- one picture


def test_a_picture_is_given_in_the_colours_and_size_a_model_takes(tmp_path):
    pixels = noise(9, 7, 3)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "a.png")
    image.convert("L").save(tmp_path / "grey.png")
    small = np.asarray(image.resize((4, 5), Image.Resampling.BILINEAR))
    found = read_image(tmp_path / "a.png", size=(5, 4), channels=3)
    np.testing.assert_array_equal(found, small)
    grey = read_image(tmp_path / "a.png", size=(5, 4), channels=1)
    np.testing.assert_array_equal(grey[..., 0], Image.fromarray(small).convert("L"))
    wide = read_image(tmp_path / "grey.png", size=(9, 7), channels=3)
    np.testing.assert_array_equal(wide, np.asarray(image.convert("L").convert("RGB")))
    assert (wide.dtype, wide.shape) == (np.uint8, (9, 7, 3))


def test_a_picture_that_can_not_be_read_is_named(tmp_path):
    missing = tmp_path / "none.png"
    assert str(missing) in refusal(
        read_image, missing, size=(4, 4), channels=3, kind=DataNotFoundError
    )
    (tmp_path / "bad.png").write_bytes(b"no image")
    for path in (tmp_path / "bad.png", tmp_path):
        assert str(path) in refusal(read_image, path, size=(4, 4), channels=3)
    with pytest.raises(RecipeError, match="channels"):
        read_image(tmp_path / "bad.png", size=(4, 4), channels=2)


def test_folders_may_hold_links(tmp_path):
    files = picture_files()
    folder = written(tmp_path / "pets", files)
    linked = tmp_path / "linked"
    linked.mkdir()
    for part in ("train", "test"):
        try:
            Path(linked / part).symlink_to(folder / part, target_is_directory=True)
        except OSError:
            pytest.skip("this system makes no links")
    same(load("folder", folder), load("folder", linked))
