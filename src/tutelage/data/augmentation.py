"""Augmentation as a pure function of (seed, epoch, index).

A view can be recomputed at any time, in any order and in any batch: image 7 in
epoch 3 depends only on the seed. This lets baseline and student train on the same
views, an interrupted run resume bit-identically, and teacher logits be cached.
"""

from __future__ import annotations

import numpy as np

from tutelage.errors import RecipeError

# One independent stream of random numbers per purpose.
_FLIP, _ROW, _COLUMN, _ORDER, _CUT_ROW, _CUT_COLUMN = 1, 2, 3, 4, 5, 6
_VERTICAL, _ERASED, _ERASED_AREA, _ERASED_RATIO, _ERASED_ROW, _ERASED_COLUMN = range(7, 13)
# The area of an erased rectangle as a fraction of the image's, and its ratio of width to height.
_ERASED_AREAS, _ERASED_RATIOS = (0.02, 1 / 3), (0.3, 3.3)


def order(count: int, *, seed: int, epoch: int) -> np.ndarray:
    """The order in which an epoch visits the images.

    Args:
        count: number of images.
        seed: the recipe's seed, at least 0.
        epoch: the epoch, counted from 0.

    Returns:
        A permutation of `range(count)`, int64.

    Raises:
        RecipeError: if the seed or the epoch is negative.

    Example:

    >>> from tutelage.data import augmentation
    >>> sorted(augmentation.order(4, seed=0, epoch=0).tolist())
    [0, 1, 2, 3]
    """
    _check(seed, epoch)
    return np.argsort(_random(_ORDER, seed, epoch, np.arange(count)), kind="stable")


def view(
    images: np.ndarray,
    index: np.ndarray,
    *,
    seed: int,
    epoch: int,
    flip: bool,
    shift: int,
    cutout: int = 0,
) -> np.ndarray:
    """Augment images for one epoch: flip, shift and cutout.

    Flips alternate: an image that is not flipped in one epoch is flipped in the
    next, so two epochs show each image both ways. The shift is uniform over
    `-shift..shift` in each direction, and the border is filled by reflection.
    Cutout replaces a square, centered at a uniformly drawn pixel and clipped to
    the image, with the image's mean color.

    Args:
        images: all images, uint8 of shape (count, height, width, channels).
        index: indices of the images to augment, integers of shape (n,).
        seed: the recipe's seed, at least 0.
        epoch: the epoch, counted from 0.
        flip: whether to flip horizontally.
        shift: the largest shift, in pixels; less than height and width.
        cutout: the side of the square, in pixels, 0 for none; less than height and width.

    Returns:
        uint8 of shape (n, height, width, channels).

    Raises:
        RecipeError: if `shift` or `cutout` is as large as the images, `index` is out of
            range, or the seed or the epoch is negative.

    Source: the alternating flip is section 3.6 of arXiv 2404.00498, cutout section 3 of
    arXiv 1708.04552, which uses the mean color of all images.

    Example:

    >>> import numpy as np
    >>> from tutelage.data import augmentation
    >>> images = np.arange(2 * 4 * 4, dtype=np.uint8).reshape(2, 4, 4, 1)
    >>> augmentation.view(images, np.array([1, 0]), seed=0, epoch=3, flip=True, shift=1).shape
    (2, 4, 4, 1)
    """
    index = _checked_index(index, len(images))
    return changed(
        images, index, index, seed=seed, epoch=epoch, flip=flip, shift=shift, cutout=cutout
    )


