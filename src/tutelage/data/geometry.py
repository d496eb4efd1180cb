"""How an image of any size becomes one of a model's size."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from tutelage.errors import RecipeError

if TYPE_CHECKING:  # a machine that only serves has no recipes
    from tutelage.recipe import Data

RESIZES = ("stretch", "crop")
# A JPEG is decoded at 1/2, 1/4 or 1/8 of its size while its sides stay this many times the result.
_DRAFT = 4


@dataclass(frozen=True)
class Geometry:
    """The size of images, and how they get it.

    Images are resized bilinearly, with smoothing when shrinking (Pillow's BILINEAR).

    Args:
        size: (height, width) in pixels.
        resize: `"stretch"`: the whole image, without preserving the aspect ratio; `"crop"`: the
            central part of the size's aspect ratio.
        crop_fraction: with `"crop"`, how much of the largest such part is kept in each direction,
            above 0, up to 1: 0.875 is a crop of 224 pixels from an image resized to 256.

    Raises:
        RecipeError: if an argument is invalid.

    Example:

    >>> from PIL import Image
    >>> from tutelage.data.geometry import Geometry
    >>> photograph = Image.new("RGB", (533, 400))
    >>> Geometry((128, 128), "crop", 0.875).box(photograph.size)
    (91.5, 25.0, 441.5, 375.0)
    >>> Geometry((128, 128)).apply(photograph).size
    (128, 128)
    """

    size: tuple[int, int]
    resize: str = "stretch"
    crop_fraction: float = 1.0

    def __post_init__(self) -> None:
        if len(self.size) != 2 or any(type(side) is not int or side < 1 for side in self.size):
            raise RecipeError(
                f"data.size: expected (height, width) in pixels, each at least 1, got "
                f"{self.size!r}; change it"
            )
        if self.resize not in RESIZES:
            raise RecipeError(
                f"data.resize: expected one of {', '.join(RESIZES)}, got {self.resize!r}"
            )
        if not 0 < self.crop_fraction <= 1 or not math.isfinite(self.crop_fraction):
            raise RecipeError(
                "data.crop_fraction: expected a number above 0, up to 1, got "
                f"{self.crop_fraction!r}"
            )
        if self.resize == "stretch" and self.crop_fraction != 1:
            raise RecipeError(
                f'data.crop_fraction: requires data.resize = "crop", got {self.crop_fraction} '
                "without it"
            )

    def apply(self, image: Image.Image) -> Image.Image:
        """An image with this size; the same object if nothing changes."""
        box, target = self.box(image.size), self.size[::-1]
        if image.size == target and box == (0, 0, *target):
            return image
        return image.resize(target, Image.Resampling.BILINEAR, box)

    def changes_any(self, sizes: Iterable[tuple[int, ...]]) -> bool:
        """Whether any image of (height, width) is resized or cropped."""
        return any(
            size != self.size or self.box(size[::-1]) != (0, 0, *size[::-1]) for size in set(sizes)
        )

    def box(self, size: tuple[int, ...]) -> tuple[float, float, float, float]:
        """The (left, upper, right, lower) of what is kept of an image of (width, height)."""
        width, height = size
        if self.resize == "stretch":
            return (0, 0, width, height)
        scale = self.crop_fraction * min(width / self.size[1], height / self.size[0])
        across, down = self.size[1] * scale, self.size[0] * scale
        left, upper = (width - across) / 2, (height - down) / 2
        return (left, upper, left + across, upper + down)

    def settings(self) -> dict[str, Any]:
        """How images get the size, for JSON."""
        return {"resize": self.resize, "crop_fraction": self.crop_fraction}

    def draft(self) -> tuple[int, int]:
        """The least (width, height) at which a JPEG is decoded, if it is larger."""
        side = _DRAFT * max(self.size)
        return side, side

    def text(self) -> str:
        """For names and notes: `128x128`, or with how images are cropped."""
        size = f"{self.size[0]}x{self.size[1]}"
        if self.resize == "stretch":
            return size
        kept = "" if self.crop_fraction == 1 else f" {self.crop_fraction:g}"
        return f"{size} center crop{kept}"


def from_recipe(data: Data) -> Geometry | None:
    """The geometry of a recipe's images; None if they keep their size.

    Raises:
        RecipeError: if there is no size, but how images get it.
    """
    if data.size is not None:
        return Geometry(data.size, data.resize or "stretch", data.crop_fraction or 1.0)
    for name in ("resize", "crop_fraction"):
        if (value := getattr(data, name)) is not None:
            raise RecipeError(
                f"data.{name}: requires data.size, found {value} without it; set both"
            )
    return None
