"""Find an image data set, read it into arrays, name it honestly and split it."""

from __future__ import annotations

import hashlib
import itertools
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tutelage import storage
from tutelage.data import archives, formats, image_folder
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

NAMES = ("digits", "mnist", "cifar10", "folder")

# Copies that are known by their fingerprint. Only these, and what proves to be the
# original CIFAR-10, get a name that an accuracy may be compared under.
KNOWN = {
    "sha256:4b537af33511bc25773c9812251264b5e716a5fba7c6d2a8ecd5e294f459fc27": "digits",
    "sha256:1b6b2ee19e8e5800291c5e312ac69863e54a4491eb5e9501a2f194e4fff1b926": "MNIST",
    "sha256:78086fc20c1b1c15a635979bf92b1d16ebc3ca6a8a061ac1b650bc528adcbf13": (
        "CIFAR-10 (JPEG q75 copy)"
    ),
}

# SHA-256 of the original archives. They are checked under these file names.
_OFFICIAL = {
    "cifar-10-binary.tar.gz": "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    "cifar-10-python.tar.gz": "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
}
# SHA-256 of the five training batches and the test batch in the binary format.
_CIFAR10_BATCHES = (
    "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
)

# What a data set is called in a folder of data; the last two are Keras' own names.
_FILES = {
    "cifar10": (
        "cifar-10-batches-py",
        "cifar-10-batches-bin",
        "cifar-10-python.tar.gz",
        "cifar-10-binary.tar.gz",
        "cifar10.npz",
        "cifar10-jpeg.tar.xz",
        "cifar10",
        "cifar-10-batches-py-target",
        "cifar-10-batches-py-target_archive",
    ),
    "mnist": ("mnist", "mnist.npz"),
}
_DOWNLOADS = {
    "cifar10": (
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        _OFFICIAL["cifar-10-binary.tar.gz"],
    ),
    "mnist": (
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz",
        "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1",
    ),
}

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
        found = _find(name) if path is None else _given(path)
        source = str(found)
        digest = _file_digest(found)
        names = formats.CIFAR10_CLASSES if name == "cifar10" else ()
        content = _read(found, digest, size, names)
    known = KNOWN.get(content.fingerprint)
    if known is None and (digest in _OFFICIAL.values() or _is_cifar10(content)):
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


# --- finding


def _given(path: str | os.PathLike[str]) -> Path:
    found = Path(path).expanduser()
    if not found.exists():
        raise DataNotFoundError(
            f"{found}: expected a folder or an archive of images, found nothing there; "
            "give --data an existing PATH"
        )
    if not (found.is_dir() or found.is_file()):
        raise DataError(f"{found}: expected a folder or a file, found neither; give another PATH")
    return found


def _find(name: str) -> Path:
    if name == "folder":
        raise DataNotFoundError("data 'folder': expected its path, found none; give --data PATH")
    named = os.environ.get("TUTELAGE_DATA", "").split(os.pathsep)
    keras_home = Path(os.environ.get("KERAS_HOME") or "~/.keras")
    downloads = storage.cache_folder() / "downloads"
    folders = [Path(folder) for folder in named if folder] + [keras_home / "datasets", downloads]
    folders = [folder.expanduser() for folder in folders]
    for folder, file in itertools.product(folders, _FILES[name]):
        if (folder / file).exists():
            return folder / file
    if os.environ.get("TUTELAGE_OFFLINE", "") not in ("", "0"):
        reason = "TUTELAGE_OFFLINE forbids to download it"
    else:
        url, digest = _DOWNLOADS[name]
        try:
            return _download(url, digest, downloads)
        except Exception as error:  # whatever went wrong, the way out is the same
            reason = f"{url} could not be downloaded ({type(error).__name__})"
    places = ", ".join(map(str, folders))
    raise DataNotFoundError(
        f"data set {name!r} was not found in {places}, and {reason}; "
        "give --data PATH or set TUTELAGE_DATA to the folder it is in"
    )


def _download(url: str, digest: str, folder: Path) -> Path:
    import pooch  # brings requests along, which only a download needs

    file = url.rpartition("/")[2]
    return Path(pooch.retrieve(url, f"sha256:{digest}", fname=file, path=folder))


# --- reading


def _file_digest(path: Path) -> str:
    if path.is_dir():
        return ""
    try:
        digest = storage.sha256(path)
    except OSError as error:
        raise DataError(
            f"{path}: can't be read ({error.strerror}); check its permissions and the disk"
        ) from error
    if digest != _OFFICIAL.get(path.name, digest):
        raise DataError(
            f"{path}: expected the official archive of this name, found one with another checksum; "
            "delete it and get it again"
        )
    return digest


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


def _is_cifar10(content: Content) -> bool:
    """Whether arrays, from any format, are those of the original."""
    if content.test is None or content.train.images.shape[1:] != (32, 32, 3):
        return False
    digests = []
    for part, batches in ((content.train, 5), (content.test, 1)):
        planes = part.images.transpose(0, 3, 1, 2).reshape(len(part), -1)
        records = np.concatenate([part.labels.astype(np.uint8)[:, np.newaxis], planes], axis=1)
        digests += [
            hashlib.sha256(batch.tobytes()).hexdigest()
            for batch in np.array_split(records, batches)
        ]
    return tuple(digests) == _CIFAR10_BATCHES


def _stem(path: Path) -> str:
    name = path.resolve().name
    stem = name if path.is_dir() else name.split(".")[0] or name
    taken = {known.casefold() for known in (*KNOWN.values(), *NAMES, "CIFAR-10")}
    return f"{stem} (unknown copy)" if stem.casefold() in taken else stem


# --- changing


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
