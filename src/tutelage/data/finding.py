"""Search, download and identification of data sets."""

from __future__ import annotations

import hashlib
import itertools
import os
from pathlib import Path

import numpy as np

from tutelage import storage
from tutelage.data.content import Content
from tutelage.errors import DataError, DataNotFoundError

NAMES = ("digits", "mnist", "cifar10", "folder")

# Known copies by fingerprint. Only these and the original CIFAR-10 get an official name, under
# which accuracies may be compared.
KNOWN = {
    "sha256:4b537af33511bc25773c9812251264b5e716a5fba7c6d2a8ecd5e294f459fc27": "digits",
    "sha256:1b6b2ee19e8e5800291c5e312ac69863e54a4491eb5e9501a2f194e4fff1b926": "MNIST",
    "sha256:78086fc20c1b1c15a635979bf92b1d16ebc3ca6a8a061ac1b650bc528adcbf13": (
        "CIFAR-10 (JPEG q75 copy)"
    ),
}

# SHA-256 of the original archives, verified for files with these names.
OFFICIAL = {
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

# File names of each data set; the last two of CIFAR-10 are Keras'.
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
        OFFICIAL["cifar-10-binary.tar.gz"],
    ),
    "mnist": (
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz",
        "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1",
    ),
}


def existing(path: str | os.PathLike[str]) -> Path:
    """Resolve a user's path to a folder or file; raises DataError if there is none."""
    place = Path(path).expanduser()
    if not place.exists():
        raise DataNotFoundError(
            f"{place}: expected a folder or an archive of images, found nothing there; "
            "give --data an existing PATH"
        )
    if not (place.is_dir() or place.is_file()):
        raise DataError(f"{place}: expected a folder or a file, found neither; give another PATH")
    return place


def find(name: str) -> Path:
    """Find a data set by name, or download it; raises DataNotFoundError."""
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
        reason = "TUTELAGE_OFFLINE forbids a download"
    else:
        url, digest = _DOWNLOADS[name]
        try:
            return _download(url, digest, downloads)
        except Exception as error:  # the remedy is always the same
            reason = f"{url} could not be downloaded ({type(error).__name__})"
    places = ", ".join(map(str, folders))
    raise DataNotFoundError(
        f"data set {name!r} was not found in {places}, and {reason}; "
        "give --data PATH or set TUTELAGE_DATA to its folder"
    )


def _download(url: str, digest: str, folder: Path) -> Path:
    import pooch  # slow: imports requests

    file = url.rpartition("/")[2]
    return Path(pooch.retrieve(url, f"sha256:{digest}", fname=file, path=folder))


def check_official(path: Path) -> None:
    """Raise DataError if a file has the name of an official archive, but another content."""
    if path.is_dir() or path.name not in OFFICIAL:
        return
    try:
        digest = storage.sha256(path)
    except OSError as error:
        raise DataError(
            f"{path}: can't be read ({error.strerror}); check its permissions and the disk"
        ) from error
    if digest != OFFICIAL[path.name]:
        raise DataError(
            f"{path}: expected the official archive of this name, found one with another checksum; "
            "delete it and download it again"
        )


def is_cifar10(content: Content) -> bool:
    """Whether the arrays are those of the original CIFAR-10, from any format."""
    if content.test is None or content.train.images.shape[1:] != (32, 32, 3):
        return False
    digests = []
    for part, batches in ((content.train, 5), (content.test, 1)):
        planes = part.images[:].transpose(0, 3, 1, 2).reshape(len(part), -1)
        records = np.concatenate([part.labels.astype(np.uint8)[:, np.newaxis], planes], axis=1)
        digests += [
            hashlib.sha256(batch.tobytes()).hexdigest()
            for batch in np.array_split(records, batches)
        ]
    return tuple(digests) == _CIFAR10_BATCHES
