"""Images and labels as arrays, and the formats that keep them so."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import hashlib
import io
import json
import math
import pickle
import pickletools
import posixpath
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tutelage.data.archives import Reader, Tree, one_line
from tutelage.errors import DataError

CIFAR10_CLASSES: tuple[str, ...] = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)

_IDX_NAME = re.compile(r"(train|t10k)-(images|labels)[-.]idx[13]-ubyte(\.gz)?")


@dataclass(frozen=True, eq=False)
class Part:
    """One part of a data set: images and the class of each.

    Args:
        images: uint8 `(n, height, width, channels)`, 0..255; 1 or 3 channels.
        labels: int64 `(n,)`, indices into the data set's class names.

    Example:
        >>> import numpy as np
        >>> len(Part(np.zeros((2, 8, 8, 1), np.uint8), np.array([0, 1])))
        2
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Content:
    """What was read from one place.

    Args:
        classes: class names; a label is an index into them.
        train: the training images.
        test: the test images, or None where there are none.
        fingerprint: `"sha256:<hex>"` of the content, whatever it was packed in,
            before any resizing.
        resized: whether any image had another size than the one asked for.
    """

    classes: tuple[str, ...]
    train: Part
    test: Part | None
    fingerprint: str
    resized: bool = False


def read_arrays(tree: Tree, classes: tuple[str, ...] = ()) -> Content | None:
    """Read a data set that is kept as arrays.

    CIFAR-10's binary and python batches, MNIST's idx files (`.gz` or not), and
    `x_train`, `y_train` with or without `x_test`, `y_test` and `classes` (`.npz`).

    Args:
        tree: the opened folder or archive.
        classes: names to use where the format holds none and their number fits.

    Returns:
        The content, or None if the tree holds nothing of the kind.

    Raises:
        DataError: if a file is missing, damaged, or would run code.
    """
    members = {posixpath.basename(name): read for name, read in tree.files.items()}
    if members.keys() & {"data_batch_1.bin", "test_batch.bin"}:
        return _cifar(tree, members, ".bin", _binary_batch)
    if members.keys() & {"data_batch_1", "test_batch"}:
        return _cifar(tree, members, "", _pickled_batch)
    if any(_IDX_NAME.fullmatch(name) for name in members):
        return _mnist(tree, members)
    if "x_train.npy" in members:
        return _npz(tree, members, classes)
    return None


def _cifar(
    tree: Tree,
    members: dict[str, Reader],
    suffix: str,
    batch: Callable[[bytes, str], tuple[np.ndarray, np.ndarray]],
) -> Content:
    names = [f"data_batch_{number}{suffix}" for number in range(1, 6)] + [f"test_batch{suffix}"]
    for name in names:
        if name not in members:
            raise DataError(
                f"{tree.path}: expected CIFAR-10's {len(names)} batches, found no {name}; "
                "delete it and get CIFAR-10 again"
            )
    parts = []
    for name in names:
        rows, labels = batch(members[name](), f"{tree.path}: {name}")
        images = rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        parts.append(_part(images, labels, f"{tree.path}: {name}"))
    train = Part(
        np.concatenate([part.images for part in parts[:5]]),
        np.concatenate([part.labels for part in parts[:5]]),
    )
    classes = CIFAR10_CLASSES
    if suffix and "batches.meta.txt" in members:
        classes = tuple(members["batches.meta.txt"]().decode("utf-8", "replace").split())
    elif not suffix and "batches.meta" in members:
        where = f"{tree.path}: batches.meta"
        found = _unpickle(members["batches.meta"](), where).get("label_names")
        if not isinstance(found, list):
            raise DataError(f"{where}: expected label_names, found none; get CIFAR-10 again")
        classes = tuple(_text(name) for name in found)
    return _content(tree, classes, train, parts[5])


