"""Gradient accumulation: a training step in parts, to bound its memory."""

from __future__ import annotations

import math

import keras

from tutelage import environment
from tutelage.models import loading

# Bytes of activations of a step on a CPU, and the least images that batch normalization needs.
_ACTIVATIONS = 2**29
_LEAST_IMAGES = 8


def parts_per_step(models: list[keras.Model], shape: tuple[int, ...], images: int) -> int:
    """In how many parts the images of a training step are processed by default.

    On a CPU, as few as keep the outputs of all layers of a part within 512 MiB, which gradients
    need until its end; but of at least 8 images. On a GPU, one.

    Args:
        models: the model to train, and the teacher if it runs at each step.
        shape: (height, width, channels) of the images.
        images: images per step.

    Returns:
        The number of parts, at least 1.

    Example:

    >>> from tutelage.models import zoo
    >>> from tutelage.training.accumulation import parts_per_step
    >>> import numpy as np
    >>> images = np.zeros((1, 128, 128, 3), np.uint8)
    >>> model = zoo.build("teacher-2m", images=images, classes=4, seed=0)
    >>> parts_per_step([model], images.shape[1:], images=128)
    9
    """
    if environment.accelerator():
        return 1
    values = sum(loading.activations(model, shape) for model in models)
    part = max(_LEAST_IMAGES, _ACTIVATIONS // (4 * values))
    return math.ceil(images / min(part, images))
