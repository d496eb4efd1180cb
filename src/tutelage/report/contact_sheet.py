"""A picture of images and their augmented views."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from tutelage.data.augmented_views import AugmentedViews
from tutelage.formatting import printable

_SIDE = 96  # pixels of a cell, at least
_MARGIN = 4
_TEXT = 14  # pixels of a line


def draw(
    views: AugmentedViews,
    labels: np.ndarray,
    classes: Sequence[str],
    *,
    rows: int = 8,
    columns: int = 8,
) -> Image.Image:
    """Draw images of different classes, each with its first views.

    Args:
        views: the images and their augmentation.
        labels: the images' labels, integers of shape (count,).
        classes: the classes' names.
        rows: number of images, at most all.
        columns: number of views of each.

    Returns:
        An RGB picture with a row for each image: as in validation, then its views.

    Example:

    >>> import numpy as np
    >>> from tutelage.data.augmented_views import AugmentedViews
    >>> from tutelage.recipe import Views
    >>> from tutelage.report import contact_sheet
    >>> images = np.zeros((6, 8, 8, 1), np.uint8)
    >>> views = AugmentedViews(images, Views(), seed=0)
    >>> contact_sheet.draw(views, np.arange(6) % 2, ["cat", "dog"], rows=2, columns=3).size
    (404, 232)
    """
    chosen = _spread(labels, min(rows, len(labels)))
    cells = [views.images[chosen]] + [views(number, chosen) for number in range(columns)]
    height, width = cells[0].shape[1:3]
    factor = max(1, -(-_SIDE // max(height, width)))
    across, down = width * factor + _MARGIN, height * factor + _MARGIN + _TEXT
    sheet = Image.new(
        "RGB", (across * (columns + 1) + _MARGIN, down * len(chosen) + _MARGIN), "white"
    )
    pen = ImageDraw.Draw(sheet)
    for row, number in enumerate(chosen):
        top = _MARGIN + row * down
        name = printable(classes[int(labels[number])])
        pen.text((_MARGIN, top), name.encode("latin-1", "replace").decode("latin-1"), fill="black")
        for column, images in enumerate(cells):
            pixels = images[row]
            picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
            picture = picture.convert("RGB").resize(
                (width * factor, height * factor), Image.Resampling.NEAREST
            )
            sheet.paste(picture, (_MARGIN + column * across, top + _TEXT))
    return sheet


def _spread(labels: np.ndarray, count: int) -> np.ndarray:
    """Indices of images of as many classes as possible, evenly spaced in each."""
    kinds = np.unique(labels)
    kinds = kinds[np.linspace(0, len(kinds) - 1, min(count, len(kinds))).astype(int)]
    each = [np.flatnonzero(labels == kind)[: -(-count // len(kinds))] for kind in kinds]
    return np.sort(np.concatenate(each))[:count]
