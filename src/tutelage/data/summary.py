"""What a folder or archive of images contains, by the paths and headers of its files."""

from __future__ import annotations

import io
import os
import time
from collections import Counter
from dataclasses import dataclass
from typing import IO

import numpy as np
from PIL import Image

from tutelage.data import archives, finding, folder_layout, formats, splitting
from tutelage.data.archives import Tree
from tutelage.data.content import Part
from tutelage.data.image_file import FORMATS, orientation, strict_pillow
from tutelage.errors import DataError, DataNotFoundError
from tutelage.progress import Progress

_SHOWN = 1024  # number of headers from which on their reading is shown
_NAMED = 3  # number of unreadable files that are named
_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange height and width


@dataclass(frozen=True)
class ImageSummary:
    """The images of a folder or archive; pixels are not decoded.

    Attributes:
        path: the folder or archive as given.
        classes: the number of training images of each class, by name.
        labels: the class index of each training image, without those of a test or validation part.
        parts: the number of images of each part: `train`, `validation`, `test`.
        sizes: how many images have each (height, width), upright; an orientation that follows the
            pixels of a PNG file is not known.
        gray: how many are grayscale.
        unreadable: the paths of files whose headers can't be read, or whose pixels have 32 bits.
        notes: what was skipped, renamed or chosen, one line each.
    """

    path: str
    classes: dict[str, int]
    labels: np.ndarray
    parts: dict[str, int]
    sizes: Counter[tuple[int, int]]
    gray: int
    unreadable: tuple[str, ...]
    notes: tuple[str, ...]

    def rows(self) -> list[tuple[str, str]]:
        """What is worth knowing, as pairs of a heading and a text."""
        parts = ", ".join(f"{part} {count:,}" for part, count in self.parts.items())
        if "test" not in self.parts:
            parts += "; a fifth of train becomes the test set"
        rows = [("images", f"{sum(self.parts.values()):,}: {parts}"), *self._balance()]
        if self.sizes:
            rows.append(("sizes", self._sizes()))
            color = self.sizes.total() - self.gray
            rows.append(("colors", f"{color:,} color, {self.gray:,} gray"))
        if self.unreadable:
            named = ", ".join(map(repr, self.unreadable[:_NAMED]))
            count = len(self.unreadable)
            more = f" and {count - _NAMED:,} more" if count > _NAMED else ""
            rows.append(("unreadable", f"{count:,}, which a run refuses: {named}{more}"))
        return rows

    def _balance(self) -> list[tuple[str, str]]:
        counts = self.classes
        fewest, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
        text = f"{len(counts):,}, each of {counts[most]:,} training images"
        if counts[fewest] != counts[most]:
            text = (
                f"{len(counts):,}, of {counts[fewest]:,} ({fewest}) to {counts[most]:,} ({most}) "
                "training images"
            )
        return [("classes", text)]

    def _sizes(self) -> str:
        (often, count), *others = self.sizes.most_common()
        if not others:
            return f"all {often[0]}x{often[1]} (height x width)"
        sides = []
        for name, index in (("height", 0), ("width", 1)):
            values = np.repeat([size[index] for size in self.sizes], list(self.sizes.values()))
            median = f"median {np.median(values):.0f}"
            sides.append(f"{name} {values.min()} to {values.max()} ({median})")
        share = 100 * count / self.sizes.total()
        return f"{', '.join(sides)}; {share:.0f} % are {often[0]}x{often[1]}"