def _binary_batch(data: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    record = 1 + 3 * 32 * 32
    if len(data) % record:
        raise DataError(
            f"{where}: expected records of {record} bytes, found {len(data)} bytes, which is no "
            "whole number of them; delete it and get CIFAR-10 again"
        )
    rows = np.frombuffer(data, np.uint8).reshape(-1, record)
    return rows[:, 1:], rows[:, 0]


def _pickled_batch(data: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    batch = _unpickle(data, where)
    row = 3 * 32 * 32
    match batch:
        case {
            "data": _Named(state=(_, (int(count), width), _Named(code="u1" | b"u1"), columns, raw)),
            "labels": [*labels],
        } if (
            width == row
            and isinstance(raw, bytes)
            and len(raw) == count * row
            and all(type(label) is int for label in labels)
        ):
            order: Literal["F", "C"] = "F" if columns else "C"
            return np.frombuffer(raw, np.uint8).reshape(count, row, order=order), np.array(labels)
    raise DataError(
        f"{where}: expected a uint8 array `data` of (n, {row}) and a list `labels` of integers, "
        "found other things; delete it and get CIFAR-10 again"
    )


class _Named:
    """Stands in a pickle for NumPy's array and dtype, and only notes what it is told.

    NumPy's own believe what a pickle says of their memory: a damaged one ends the process.
    """

    def __init__(self, code: object = None, *_: object) -> None:
        self.code = code
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


# NumPy 1 and 2 call the module of the first by different names.
_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _Named,
    ("numpy._core.multiarray", "_reconstruct"): _Named,
    ("numpy", "ndarray"): _Named,
    ("numpy", "dtype"): _Named,
    ("_codecs", "encode"): codecs.encode,
}


class _ArraysOnly(pickle.Unpickler):
    """Admits what CIFAR-10's pickles hold: arrays, and plain containers."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None


def _unpickle(data: bytes, where: str) -> dict[str, Any]:
    try:
        for code, argument, _ in pickletools.genops(data):
            # Unpickling takes memory for as many notes as the highest number of one.
            if code.name in ("PUT", "LONG_BINPUT") and int(argument or 0) > len(data):
                raise pickle.UnpicklingError(f"it asks for {argument} notes")
        found = _ArraysOnly(io.BytesIO(data), encoding="bytes").load()
        return {_text(key): value for key, value in found.items()}
    except Exception as error:  # a damaged pickle can make the unpickler raise anything
        raise DataError(
            f"{where}: expected a pickle of arrays and plain containers, found one that is damaged "
            f"or unsafe and was not run ({one_line(error)}); delete it and get CIFAR-10 again"
        ) from error


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _mnist(tree: Tree, members: dict[str, Reader]) -> Content:
    arrays: dict[tuple[str, str], np.ndarray] = {}
    for name, read in members.items():
        match = _IDX_NAME.fullmatch(name)
        if match:
            dimensions = 3 if match[2] == "images" else 1
            arrays[match[1], match[2]] = _idx(read(), dimensions, f"{tree.path}: {name}")
    parts: dict[str, Part] = {}
    for which in ("train", "t10k"):
        present = [kind for kind in ("images", "labels") if (which, kind) in arrays]
        if len(present) == 1 or (which == "train" and not present):
            lacking = "labels" if present == ["images"] else "images"
            raise DataError(
                f"{tree.path}: expected {which}-images and {which}-labels, found no "
                f"{which}-{lacking} idx file; get it again"
            )
        if present:
            images, labels = arrays[which, "images"], arrays[which, "labels"]
            parts[which] = _part(images, labels, f"{tree.path}: {which}")
    classes = tuple(str(number) for number in range(int(parts["train"].labels.max()) + 1))
    return _content(tree, classes, parts["train"], parts.get("t10k"))


def _idx(data: bytes, dimensions: int, where: str) -> np.ndarray:
    start = 4 + 4 * dimensions
    if where.endswith(".gz"):
        # What can't be unpacked is left as it is, and then has no idx header.
        with contextlib.suppress(OSError, EOFError, zlib.error):
            data = gzip.decompress(data)
    if data[:4] == bytes((0, 0, 8, dimensions)) and len(data) >= start:
        shape = struct.unpack(f">{dimensions}I", data[4:start])
        if len(data) - start == math.prod(shape):
            return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
    raise DataError(
        f"{where}: expected an idx file of unsigned bytes in {dimensions} dimensions, found one "
        "that is damaged or of another kind; get it again"
    )


def _npz(tree: Tree, members: dict[str, Reader], classes: tuple[str, ...]) -> Content:
    arrays = {}
    for name in ("x_train", "y_train", "x_test", "y_test", "classes"):
        if f"{name}.npy" in members:
            try:
                stream = io.BytesIO(members[f"{name}.npy"]())
                arrays[name] = np.lib.format.read_array(stream, allow_pickle=False)
            except ValueError as error:
                raise DataError(
                    f"{tree.path}: expected a plain array `{name}`, found one that is damaged or "
                    f"holds objects ({one_line(error)}); save it again as numbers or text"
                ) from error
    for images, labels in (("x_train", "y_train"), ("x_test", "y_test")):
        if labels not in arrays and (images in arrays or images == "x_train"):
            raise DataError(f"{tree.path}: expected `{labels}` beside `{images}`; add it")
        if labels in arrays and images not in arrays:
            raise DataError(f"{tree.path}: expected `{images}` beside `{labels}`; add it")
    train = _part(arrays["x_train"], arrays["y_train"], f"{tree.path}: train")
    test = None
    if "x_test" in arrays:
        test = _part(arrays["x_test"], arrays["y_test"], f"{tree.path}: test")
    count = int(train.labels.max()) + 1
    if "classes" in arrays:
        classes = tuple(_text(name) for name in arrays["classes"].reshape(-1).tolist())
    elif len(classes) != count:
        classes = tuple(str(number) for number in range(count))
    return _content(tree, classes, train, test)


def _part(images: np.ndarray, labels: np.ndarray, where: str) -> Part:
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise DataError(
            f"{where}: expected uint8 images of (n, height, width) or (n, height, width, 1 or 3), "
            f"found {images.dtype} {images.shape}; convert them to 0..255"
        )
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(
            f"{where}: expected integer labels of (n,), found {labels.dtype} {labels.shape}; "
            "give the number of the class for each image"
        )
    if len(images) != len(labels) or not images.size:
        raise DataError(
            f"{where}: expected as many labels as images and at least one, found {len(images)} "
            f"images and {len(labels)} labels; get the data again"
        )
    return Part(np.ascontiguousarray(images), labels.astype(np.int64))


def _content(tree: Tree, classes: tuple[str, ...], train: Part, test: Part | None) -> Content:
    if len(set(classes)) < 2 or len(set(classes)) < len(classes):
        raise DataError(
            f"{tree.path}: expected at least two classes of different names, found "
            f"{len(classes)} ({', '.join(classes)}); add or rename classes"
        )
    if test is not None and train.images.shape[1:] != test.images.shape[1:]:
        raise DataError(
            f"{tree.path}: expected training and test images of one shape, found "
            f"{train.images.shape[1:]} and {test.images.shape[1:]}; make them alike"
        )
    for name, part in (("training", train), ("test", test)):
        found = set() if part is None else set(np.unique(part.labels).tolist())
        if part is not None and found != set(range(len(classes))):
            strange = sorted(found - set(range(len(classes))))
            if strange:
                what = f"label {strange[0]}, which names no class"
            else:
                what = f"no image of class {classes[min(set(range(len(classes))) - found)]!r}"
            raise DataError(
                f"{tree.path}: expected {name} images of each of the {len(classes)} classes, "
                f"found {what}; mend the labels or the classes"
            )
    return Content(classes, train, test, fingerprint(classes, train, test))


def fingerprint(classes: tuple[str, ...], train: Part, test: Part | None) -> str:
    """`"sha256:<hex>"` over class names, shapes and bytes of arrays."""
    digest = hashlib.sha256(json.dumps(classes).encode())
    for part in (train, test):
        if part is not None:
            digest.update(json.dumps(part.images.shape).encode())
            digest.update(part.labels.astype("<i8").tobytes())
            digest.update(np.ascontiguousarray(part.images).data)
    return f"sha256:{digest.hexdigest()}"
