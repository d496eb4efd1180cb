"""Data sets stored as arrays: CIFAR-10's batches, idx files and .npz files."""

from __future__ import annotations

import contextlib
import gzip
import io
import math
import posixpath
import re
import struct
import zlib
from dataclasses import replace

import numpy as np

from tutelage.data import cifar10
from tutelage.data.archives import Reader, Tree, one_line
from tutelage.data.content import (
    Content,
    Part,
    check_classes,
    checked_content,
    checked_part,
    class_name,
)
from tutelage.errors import DataError

_NPZ_PARTS = ("train", "val", "test")
_IDX_NAME = re.compile(r"(train|t10k)-(images|labels)[-.]idx[13]-ubyte(\.gz)?")


def read_arrays(tree: Tree, classes: tuple[str, ...] = ()) -> Content | None:
    """Read a data set stored as arrays.

    Supports CIFAR-10's binary and Python batches, MNIST's idx files (plain or `.gz`), and
    `.npz` files of `x_train`, `y_train` and optional `x_val`, `y_val`, `x_test`, `y_test`
    and `classes`.

    Args:
        tree: the opened folder or archive.
        classes: names to use if the format has none and their number matches.

    Returns:
        The content, or None if the tree contains no such data.

    Raises:
        DataError: if a file is missing, damaged, or would execute code.
    """
    members = {posixpath.basename(name): read for name, read in tree.files.items()}
    if members.keys() & {"data_batch_1.bin", "test_batch.bin"}:
        return cifar10.read_batches(tree, members, ".bin")
    if members.keys() & {"data_batch_1", "test_batch"}:
        return cifar10.read_batches(tree, members, "")
    if any(_IDX_NAME.fullmatch(name) for name in members):
        return _mnist(tree, members)
    if "x_train.npy" in members:
        return _npz(tree, members, classes)
    return None


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
                f"{which}-{lacking} idx file; download it again"
            )
        if present:
            images, labels = arrays[which, "images"], arrays[which, "labels"]
            parts[which] = checked_part(images, labels, f"{tree.path}: {which}")
    classes = tuple(str(number) for number in range(int(parts["train"].labels.max()) + 1))
    return checked_content(str(tree.path), classes, parts["train"], parts.get("t10k"))


def _idx(data: bytes, dimensions: int, where: str) -> np.ndarray:
    start = 4 + 4 * dimensions
    if where.endswith(".gz"):
        # Data that can't be decompressed is left as is and fails the check of the header.
        with contextlib.suppress(OSError, EOFError, zlib.error):
            data = gzip.decompress(data)
    if data[:4] == bytes((0, 0, 8, dimensions)) and len(data) >= start:
        shape = struct.unpack(f">{dimensions}I", data[4:start])
        if len(data) - start == math.prod(shape):
            return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
    raise DataError(
        f"{where}: expected an idx file of unsigned bytes in {dimensions} dimensions, found one "
        "that is damaged or of another kind; download it again"
    )


def _npz(tree: Tree, members: dict[str, Reader], classes: tuple[str, ...]) -> Content:
    names = [f"{kind}_{part}" for part in _NPZ_PARTS for kind in "xy"] + ["classes"]
    arrays = {
        name: _read_array(tree, name, members[f"{name}.npy"])
        for name in names
        if f"{name}.npy" in members
    }
    parts: dict[str, Part] = {}
    for part in _NPZ_PARTS:
        images, labels = f"x_{part}", f"y_{part}"
        if (images in arrays) != (labels in arrays) or (part == "train" and labels not in arrays):
            present, lacking = (images, labels) if images in arrays else (labels, images)
            raise DataError(f"{tree.path}: expected `{lacking}` with `{present}`; add it")
        if images in arrays:
            parts[part] = checked_part(arrays[images], arrays[labels], f"{tree.path}: {part}")
    train, count = parts["train"], int(parts["train"].labels.max()) + 1
    if "classes" in arrays:
        classes = tuple(class_name(name) for name in arrays["classes"].reshape(-1).tolist())
    elif len(classes) != count:
        classes = tuple(str(number) for number in range(count))
    ignored = sorted(name for name in members if name.removesuffix(".npy") not in arrays)
    notes = [f"arrays and files that are not used: {', '.join(ignored)}"] if ignored else []
    if validation := parts.get("val"):
        check_classes(str(tree.path), classes, train, validation)
        train = Part(
            np.concatenate([train.images, validation.images]),
            np.concatenate([train.labels, validation.labels]),
        )
        notes.append("validation images are those of x_val, not a fraction of x_train")
    content = checked_content(str(tree.path), classes, train, parts.get("test"))
    return replace(content, held_out=len(validation or ()), notes=tuple(notes))


def _read_array(tree: Tree, name: str, read: Reader) -> np.ndarray:
    try:
        return np.lib.format.read_array(io.BytesIO(read()), allow_pickle=False)
    except ValueError as error:
        raise DataError(
            f"{tree.path}: expected a plain array `{name}`, found one that is damaged or "
            f"contains objects ({one_line(error)}); save it again as numbers or text"
        ) from error
