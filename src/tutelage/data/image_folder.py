"""Reading of folders and archives of image files as arrays."""

from __future__ import annotations

import hashlib
import itertools
import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tutelage.data.archives import Tree
from tutelage.data.content import Content, Part
from tutelage.data.folder_layout import Layout, where
from tutelage.data.image_file import decode, strict_pillow
from tutelage.environment import available_memory
from tutelage.errors import DataError
from tutelage.progress import Progress

# Number of files in memory at once during decoding, and of those that tell the size of all.
_BATCH, _FIRST = 1024, 64


def read_tree(
    tree: Tree,
    layout: Layout,
    size: tuple[int, int] | None,
    progress: Progress | None = None,
) -> Content:
    """Decode the images of a tree.

    If every image is grayscale, the arrays have one channel, otherwise three.

    Args:
        tree: the opened folder or archive.
        layout: from `folder_layout.survey`; images are in its order.
        size: (height, width) in pixels that every image is resized to as in
            `decode`, or None if all have the same size.
        progress: notified of each image, if there are more than 1,024.

    Returns:
        The content, without notes and folders; its fingerprint covers the paths and bytes of the
        files, not pixels.

    Raises:
        DataError: if there is an unreadable image, images of different sizes without `size`, or
            more than fit in memory; the message names the cause.
    """
    pixels: dict[str, np.ndarray] = {}
    digests: dict[str, str] = {}
    resized, count = False, len(layout.places)
    shown = progress if progress is not None and count > _BATCH else Progress()
    shown.stage("reading images", 1, 0, count, "pass")
    began = time.monotonic()
    with strict_pillow(), ThreadPoolExecutor(os.cpu_count()) as pool:
        # Archives are read from one thread and in their own order, a bounded batch at a time.
        names = (name for name in tree.files if name in layout.places)
        while batch := list(itertools.islice(names, _BATCH if pixels else _FIRST)):
            data = [tree.files[name]() for name in batch]
            labels = [where(tree, name) for name in batch]
            decoded = pool.map(decode, data, labels, itertools.repeat(size))
            for name, raw, (picture, changed) in zip(batch, data, decoded, strict=True):
                digests[layout.places[name].path] = hashlib.sha256(raw).hexdigest()
                pixels[name] = picture
                resized |= changed
                shown.step(len(pixels), {})
            if len(pixels) == len(batch):
                _refuse_too_many(tree, count, pixels)
    shown.epoch({"epoch": 1, "seconds": time.monotonic() - began})
    _check_sizes(tree, pixels)
    shape = next(iter(pixels.values())).shape[:2]
    channels = max(picture.shape[2] for picture in pixels.values())

    def part(chosen: list[str]) -> Part:
        images = np.empty((len(chosen), *shape, channels), np.uint8)
        for image, name in zip(images, chosen, strict=True):
            image[:] = pixels.pop(name)
        return Part(images, np.array(layout.labels(chosen), np.int64))

    test, validation = layout.names("test"), layout.names("validation")
    return Content(
        classes=layout.classes,
        train=part(layout.names("train") + validation),
        test=part(test) if test else None,
        fingerprint=_digest(digests),
        resized=resized,
        held_out=len(validation),
    )


def fingerprint(tree: Tree, layout: Layout) -> str:
    """`"sha256:<hex>"` over the paths and bytes of a tree's images, in the order of paths."""
    return _digest(
        {
            place.path: hashlib.sha256(tree.files[name]()).hexdigest()
            for name, place in layout.places.items()
        }
    )


def _digest(digests: dict[str, str]) -> str:
    lines = "".join(f"{path}\0{digest}\n" for path, digest in sorted(digests.items()))
    return f"sha256:{hashlib.sha256(lines.encode('utf-8', 'surrogateescape')).hexdigest()}"


def _refuse_too_many(tree: Tree, count: int, pixels: dict[str, np.ndarray]) -> None:
    """Raise DataError if all images won't fit in memory, by the size of the first ones."""
    first = sum(picture.nbytes for picture in pixels.values())
    needed, available = first / len(pixels) * count, available_memory()
    if available is not None and needed - first > available:
        raise DataError(
            f"{tree.path}: {count:,} images need about {needed / 1e9:.1f} GB of memory, but "
            f"{available / 1e9:.1f} GB are available; set a smaller data.size "
            "(--set data.size=[h,w]), or give fewer images"
        )


def _check_sizes(tree: Tree, pixels: dict[str, np.ndarray]) -> None:
    first, shape = next((name, picture.shape) for name, picture in pixels.items())
    for name, picture in pixels.items():
        if picture.shape[:2] != shape[:2]:
            size, other = (f"{h}x{w}" for h, w in (shape[:2], picture.shape[:2]))
            raise DataError(
                f"{tree.path}: expected images of the same size, found {first!r} of {size} and "
                f"{name!r} of {other} (height x width); set `data.size` in the recipe "
                "(--set data.size=[h,w]) to resize them"
            )
