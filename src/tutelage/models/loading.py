"""Loading, validation and predictions of trained Keras models."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from scipy.special import softmax

from tutelage import private_api
from tutelage.data import view_loader
from tutelage.data.content import Images
from tutelage.data.geometry import Geometry
from tutelage.data.image_files import ImageFiles
from tutelage.distillation import output_kind
from tutelage.errors import ModelError
from tutelage.kernels import accelerate
from tutelage.models import class_names, file_metadata, onnx_model

BATCH = 250  # images of a prediction, at most
_ACTIVATIONS = 256 * 2**20  # bytes of activations of a prediction
_MAPS = 256  # feature maps of the images' size, for a model that does not tell its own


def load_model(path: str | os.PathLike[str]) -> keras.Model:
    """Load a `.keras` file.

    Args:
        path: the file.

    Returns:
        The model.

    Raises:
        ModelError: if the file doesn't exist, or is not a Keras model file.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"no model file {path}: expected a .keras file")
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # Keras raises many types for a damaged file
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{path} can't be read as a .keras model: {reason}") from error


def load_logits_model(path: str | os.PathLike[str], notes: list[str]) -> keras.Model:
    """Load a `.keras` file as a model that returns logits, with a note if it ends in softmax.

    Args:
        path: the file.
        notes: receives the note.

    Returns:
        The model, without the softmax or sigmoid that it ends in.

    Raises:
        ModelError: if the file doesn't exist, or is not a Keras model file.
    """
    model, activation = output_kind.logits_model(load_model(path))
    output_kind.note_activation(activation, notes)
    return model


def check_fit(
    model: keras.Model, name: str | os.PathLike[str], shape: tuple[int, ...], classes: int
) -> None:
    """Check that a model matches the images' shape and the number of classes.

    Args:
        model: the model.
        name: the model's name for error messages.
        shape: (height, width, channels) of the images.
        classes: number of classes.

    Raises:
        ModelError: if it doesn't.
    """
    refuse_unfit(name, *_geometry(model, name), shape, classes)


def refuse_unfit(
    name: str | os.PathLike[str],
    takes: tuple[int, ...],
    gives: int,
    shape: tuple[int, ...],
    classes: int,
) -> None:
    """Raise ModelError if a model's shape or number of classes differs from the data's."""
    if takes != shape:
        raise ModelError(
            f"{name} takes images of shape {takes}, but these are {shape}: "
            "resize them with data.size, or choose another model"
        )
    if gives != classes:
        raise ModelError(
            f"{name} has {gives} classes, but the data has {classes}: choose another model"
        )


def logits(model: keras.Model, images: Images, precision: str = "float32") -> np.ndarray:
    """Compute a model's logits in inference mode.

    Args:
        model: a model from uint8 images to logits.
        images: uint8 of shape (n, height, width, channels), in memory or in files.
        precision: precision of the computation; `"float32"` is reproducible on any machine.

    Returns:
        float32 of shape (n, classes).
    """
    size = batch_size(images.shape[1:], model)
    fast = accelerate.accelerate(model, precision)
    if isinstance(images, ImageFiles):
        outputs = in_batches(fast.predict_on_batch, images, size)
    else:
        outputs = fast.predict(images, batch_size=size, verbose=0)
    return np.asarray(outputs, dtype=np.float32)


def logits_of_batches(
    model: keras.Model, precision: str = "float32"
) -> Callable[[np.ndarray], np.ndarray]:
    """A function that computes `logits` of one batch after the other.

    Args:
        model: as for `logits`.
        precision: as for `logits`.

    Returns:
        A function from uint8 images in memory to float32 logits.

    Example:

    >>> import keras, numpy as np
    >>> from tutelage.models import loading
    >>> model = keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Flatten()])
    >>> loading.logits_of_batches(model)(np.ones((3, 2, 2, 1), np.uint8)).shape
    (3, 4)
    """
    fast = accelerate.accelerate(model, precision)

    def compute(images: np.ndarray) -> np.ndarray:
        size = batch_size(images.shape[1:], model)
        return np.asarray(in_batches(fast.predict_on_batch, images, size), dtype=np.float32)

    return compute


