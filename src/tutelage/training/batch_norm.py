"""Recalibration of batch normalization after training."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from tutelage.data import augmentation
from tutelage.kernels import accelerate

_BATCH = 250
_IMAGES = 5_000


def recalibrate_batch_norm(model: keras.Model, images: np.ndarray, *, seed: int) -> None:
    """Recompute the statistics of batch normalization on images without augmentation.

    During training, moving statistics follow the augmented views of the last few batches. Here
    they are set to the mean and variance over 5,000 training images without augmentation, layer
    by layer, each after the layers before it; nothing else in the model changes.

    Args:
        model: a trained Functional model from uint8 images to logits.
        images: the training images, uint8 of shape (count, height, width, channels).
        seed: seed of the choice of images.

    Source: section 3 of arXiv 2105.07576 ("PreciseBN"), which uses batches in training mode.
    """
    images = images[augmentation.order(len(images), seed=seed, epoch=0)[:_IMAGES]]
    for layer in model.layers:
        if not isinstance(layer, keras.layers.BatchNormalization):
            continue
        x = layer.input
        axes = tuple(range(1, len(x.shape) - 1))  # none after a dense layer
        moments = [ops.mean(y, axes) if axes else y for y in (x, ops.square(x))]
        measured = keras.Model(model.inputs, ops.concatenate(moments, axis=-1))
        outputs = accelerate.accelerate(measured, "float32").predict(
            images, batch_size=_BATCH, verbose=0
        )
        mean, square = np.split(outputs.mean(axis=0, dtype=np.float64), 2)
        layer.moving_mean.assign(mean)
        layer.moving_variance.assign(np.maximum(square - mean**2, 0))
