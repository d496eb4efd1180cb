"""Unlabeled images, on which a student learns from its teacher only."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from tutelage.data import image_file
from tutelage.errors import DataError, DataNotFoundError


def read(path: str | os.PathLike[str], *, shape: tuple[int, ...]) -> np.ndarray:
    """Read all images in a folder and its subfolders, ordered by path.

    Args:
        path: the folder.
        shape: (height, width, channels) that they are resized and converted to.

    Returns:
        uint8 of shape (n, height, width, channels).

    Raises:
        DataNotFoundError: if there is no such folder.
        DataError: if it contains no images, or one can't be read.

    Example:

    >>> import tempfile
    >>> from PIL import Image
    >>> from tutelage.data import unlabeled
    >>> folder = tempfile.mkdtemp()
    >>> Image.new("RGB", (32, 32)).save(f"{folder}/one.png")
    >>> unlabeled.read(folder, shape=(8, 8, 1)).shape
    (1, 8, 8, 1)
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise DataNotFoundError(f"{folder}: expected a folder of images, found none")
    files = sorted(f for f in folder.rglob("*") if f.name.casefold().endswith(image_file.SUFFIXES))
    if not files:
        raise DataError(
            f"{folder}: expected images ({', '.join(image_file.SUFFIXES)}), found none; "
            "give the folder that contains them"
        )
    height, width, channels = shape
    size = (height, width)
    return np.stack([image_file.read_image(f, size=size, channels=channels) for f in files])
