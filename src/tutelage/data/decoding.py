"""Decoding of many image files in threads, if they fit in memory."""

from __future__ import annotations

import hashlib
import itertools
import os
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from tutelage.data.archives import Tree
from tutelage.data.file_index import damaged
from tutelage.data.geometry import Geometry
from tutelage.data.image_file import OUT_OF_MEMORY, decode, strict_pillow
from tutelage.environment import available_memory
from tutelage.errors import DataError
from tutelage.progress import Progress

# Number of files in memory at once during decoding, and of those that tell the size of all.
_BATCH, _FIRST = 1024, 64


@dataclass
class Decoded:
    """Decoded images.

    Args:
        pixels: each image by its path in the tree, as from `image_file.decode`.
        digests: SHA-256 of each file, by the same path.
        resized: whether any image was resized.
    """

    pixels: dict[str, np.ndarray] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    resized: bool = False


def decode_files(
    tree: Tree,
    names: Collection[str],
    geometry: Geometry | None,
    progress: Progress | None = None,
) -> Decoded:
    """Decode images of a tree.

    Args:
        tree: the opened folder or archive.
        names: the images' paths in the tree; they are read in the tree's order.
        geometry: as in `image_file.decode`.
        progress: notified of each image, if there are more than 1,024.

    Returns:
        The images.

    Raises:
        DataError: if some are unreadable, or they won't fit in memory by the size of the first.
    """
    found, wanted, count = Decoded(), set(names), len(names)
    shown = progress if progress is not None and count > _BATCH else Progress()
    shown.stage("reading images", 1, 0, count, "pass")
    began, done, reasons = time.monotonic(), 0, list[str]()
    with strict_pillow(), ThreadPoolExecutor(os.cpu_count()) as pool:
        # Archives are read from one thread and in their own order, a bounded batch at a time.
        paths = (name for name in tree.files if name in wanted)
        while batch := list(itertools.islice(paths, _BATCH if done else _FIRST)):
            data = [tree.files[name]() for name in batch]
            labels = [tree.where(name) for name in batch]
            decoded = pool.map(partial(_decoded, geometry), data, labels)
            for name, raw, result in zip(batch, data, decoded, strict=True):
                done += 1
                shown.step(done, {})
                if isinstance(result, DataError):
                    reasons.append(str(result))
                    continue
                found.digests[name] = hashlib.sha256(raw).hexdigest()
                found.pixels[name], changed = result
                found.resized |= changed
            if 0 < len(found.pixels) == len(batch) == done:
                first = sum(picture.nbytes for picture in found.pixels.values())
                refuse_too_many(str(tree.path), count, first / len(batch) * count, first)
    if reasons:
        raise damaged(reasons)
    shown.epoch({"epoch": 1, "seconds": time.monotonic() - began})
    return found


def _decoded(
    geometry: Geometry | None, data: bytes, where: str
) -> tuple[np.ndarray, bool] | DataError:
    try:
        return decode(data, where, geometry)
    except DataError as error:
        if str(error) == OUT_OF_MEMORY:
            raise
        return error


def refuse_too_many(
    where: str,
    count: int,
    needed: float,
    taken: int = 0,
    advice: str = "leave out data.in_memory, or set a smaller data.size (--set data.size=[h,w])",
) -> None:
    """Raise DataError if the images won't fit in memory.

    Args:
        where: the folder, archive or loader.
        count: the number of images.
        needed: bytes that all of them take.
        taken: bytes that those decoded already take.
        advice: what to do.
    """
    available = available_memory()
    if available is not None and needed - taken > available:
        raise DataError(
            f"{where}: {count:,} images need about {needed / 1e9:.1f} GB of memory, but "
            f"{available / 1e9:.1f} GB are available; {advice}"
        )
