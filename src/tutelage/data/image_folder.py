"""Reading of folders and archives of image files as arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from tutelage.data import archives, file_index
from tutelage.data.archives import Tree
from tutelage.data.content import Content, Part
from tutelage.data.decoding import decode_files
from tutelage.data.folder_layout import Layout
from tutelage.data.geometry import Geometry
from tutelage.data.image_files import ImageFiles
from tutelage.errors import DataError
from tutelage.progress import Progress


def read_tree(
    tree: Tree,
    layout: Layout,
    geometry: Geometry | None,
    progress: Progress | None = None,
) -> Content:
    """Decode the images of a tree.

    If every image is grayscale, the arrays have one channel, otherwise three.

    Args:
        tree: the opened folder or archive.
        layout: from `folder_layout.survey`; images are in its order.
        geometry: the size that every image gets as in `image_file.decode`, or None if all have
            the same size.
        progress: notified of each image, if there are more than 1,024.

    Returns:
        The content, without notes and folders; its fingerprint covers the paths and bytes of the
        files, not pixels.

    Raises:
        DataError: if there is an unreadable image, images of different sizes without `geometry`, or
            more than fit in memory; the message names the cause.
    """
    decoded = decode_files(tree, layout.places, geometry, progress)
    pixels = decoded.pixels
    _check_sizes(tree, {name: picture.shape[:2] for name, picture in pixels.items()})
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
        fingerprint=_digest(
            {layout.places[name].path: digest for name, digest in decoded.digests.items()}
        ),
        resized=decoded.resized,
        held_out=len(validation),
    )


def index_tree(
    tree: Tree,
    layout: Layout,
    geometry: Geometry | None,
    progress: Progress | None = None,
) -> Content:
    """Index the images of a tree, whose pixels stay in their files.

    Args:
        tree: the opened folder or archive.
        layout, geometry, progress: as in `read_tree`.

    Returns:
        The same content as of `read_tree`, with `ImageFiles`.

    Raises:
        DataError: if there is an unreadable image, or images of different sizes without `geometry`.
    """
    names = list(layout.places)
    index = file_index.build(archives.addressable(tree, names), names, progress)
    sizes = dict(zip(names, map(tuple, index.sizes.tolist()), strict=True))
    if geometry is None:
        _check_sizes(tree, sizes)
        geometry = Geometry(sizes[names[0]])
    everything = ImageFiles(index, geometry, int(index.channels.max()))
    numbers = {name: number for number, name in enumerate(names)}

    def part(chosen: list[str]) -> Part:
        places = np.array([numbers[name] for name in chosen], np.int64)
        return Part(everything.take(places), np.array(layout.labels(chosen), np.int64))

    test, validation = layout.names("test"), layout.names("validation")
    return Content(
        classes=layout.classes,
        train=part(layout.names("train") + validation),
        test=part(test) if test else None,
        fingerprint=_digest(
            {
                place.path: bytes(digest).hex()
                for place, digest in zip(layout.places.values(), index.digests, strict=True)
            }
        ),
        resized=geometry.changes_any(sizes.values()),
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


def _check_sizes(tree: Tree, sizes: Mapping[str, tuple[int, ...]]) -> None:
    first, size = next(iter(sizes.items()))
    for name, other in sizes.items():
        if other != size:
            here, there = (f"{h}x{w}" for h, w in (size, other))
            raise DataError(
                f"{tree.path}: expected images of the same size, found {first!r} of {here} and "
                f"{name!r} of {there} (height x width); set `data.size` in the recipe "
                "(--set data.size=[h,w]) to resize them"
            )
