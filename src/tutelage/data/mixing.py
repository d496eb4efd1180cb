"""Mixup and CutMix as a pure function of (seed, view, index)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv

from tutelage.data import augmentation
from tutelage.recipe import Views

# Streams of random numbers, beside those of `augmentation`.
_PAIR, _WEIGHT, _CHOICE, _ROW, _COLUMN = 32, 36, 37, 38, 39
_ROUNDS = 4  # of the permutation that makes the pairs


@dataclass(frozen=True)
class Mixing:
    """With which other image each image of a batch is mixed, and how.

    Attributes:
        partner: index of the other image, integers of shape (n,); its own if it is not mixed.
        weight: weight of the image itself and of its label, float64 of shape (n,), 0 to 1.
        boxes: (top, bottom, left, right) of what is taken from the other image, integers of shape
            (n, 4); where it is empty, the pixels are averaged.
    """

    partner: np.ndarray
    weight: np.ndarray
    boxes: np.ndarray

    def pixels(self, own: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Mix images with their partners, both uint8 of shape (n, height, width, channels)."""
        mixed = own.copy()
        for number, (top, bottom, left, right) in enumerate(self.boxes):
            if bottom > top and right > left:
                mixed[number, top:bottom, left:right] = other[number, top:bottom, left:right]
            elif self.weight[number] < 1:
                weight = np.float32(self.weight[number])
                averaged = weight * own[number] + (1 - weight) * other[number].astype(np.float32)
                mixed[number] = np.round(averaged)
        return mixed

    def labels(self, labels: np.ndarray, classes: int) -> np.ndarray:
        """The classes' weights, float32 of shape (n, classes).

        Args:
            labels: labels of the images and of their partners, integers of shape (2, n).
            classes: number of classes.
        """
        own, other = np.eye(classes, dtype=np.float32)[labels]
        weight = self.weight.astype(np.float32)[:, None]
        return weight * own + (1 - weight) * other


def mixing(
    index: np.ndarray, *, count: int, seed: int, view: int, views: Views, size: tuple[int, int]
) -> Mixing:
    """How some images are mixed in one view.

    All images form pairs, drawn anew for each view; both of a pair have the same weights and box.
    Of an odd number one stays as it is.

    Args:
        index: the images, integers of shape (n,).
        count: number of all images.
        seed: the recipe's seed.
        view: the view's number.
        views: with `mixup`, `cutmix` or both, of which each pair then gets one at random.
        size: (height, width) of the images in pixels.

    Returns:
        The mixing.

    Source: mixup, arXiv 1710.09412, equation 2; CutMix, arXiv 1905.04899, equations 1 and 2. With
    pairs as in timm's `pair` mode, each image is decoded once.

    Example:

    >>> import numpy as np
    >>> from tutelage.data.mixing import mixing
    >>> from tutelage.recipe import Views
    >>> settings = {"count": 10, "seed": 0, "view": 3, "views": Views(mixup=0.2), "size": (8, 8)}
    >>> partner = mixing(np.arange(10), **settings).partner
    >>> bool((partner[partner] == np.arange(10)).all())
    True
    """
    height, width = size
    slots = _slots(index, count, seed, view)
    pairs = slots // 2
    alone = slots ^ 1 == count
    partner = np.where(alone, index, _inverse(np.where(alone, slots, slots ^ 1), count, seed, view))
    alphas = [alpha for alpha in (views.mixup, views.cutmix) if alpha is not None]
    choice = augmentation.uniform(_CHOICE, seed, view, pairs) * len(alphas)
    alpha = np.array(alphas)[choice.astype(int)]
    weight = betaincinv(alpha, alpha, augmentation.uniform(_WEIGHT, seed, view, pairs))
    cut = np.full(len(index), views.cutmix is not None)
    if len(alphas) == 2:
        cut = choice >= 1
    down, across = (np.round(n * np.sqrt(1 - weight)).astype(int) for n in size)
    row = (augmentation.uniform(_ROW, seed, view, pairs) * height).astype(int)
    column = (augmentation.uniform(_COLUMN, seed, view, pairs) * width).astype(int)
    boxes = np.stack(
        [
            np.clip(row - down // 2, 0, height),
            np.clip(row - down // 2 + down, 0, height),
            np.clip(column - across // 2, 0, width),
            np.clip(column - across // 2 + across, 0, width),
        ],
        axis=1,
    )
    boxes[~cut | alone] = 0
    area = (boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2]) / (height * width)
    weight = np.where(alone, 1.0, np.where(cut, 1 - area, weight))
    return Mixing(partner, weight, boxes)


def order(count: int, *, seed: int, epoch: int, view: int) -> np.ndarray:
    """The order in which an epoch visits images that are mixed: pairs stay together.

    Args:
        count: number of images.
        seed: the recipe's seed.
        epoch: the epoch, counted from 0.
        view: the view that it shows.

    Returns:
        A permutation of `range(count)`, int64.
    """
    pairs = augmentation.order((count + 1) // 2, seed=seed, epoch=epoch)
    slots = (2 * pairs[:, None] + np.arange(2)).reshape(-1)
    return _inverse(slots[slots < count], count, seed, view)


def _slots(index: np.ndarray, count: int, seed: int, view: int) -> np.ndarray:
    """A random permutation of 0..count - 1: a Feistel network on the next power of 4."""
    return _walk(np.asarray(index, np.int64), count, seed, view, range(_ROUNDS))


def _inverse(slots: np.ndarray, count: int, seed: int, view: int) -> np.ndarray:
    return _walk(slots, count, seed, view, range(_ROUNDS - 1, -1, -1))


def _walk(values: np.ndarray, count: int, seed: int, view: int, rounds: range) -> np.ndarray:
    half = max(1, ((count - 1).bit_length() + 1) // 2)
    values, outside = values.copy(), np.ones(len(values), bool)
    while outside.any():  # values beyond the end are permuted again
        left, right = values[outside] >> half, values[outside] & ((1 << half) - 1)
        for number in rounds:
            forward = rounds.step > 0
            source = right if forward else left
            noise = augmentation.uniform(_PAIR + number, seed, view, source) * (1 << half)
            if forward:
                left, right = right, left ^ noise.astype(np.int64)
            else:
                left, right = right ^ noise.astype(np.int64), left
        values[outside] = left << half | right
        outside = values >= count
    return values
