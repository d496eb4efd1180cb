"""Unlabeled images, on which a student learns from its teacher only."""

from __future__ import annotations

import contextlib
import math
import os

import numpy as np

from tutelage.data import (
    archives,
    decoding,
    file_index,
    finding,
    folder_layout,
    image_file,
    labeled_lists,
)
from tutelage.data.content import Images
from tutelage.data.geometry import Geometry
from tutelage.data.image_files import ImageFiles
from tutelage.errors import DataError
from tutelage.progress import Progress


def read(
    path: str | os.PathLike[str],
    *,
    like: Images,
    skip_damaged: bool = False,
    progress: Progress | None = None,
) -> tuple[Images, tuple[str, ...]]:
    """Read all images in a folder or archive and its subfolders, or of a list, ordered by path.

    Files are images by the rules of labeled ones; others are skipped, with a note.

    Args:
        path: the folder or archive.
        like: the labeled images, whose size and channels they get; they stay in their files, or
            are decoded, as those are.
        skip_damaged: whether images that can't be read are left out, with a note.
        progress: notified of each image while many are decoded.

    Returns:
        The images, and notes, one line each.

    Raises:
        DataNotFoundError: if there is no such folder.
        DataError: if it contains no images, one can't be read, or they won't fit in memory.

    Example:

    >>> import tempfile
    >>> import numpy as np
    >>> from PIL import Image
    >>> from tutelage.data import unlabeled
    >>> folder = tempfile.mkdtemp()
    >>> Image.new("RGB", (32, 32)).save(f"{folder}/one.png")
    >>> images, notes = unlabeled.read(folder, like=np.zeros((1, 8, 8, 1), np.uint8))
    >>> images.shape, notes
    ((1, 8, 8, 1), ())
    """
    place = finding.existing(path)
    shape = like.shape[1:]
    height, width, channels = shape
    with contextlib.ExitStack() as stack:
        tree = stack.enter_context(archives.open_tree(place))
        notes: tuple[str, ...]
        if listed := labeled_lists.find(tree, stack):
            tree, notes = listed[0], ("labels are not used",)
            names = list(tree.files)
        else:
            names, notes = folder_layout.image_names(tree)
        if not names:
            others = folder_layout.listed(list(tree.files), len(tree.files))
            raise DataError(
                f"{place}: expected images ({', '.join(image_file.SUFFIXES)}), found none among "
                f"{others}; give the folder that contains them"
            )
        if skip_damaged:
            tree = archives.addressable(tree, names)
            reasons = file_index.unreadable(tree, names, progress)
            if len(reasons) == len(names):
                raise file_index.damaged(list(reasons.values()))
            if reasons:
                which = folder_layout.listed(list(reasons), len(names))
                notes += (f"damaged images skipped: {which}",)
                names = [name for name in names if name not in reasons]
        noted = tuple(f"{place}: {note}" for note in notes)
        ordered = sorted(names, key=lambda name: name.split("/"))
        if isinstance(like, ImageFiles):
            index = file_index.build(archives.addressable(tree, ordered), ordered, progress)
            images = ImageFiles(index, like.geometry, channels)
            kept = like.decoded is not None
            return images.in_memory(progress or Progress()) if kept else images, noted
        # Of images with another number of channels the first ones don't tell the size.
        decoding.refuse_too_many(str(tree.path), len(names), len(names) * math.prod(shape))
        pixels = decoding.decode_files(tree, names, Geometry((height, width)), progress).pixels
    pooled = np.empty((len(names), *shape), np.uint8)
    for image, name in zip(pooled, ordered, strict=True):
        image[:] = image_file.with_channels(pixels.pop(name), channels)
    return pooled, noted