def summarize(path: str | os.PathLike[str], progress: Progress | None = None) -> ImageSummary:
    """Look at the images of a folder or archive without decoding them.

    Args:
        path: a folder or archive as for `datasets.load`, of image files.
        progress: notified of each header, if there are more than 1,024.

    Returns:
        The summary.

    Raises:
        DataNotFoundError: if there is nothing at the path.
        DataError: if it contains arrays instead of image files, or is no data set of images.

    Example:

    >>> import pathlib, tempfile
    >>> from PIL import Image
    >>> from tutelage.data import summary
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> for label in ("cat", "dog"):
    ...     (folder / label).mkdir()
    ...     for number in range(3):
    ...         Image.new("L", (12, 8)).save(folder / label / f"{number}.png")
    >>> for heading, text in summary.summarize(folder).rows():
    ...     print(f"{heading}: {text}")
    images: 6: train 6; a fifth of train becomes the test set
    classes: 2, each of 3 training images
    sizes: all 8x12 (height x width)
    colors: 0 color, 6 gray
    """
    try:
        place = finding.existing(path)
    except DataNotFoundError:
        raise DataNotFoundError(
            f"{path}: expected a folder or an archive of images, found nothing there"
        ) from None
    with archives.open_tree(place) as tree:
        if formats.read_arrays(tree) is not None:
            raise DataError(
                f"{place}: expected image files, found arrays, which need no data.size; use them "
                f"with tutelage run distill --data {place}"
            )
        layout = folder_layout.survey(tree)
        sizes, gray, unreadable = _headers(tree, list(layout.places), progress or Progress())
    counts = {part: len(layout.names(part)) for part in ("train", "validation", "test")}
    labels = np.array(layout.labels(layout.names("train")), np.int64)
    numbers = np.bincount(labels, minlength=len(layout.classes)).tolist()
    return ImageSummary(
        os.fspath(path),
        dict(zip(layout.classes, numbers, strict=True)),
        labels,
        {part: count for part, count in counts.items() if count},
        sizes,
        gray,
        tuple(unreadable),
        layout.notes,
    )


def training_labels(summary: ImageSummary) -> np.ndarray:
    """The labels of the training images without those that become the test set.

    Args:
        summary: the images.

    Returns:
        Integers of shape (n,).

    Raises:
        DataError: if there are no training images, or no test set can be split off.
    """
    if not len(summary.labels):
        raise DataError(
            f"{summary.path}: expected training images in train/<class>/, found none; add them"
        )
    if "test" in summary.parts:
        return summary.labels
    part = Part(np.arange(len(summary.labels)), summary.labels)
    names = list(map(repr, summary.classes))
    train, _ = splitting.split(part, splitting.TEST_FRACTION, splitting.TEST_SEED, names)
    return train.labels


def _headers(
    tree: Tree, names: list[str], progress: Progress
) -> tuple[Counter[tuple[int, int]], int, list[str]]:
    sizes: Counter[tuple[int, int]] = Counter()
    gray, unreadable, wanted, began = 0, list[str](), set(names), time.monotonic()
    shown = progress if len(names) > _SHOWN else Progress()
    shown.stage("reading headers", 1, 0, len(names), "pass")
    with strict_pillow():
        # In the tree's order, in which archives are read fastest.
        for step, name in enumerate((name for name in tree.files if name in wanted), start=1):
            # Of a file in a folder only the header is read.
            with _opened(tree, name) as file:
                try:
                    size, is_gray = _header(file)
                except Exception:  # on a damaged file Pillow's parsers raise almost anything
                    unreadable.append(name)
                else:
                    sizes[size] += 1
                    gray += is_gray
            shown.step(step, {})
    shown.epoch({"epoch": 1, "seconds": time.monotonic() - began})
    return sizes, gray, unreadable


def _opened(tree: Tree, name: str) -> IO[bytes]:
    return (tree.path / name).open("rb") if tree.path.is_dir() else io.BytesIO(tree.files[name]())


def _header(file: IO[bytes]) -> tuple[tuple[int, int], bool]:
    """An image's (height, width), upright, and whether it is grayscale."""
    with Image.open(file, formats=FORMATS) as image:
        if image.mode in ("I", "F") and image.format != "PPM":
            raise ValueError("32 bits")
        width, height = image.size
        # Pillow decodes a PNG file to find metadata behind its pixels; it gives the upright size
        # of a TIFF file.
        known = image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info)
        sideways = known and orientation(image) in _SIDEWAYS
        size = (width, height) if sideways else (height, width)
        return size, image.mode[0] in "1LI"
