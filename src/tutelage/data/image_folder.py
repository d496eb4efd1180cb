"""Reading of folders and archives of image files as arrays."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from tutelage.data.archives import Tree
from tutelage.data.content import Content, Part
from tutelage.data.image_file import SUFFIXES, decode, strict_pillow
from tutelage.errors import DataError

# Number of files in memory at once during decoding.
_BATCH = 1024


class _Place(NamedTuple):
    path: str  # without the enclosing folder, if there is one
    part: str
    label: str


def read_tree(tree: Tree, size: tuple[int, int] | None) -> Content:
    """Decode the images of `train/<class>/` and `test/<class>/`, or of `<class>/`.

    A single enclosing folder is ignored. Classes are ordered by name, images by path.
    If every image is grayscale, the arrays have one channel, otherwise three.

    Args:
        tree: the opened folder or archive.
        size: (height, width) in pixels that every image is resized to as in
            `decode`, or None if all have the same size.

    Returns:
        The content; its fingerprint covers the paths and bytes of the files, not pixels.

    Raises:
        DataError: if there are no images, fewer than two classes, an empty class,
            different classes in test and train, an unreadable image, or images of
            different sizes without `size`; the message names the cause.
    """
    places = _places(tree)
    classes = _classes(tree, places)
    pixels: dict[str, np.ndarray] = {}
    digests: dict[str, str] = {}
    resized = False
    with strict_pillow(), ThreadPoolExecutor(os.cpu_count()) as pool:
        # Archives are read from one thread and in their own order, a bounded batch at a time.
        names = (name for name in tree.files if name in places)
        while batch := list(itertools.islice(names, _BATCH)):
            data = [tree.files[name]() for name in batch]
            labels = [_name(tree, name) for name in batch]
            decoded = pool.map(decode, data, labels, itertools.repeat(size))
            for name, raw, (picture, changed) in zip(batch, data, decoded, strict=True):
                digests[places[name].path] = hashlib.sha256(raw).hexdigest()
                pixels[name] = picture
                resized |= changed
    _check_sizes(tree, pixels)
    shape = next(iter(pixels.values())).shape[:2]
    channels = max(picture.shape[2] for picture in pixels.values())
    ordered = sorted(places, key=lambda name: places[name].path)
    parts: dict[str, Part] = {}
    for part in ("train", "test"):
        chosen = [name for name in ordered if places[name].part == part]
        if chosen:
            images = np.empty((len(chosen), *shape, channels), np.uint8)
            for image, name in zip(images, chosen, strict=True):
                image[:] = pixels.pop(name)
            numbers = [classes.index(places[name].label) for name in chosen]
            parts[part] = Part(images, np.array(numbers, np.int64))
    return Content(classes, parts["train"], parts.get("test"), _digest(digests), resized)


def fingerprint(tree: Tree) -> str:
    """`"sha256:<hex>"` over the paths and bytes of a tree's images, in the order of paths."""
    places = _places(tree)
    return _digest(
        {
            place.path: hashlib.sha256(tree.files[name]()).hexdigest()
            for name, place in places.items()
        }
    )


def _digest(digests: dict[str, str]) -> str:
    lines = "".join(f"{path}\0{digest}\n" for path, digest in sorted(digests.items()))
    return f"sha256:{hashlib.sha256(lines.encode('utf-8', 'surrogateescape')).hexdigest()}"


def _places(tree: Tree) -> dict[str, _Place]:
    """The part and class of each image, from its path."""
    steps = {name: name.split("/") for name in tree.files if name.casefold().endswith(SUFFIXES)}
    if not steps:
        raise DataError(
            f"{tree.path}: expected images in train/<class>/ or <class>/, CIFAR-10's batches, "
            "MNIST's idx files or arrays x_train and y_train, found none of them; "
            "give the folder or archive that contains one"
        )
    wrapped = _wrapped(steps.values())
    places = {}
    nested = any(len(path) - wrapped == 3 and path[wrapped] == "train" for path in steps.values())
    for name, path in steps.items():
        match path[wrapped:]:
            case ["train" | "test" as part, label, _]:
                places[name] = _Place("/".join(path[wrapped:]), part, label)
            case [label, _] if not nested:
                places[name] = _Place("/".join(path[wrapped:]), "train", label)
            case _:
                raise DataError(
                    f"{_name(tree, name)}: expected every image in train/<class>/ or "
                    f"test/<class>/, or all in <class>/, found this one elsewhere; "
                    "move it or remove it"
                )
    if all(place.part == "test" for place in places.values()):
        raise DataError(
            f"{tree.path}: expected training images in train/<class>/ or <class>/, found only "
            "test/; add them"
        )
    return places


def _wrapped(paths: Iterable[list[str]]) -> bool:
    """Whether one folder encloses the parts and classes."""
    paths = list(paths)
    first, least = paths[0][0], min(len(path) for path in paths)
    if any(path[0] != first for path in paths):
        return False
    return least > 3 or (least == 3 and first not in ("train", "test"))


def _classes(tree: Tree, places: dict[str, _Place]) -> tuple[str, ...]:
    classes = sorted({place.label for place in places.values() if place.part == "train"})
    tested = {place.label for place in places.values() if place.part == "test"}
    # Folders next to those with images would be classes, too.
    homes = {name.rpartition("/")[0] for name in places}
    sides = {home.rpartition("/")[0] for home in homes}
    for folder in sorted(tree.folders - homes):
        contains_parts = any(side == folder or side.startswith(f"{folder}/") for side in sides)
        if folder.rpartition("/")[0] in sides and not contains_parts:
            raise DataError(
                f"{_name(tree, folder)}: expected images of a class, found none; "
                "add images or remove the folder"
            )
    if len(classes) < 2:
        raise DataError(
            f"{tree.path}: expected at least two classes, found only {classes[0]!r}; "
            "add a folder of images for each other class"
        )
    if tested and tested != set(classes):
        strange = sorted(tested ^ set(classes))
        raise DataError(
            f"{tree.path}: expected the same classes in test as in train, found "
            f"{', '.join(map(repr, strange))} in only one of them; add or remove their images"
        )
    return tuple(classes)


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


def _name(tree: Tree, name: str) -> str:
    return str(tree.path / name) if tree.path.is_dir() else f"{tree.path}: {name}"
