"""What a model's layers are called with, in the order of execution."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np

if keras.backend.backend() == "torch":
    import torch


@contextlib.contextmanager
def observed(layer: keras.Layer, observe: Callable[[Any], None]) -> Iterator[None]:
    """Call a function with each input of a layer before the layer itself."""
    call, own = layer.call, vars(layer).get("call")

    def observing(inputs: Any, *args: Any, **kwargs: Any) -> Any:
        observe(inputs)
        return call(inputs, *args, **kwargs)

    layer.call = observing
    try:
        yield
    finally:
        del layer.call
        if own is not None:
            layer.call = own


def predict(model: keras.Model, images: np.ndarray) -> Any:
    """Outputs, computed eagerly: a compiled prediction would observe shapes alone."""
    context = torch.no_grad() if keras.backend.backend() == "torch" else contextlib.nullcontext()
    with context:
        return model(images, training=False)


def uses(
    model: keras.Model, image: np.ndarray, layers: Iterable[keras.Layer]
) -> dict[keras.Layer, int]:
    """How often a model uses each of some layers, in the order of execution.

    Args:
        model: a stock model.
        image: one image, of shape (1, height, width, channels).
        layers: layers of the model.

    Returns:
        The number of uses, without the layers that are not used.

    Example:

    >>> import keras, numpy as np
    >>> from tutelage.training import execution
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3), keras.layers.ReLU()])
    >>> list(execution.uses(model, np.zeros((1, 2)), model.layers[::-1]).values())
    [1, 1]
    """
    found: dict[keras.Layer, int] = {}

    def counter(layer: keras.Layer) -> Callable[[Any], None]:
        def count(_: Any) -> None:
            found[layer] = found.get(layer, 0) + 1

        return count

    with contextlib.ExitStack() as stack:
        for layer in layers:
            stack.enter_context(observed(layer, counter(layer)))
        predict(model, image)
    return found
