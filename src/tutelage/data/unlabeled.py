"""Unlabeled images, on which a student learns from its teacher only."""

from __future__ import annotations

import math
import os

import numpy as np

from tutelage.data import archives, decoding, finding, folder_layout, image_file
from tutelage.errors import DataError
from tutelage.progress import Progress


def read(
    path: str | os.PathLike[str], *, shape: tuple[int, ...], progress: Progress | None = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Read all images in a folder or archive and its subfolders, ordered by path.

    Files are images by the rules of labeled ones; others are skipped, with a note.

    Args:
        path: the folder or archive.
        shape: (height, width, channels) that they are resized and converted to.
        progress: notified of each image while many are decoded.

    Returns:
        uint8 of shape (n, height, width, channels), and notes, one line each.

    Raises:
        DataNotFoundError: if there is no such folder.
        DataError: if it contains no images, one can't be read, or they won't fit in memory.

    Example:

    >>> import tempfile
    >>> from PIL import Image
    >>> from tutelage.data import unlabeled
    >>> folder = tempfile.mkdtemp()
    >>> Image.new("RGB", (32, 32)).save(f"{folder}/one.png")
    >>> images, notes = unlabeled.read(folder, shape=(8, 8, 1))
    >>> images.shape, notes
    ((1, 8, 8, 1), ())
    """
    place = finding.existing(path)
    height, width, channels = shape
    with archives.open_tree(place) as tree:
        names, notes = folder_layout.image_names(tree)
        if not names:
            others = folder_layout.listed(list(tree.files), len(tree.files))
            raise DataError(
                f"{place}: expected images ({', '.join(image_file.SUFFIXES)}), found none among "
                f"{others}; give the folder that contains them"
            )
        # Of images with another number of channels the first ones don't tell the size.
        decoding.refuse_too_many(tree, len(names), len(names) * math.prod(shape))
        pixels = decoding.decode_files(tree, names, (height, width), progress).pixels
    images = np.empty((len(names), *shape), np.uint8)
    for image, name in zip(images, sorted(names, key=lambda name: name.split("/")), strict=True):
        image[:] = image_file.with_channels(pixels.pop(name), channels)
    return images, tuple(f"{place}: {note}" for note in notes)
