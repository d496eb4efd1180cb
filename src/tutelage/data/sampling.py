"""The order of an epoch in which every class is drawn equally often."""

from __future__ import annotations

import numpy as np

from tutelage.data.augmentation import order


def balanced_order(labels: np.ndarray, *, seed: int, epoch: int) -> np.ndarray:
    """The order in which an epoch visits images, every class equally often.

    The epoch consists of rounds, in each of which every class is drawn once, in random order. A
    class goes through all of its images in random order before one of them comes again, over the
    epochs: images of a small class come several times an epoch, those of a large one not in each.

    Args:
        labels: the images' labels, integers of shape (n,). Classes without images are not drawn.
        seed: the recipe's seed, at least 0.
        epoch: the epoch, counted from 0.

    Returns:
        n indices of images, int64. How often two classes are drawn differs by at most one.

    Raises:
        RecipeError: if the seed or the epoch is negative.

    Example:

    >>> import numpy as np
    >>> from tutelage.data.sampling import balanced_order
    >>> labels = np.array([0, 0, 0, 0, 0, 1])
    >>> labels[balanced_order(labels, seed=0, epoch=0)].tolist().count(1)
    3
    """
    classes = np.unique(labels)
    rounds = -(-len(labels) // len(classes))
    drawn = np.empty((rounds, len(classes)), np.int64)
    for column, label in enumerate(classes):
        images = np.flatnonzero(labels == label)
        # A class's images in the order of its draws over all epochs.
        passes, places = np.divmod(np.arange(epoch * rounds, (epoch + 1) * rounds), len(images))
        for number in np.unique(passes):
            here = passes == number
            shuffled = images[order(len(images), seed=seed, epoch=int(number))]
            drawn[here, column] = shuffled[places[here]]
    keys = order(drawn.size, seed=seed, epoch=epoch).reshape(drawn.shape)
    return np.take_along_axis(drawn, keys.argsort(axis=1), axis=1).ravel()[: len(labels)]