def batch_size(shape: tuple[int, ...], model: keras.Model | None = None) -> int:
    """How many images to predict at once: 250, or fewer to keep activations within 256 MB.

    While a graph runs, the outputs of all its layers are kept. Of a model without a graph of
    layers nothing is known: it counts as 256 feature maps of the images' size.

    Args:
        shape: (height, width, channels) of the images.
        model: what predicts; None if it is no Keras model.

    Returns:
        The number of images, at least 1.

    Example:

    >>> from tutelage.models import loading
    >>> loading.batch_size((32, 32, 3)), loading.batch_size((128, 128, 3))
    (250, 16)
    """
    values = _MAPS * math.prod(shape[:2]) if model is None else activations(model, shape)
    return max(1, min(BATCH, _ACTIVATIONS // (4 * values)))


def activations(model: keras.Model, shape: tuple[int, ...]) -> int:
    """How many values the outputs of a model's layers have for one image.

    Args:
        model: the model.
        shape: (height, width, channels) of the image.

    Returns:
        The number; 256 feature maps of the image's size if the model has no graph of layers.
    """
    unknown, total = _MAPS * math.prod(n or 1 for n in shape[:2]), 0
    graph = private_api.graph(accelerate.stock(model))
    if not private_api.has_nodes(graph):
        return unknown
    for node in private_api.nodes(graph):
        operation = node.operation
        if isinstance(operation, keras.Model):
            total += activations(operation, node.input_tensors[0].shape[1:])
            continue
        sizes = [output.shape[1:] for output in node.outputs]
        if any(None in size for size in sizes):
            return unknown
        layered = isinstance(operation, keras.Layer)
        inner = private_api.flat_layers(operation, include_self=False) if layered else []
        total += (1 + len(inner)) * sum(math.prod(size) for size in sizes)
    return total


def in_batches(
    predict: Callable[[np.ndarray], np.ndarray], images: Images, size: int | None = None
) -> np.ndarray:
    """Outputs of a function for images, computed a batch at a time; by default, of `batch_size`."""
    size = size or batch_size(images.shape[1:])
    batches = view_loader.in_batches(images, size)
    return np.concatenate([np.asarray(predict(batch)) for batch in batches])


def predict(path: Path, images: Sequence[Path], top: int = 3) -> list[dict[str, Any]]:
    """Classify images: the most likely classes of each.

    Args:
        path: the model file; class names are read from it, or from `results.json` next to it.
        images: the image files, at least one, resized to the model's input.
        top: the number of classes to return, at least 1; all if there are fewer.

    Returns:
        For each image, `image` and `classes`, most likely first, each with `name` and
        `probability`. Classes without names are called `class 0` and so on.

    Raises:
        RecipeError: if there are no images, or `top` is below 1.
        ModelError: if the file is not an image model.
        DataError: if an image can't be read.
    """
    model = load_logits_model(path, [])
    shape, count = _geometry(model, path)
    geometry = file_metadata.geometry(path, shape[:2]) or Geometry(shape[:2])
    pictures = onnx_model.read_pictures(images, geometry, shape[2], path, top)
    outputs = logits(model, pictures).astype(np.float64)
    if (bound := output_kind.lowest_probability(str(path), outputs, [])) is not None:
        outputs = output_kind.log_of(outputs, bound)
    probabilities = softmax(outputs, axis=1)
    names = file_metadata.classes(path) or ()
    if len(names) != count:
        names = class_names.numbered(count)
    return onnx_model.ranked(images, probabilities, names, top)


def _geometry(model: keras.Model, name: str | os.PathLike[str]) -> tuple[tuple[int, int, int], int]:
    """A model's input (height, width, channels) and number of classes."""
    takes, gives = (getattr(model, which, None) for which in ("input_shape", "output_shape"))
    if not isinstance(takes, tuple) or len(takes) != 4 or None in takes[1:]:
        raise ModelError(
            f"{name} takes input of shape {takes}: "
            "expected one input of shape (batch, height, width, channels) and a fixed size"
        )
    if not isinstance(gives, tuple) or len(gives) != 2 or gives[1] is None:
        raise ModelError(
            f"{name} has output of shape {gives}: expected logits of shape (batch, classes)"
        )
    _, activation = output_kind.logits_model(model)
    if activation:
        raise ModelError(
            f"{name} returns {activation} probabilities: expected logits; "
            f"save the model without its {activation}"
        )
    return takes[1:], gives[1]
