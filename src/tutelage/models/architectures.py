"""The architectures of the named models, their descriptions and sizes, without Keras."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tutelage.errors import RecipeError

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Architecture:
    """A plain convolutional network: blocks of two 3x3 convolutions, then a head.

    Attributes:
        filters: filters of each block's two convolutions; a block ends in 2x2 max pooling.
        dropout: dropout rate after each block's pooling.
        dense: units of the hidden dense layer; 0: global average pooling instead.
        dense_dropout: dropout rate after the hidden dense layer.
    """

    filters: tuple[tuple[int, int], ...]
    dropout: tuple[float, ...]
    dense: int = 0
    dense_dropout: float = 0.0

    def __str__(self) -> str:
        blocks = ", ".join(f"{first}-{second}" for first, second in self.filters)
        head = f"{self.dense} hidden units" if self.dense else "average pooling"
        dropout = ", dropout" if any((*self.dropout, self.dense_dropout)) else ""
        return f"3x3 convolutions of {blocks} filters, then {head}{dropout}"

    @property
    def smallest(self) -> int:
        """The smallest height and width of images in pixels."""
        return int(2 ** len(self.filters))

    def size(self, shape: Shape, classes: int) -> tuple[int, int]:
        """The number of parameters, and of multiply-accumulates for an image of a shape."""
        (height, width, channels), parameters, macs = shape, 0, 0
        for both in self.filters:
            for filters in both:
                kernel = 9 * channels * filters
                parameters += kernel + filters + 4 * filters  # bias, batch normalization
                macs += height * width * kernel
                channels = filters
            height, width = height // 2, width // 2
        if self.dense:
            hidden = height * width * channels * self.dense
            parameters += hidden + self.dense + 4 * self.dense
            macs, channels = macs + hidden, self.dense
        return parameters + channels * classes + classes, macs + channels * classes


@dataclass(frozen=True)
class MLP:
    """A fully connected network: hidden layers with ReLU, then a head.

    Attributes:
        units: units of each hidden layer.
        dropout: dropout rate of the pixels and after each hidden layer.
        max_norm: maximum norm of a hidden unit's incoming weights; 0: no limit.
    """

    units: tuple[int, ...]
    dropout: tuple[float, ...]
    max_norm: float = 0.0

    def __str__(self) -> str:
        dropout = ", dropout" if any(self.dropout) else ""
        limit = f", weights of a unit limited to a norm of {self.max_norm:g}"
        units = "-".join(map(str, self.units))
        return f"fully connected, {units} hidden units{dropout}{limit if self.max_norm else ''}"

    @property
    def smallest(self) -> int:
        """The smallest height and width of images in pixels."""
        return 1

    def size(self, shape: Shape, classes: int) -> tuple[int, int]:
        """The number of parameters, and of multiply-accumulates for an image of a shape."""
        widths = (math.prod(shape), *self.units, classes)
        macs = sum(inputs * outputs for inputs, outputs in itertools.pairwise(widths))
        return macs + sum(widths[1:]), macs


ARCHITECTURES: dict[str, Architecture | MLP] = {
    "teacher-2m": Architecture(
        ((64, 64), (128, 128), (256, 256)), (0.2, 0.3, 0.4), dense=256, dense_dropout=0.3
    ),
    "student-300k": Architecture(((32, 64), (64, 96), (96, 128)), (0.0, 0.0, 0.0)),
    "digits-teacher": Architecture(((32, 32), (64, 64)), (0.2, 0.3), dense=64, dense_dropout=0.3),
    "digits-student": Architecture(((4, 4), (8, 8)), (0.0, 0.0)),
    "mlp-1200": MLP((1200, 1200), (0.05, 0.3, 0.3), max_norm=2.0),
    "mlp-800": MLP((800, 800), (0.0, 0.0, 0.0)),
    "mlp-300": MLP((300, 300), (0.0, 0.0, 0.0)),
    "mlp-30": MLP((30, 30), (0.0, 0.0, 0.0)),
}


def table(
    names: Iterable[str] = tuple(ARCHITECTURES),
    *,
    shape: Shape = (32, 32, 3),
    classes: int = 10,
) -> list[dict[str, Any]]:
    """The models that a recipe can name, and their sizes.

    Args:
        names: some of `ARCHITECTURES`; default: all.
        shape: (height, width, channels) of the images, each at least 1.
        classes: number of classes, at least 2.

    Returns:
        For each model: `name`, `description`, `parameters`, `macs` and
        `smallest`, the smallest height and width of its images in pixels; `parameters` and `macs`
        are None where the images are smaller.

    Raises:
        RecipeError: the shape or the number of classes is too small.

    Example:

    >>> from tutelage.models import architectures
    >>> (row,) = architectures.table(["student-300k"])
    >>> row["parameters"], row["macs"], row["smallest"]
    (308682, 55739648, 8)
    >>> row["description"]
    '3x3 convolutions of 32-64, 64-96, 96-128 filters, then average pooling'
    """
    if min(shape) < 1 or classes < 2:
        raise RecipeError(
            "expected images of at least 1 pixel and channel and at least 2 classes, "
            f"found {shape} and {classes}"
        )
    rows = []
    for name in names:
        architecture = ARCHITECTURES[name]
        fits = min(shape[:2]) >= architecture.smallest
        parameters, macs = architecture.size(shape, classes) if fits else (None, None)
        rows.append(
            {
                "name": name,
                "description": str(architecture),
                "parameters": parameters,
                "macs": macs,
                "smallest": architecture.smallest,
            }
        )
    return rows