def changed(
    images: np.ndarray,
    places: np.ndarray,
    index: np.ndarray,
    *,
    seed: int,
    epoch: int,
    flip: bool,
    shift: int,
    cutout: int = 0,
    flip_vertical: bool = False,
    erasing: float = 0.0,
) -> np.ndarray:
    """As `view`, of images that are in an array at other places than their indices.

    Args:
        images: uint8 of shape (count, height, width, channels).
        places: where the images are in it, integers of shape (n,).
        index: the images' indices, which decide how they are changed, integers of shape (n,).
        seed, epoch, flip, shift, cutout: as in `view`.
        flip_vertical: whether to flip vertically at random.
        erasing: probability that a rectangle is replaced by the image's mean color. Its area is
            uniform in 0.02..1/3 of the image's, its width / height log-uniform in 0.3..3.3, its
            place uniform; it is clipped to the image.

    Returns:
        uint8 of shape (n, height, width, channels).

    Raises:
        RecipeError: as in `view`.

    Source: erasing, arXiv 1708.04896, algorithm 1.

    Example:

    >>> import numpy as np
    >>> from tutelage.data import augmentation
    >>> image = np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1)
    >>> settings = {"seed": 0, "epoch": 3, "flip": True, "shift": 1}
    >>> first = augmentation.changed(image, np.array([0]), np.array([7]), **settings)
    >>> again = augmentation.view(np.repeat(image, 8, axis=0), np.array([7]), **settings)
    >>> bool((first == again).all())
    True
    """
    _check(seed, epoch)
    height, width = images.shape[1:3]
    for name, length in (("views.shift", shift), ("cutout", cutout)):
        if not 0 <= length < min(height, width):
            raise RecipeError(
                f"{name}: expected 0 to {min(height, width) - 1} pixels for images of "
                f"{height}x{width}, found {length}; choose a smaller one"
            )
    mirrored = inverted = np.zeros(len(index), bool)
    if flip:
        mirrored = (_random(_FLIP, seed, 0, index) + np.uint64(epoch)) & np.uint64(1) == 1
    if flip_vertical:
        inverted = _random(_VERTICAL, seed, epoch, index) & np.uint64(1) == 1
    augmented = np.ascontiguousarray(images[places])
    pixels = augmented.view(f"V{images.shape[3]}")[..., 0]  # moved faster than single bytes
    if shift:
        span = np.uint64(2 * shift + 1)
        down = (_random(_ROW, seed, epoch, index) % span).astype(np.int64) - shift
        right = (_random(_COLUMN, seed, epoch, index) % span).astype(np.int64) - shift
        rows = _shifted(height, down, inverted) + height * np.arange(len(index))[:, None]
        columns = _shifted(width, right, mirrored)
        moved = pixels.reshape(-1).take(rows[:, :, None] * width + columns[:, None, :])
        augmented = moved.view(np.uint8).reshape(augmented.shape)
    else:
        pixels[mirrored] = pixels[mirrored][:, :, ::-1]
        pixels[inverted] = pixels[inverted][:, ::-1]
    if cutout:
        down = _within(_random(_CUT_ROW, seed, epoch, index), height, cutout)
        across = _within(_random(_CUT_COLUMN, seed, epoch, index), width, cutout)
        color = images[places].mean(axis=(1, 2), keepdims=True).round().astype(np.uint8)
        hidden = down[:, :, None, None] & across[:, None, :, None]
        augmented = np.where(hidden, color, augmented)
    if erasing:
        augmented = _erased(augmented, index, seed, epoch, erasing)
    return augmented


def uniform(stream: int, seed: int, epoch: int, index: np.ndarray) -> np.ndarray:
    """A number in [0, 1) for each index, float64: a stream of numbers for each purpose."""
    return (_random(stream, seed, epoch, index) >> np.uint64(11)) * 2.0**-53


def _checked_index(index: np.ndarray, count: int) -> np.ndarray:
    index = np.asarray(index)
    # A mask or a negative index would select images, but not their views.
    if index.ndim != 1 or index.dtype.kind not in "iu":
        raise RecipeError(
            f"index: expected integers of shape (n,), found {index.dtype} of shape {index.shape}; "
            "give the images' indices"
        )
    if len(index) and not 0 <= index.min() <= index.max() < count:
        raise RecipeError(
            f"index: expected 0 to {count - 1}, as there are {count} images, "
            f"found {index.min()} to {index.max()}; give the images' indices"
        )
    return index


def _erased(
    images: np.ndarray, index: np.ndarray, seed: int, epoch: int, probability: float
) -> np.ndarray:
    height, width = images.shape[1:3]
    draws = [
        uniform(stream, seed, epoch, index)
        for stream in (_ERASED, _ERASED_AREA, _ERASED_RATIO, _ERASED_ROW, _ERASED_COLUMN)
    ]
    area = height * width * (_ERASED_AREAS[0] + draws[1] * np.ptp(_ERASED_AREAS))
    least, most = np.log(_ERASED_RATIOS)
    ratio = np.exp(least + draws[2] * (most - least))
    images = images.copy()
    for number in np.flatnonzero(draws[0] < probability):
        down = min(height, round(np.sqrt(area[number] / ratio[number])))
        across = min(width, round(np.sqrt(area[number] * ratio[number])))
        top = int(draws[3][number] * (height - down + 1))
        left = int(draws[4][number] * (width - across + 1))
        color = images[number].mean(axis=(0, 1)).round().astype(np.uint8)
        images[number, top : top + down, left : left + across] = color
    return images


def _check(seed: int, epoch: int) -> None:
    if seed < 0 or epoch < 0:
        raise RecipeError(f"expected a seed and an epoch of at least 0, found {seed} and {epoch}")


def _shifted(size: int, by: np.ndarray, flipped: np.ndarray) -> np.ndarray:
    """Where each of `size` pixels of a flipped, shifted and reflected row comes from."""
    position = np.where(flipped[:, None], np.arange(size)[::-1], np.arange(size)) + by[:, None]
    return size - 1 - np.abs(size - 1 - np.abs(position))


def _within(draws: np.ndarray, size: int, length: int) -> np.ndarray:
    """Mask of `size` positions within a window of `length` centered at a drawn position."""
    center = (draws % np.uint64(size)).astype(np.int64)
    from_start = np.arange(size) - (center[:, None] - length // 2)
    return (from_start >= 0) & (from_start < length)


def _random(stream: int, seed: int, epoch: int, index: np.ndarray) -> np.ndarray:
    """A uniform uint64 for each index: SplitMix64's finalizer over its coordinates."""
    state = np.asarray(index, dtype=np.uint64)
    for coordinate in (epoch, seed, stream):
        state = _mix(state + _mix(np.array([coordinate], dtype=np.uint64)))
    return state


def _mix(state: np.ndarray) -> np.ndarray:
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
