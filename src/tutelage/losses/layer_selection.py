"""Selection of the intermediate layers that losses on features compare."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from tutelage import private_api
from tutelage.errors import ModelError, RecipeError

_NO_STAGE = (layers.InputLayer, layers.ZeroPadding2D, layers.Dropout)
_HEADS = (layers.Dense, layers.Conv2D)


def stages(model: keras.Model) -> list[str]:
    """The last layer of each stage of a convolutional network, largest map first.

    A stage is all layers of one resolution: the image's, half of it, and so on. Padding,
    dropout and layers before the first trainable one are skipped.

    Args:
        model: a Functional or Sequential model of images, channels last.

    Returns:
        Names of layers whose outputs have the shape (batch, height, width, channels).

    Raises:
        ModelError: there are no stages, or the images have no fixed size.

    Example:

    >>> import keras
    >>> convolution = keras.layers.Conv2D(4, 3, padding="same", name="wide")
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), convolution])
    >>> model.add(keras.layers.MaxPooling2D(name="narrow"))
    >>> stages(model)
    ['wide', 'narrow']
    """
    size = _inside(model).input_shape[1]
    last: dict[int, str] = {}
    learned = False
    for layer in model.layers:
        learned = learned or bool(layer.trainable_variables)
        shape: tuple[Any, ...] = getattr(getattr(layer, "output", None), "shape", ())
        if not learned or len(shape) != 4 or isinstance(layer, _NO_STAGE):
            continue
        if None in (size, shape[1]):
            raise ModelError(
                f"{model.name} takes images of any size, so its stages have no resolution: "
                "name the layers, or give its input a size"
            )
        if shape[1] > 1:
            last[round(math.log2(size / shape[1]))] = layer.name
    if not last:
        raise ModelError(
            f"{model.name} has no feature maps (batch, height, width, channels): "
            "use a loss on logits, or name layers"
        )
    return [last[step] for step in sorted(last)]


def embedding(model: keras.Model) -> str:
    """The layer whose output feeds a classifier's head, skipping dropout.

    Args:
        model: a Functional or Sequential model that ends in a dense layer.

    Returns:
        The layer's name.

    Raises:
        ModelError: there is no head.
    """
    heads = [layer for layer in _inside(model).layers if isinstance(layer, _HEADS)]
    if not heads:
        raise ModelError(f"{model.name} has no dense layer as its head: name the layers")
    layer, _ = private_api.producer(heads[-1].input)
    while isinstance(layer, layers.Dropout):
        layer, _ = private_api.producer(layer.input)
    return str(layer.name)


def named(model: keras.Model, names: Sequence[str], role: str) -> list[str]:
    """Check that named layers exist.

    Args:
        model: the model that should contain them.
        names: the layers' names.
        role: `"teacher"` or `"student"`, for the error message.

    Returns:
        The names.

    Raises:
        RecipeError: there is no such layer; lists those that exist.
    """
    existing = [layer.name for layer in _inside(model).layers]
    for name in names:
        if name not in existing:
            near = difflib.get_close_matches(name, existing, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise RecipeError(
                f"the {role} {model.name} has no layer {name!r}: {hint}it has {', '.join(existing)}"
            )
    return list(names)


def _inside(model: Any) -> Any:
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise ModelError(
            f"a loss on intermediate layers needs a Functional or Sequential model, got "
            f"{type(model).__name__}: use a loss on logits"
        )
    return model
