"""Reading of image data: chooses the format, and whether images stay in their files."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tutelage import storage
from tutelage.data import (
    archives,
    file_index,
    folder_layout,
    formats,
    image_cache,
    image_file,
    image_folder,
    labeled_lists,
    splitting,
)
from tutelage.data.archives import Tree
from tutelage.data.content import Content, Part
from tutelage.data.folder_layout import Layout
from tutelage.data.geometry import Geometry
from tutelage.data.image_files import ImageFiles
from tutelage.data.splitting import TEST_FRACTION, TEST_SEED, split
from tutelage.errors import DataError
from tutelage.progress import Progress

# Images that take more when decoded stay in their files.
_IN_MEMORY_BYTES = 2**30


@dataclass(frozen=True)
class Settings:
    """How images are read.

    Args:
        geometry: their size, and how they get it; None: their own.
        in_memory, originals, skip_damaged, whole: as in `datasets.load`.
    """

    geometry: Geometry | None
    in_memory: bool | None
    originals: bool
    skip_damaged: bool
    whole: bool


def read(
    path: Path, settings: Settings, classes: tuple[str, ...], progress: Progress | None
) -> Content:
    """Read a folder, an archive or a list of images, or arrays.

    Args:
        path: the folder or file, which exists.
        settings: how images are read.
        classes: names of classes, for a format that has none.
        progress: notified of each image while many are decoded.

    Returns:
        The content: images as arrays, or as `ImageFiles` if they are many.

    Raises:
        DataError: if it is damaged, or no image data set.
    """
    target = settings.geometry
    with contextlib.ExitStack() as stack:
        tree = stack.enter_context(archives.open_tree(path))
        if content := formats.read_arrays(tree, classes):
            if settings.in_memory is False:
                raise DataError(
                    f"{path}: expected image files, as data.in_memory is false, found arrays, "
                    "which are always read into memory; leave it out"
                )
            return content
        # What a fresh reading refuses or notes does not depend on the cache.
        folders: tuple[str, ...] = ()
        if listed := labeled_lists.find(tree, stack):
            tree, layout = listed
        else:
            layout = folder_layout.survey(tree)
            folders = tuple(tree.where(folder) for folder in layout.folders())
        if settings.skip_damaged:
            tree, layout = _readable(tree, layout, progress)
        if not (settings.whole or layout.names("test")):
            _check_test_split(path, layout, folders)
        if settings.originals or _stay_in_files(tree, layout, settings):
            content = image_folder.index_tree(tree, layout, target, progress)
            content = _with_note(content, settings, progress)
            return replace(content, notes=layout.notes + content.notes, folders=folders)
        packed = path.is_file() and not listed
        digest = storage.sha256(path) if packed else image_folder.fingerprint(tree, layout)
        content = image_cache.load(digest, target)
        if content is None:
            content = image_folder.read_tree(tree, layout, target, progress)
            image_cache.save(digest, target, content)
    return replace(content, notes=layout.notes, folders=folders)


def _readable(tree: Tree, layout: Layout, progress: Progress | None) -> tuple[Tree, Layout]:
    """The images that can be read, with a note on the others."""
    names = list(layout.places)
    tree = archives.addressable(tree, names)
    reasons = file_index.unreadable(tree, names, progress)
    if not reasons:
        return tree, layout
    left = layout.without(reasons)
    for part in ("train", "validation", "test"):
        labels = set(layout.labels(layout.names(part)))
        if lost := labels - set(left.labels(left.names(part))):
            name = layout.classes[min(lost)]
            raise DataError(
                f"{tree.path}: expected a {part} image of class {name!r} that can be read, found "
                f"none; {next(iter(reasons.values()))}"
            )
    which = folder_layout.listed(list(reasons), len(names))
    return tree, replace(left, notes=(*left.notes, f"damaged images skipped: {which}"))


def _stay_in_files(tree: Tree, layout: Layout, settings: Settings) -> bool:
    if settings.in_memory is not None:
        return not settings.in_memory
    if settings.geometry is not None:
        height, width = settings.geometry.size
    else:  # all images have the size of the first one, or are refused
        first = next(iter(layout.places))
        try:
            height, width = image_file.natural_size(tree.files[first]())
        except Exception:  # a damaged file: reading it says how
            return False
    return 3 * height * width * len(layout.places) > _IN_MEMORY_BYTES


def _with_note(content: Content, settings: Settings, progress: Progress | None) -> Content:
    """Images in files, or decoded in their original size if they are to be in memory."""
    parts = [part for part in (content.train, content.test) if part is not None]
    files = [part.images for part in parts if isinstance(part.images, ImageFiles)]
    needed = sum(i.decoded_bytes() if settings.originals else i.size for i in files)
    if settings.originals and (
        settings.in_memory or (settings.in_memory is None and needed <= _IN_MEMORY_BYTES)
    ):
        decoded = [
            Part(images.in_memory(progress or Progress()), part.labels)
            for images, part in zip(files, parts, strict=True)
        ]
        return replace(content, train=decoded[0], test=decoded[1] if len(decoded) > 1 else None)
    note = (
        f"images stay in their files and are decoded when they are used; in memory they would "
        f"take {needed / 1e9:.1f} GB (data.in_memory)"
    )
    return replace(content, notes=(*content.notes, note))


def _check_test_split(path: Path, layout: Layout, folders: tuple[str, ...]) -> None:
    """Raise DataError if no test part can be split off, before anything is decoded."""
    labels = np.array(layout.labels(layout.names("train")))
    titles = splitting.titles(layout.classes, folders or [""] * len(layout.classes))
    try:
        split(Part(np.arange(len(labels)), labels), TEST_FRACTION, TEST_SEED, titles)
    except DataError as error:
        raise unsplit(str(path), error) from error


def unsplit(source: str, error: DataError) -> DataError:
    """The error for data from which no test part can be split off."""
    return DataError(f"{source}: has no test part, and none can be split off: {error}")
