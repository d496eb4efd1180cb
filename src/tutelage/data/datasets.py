"""Load an image data set into arrays and identify it by its content."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tutelage.data import archives, cifar10, content, finding, formats, image_cache, image_folder
from tutelage.data.content import Content, Part
from tutelage.data.finding import KNOWN, NAMES
from tutelage.data.image_file import checked_size
from tutelage.data.splitting import TEST_FRACTION, TEST_SEED, split
from tutelage.errors import DataError, RecipeError

__all__ = [
    "GEOMETRY",
    "KNOWN",
    "NAMES",
    "Dataset",
    "Part",
    "load",
    "split",
    "stand_in",
]


# (training images, test images, (height, width, channels), classes) of downloadable data sets.
GEOMETRY = {
    "cifar10": (50_000, 10_000, (32, 32, 3), 10),
    "mnist": (60_000, 10_000, (28, 28, 1), 10),
}


@dataclass(frozen=True, eq=False)
class Dataset:
    """An image data set in memory.

    Args:
        name: the name; an official one only if the content matches.
        classes: class names; a label is an index into them.
        train: all training images, before validation images are split off.
        test: the test images, used only for the final evaluation.
        fingerprint: `"sha256:<hex>"` of the content, independent of the container format.
        source: its origin.

    Example:
        >>> digits = load("digits")
        >>> digits.name, digits.train.images.shape, len(digits.test)
        ('digits', (1437, 8, 8, 1), 360)
    """

    name: str
    classes: tuple[str, ...]
    train: Part
    test: Part
    fingerprint: str
    source: str


def load(
    name: str,
    path: str | os.PathLike[str] | None = None,
    *,
    size: tuple[int, int] | None = None,
) -> Dataset:
    """Find a data set and read it into memory.

    Without a path, it is searched for in the folders of the environment variable
    `TUTELAGE_DATA` (separated as in `PATH`), in Keras' data cache and among earlier
    downloads, and else downloaded and verified, unless `TUTELAGE_OFFLINE` is 1. If
    the data has no test part, a fixed, stratified 20 % is split off. Decoded images
    are cached in the user's cache folder or `TUTELAGE_CACHE`.

    Args:
        name: one of `NAMES`. With a path, used if the content is unknown.
        path: a folder or a file; its format is detected by its content.
        size: (height, width) in pixels; images of another size are resized to it,
            bilinearly (Pillow's BILINEAR), without preserving the aspect ratio.

    Returns:
        The data set, with uint8 images.

    Raises:
        RecipeError: if the name or the size is invalid.
        DataNotFoundError: if the data set is not found.
        DataError: if it is damaged or not an image data set.

    Example:
        >>> load("digits", size=(16, 16)).train.images.shape
        (1437, 16, 16, 1)
    """
    if name not in NAMES:
        raise RecipeError(f"data: expected one of {', '.join(NAMES)}, got {name!r}; choose one")
    size = checked_size(size)
    if name == "digits" and path is None:
        content, digest, source = _digits(), "", "scikit-learn"
    else:
        place = finding.find(name) if path is None else finding.existing(path)
        source = str(place)
        digest = finding.file_digest(place)
        names = cifar10.CIFAR10_CLASSES if name == "cifar10" else ()
        content = _read(place, digest, size, names)
    official = KNOWN.get(content.fingerprint)
    if official is None and (digest in finding.OFFICIAL.values() or finding.is_cifar10(content)):
        official = "CIFAR-10"
    title = official or (f"{name} (unknown copy)" if name != "folder" else _stem(place))
    train, test, fingerprint, resized = content.train, content.test, content.fingerprint, False
    if test is None:
        try:
            train, test = split(train, TEST_FRACTION, TEST_SEED)
        except DataError as error:
            raise DataError(
                f"{source}: has no test part, and none can be split off: {error}"
            ) from error
    if size is not None and train.images.shape[1:3] != size:
        train, test, resized = _resize(train, size), _resize(test, size), True
    if size is not None and (resized or content.resized):
        text = f"{size[0]}x{size[1]}"
        title = f"{title}, resized to {text}"
        fingerprint = f"sha256:{hashlib.sha256(f'{fingerprint} {text}'.encode()).hexdigest()}"
    return Dataset(title, content.classes, train, test, fingerprint, source)


def stand_in(name: str) -> Dataset:
    """Random images with the sizes of a data set, for a dry run before its download.

    Args:
        name: one of `GEOMETRY`.

    Returns:
        A data set of random images, marked as not downloaded.

    Example:
        >>> stand_in("mnist").train.images.shape
        (60000, 28, 28, 1)
    """
    train, test, shape, classes = GEOMETRY[name]
    random = np.random.default_rng(0)

    def noise(count: int) -> Part:
        images = random.integers(0, 256, (count, *shape), dtype=np.uint8)
        return Part(images, np.arange(count) % classes)

    labels = tuple(str(i) for i in range(classes))
    return Dataset(f"{name} (not downloaded)", labels, noise(train), noise(test), "", "")


def _read(
    path: Path, digest: str, size: tuple[int, int] | None, classes: tuple[str, ...]
) -> Content:
    if digest and (cached := image_cache.load(digest, size)):
        return cached
    with archives.open_tree(path) as tree:
        if content := formats.read_arrays(tree, classes):
            return content
        if not digest:
            digest = image_folder.fingerprint(tree)
            if cached := image_cache.load(digest, size):
                return cached
        content = image_folder.read_tree(tree, size)
    image_cache.save(digest, size, content)
    return content


def _digits() -> Content:
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
    images = np.round(values.reshape(-1, 8, 8, 1) * 255 / 16).astype(np.uint8)
    train = Part(images, labels.astype(np.int64))
    classes = tuple("0123456789")
    return Content(classes, train, None, content.fingerprint(classes, train, None))


def _stem(path: Path) -> str:
    name = path.resolve().name
    stem = name if path.is_dir() else name.split(".")[0] or name
    official = {title.casefold() for title in (*KNOWN.values(), *NAMES, "CIFAR-10")}
    return f"{stem} (unknown copy)" if stem.casefold() in official else stem


def _resize(part: Part, size: tuple[int, int]) -> Part:
    images = np.empty((len(part), *size, part.images.shape[3]), np.uint8)
    for smaller, image in zip(images, part.images, strict=True):
        picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
        picture = picture.resize(size[::-1], Image.Resampling.BILINEAR)
        smaller[:] = np.asarray(picture).reshape(smaller.shape)
    return Part(images, part.labels)
