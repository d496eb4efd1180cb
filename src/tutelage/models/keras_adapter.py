"""Copies of Keras models that map raw images to logits."""

from __future__ import annotations

import functools
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from tutelage import private_api
from tutelage.data.content import Images
from tutelage.distillation import output_kind
from tutelage.errors import ModelError, reason
from tutelage.models import loading
from tutelage.models.preprocessing import (
    Preprocessing,
    input_size,
    prepared,
    refuse_channels,
    refuse_outputs,
    unused_name,
)
from tutelage.models.probing import probe


def from_keras(
    model: keras.Model, name: str, images: Images, classes: int, preprocessing: Preprocessing
) -> tuple[keras.Model, list[str]]:
    """Copy a Keras model into one that maps raw images to logits.

    The layers of a Functional or Sequential model are copied one by one, after preprocessing
    layers; a model of another class becomes a single layer of the copy.

    Args:
        model: a built model with one image input and one output.
        name: the model's name for error messages.
        images: the training images, uint8 of shape (n, height, width, channels).
        classes: number of classes.
        preprocessing: the model's preprocessing.

    Returns:
        A Functional model from uint8 images of that shape to logits, and notes for the user.

    Raises:
        RecipeError: if `preprocessing` scales images for a model that takes uint8.
        ModelError: if it can't be copied, or doesn't match the data.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from tutelage.models import keras_adapter
    >>> from tutelage.models.preprocessing import Preprocessing
    >>> model = keras.Sequential([keras.Input((None, None, 1)), keras.layers.Conv2D(3, 3)])
    >>> model.add(keras.layers.GlobalAveragePooling2D())
    >>> images = np.zeros((4, 8, 8, 1), np.uint8)
    >>> preprocessing = Preprocessing((9, 9), 255)
    >>> made, notes = keras_adapter.from_keras(model, "mine", images, 3, preprocessing)
    >>> [type(layer).__name__ for layer in made.layers[1:3]], notes
    (['Rescaling', 'Resizing'], ['its images are resized from 8x8 to 9x9 pixels'])
    """
    if not model.built:
        raise ModelError(f"{name} has no weights yet: start it with keras.Input, or call it once")
    shape, notes = images.shape[1:], list[str]()
    declared = keras.tree.flatten(getattr(model, "inputs", None) or [])
    if len(declared) > 1:
        raise ModelError(f"{name} has {len(declared)} inputs: expected one, of images")
    takes = declared[0].shape if declared else (None, None, None, None)
    if len(takes) != 4:
        raise ModelError(
            f"{name} takes input of shape {takes}: expected (batch, height, width, channels)"
        )
    refuse_channels(name, takes[3], shape[2])
    size = input_size(name, shape, takes[1:3], preprocessing, notes)
    dtype = "uint8" if declared and declared[0].dtype == "uint8" else "float32"
    taken = {layer.name for layer in model.layers if not isinstance(layer, layers.InputLayer)}
    inputs, x = prepared(name, shape, preprocessing, size, dtype, taken)
    try:
        outputs = _copied(model, x)
    except Exception as error:  # layers can raise anything
        raise ModelError(
            f"{name} can't be copied for images of shape {x.shape[1:]}: {reason(error)}; "
            "custom classes need a get_config, and images must have the model's size"
        ) from error
    if len(keras.tree.flatten(outputs)) != 1:
        raise ModelError(f"{name} has {len(outputs)} outputs: expected one, of logits")
    (output,) = keras.tree.flatten(outputs)
    refuse_outputs(name, output.shape, classes)
    logits, activation = output_kind.before_activation(output)
    made = keras.Model(inputs, logits, name=model.name)
    outputs_seen = probe(name, functools.partial(loading.logits, made), images, classes)
    output_kind.note_activation(activation, notes)
    if activation:
        return made, notes
    if bound := output_kind.lowest_probability(name, outputs_seen, notes):
        inputs = keras.Input(shape, dtype="uint8", name="images")
        # Ends in a layer, as checks inspect the last layer.
        last = layers.Identity(name="logits")
        x = last(ops.log(ops.maximum(made(inputs), bound)))
        made = keras.Model(inputs, x, name=f"{model.name}_logits")
    return made, notes


def reordered(model: keras.Model, index: np.ndarray) -> keras.Model:
    """The same layers, with the outputs in another order.

    Args:
        model: from images to logits (batch, classes).
        index: the number of the output that belongs to each class.

    Returns:
        The model; its inner layers keep their names.
    """
    # Ends in a layer: the checks look at the last layer, and an operation is none.
    taken = {layer.name for layer in model.layers}
    last = layers.Identity(name=unused_name("classes_in_order", taken))
    logits = last(ops.take(model.outputs[0], index.tolist(), axis=1))
    return keras.Model(model.inputs[0], logits, name=model.name)


def _copied(model: keras.Model, x: keras.KerasTensor) -> Any:
    """Apply a copy of a model, with its weights and state, to `x`."""
    copies: dict[Any, Any] = {}

    def copied(operation: Any) -> Any:
        if operation not in copies:
            copies[operation] = (
                keras.models.clone_model(operation)
                if isinstance(operation, keras.Model)
                else type(operation).from_config(operation.get_config())
            )
        return copies[operation]

    if type(model).__module__.startswith("keras."):
        outputs = private_api.run_through(private_api.graph(model), [x], copied)
    else:
        outputs = copied(model)(x)
    for old, new in copies.items():
        if isinstance(old, keras.Layer):
            for target, variable in zip(new.variables, old.variables, strict=True):
                # Via NumPy: JAX would share the array, and training donates it.
                target.assign(np.array(ops.convert_to_numpy(variable)))
    return outputs
