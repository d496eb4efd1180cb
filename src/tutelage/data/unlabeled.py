"""Unlabeled images, on which a student learns from its teacher only."""

from __future__ import annotations

import os

import numpy as np

from tutelage.data import archives, finding, folder_layout, image_file
from tutelage.errors import DataError


def read(
    path: str | os.PathLike[str], *, shape: tuple[int, ...]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Read all images in a folder or archive and its subfolders, ordered by path.

    Files are images by the rules of labeled ones; others are skipped, with a note.

    Args:
        path: the folder or archive.
        shape: (height, width, channels) that they are resized and converted to.

    Returns:
        uint8 of shape (n, height, width, channels), and notes, one line each.

    Raises:
        DataNotFoundError: if there is no such folder.
        DataError: if it contains no images, or one can't be read.

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
    images = []
    with archives.open_tree(place) as tree, image_file.strict_pillow():
        names, notes = folder_layout.image_names(tree)
        if not names:
            raise DataError(
                f"{place}: expected images ({', '.join(image_file.SUFFIXES)}), found none; "
                "give the folder that contains them"
            )
        for name in sorted(names, key=lambda name: name.split("/")):
            where = folder_layout.where(tree, name)
            pixels, _ = image_file.decode(tree.files[name](), where, (height, width))
            images.append(image_file.with_channels(pixels, channels))
    return np.stack(images), tuple(f"{place}: {note}" for note in notes)
