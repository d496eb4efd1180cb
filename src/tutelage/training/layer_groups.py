"""Layer groups, from the input to the head: other rates for each, or all but the head frozen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops

from tutelage import private_api
from tutelage.errors import ModelError
from tutelage.training import execution


def layer_groups(model: keras.Model, image: np.ndarray) -> list[list[keras.Layer]]:
    """The layers with weights in the order of execution, grouped by kernels.

    A group is a layer with a kernel, a weight of two or more dimensions, and the layers behind
    it that have none, such as a normalization. A layer made of others, such as an attention
    layer, is one layer, but a model within the model is not. The last group is the head.

    Args:
        model: a stock model.
        image: one image, of shape (1, height, width, channels).

    Returns:
        The groups.

    Raises:
        ModelError: if the head has no trainable weights.

    Example:

    >>> import keras, numpy as np
    >>> from tutelage.training.layer_groups import layer_groups
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, name="inner")])
    >>> model.add(keras.layers.LayerNormalization(name="norm"))
    >>> model.add(keras.layers.Dense(2, name="head"))
    >>> groups = layer_groups(model, np.zeros((1, 2)))
    >>> [[layer.name for layer in group] for group in groups]
    [['inner', 'norm'], ['head']]
    """
    layers = [layer for layer in _outermost(model) if layer.weights]
    used = list(execution.uses(model, image, layers))
    groups: list[list[keras.Layer]] = [[]]
    for layer in [layer for layer in layers if layer not in used] + used:
        if _has_kernel(layer) and any(map(_has_kernel, groups[-1])):
            groups.append([])
        groups[-1].append(layer)
    if not any(layer.trainable_weights for layer in groups[-1]):
        raise ModelError(
            f"{head(groups)}, the head of the model, has no trainable weights: set its `trainable` "
            "to True"
        )
    return groups


def head(groups: Sequence[Sequence[keras.Layer]]) -> str:
    """The name of the head's layer with a kernel."""
    return next((layer.name for layer in groups[-1] if _has_kernel(layer)), groups[-1][0].name)


@contextmanager
def frozen(model: keras.Model, groups: Sequence[Sequence[keras.Layer]]) -> Iterator[None]:
    """Freeze groups of a model's layers in this block; their normalizations run in inference mode.

    Args:
        model: the model.
        groups: some of its `layer_groups`.
    """
    # A layer passes its setting on to its parts, which come after it here.
    parts = [*private_api.flat_layers(model), *model.variables]
    before = [(part, part.trainable) for part in parts]
    for group in groups:
        for layer in group:
            layer.trainable = False
    try:
        yield
    finally:
        for part, trainable in before:
            part.trainable = trainable


class LayerRates(keras.callbacks.Callback):
    """Multiplies each group's steps by a factor: decay for that before the head, decay^2, ...

    Steps that are proportional to the learning rate, weight decay included, are then those of a
    smaller rate. The head, and what is no part of a group, have the whole rate.

    Args:
        groups: the model's `layer_groups`.
        decay: above 0 and below 1.

    Source: section 3.2 of arXiv 1801.06146; arXiv 2106.08254 has transformer blocks as groups.
    """

    def __init__(self, groups: Sequence[Sequence[keras.Layer]], decay: float):
        super().__init__()
        factors: dict[int, tuple[keras.Variable, float]] = {}  # variables can't be keys
        for depth, group in enumerate(reversed(groups)):
            for layer in group:
                for weight in layer.trainable_weights:
                    factors[id(weight)] = weight, decay**depth
        self.factors = [(weight, factor) for weight, factor in factors.values() if factor < 1]

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        _ = self.model  # on JAX, gives the variables the values of the last step
        self.before = [ops.copy(ops.stop_gradient(weight.value)) for weight, _ in self.factors]

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        _ = self.model
        for (weight, factor), before in zip(self.factors, self.before, strict=True):
            weight.assign(before + factor * (ops.stop_gradient(weight.value) - before))


def _outermost(model: keras.Model) -> Iterator[keras.Layer]:
    """A model's layers, and those of models in it."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _outermost(layer)
        else:
            yield layer


def _has_kernel(layer: keras.Layer) -> bool:
    # Statistics of a normalization may have several dimensions, too.
    weights = layer.trainable_weights if layer.trainable else layer.weights
    return any(len(weight.shape) > 1 for weight in weights)
