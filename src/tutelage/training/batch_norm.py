"""Batch normalization statistics, measured again after training."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from tutelage.data import augmentation
from tutelage.kernels import accelerate
from tutelage.models import loading

_IMAGES = 5_000


def recalibrate_batch_norm(model: keras.Model, images: np.ndarray, *, seed: int) -> None:
    """Measure anew what batch normalisation goes by, on images as they are.

    In training its moving statistics follow the shifted views of the last few batches. Here
    they become the mean and variance over 5,000 training images without augmentation, layer
    by layer, each fed by those that have settled; nothing else of the model changes.

    Args:
        model: a trained Functional model from uint8 images to logits.
        images: the training images, uint8 of shape (count, height, width, channels).
        seed: of the choice of images.

    Source: section 3 of arXiv 2105.07576 ("PreciseBN"), there by batches in training mode.
    """
    images = images[augmentation.order(len(images), seed=seed, epoch=0)[:_IMAGES]]
    for layer in model.layers:
        if not isinstance(layer, keras.layers.BatchNormalization):
            continue
        x = layer.input
        places = tuple(range(1, len(x.shape) - 1))  # none behind a dense layer
        moments = [ops.mean(y, places) if places else y for y in (x, ops.square(x))]
        measured = keras.Model(model.inputs, ops.concatenate(moments, axis=-1))
        answers = accelerate.accelerate(measured, "float32").predict(
            images, batch_size=loading.batch_size(images.shape[1:], measured), verbose=0
        )
        mean, square = np.split(answers.mean(axis=0, dtype=np.float64), 2)
        layer.moving_mean.assign(mean)
        layer.moving_variance.assign(np.maximum(square - mean**2, 0))
