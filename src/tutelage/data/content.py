"""Validation and fingerprints of image and label arrays."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from dataclasses import dataclass

import numpy as np

from tutelage.data.image_files import ImageFiles, joined
from tutelage.errors import DataError
from tutelage.formatting import printable

Images = np.ndarray | ImageFiles


@dataclass(frozen=True, eq=False)
class Part:
    """One part of a data set: images and their labels.

    Args:
        images: uint8 `(n, height, width, channels)`, 0..255; 1 or 3 channels; or in files.
        labels: int64 `(n,)`, indices into the data set's class names.

    Example:
        >>> import numpy as np
        >>> len(Part(np.zeros((2, 8, 8, 1), np.uint8), np.array([0, 1])))
        2
    """

    images: Images
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray | slice) -> Part:
        """Some of the images; those in files stay there."""
        images = self.images
        kept = images.take(indices) if isinstance(images, ImageFiles) else images[indices]
        return Part(kept, self.labels[indices])


def concatenated(first: Images, second: Images) -> Images:
    """Images one after the other, all in memory or all in files."""
    if isinstance(first, ImageFiles) and isinstance(second, ImageFiles):
        return joined([first, second])
    return np.concatenate([first[:], second[:]])


@dataclass(frozen=True, eq=False)
class Content:
    """The content of one folder or archive.

    Args:
        classes: class names; a label is an index into them.
        train: the training images, those for validation last; none if there is only a test part.
        test: the test images, or None.
        fingerprint: `"sha256:<hex>"` of the content before any resizing, independent of the
            container format.
        resized: whether any image was resized to the requested size.
        held_out: number of the last training images that the data sets aside for validation.
        notes: what was skipped, renamed or chosen in reading, one line each.
        folders: each class's folder, for messages; none if the format has no folders.
    """

    classes: tuple[str, ...]
    train: Part
    test: Part | None
    fingerprint: str
    resized: bool = False
    held_out: int = 0
    notes: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()


def checked_part(images: np.ndarray, labels: np.ndarray, where: str) -> Part:
    """Make a part of uint8 images and integer labels; raises DataError for other arrays."""
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
            f"{where}: expected integer labels of (n,), found {labels.dtype} {labels.shape}; give "
            "the class index of each image; of one-hot labels it is labels.argmax(axis=1)"
        )
    if len(images) != len(labels) or not images.size:
        raise DataError(
            f"{where}: expected equal numbers of images and labels, at least one, found "
            f"{len(images)} images and {len(labels)} labels; give one label for each image"
        )
    return Part(np.ascontiguousarray(images), labels.astype(np.int64))


def checked_content(
    where: str, classes: tuple[str, ...], train: Part, test: Part | None
) -> Content:
    """Fingerprint parts of one shape with images of every class; raises DataError otherwise."""
    check_classes(where, classes, train, test)
    return Content(classes, train, test, fingerprint(classes, train, test))


def check_classes(
    where: str, classes: tuple[str, ...], train: Part, test: Part | None, other: str = "test"
) -> None:
    """Raise DataError unless the parts are of one shape and have images of every class.

    `other` says what the second part is for.
    """
    if len(set(classes)) < 2 or len(set(classes)) < len(classes):
        raise DataError(
            f"{where}: expected at least two classes with different names, found "
            f"{len(classes)} ({', '.join(classes)}); add or rename classes"
        )
    if test is not None and train.images.shape[1:] != test.images.shape[1:]:
        raise DataError(
            f"{where}: expected training and {other} images of one shape, found "
            f"{train.images.shape[1:]} and {test.images.shape[1:]}; resize them"
        )
    for name, part in (("training", train), (other, test)):
        present = set() if part is None else set(np.unique(part.labels).tolist())
        if part is not None and present != set(range(len(classes))):
            unknown = sorted(present - set(range(len(classes))))
            if unknown:
                problem = f"label {unknown[0]}, which is not a class"
            else:
                problem = f"no image of class {classes[min(set(range(len(classes))) - present)]!r}"
            raise DataError(
                f"{where}: expected {name} images of each of the {len(classes)} classes, "
                f"found {problem}; number the classes from 0 without gaps"
            )


def fingerprint(classes: tuple[str, ...], train: Part, test: Part | None) -> str:
    """`"sha256:<hex>"` over class names, shapes and bytes of arrays."""
    digest = hashlib.sha256(json.dumps(classes).encode())
    for part in (train, test):
        if part is not None:
            digest.update(json.dumps(part.images.shape).encode())
            digest.update(part.labels.astype("<i8").tobytes())
            digest.update(np.ascontiguousarray(part.images).data)
    return f"sha256:{digest.hexdigest()}"


def class_name(value: object) -> str:
    r"""A name that can be printed and stored as UTF-8, in normalization form C.

    Control characters and bytes that are not UTF-8 are escaped as in a Python string.

    Args:
        value: the name: text, in which bytes that are not UTF-8 are surrogates, as in file names
            from `os`; bytes; or another object, whose text counts.

    Returns:
        The name.

    Example:

    >>> class_name(b"caf\xe9"), class_name("red\x1b[0m")
    ('caf\\xe9', 'red\\x1b[0m')
    """
    text = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)
    return unicodedata.normalize("NFC", printable(text))
