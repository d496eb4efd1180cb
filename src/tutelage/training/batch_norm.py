"""Recalibration of batch normalization after training."""

from __future__ import annotations

import contextlib
import math
import time
from typing import Any

import keras
import numpy as np
from keras import ops

from tutelage import private_api
from tutelage.data import augmentation
from tutelage.data.content import Images, Part
from tutelage.kernels import accelerate
from tutelage.models import loading
from tutelage.progress import Progress
from tutelage.training import execution

_IMAGES, _LEAST_IMAGES = 5_000, 1_000
_LAYER_IMAGES = 40_000  # images times layers, which bounds the time for deep networks
_BYTES = 2**28  # of those images, which are kept in memory
_REPORT_SECONDS = 1.0


def recalibrate_batch_norm(
    model: keras.Model,
    images: Images,
    *,
    seed: int,
    validation: Part | None = None,
    progress: Progress | None = None,
) -> bool:
    """Measure the moving statistics of batch normalization again, on images without augmentation.

    In training they follow the augmented views of the last few batches. Here they become the mean
    and variance over 5,000 training images, layer by layer in the order of execution, each fed by
    those already measured; fewer images if they take over 256 MiB, and with more than 8 layers:
    40,000 divided by their number, at least 1,000. A layer used several times gets the statistics
    of all its inputs; a frozen layer keeps its own. Nothing else of the model changes.

    Args:
        model: a trained model from uint8 images to logits.
        images: the training images, uint8 of shape (count, height, width, channels).
        seed: seed for the choice of images.
        validation: images held out of training. If the model is right on fewer of them than
            before, the former statistics are put back.
        progress: notified of each layer.

    Returns:
        Whether the new statistics are kept.

    Source: section 3 of arXiv 2105.07576 ("PreciseBN"), which uses batches in training mode.
    """
    progress = progress or Progress()
    chosen = augmentation.order(len(images), seed=seed, epoch=0)
    uses = _uses(model, images[:1])
    if not uses:
        return True
    images = images[chosen[: min(_count(len(uses)), _BYTES // math.prod(images.shape[1:]))]]
    variables = [v for layer in uses for v in (layer.moving_mean, layer.moving_variance)]
    before = [np.array(ops.convert_to_numpy(variable)) for variable in variables]
    correct = 0 if validation is None else _correct(model, validation)
    progress.stage("batch normalization", len(uses), 0, 1, "layer")
    fast, reported = accelerate.accelerate(model), time.monotonic()
    for number, (layer, count) in enumerate(uses.items(), start=1):
        mean, variance = _measure(fast, layer, count, images)
        layer.moving_mean.assign(mean)
        layer.moving_variance.assign(variance)
        seconds = time.monotonic() - reported
        if number == len(uses) or seconds > _REPORT_SECONDS:
            progress.epoch({"epoch": number, "seconds": seconds})
            reported = time.monotonic()
    if validation is None or _correct(model, validation) >= correct:
        return True
    for variable, value in zip(variables, before, strict=True):
        variable.assign(value)
    return False


def epochs_worth(model: keras.Model, images: int) -> float:
    """About how many training epochs on so many images take as long as `recalibrate_batch_norm`."""
    # Each layer takes half a forward pass in float32 on average, and an epoch about three passes,
    # which on some hardware are twice as fast.
    layers = len(_measured_layers(model))
    return layers / 3 * min(_count(layers), images) / images


def _count(layers: int) -> int:
    """The number of images for so many layers."""
    return max(_LEAST_IMAGES, min(_IMAGES, _LAYER_IMAGES // max(layers, 1)))


def _measured_layers(model: keras.Model) -> set[keras.Layer]:
    return {
        layer
        for layer in private_api.flat_layers(model)
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    }


def _uses(model: keras.Model, image: np.ndarray) -> dict[keras.Layer, int]:
    """The layers to measure in the order of execution, and how often each is used."""
    return execution.uses(model, image, _measured_layers(model))


def _measure(
    fast: keras.Model, layer: keras.Layer, uses: int, images: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of a layer's inputs, along its axis."""
    moments: list[np.ndarray] = []

    def measure(x: Any) -> None:
        axis = layer.axis % len(x.shape)
        places = tuple(i for i in range(1, len(x.shape)) if i != axis)  # none behind a Dense layer
        each = [ops.mean(y, places) if places else y for y in (x, ops.square(x))]
        moments.append(ops.convert_to_numpy(ops.concatenate(each, axis=-1)))
        if not len(moments) % uses:
            raise _Measured

    with execution.observed(layer, measure):
        # Made while the layer is observed, which therefore runs as stock.
        model = accelerate.alike(accelerate.stock(fast), fast)
        size = loading.batch_size(images.shape[1:], model)
        for start in range(0, len(images), size):
            with contextlib.suppress(_Measured):
                execution.predict(model, images[start : start + size])
    mean, square = np.split(np.concatenate(moments).mean(axis=0, dtype=np.float64), 2)
    return mean, np.maximum(square - mean**2, 0)


class _Measured(BaseException):
    """Ends a prediction whose rest is not needed; Keras would wrap an Exception."""


def _correct(model: keras.Model, part: Part) -> int:
    return int((loading.logits(model, part.images).argmax(axis=1) == part.labels).sum())
