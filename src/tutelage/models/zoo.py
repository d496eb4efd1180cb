"""Named teachers and students, built from stock Keras layers only.

Each takes raw uint8 images (normalization is built in) and returns logits, so a
saved file can be used without this package.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from tutelage.data.content import Images
from tutelage.errors import ModelError, RecipeError
from tutelage.models.architectures import ARCHITECTURES, MLP

_WHITENING_IMAGES = 2000
_WHITENING_BYTES = 2**29  # of patches at once
_EXACT_BYTES, _SAMPLE_BYTES = 2**28, 2**27  # of images in normalization
_CHUNK_BYTES = 2**26  # of pixels as int64 at once


def build(name: str, *, images: Images, classes: int, seed: int) -> keras.Model:
    """Build a named model; its initial weights depend only on the images and the seed.

    The images' mean and standard deviation per channel are built in as normalization. In
    convolutional networks, the first convolution is initialized to whiten patches and the
    others to the identity, which trains in fewer epochs than random weights; the
    architecture and the trainable weights are unaffected.

    Args:
        name: one of `ARCHITECTURES`.
        images: the training images, uint8 of shape (count, height, width, channels), in memory or
            in files; if they take over 256 MiB, 2,000 evenly spaced ones count, at most 128 MiB.
        classes: number of classes, at least 2.
        seed: seed of the initial weights and of dropout, at least 0.

    Returns:
        A Functional model from uint8 images to float32 logits of shape (batch, classes).

    Raises:
        RecipeError: if an argument is invalid.
        ModelError: if the images are too small for the pooling layers.

    Source: whitening and identity initialization, sections 3.1 and 3.2 of arXiv 2404.00498
    (there as separate layers). `mlp-1200` and `mlp-800` are those of section 3 of
    arXiv 1503.02531; dropout and the maximum norm are those of arXiv 1207.0580.

    Example:

    >>> import numpy as np
    >>> from tutelage.models import zoo
    >>> images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    >>> zoo.build("teacher-2m", images=images, classes=10, seed=0).count_params()
    2201418
    """
    _check(name, images, classes, seed)
    architecture = ARCHITECTURES[name]
    height, width, channels = images.shape[1:]
    seeds = _seeds(seed)
    sample = _sample(images)
    mean, spread = _statistics(sample)
    scale = 1.0 / np.maximum(spread, 1.0)
    offset = -mean * scale

    def dropout(x: keras.KerasTensor, rate: float, name: str) -> keras.KerasTensor:
        layer = layers.Dropout(rate, seed=next(seeds), dtype="float32", name=name) if rate else None
        return layer(x) if layer else x

    def normalize(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        return layers.BatchNormalization(momentum=0.9, dtype="float32", name=name)(x)

    def dense(
        x: keras.KerasTensor, units: int, activation: str | None, name: str, norm: float = 0.0
    ) -> keras.KerasTensor:
        initial = keras.initializers.GlorotUniform(next(seeds))
        limit = keras.constraints.MaxNorm(norm, axis=0) if norm else None
        settings = {"kernel_initializer": initial, "dtype": "float32", "name": name}
        return layers.Dense(units, activation, kernel_constraint=limit, **settings)(x)

    inputs = keras.Input((height, width, channels), dtype="uint8", name="images")
    x = layers.Rescaling(scale.tolist(), offset.tolist(), dtype="float32", name="rescaling")(inputs)
    if isinstance(architecture, MLP):
        x = layers.Flatten(dtype="float32", name="flatten")(x)
        x = dropout(x, architecture.dropout[0], "pixels_dropout")
        hidden = zip(architecture.units, architecture.dropout[1:], strict=True)
        for number, (units, rate) in enumerate(hidden, start=1):
            x = dense(x, units, "relu", f"hidden{number}", architecture.max_norm)
            x = dropout(x, rate, f"hidden{number}_dropout")
        return keras.Model(inputs, dense(x, classes, None, "logits"), name=name.replace("-", "_"))
    blocks = zip(architecture.filters, architecture.dropout, strict=True)
    for block, (both, rate) in enumerate(blocks, start=1):
        for number, filters in enumerate(both, start=1):
            initial = keras.initializers.GlorotUniform(next(seeds))
            x = layers.Conv2D(
                filters,
                3,
                padding="same",
                activation="relu",
                kernel_initializer=initial,
                dtype="float32",
                name=f"block{block}_conv{number}",
            )(x)
            x = normalize(x, f"block{block}_norm{number}")
        x = layers.MaxPooling2D(2, dtype="float32", name=f"block{block}_pool")(x)
        x = dropout(x, rate, f"block{block}_dropout")
    if architecture.dense:
        x = layers.Flatten(dtype="float32", name="flatten")(x)
        x = normalize(dense(x, architecture.dense, "relu", "hidden"), "hidden_norm")
        x = dropout(x, architecture.dense_dropout, "hidden_dropout")
    else:
        x = layers.GlobalAveragePooling2D(dtype="float32", name="pooling")(x)
    model = keras.Model(inputs, dense(x, classes, None, "logits"), name=name.replace("-", "_"))
    _prime(model, sample[:_WHITENING_IMAGES], scale, offset)
    return model


def macs(model: keras.Model) -> int:
    """Multiply-accumulate operations of the forward pass of one image.

    Counts two-dimensional convolutions, including depthwise and separable ones, and dense
    layers, which dominate; biases, normalization, activations, pooling and other layers
    are not counted.

    Args:
        model: a built Functional or Sequential model with one input of fixed size.

    Returns:
        The number of multiply-accumulates.

    Raises:
        ModelError: if the model takes images of any size.

    Example:

    >>> import keras
    >>> from tutelage.models import zoo
    >>> zoo.macs(keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)]))
    32
    """
    return sum(_layer_macs(layer) for layer in model.layers)


def _layer_macs(layer: keras.Layer) -> int:
    if isinstance(layer, keras.Model):
        return macs(layer)
    if isinstance(layer, layers.SeparableConv2D):
        kernels = [layer.depthwise_kernel, layer.pointwise_kernel]
    elif isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D | layers.Dense):
        kernels = [layer.kernel]
    else:
        return 0
    # Each kernel weight is used once per output position.
    sizes: tuple[Any, ...] = getattr(getattr(layer, "output", None), "shape", (None, None))[1:]
    if None in sizes:
        raise ModelError(
            f"{layer.name}: expected a layer of fixed size to count its operations, found output "
            f"of shape {sizes}; give the model an input of fixed height and width"
        )
    channels = sizes[0 if getattr(layer, "data_format", "") == "channels_first" else -1]
    positions = math.prod(sizes) // channels
    return positions * sum(math.prod(kernel.shape) for kernel in kernels)


def _check(name: str, images: Images, classes: int, seed: int) -> None:
    if name not in ARCHITECTURES:
        raise RecipeError(f"model: expected one of {', '.join(ARCHITECTURES)}, found {name!r}")
    if images.dtype != np.uint8 or images.ndim != 4 or not images.size:
        raise RecipeError(
            "images: expected uint8 of shape (count, height, width, channels), "
            f"found {images.dtype} of shape {images.shape}; give the raw training images"
        )
    if classes < 2 or seed < 0:
        raise RecipeError(
            f"expected at least 2 classes and a seed of at least 0, found {classes} and {seed}"
        )
    height, width = images.shape[1:3]
    smallest = ARCHITECTURES[name].smallest
    if min(height, width) < smallest:
        raise ModelError(
            f"{name}: expected images of at least {smallest}x{smallest} pixels, "
            f"found {height}x{width}; set data.size to enlarge them"
        )


def _sample(images: Images) -> np.ndarray:
    """The images that normalization and whitening are computed from."""
    if images.size <= _EXACT_BYTES:
        return images[:]
    count = min(_WHITENING_IMAGES, max(1, _SAMPLE_BYTES // math.prod(images.shape[1:])))
    return images[np.linspace(0, len(images) - 1, count).astype(int)]


def _statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Exact mean and standard deviation of each channel, computed in chunks."""
    channels = images.shape[-1]
    total, squares = np.zeros((2, channels), np.int64)
    step = max(1, _CHUNK_BYTES // (8 * images[0].size))
    for start in range(0, len(images), step):
        pixels = images[start : start + step].reshape(-1, channels).astype(np.int64)
        total += pixels.sum(axis=0)
        squares += (pixels**2).sum(axis=0)
    count = images.size // channels
    mean = total / count
    return mean, np.sqrt(np.maximum(squares / count - mean**2, 0))


def _prime(model: keras.Model, images: np.ndarray, scale: np.ndarray, offset: np.ndarray) -> None:
    first, *others = (layer for layer in model.layers if isinstance(layer, layers.Conv2D))
    kernel = ops.convert_to_numpy(first.kernel.value)
    first.kernel.assign(_whitening(kernel, images, scale, offset))
    for layer in others:
        kernel = ops.convert_to_numpy(layer.kernel.value).copy()
        passed = min(kernel.shape[2:])
        kernel[..., :passed] = 0
        kernel[1, 1, range(passed), range(passed)] = 1
        layer.kernel.assign(kernel)


def _whitening(
    kernel: np.ndarray, images: np.ndarray, scale: np.ndarray, offset: np.ndarray
) -> np.ndarray:
    """A kernel (h, w, channels, filters) whose first filters are the images' principal patches.

    Each appears with both signs, as the ReLU passes only one of them.
    """
    size, values = kernel.shape[:2], kernel[..., 0].size
    needed = 8 * values * images[..., 0].size
    # In one chunk where possible, as chunks change the rounding; else in small ones.
    limit = _WHITENING_BYTES if needed <= _WHITENING_BYTES else _WHITENING_BYTES // 8
    step = max(1, limit * len(images) // needed)
    count, squares = 0, np.zeros((values, values))
    for start in range(0, len(images), step):
        part = images[start : start + step] * scale + offset
        patches = np.lib.stride_tricks.sliding_window_view(part, size, axis=(1, 2))
        flat = patches.transpose(0, 1, 2, 4, 5, 3).reshape(-1, values)
        count, squares = count + len(flat), squares + flat.T @ flat
    variance, direction = np.linalg.eigh(squares / count)
    count = min(kernel.shape[3] // 2, len(variance))
    # The constant keeps directions of little variance from being amplified to noise.
    white = direction[:, ::-1] / np.sqrt(np.maximum(variance[::-1], 0) + 5e-4)
    white = white[:, :count].reshape(*kernel.shape[:3], count)
    rest = kernel[..., 2 * count :]
    return np.concatenate([white, -white, rest], axis=3).astype(np.float32)


def _seeds(seed: int) -> Iterator[int]:
    generator = np.random.default_rng(seed)
    while True:
        yield int(generator.integers(2**31))
