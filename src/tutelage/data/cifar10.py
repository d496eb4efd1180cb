"""CIFAR-10's formats: binary batches, and pickles that are read without executing code."""

from __future__ import annotations

import codecs
import io
import pickle
import pickletools
from typing import Any, Literal

import numpy as np

from tutelage.data.archives import Reader, Tree, one_line
from tutelage.data.content import Content, Part, checked_content, checked_part, class_name
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


def read_batches(
    tree: Tree,
    members: dict[str, Reader],
    suffix: str,
) -> Content:
    """Read batches with `suffix` `.bin` (binary) or no suffix (pickled); raises DataError."""
    names = [f"data_batch_{number}{suffix}" for number in range(1, 6)] + [f"test_batch{suffix}"]
    for name in names:
        if name not in members:
            raise DataError(
                f"{tree.path}: expected CIFAR-10's {len(names)} batches, found no {name}; "
                "delete it and download CIFAR-10 again"
            )
    read = _binary_batch if suffix else _pickled_batch
    parts = []
    for name in names:
        rows, labels = read(members[name](), f"{tree.path}: {name}")
        images = rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        parts.append(checked_part(images, labels, f"{tree.path}: {name}"))
    train = Part(
        np.concatenate([part.images for part in parts[:5]]),
        np.concatenate([part.labels for part in parts[:5]]),
    )
    classes = CIFAR10_CLASSES
    if suffix and "batches.meta.txt" in members:
        classes = tuple(class_name(name) for name in members["batches.meta.txt"]().split())
    elif not suffix and "batches.meta" in members:
        where = f"{tree.path}: batches.meta"
        label_names = _unpickle(members["batches.meta"](), where).get("label_names")
        if not isinstance(label_names, list):
            raise DataError(f"{where}: expected label_names, found none; download CIFAR-10 again")
        classes = tuple(class_name(name) for name in label_names)
    return checked_content(str(tree.path), classes, train, parts[5])


def _binary_batch(data: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    record = 1 + 3 * 32 * 32
    if len(data) % record:
        raise DataError(
            f"{where}: expected records of {record} bytes, found {len(data)} bytes, not a "
            "multiple of it; delete it and download CIFAR-10 again"
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
        "found something else; delete it and download CIFAR-10 again"
    )


class _Named:
    """Stands in for NumPy's array and dtype in a pickle and only stores its arguments.

    NumPy trusts the memory layout in a pickle: a damaged one can crash the process.
    """

    def __init__(self, code: object = None, *_: object) -> None:
        self.code = code
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


# The first name is in different modules in NumPy 1 and 2.
_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _Named,
    ("numpy._core.multiarray", "_reconstruct"): _Named,
    ("numpy", "ndarray"): _Named,
    ("numpy", "dtype"): _Named,
    ("_codecs", "encode"): codecs.encode,
}


class _ArraysOnly(pickle.Unpickler):
    """Accepts only what CIFAR-10's pickles contain: arrays and plain containers."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}") from None


def _unpickle(data: bytes, where: str) -> dict[str, Any]:
    try:
        for code, argument, _ in pickletools.genops(data):
            # Unpickling allocates a memo as large as its highest index.
            if code.name in ("PUT", "LONG_BINPUT") and int(argument or 0) > len(data):
                raise pickle.UnpicklingError(f"it has a memo of {argument} entries")
        batch = _ArraysOnly(io.BytesIO(data), encoding="bytes").load()
        return {
            key.decode() if isinstance(key, bytes) else key: value for key, value in batch.items()
        }
    except Exception as error:  # a damaged pickle can make the unpickler raise anything
        raise DataError(
            f"{where}: expected a pickle of arrays and plain containers, found one that is damaged "
            f"or unsafe and was not run ({one_line(error)}); delete it and download CIFAR-10 again"
        ) from error
