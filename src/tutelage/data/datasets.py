"""Load an image data set into arrays, name it by its content, and split it."""

from __future__ import annotations

import hashlib
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tutelage.data import archives, finding, formats, image_folder
from tutelage.data.finding import KNOWN, NAMES
from tutelage.data.formats import Content, Part
from tutelage.errors import DataError, DataNotFoundError, RecipeError

__all__ = [
    "GEOMETRY",
    "KNOWN",
    "NAMES",
    "Dataset",
    "Part",
    "load",
    "read_image",
    "split",
    "stand_in",
]


# (training images, test images, (height, width, channels), classes) of what may not be here yet.
GEOMETRY = {
    "cifar10": (50_000, 10_000, (32, 32, 3), 10),
    "mnist": (60_000, 10_000, (28, 28, 1), 10),
}

TEST_FRACTION = 0.2
TEST_SEED = 0


@dataclass(frozen=True, eq=False)
class Dataset:
    """An image data set in memory.

    Args:
        name: what people call it; an official name only if the content proves it.
        classes: class names; a label is an index into them.
        train: all training images, not yet divided into training and validation.
        test: the test images, touched once, at the end.
        fingerprint: `"sha256:<hex>"` of the content, whatever it was packed in.
        source: where it came from.

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

    Without a path it is looked for in the folders named in the environment variable
    `TUTELAGE_DATA` (separated as in `PATH`), in Keras' data cache and among earlier
    downloads, and then downloaded and checked, unless `TUTELAGE_OFFLINE` is 1. A part
    for testing that the data lacks is split off, the same each time: 20 %, stratified.
    Decoded images are kept in the user's cache folder or `TUTELAGE_CACHE`.

    Args:
        name: one of `NAMES`. With a path it names data whose content is not known.
        path: a folder or a file; its format is told by its content.
        size: (height, width) in pixels; images of another size are resized to it,
            bilinear (Pillow's BILINEAR), without keeping the aspect.

    Returns:
        The data set, with uint8 images.

    Raises:
        RecipeError: if the name or the size is not possible.
        DataNotFoundError: if there is nothing at `path`, or in all the places.
        DataError: if what is there is damaged or is no image data set.

    Example:
        >>> load("digits", size=(16, 16)).train.images.shape
        (1437, 16, 16, 1)
    """
    if name not in NAMES:
        raise RecipeError(f"data: expected one of {', '.join(NAMES)}, got {name!r}; choose one")
    size = _checked_size(size)
    if name == "digits" and path is None:
        content, digest, source = _digits(), "", "scikit-learn"
    else:
        found = finding.find(name) if path is None else finding.existing(path)
        source = str(found)
        digest = finding.file_digest(found)
        names = formats.CIFAR10_CLASSES if name == "cifar10" else ()
        content = _read(found, digest, size, names)
    known = KNOWN.get(content.fingerprint)
    if known is None and (digest in finding.OFFICIAL.values() or finding.is_cifar10(content)):
        known = "CIFAR-10"
    human = known or (f"{name} (unknown copy)" if name != "folder" else _stem(found))
    train, test, fingerprint, resized = content.train, content.test, content.fingerprint, False
    if test is None:
        try:
            train, test = split(train, TEST_FRACTION, TEST_SEED)
        except DataError as error:
            raise DataError(f"{source}: has no test part and gets none: {error}") from error
    if size is not None and train.images.shape[1:3] != size:
        train, test, resized = _resize(train, size), _resize(test, size), True
    if size is not None and (resized or content.resized):
        text = f"{size[0]}x{size[1]}"
        human = f"{human}, resized to {text}"
        fingerprint = f"sha256:{hashlib.sha256(f'{fingerprint} {text}'.encode()).hexdigest()}"
    return Dataset(human, content.classes, train, test, fingerprint, source)


