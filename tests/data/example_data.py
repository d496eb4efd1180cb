"""Small data sets in every format, and what compares and refuses them."""

import io
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from tutelage.data.cifar10 import CIFAR10_CLASSES
from tutelage.errors import DataError

RANDOM = np.random.default_rng(0)


def encoded(pixels, kind="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def noise(*shape):
    return RANDOM.integers(0, 256, shape, np.uint8)


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


def without(files, prefix):
    return {name: data for name, data in files.items() if not name.startswith(prefix)}


def cached(tmp_path):
    return list((tmp_path / "cache" / "images").iterdir())


def npz(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = np.arange(50) % 10
    np.savez(path, x_train=np.full((50, 4, 4), value, np.uint8), y_train=labels)
    return path
