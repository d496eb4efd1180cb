"""Random transforms of one image, by Pillow's functions, as torchvision applies them.

Each takes its random numbers as arguments, uniform in [0, 1), so that a view stays a function of
(seed, epoch, index).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from tutelage.data.geometry import Geometry
from tutelage.recipe import Views

CROP_SCALE, CROP_RATIO = (0.35, 1.0), (3 / 4, 4 / 3)
OPERATIONS, MAGNITUDE, BINS = 2, 9, 31
_ATTEMPTS = 10  # to draw a crop that lies within the image

Enhance = Callable[[Image.Image, float], Image.Image]


def draws_per_image(views: Views) -> int:
    """How many random numbers `transform` takes for an image; 0 if it changes none."""
    counts = [
        2 * _ATTEMPTS + 2 if views.crop else 0,
        2 * (views.policy_operations or OPERATIONS) if views.policy == "randaugment" else 0,
        3 if views.policy == "trivialaugment" else 0,
        5 if views.color_jitter or views.hue else 0,
    ]
    return sum(counts)


def transform(
    picture: Image.Image, geometry: Geometry, views: Views, draws: Sequence[float]
) -> Image.Image:
    """Crop, then change the geometry and the colors of an image.

    Args:
        picture: grayscale or RGB, of any size.
        geometry: the size of the result, and how an image gets it without a random crop.
        views: which transforms.
        draws: `draws_per_image` numbers, uniform in [0, 1).

    Returns:
        The image in `geometry.size`.

    Source: random resized crop, arXiv 1409.4842, section 6; RandAugment, arXiv 1909.13719;
    TrivialAugment (wide), arXiv 2103.10158. Ranges are torchvision's.

    Example:

    >>> from PIL import Image
    >>> from tutelage.data.geometry import Geometry
    >>> from tutelage.data.transforms import draws_per_image, transform
    >>> from tutelage.recipe import Views
    >>> views = Views(crop="random-resized", policy="trivialaugment")
    >>> picture = Image.new("RGB", (40, 30))
    >>> transform(picture, Geometry((8, 8)), views, [0.5] * draws_per_image(views)).size
    (8, 8)
    """
    drawn = iter(draws)
    if views.crop:
        numbers = [next(drawn) for _ in range(2 * _ATTEMPTS + 2)]
        scale, ratio = views.crop_scale or CROP_SCALE, views.crop_ratio or CROP_RATIO
        box = crop_box(picture.size, scale, ratio, numbers)
        picture = picture.resize(geometry.size[::-1], Image.Resampling.BILINEAR, box)
    else:
        picture = geometry.apply(picture)
    if views.policy == "randaugment":
        magnitude = MAGNITUDE if views.policy_magnitude is None else views.policy_magnitude
        for _ in range(views.policy_operations or OPERATIONS):
            which, sign = next(drawn), next(drawn)
            picture = _policy(picture, _RAND_AUGMENT, which, magnitude / (BINS - 1), sign)
    elif views.policy == "trivialaugment":
        which, sign, amount = next(drawn), next(drawn), next(drawn)
        picture = _policy(picture, _TRIVIAL_AUGMENT, which, int(amount * BINS) / (BINS - 1), sign)
    if views.color_jitter or views.hue:
        numbers = [next(drawn) for _ in range(5)]
        picture = color_jitter(picture, views.color_jitter or 0.0, views.hue or 0.0, numbers)
    return picture


def crop_box(
    size: tuple[int, int],
    scale: tuple[float, float],
    ratio: tuple[float, float],
    draws: Sequence[float],
) -> tuple[int, int, int, int]:
    """The (left, upper, right, lower) of a random crop.

    Its area is uniform, its aspect ratio log-uniform, its place uniform. If ten such crops do not
    lie within the image, it is the largest central one with an allowed aspect ratio.

    Args:
        size: (width, height) of the image.
        scale: the least and the largest area, as fractions of the image's.
        ratio: the least and the largest width / height.
        draws: 22 numbers, uniform in [0, 1).
    """
    width, height = size
    least, most = math.log(ratio[0]), math.log(ratio[1])
    for attempt in range(_ATTEMPTS):
        area = width * height * (scale[0] + draws[2 * attempt] * (scale[1] - scale[0]))
        aspect = math.exp(least + draws[2 * attempt + 1] * (most - least))
        across, down = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < across <= width and 0 < down <= height:
            left = int(draws[-2] * (width - across + 1))
            upper = int(draws[-1] * (height - down + 1))
            return left, upper, left + across, upper + down
    aspect = min(max(width / height, ratio[0]), ratio[1])
    across, down = min(width, round(height * aspect)), min(height, round(width / aspect))
    left, upper = (width - across) // 2, (height - down) // 2
    return left, upper, left + across, upper + down


def color_jitter(
    picture: Image.Image, strength: float, hue: float, draws: Sequence[float]
) -> Image.Image:
    """Change brightness, contrast, saturation and hue in random order.

    Args:
        picture: grayscale or RGB.
        strength: factors of brightness, contrast and saturation are uniform in
            `max(0, 1 - strength)..1 + strength`.
        hue: the shift of the hue is uniform in `-hue..hue`, of a turn; at most 0.5.
        draws: 5 numbers, uniform in [0, 1).
    """
    changes: list[tuple[Enhance, float]] = []
    if strength:
        low = max(0.0, 1 - strength)
        for enhance, draw in zip((_BRIGHTNESS, _CONTRAST, _COLOR), draws, strict=False):
            changes.append((enhance, low + draw * (1 + strength - low)))
    if hue:
        changes.append((_shifted_hue, hue * (2 * draws[3] - 1)))
    order = int(draws[4] * math.factorial(len(changes)))
    while changes:
        order, place = divmod(order, len(changes))
        change, factor = changes.pop(place)
        picture = change(picture, factor)
    return picture


def _shifted_hue(picture: Image.Image, turn: float) -> Image.Image:
    if picture.mode == "L":
        return picture
    hue, saturation, value = picture.convert("HSV").split()
    shifted = np.asarray(hue) + np.array(int(turn * 255) % 256, np.uint8)
    merged = Image.merge("HSV", (Image.fromarray(shifted), saturation, value))
    return merged.convert("RGB")


def _enhanced(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Enhance:
    return lambda picture, factor: kind(picture).enhance(factor)


_BRIGHTNESS = _enhanced(ImageEnhance.Brightness)
_CONTRAST = _enhanced(ImageEnhance.Contrast)
_COLOR = _enhanced(ImageEnhance.Color)
_SHARPNESS = _enhanced(ImageEnhance.Sharpness)


def _affine(picture: Image.Image, *matrix: float) -> Image.Image:
    return picture.transform(
        picture.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST, fillcolor=0
    )


def _posterize(picture: Image.Image, dropped: float) -> Image.Image:
    return ImageOps.posterize(picture, 8 - round(dropped))


def _solarize(picture: Image.Image, amount: float) -> Image.Image:
    return ImageOps.solarize(picture, 255 * (1 - amount))  # type: ignore[arg-type]


# An operation's function, its largest magnitude, and whether the magnitude gets a random sign.
_Operation = tuple[Enhance, float, bool]


def _translated(across: bool) -> Callable[[Image.Image, float], Image.Image]:
    def translate(picture: Image.Image, pixels: float) -> Image.Image:
        moved = (-int(pixels), 0) if across else (0, -int(pixels))
        return _affine(picture, 1, 0, moved[0], 0, 1, moved[1])

    return translate


def _moved_by_part(across: bool) -> Callable[[Image.Image, float], Image.Image]:
    translate = _translated(across)
    return lambda picture, part: translate(picture, part * picture.size[0 if across else 1])


def _shear_x(picture: Image.Image, amount: float) -> Image.Image:
    return _affine(picture, 1, amount, 0, 0, 1, 0)


def _shear_y(picture: Image.Image, amount: float) -> Image.Image:
    return _affine(picture, 1, 0, 0, amount, 1, 0)


def _rotate(picture: Image.Image, degrees: float) -> Image.Image:
    return picture.rotate(degrees, Image.Resampling.NEAREST)


def _operations(
    shear: float,
    translate: tuple[Enhance, Enhance, float],
    rotate: float,
    enhance: float,
    bits: int,
) -> dict[str, _Operation]:
    def changed(change: Enhance) -> _Operation:
        return (lambda picture, amount: change(picture, 1 + amount), enhance, True)

    return {
        "identity": (lambda picture, _: picture, 0, False),
        "shear x": (_shear_x, shear, True),
        "shear y": (_shear_y, shear, True),
        "translate x": (translate[0], translate[2], True),
        "translate y": (translate[1], translate[2], True),
        "rotate": (_rotate, rotate, True),
        "brightness": changed(_BRIGHTNESS),
        "color": changed(_COLOR),
        "contrast": changed(_CONTRAST),
        "sharpness": changed(_SHARPNESS),
        "posterize": (_posterize, bits, False),
        "solarize": (_solarize, 1, False),
        "autocontrast": (lambda picture, _: ImageOps.autocontrast(picture), 0, False),
        "equalize": (lambda picture, _: ImageOps.equalize(picture), 0, False),
    }


_RAND_AUGMENT = _operations(
    0.3, (_moved_by_part(True), _moved_by_part(False), 150 / 331), 30, 0.9, 4
)
_TRIVIAL_AUGMENT = _operations(0.99, (_translated(True), _translated(False), 32), 135, 0.99, 6)


def _policy(
    picture: Image.Image,
    operations: dict[str, _Operation],
    which: float,
    amount: float,
    sign: float,
) -> Image.Image:
    """One operation of a policy, at a fraction of its largest magnitude."""
    operation, largest, signed = list(operations.values())[int(which * len(operations))]
    magnitude = amount * largest
    return operation(picture, -magnitude if signed and sign < 0.5 else magnitude)
