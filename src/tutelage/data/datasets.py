"""Load an image data set and identify it by its content."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from tutelage.data import (
    cifar10,
    content,
    finding,
    geometry,
    reader,
    splitting,
)
from tutelage.data.content import Content, Part, class_name
from tutelage.data.finding import KNOWN, NAMES
from tutelage.data.geometry import Geometry
from tutelage.data.splitting import TEST_FRACTION, TEST_SEED, split
from tutelage.errors import DataError, RecipeError
from tutelage.progress import Progress

if TYPE_CHECKING:
    from tutelage.data.training_stream import TrainingStream
    from tutelage.recipe import Data

__all__ = [
    "GEOMETRY",
    "KNOWN",
    "NAMES",
    "Dataset",
    "Part",
    "from_recipe",
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
    """An image data set, in memory or in files.

    Args:
        name: the name; an official one only if the content matches.
        classes: class names; a label is an index into them.
        train: all training images, before validation images are split off.
        test: the test images, used only for the final evaluation.
        fingerprint: `"sha256:<hex>"` of the content, independent of the container format.
        source: its origin.
        held_out: number of the last training images that the data sets aside for validation.
        notes: what was skipped, renamed or chosen in reading, one line each.
        folders: each class's folder, for messages; none if the data has no folders.
        stream: the loader of the training images, if they are not in `train`, which then has a
            sample of them, and the validation images last.

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
    held_out: int = 0
    notes: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    stream: TrainingStream | None = None

    def split(self, fraction: float, seed: int, part: Part | None = None) -> tuple[Part, Part]:
        """Split validation images off the training images: the data's own, else a fraction.

        Args:
            fraction: fraction of each class, above 0 and below 1; not used if `held_out`.
            seed: an integer, 0..2**32 - 1; the same seed gives the same split.
            part: other values of the training images, such as their indices.

        Returns:
            The rest and the validation images.

        Raises:
            RecipeError: if the fraction or the seed is invalid.
            DataError: if there are no training images, or a class would have none on one side.
        """
        part = self.train if part is None else part
        if self.held_out and self.held_out == len(part):
            raise DataError(
                f"{self.source}: expected training images beside those for validation, found none; "
                "add train/<class>/"
            )
        if self.held_out:
            return splitting.at(part, len(part) - self.held_out)
        return split(part, fraction, seed, self.titles)

    @property
    def titles(self) -> list[str]:
        """The classes' names with their places, for messages about a split."""
        places = self.folders or (self.source,) * len(self.classes)
        return splitting.titles(self.classes, places)


def load(
    name: str,
    path: str | os.PathLike[str] | None = None,
    *,
    size: tuple[int, int] | Geometry | None = None,
    in_memory: bool | None = None,
    originals: bool = False,
    skip_damaged: bool = False,
    whole: bool = False,
    progress: Progress | None = None,
) -> Dataset:
    """Find a data set and read it into memory.

    Without a path, it is searched for in the folders of the environment variable
    `TUTELAGE_DATA` (separated as in `PATH`), in Keras' data cache and among earlier
    downloads, and else downloaded and verified, unless `TUTELAGE_OFFLINE` is 1. If
    the data has no test part, a fixed, stratified 20 % is split off. Decoded images
    are cached in the user's cache folder or `TUTELAGE_CACHE`.

    A folder contains `train/<class>/`, `val/<class>/` and `test/<class>/`, or `<class>/` alone.
    Its own validation images are the last training images (`Dataset.held_out`).

    Args:
        name: one of `NAMES`. With a path, used if the content is unknown.
        path: a folder or a file; its format is detected by its content.
        size: (height, width) in pixels; images of another size are resized to it,
            bilinearly (Pillow's BILINEAR), without preserving the aspect ratio, or as a
            `Geometry` says.
        in_memory: whether images are decoded now, or stay in their files as `ImageFiles` and are
            decoded when they are used; None: decoded if they take at most 1 GiB.
        originals: whether views are made of images before they are resized, for random crops:
            `ImageFiles`, also in memory.
        skip_damaged: whether images that can't be read are left out, with a note.
        whole: whether all images are the test set if the data has no test part.
        progress: notified of each image while many are decoded.

    Returns:
        The data set; without training images if there is only a test part.

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
    target = size if size is None or isinstance(size, Geometry) else Geometry(size)
    if name == "digits" and path is None:
        content, source = _digits(), "scikit-learn"
    else:
        place = finding.find(name) if path is None else finding.existing(path)
        source = str(place)
        finding.check_official(place)
        names = cifar10.CIFAR10_CLASSES if name == "cifar10" else ()
        settings = reader.Settings(target, in_memory, originals, skip_damaged, whole)
        content = reader.read(place, settings, names, progress)
    official = KNOWN.get(content.fingerprint)
    if official is None and finding.is_cifar10(content):
        official = "CIFAR-10"
    title = official or (f"{name} (unknown copy)" if name != "folder" else _stem(place))
    train, test, fingerprint, resized = content.train, content.test, content.fingerprint, False
    held_out, notes = content.held_out, content.notes
    if test is None and whole:
        train, test, held_out = splitting.at(train, 0)[0], train, 0
        notes += ("there is no test part: all images are the test set",)
    elif test is None:
        try:
            titles = splitting.titles(content.classes, content.folders)
            train, test = split(train, TEST_FRACTION, TEST_SEED, titles)
        except DataError as error:
            raise reader.unsplit(source, error) from error
        if path is not None:
            notes += (f"there is no test part: {len(test):,} images, a fifth, are the test set",)
    if target is not None and train.images.shape[1:3] != target.size:
        train, test, resized = _resize(train, target), _resize(test, target), True
    if target is not None and (resized or content.resized):
        text = target.text()
        title = f"{title}, resized to {text}"
        fingerprint = f"sha256:{hashlib.sha256(f'{fingerprint} {text}'.encode()).hexdigest()}"
    return Dataset(
        title, content.classes, train, test, fingerprint, source, held_out, notes, content.folders
    )


def from_recipe(
    section: Data, *, originals: bool = False, progress: Progress | None = None
) -> Dataset:
    """Load the data set of a recipe.

    Args:
        section: the recipe's section.
        originals, progress: as in `load`.

    Raises:
        RecipeError, DataError: as `load`.
    """
    return load(
        section.name,
        section.path or None,
        size=geometry.from_recipe(section),
        in_memory=section.in_memory,
        originals=originals,
        skip_damaged=bool(section.skip_damaged),
        progress=progress,
    )


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


def _digits() -> Content:
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
    images = np.round(values.reshape(-1, 8, 8, 1) * 255 / 16).astype(np.uint8)
    train = Part(images, labels.astype(np.int64))
    classes = tuple("0123456789")
    return Content(classes, train, None, content.fingerprint(classes, train, None))


def _stem(path: Path) -> str:
    name = class_name(path.resolve().name)
    stem = name if path.is_dir() else name.split(".")[0] or name
    official = {title.casefold() for title in (*KNOWN.values(), *NAMES, "CIFAR-10")}
    return f"{stem} (unknown copy)" if stem.casefold() in official else stem


def _resize(part: Part, target: Geometry) -> Part:
    images = np.empty((len(part), *target.size, part.images.shape[3]), np.uint8)
    for smaller, image in zip(images, part.images[:], strict=True):
        picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
        smaller[:] = np.asarray(target.apply(picture)).reshape(smaller.shape)
    return Part(images, part.labels)