def stand_in(name: str) -> Dataset:
    """Noise of a data set's known size, to plan with where the data is not here yet.

    Args:
        name: one of `GEOMETRY`.

    Returns:
        A data set of random images; its name says that it is none.

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
    return Dataset(f"{name} (not here)", labels, noise(train), noise(test), "", "")


def split(part: Part, fraction: float, seed: int) -> tuple[Part, Part]:
    """Divide a part in two, each class in the same proportion.

    Args:
        part: what to divide.
        fraction: the second part's share of the images, above 0 and below 1.
        seed: an integer, 0..2**32 - 1; the same seed divides the same way.

    Returns:
        The rest and the fraction, each in the order the images came in.

    Raises:
        RecipeError: if the fraction or the seed is not possible.
        DataError: if a class would have no image in one of the two.

    Example:
        >>> rest, fraction = split(load("digits").train, 0.1, seed=0)
        >>> len(rest), len(fraction)
        (1293, 144)
    """
    # scikit-learn takes a second to import, which a usage error should not cost.
    from sklearn.model_selection import train_test_split

    if isinstance(fraction, bool) or not (math.isfinite(fraction) and 0 < fraction < 1):
        raise RecipeError(
            f"fraction: expected a number above 0 and below 1, got {fraction!r}; change it"
        )
    if isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise RecipeError(f"seed: expected an integer 0..{2**32 - 1}, got {seed!r}; change it")
    classes = set(np.unique(part.labels).tolist())
    try:
        sides = train_test_split(
            np.arange(len(part)), test_size=fraction, stratify=part.labels, random_state=seed
        )
    except ValueError:
        sides = []
    if not sides or any(set(part.labels[side].tolist()) != classes for side in sides):
        counts = np.bincount(part.labels)
        fewest = min(classes, key=lambda label: int(counts[label]))
        raise DataError(
            f"expected an image of each of {len(classes)} classes on both sides when {fraction} of "
            f"{len(part)} images is split off, but class {fewest} has only {counts[fewest]}; "
            "add images or change the fraction"
        )
    rest, chosen = (np.sort(side) for side in sides)
    return _take(part, rest), _take(part, chosen)


def read_image(path: str | os.PathLike[str], *, size: tuple[int, int], channels: int) -> np.ndarray:
    """One picture as a model takes it: upright, in its colours and its size.

    Args:
        path: an image file.
        size: (height, width) in pixels; resized to it, bilinear (Pillow's BILINEAR).
        channels: 1 for grey, 3 for RGB.

    Returns:
        uint8 `(height, width, channels)`.

    Raises:
        RecipeError: if the size or the number of channels is not possible.
        DataNotFoundError: if there is no such file.
        DataError: if it can't be read as an image.

    Example:
        >>> import pathlib, tempfile
        >>> from PIL import Image
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "red.png"
        >>> Image.new("RGB", (4, 4), "red").save(file)
        >>> read_image(file, size=(2, 3), channels=3).shape
        (2, 3, 3)
    """
    if channels not in (1, 3):
        raise RecipeError(f"channels: expected 1 or 3, got {channels!r}; use such a model")
    height_width = _checked_size(size)
    file = Path(path).expanduser()
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise DataNotFoundError(f"{file}: expected an image, found no such file") from None
    except OSError as error:
        raise DataError(f"{file}: can't be read ({error.strerror}); give an image file") from error
    with image_folder.strict_pillow():
        pixels, _ = image_folder.decode(data, str(file), height_width)
    if pixels.shape[2] == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels, 3, axis=2)
    return np.array(Image.fromarray(pixels).convert("L"))[..., np.newaxis]


def _read(
    path: Path, digest: str, size: tuple[int, int] | None, classes: tuple[str, ...]
) -> Content:
    if digest and (kept := image_folder.recall(digest, size)):
        return kept
    with archives.open_tree(path) as tree:
        if content := formats.read_arrays(tree, classes):
            return content
        if not digest:
            digest = image_folder.fingerprint(tree)
            if kept := image_folder.recall(digest, size):
                return kept
        content = image_folder.read_tree(tree, size)
    image_folder.remember(digest, size, content)
    return content


def _digits() -> Content:
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
    images = np.round(values.reshape(-1, 8, 8, 1) * 255 / 16).astype(np.uint8)
    train = Part(images, labels.astype(np.int64))
    classes = tuple("0123456789")
    return Content(classes, train, None, formats.fingerprint(classes, train, None))


def _stem(path: Path) -> str:
    name = path.resolve().name
    stem = name if path.is_dir() else name.split(".")[0] or name
    taken = {known.casefold() for known in (*KNOWN.values(), *NAMES, "CIFAR-10")}
    return f"{stem} (unknown copy)" if stem.casefold() in taken else stem


def _checked_size(size: tuple[int, int] | None) -> tuple[int, int] | None:
    if size is None:
        return None
    if len(size) != 2 or any(type(side) is not int or side < 1 for side in size):
        raise RecipeError(
            f"data.size: expected (height, width) in pixels, each at least 1, got {size!r}; "
            "change it"
        )
    return size[0], size[1]


def _resize(part: Part, size: tuple[int, int]) -> Part:
    images = np.empty((len(part), *size, part.images.shape[3]), np.uint8)
    for smaller, image in zip(images, part.images, strict=True):
        picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
        picture = picture.resize(size[::-1], Image.Resampling.BILINEAR)
        smaller[:] = np.asarray(picture).reshape(smaller.shape)
    return Part(images, part.labels)


def _take(part: Part, indices: np.ndarray) -> Part:
    return Part(part.images[indices], part.labels[indices])
