"""Given models as teachers that return logits or as students to train."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tutelage import storage
from tutelage.data.content import Images
from tutelage.errors import ModelError, RecipeError
from tutelage.models import (
    class_names,
    file_metadata,
    keras_adapter,
    loading,
    onnx_adapter,
    stored_logits,
    torch_adapter,
)
from tutelage.models.digest import keras_digest, onnx_digest, torch_digest
from tutelage.models.preprocessing import Preprocessing
from tutelage.models.probing import TeacherFunction
from tutelage.models.source import Source, find
from tutelage.recipe import MODELS, suggestions

_RAW = Preprocessing()
_TEACHERS = "a .keras, .onnx or .npy file, a run folder, or package.module:function"
_STUDENTS = "a .keras file or package.module:function: a student is trained, as a Keras model"
_UNTRAINED_TEACHERS = (
    "package.module:function, which returns a Keras model that the run trains; give a trained "
    "teacher as teacher.file"
)


@dataclass(frozen=True)
class Teacher:
    """A teacher: a model that computes logits of any image, or stored logits.

    Attributes:
        name: its name for messages.
        digest: hash of what its logits depend on: weights, architecture, preprocessing and the
            source code of custom classes.
        model: a copy from uint8 images to logits that can be saved; None if not a Keras model.
        logits: function from uint8 images (n, height, width, channels) and a precision, which
            ONNX Runtime ignores, to float32 logits (n, classes); None for stored logits.
        stored: float32 logits (n, classes) of the training images, in order, or None.
        notes: notes for the user, one line each.
        member_logits: like `logits`, but of each member, (n, teachers, classes), for an ensemble
            that averages losses; else None.
    """

    name: str
    digest: str
    model: keras.Model | None
    logits: TeacherFunction | None
    stored: np.ndarray | None
    notes: tuple[str, ...]
    member_logits: TeacherFunction | None = None


def teacher(
    source: Source,
    *,
    images: Images,
    classes: tuple[str, ...],
    preprocessing: Preprocessing = _RAW,
) -> Teacher:
    """Make a teacher from a model or from stored logits.

    For a model that ends in softmax, the logits before it are used, or the logarithms of its
    probabilities. If a file's class names are in another order than the data's, its outputs are
    reordered. A Keras model is copied; a PyTorch module is not, and runs in evaluation mode: leave
    it unchanged while a student trains.

    Args:
        source: a Keras model; a PyTorch module with one NCHW input; the path of a `.keras` file,
            of a run folder with `teacher.keras`, of an `.onnx` file, or of a `.npy` file of the
            training images' logits with a manifest `NAME.json` next to it that contains
            `{"images": image_hash(images), "classes": [...]}`; or `package.module:function`, which
            returns a trained Keras model or PyTorch module. If the function has parameters
            `input_shape`, (height, width, channels), and `classes`, it gets them.
        images: the training images, uint8 of shape (n, height, width, channels).
        classes: the classes' names, at least 2, in label order.
        preprocessing: the model's preprocessing; not for stored logits.

    Returns:
        The teacher.

    Raises:
        RecipeError: if an argument is invalid.
        ModelError: if the model can't be loaded, doesn't match the images, or has other classes.
        LogitsError: if the stored logits don't match.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from tutelage.models import resolve
    >>> from tutelage.models.preprocessing import Preprocessing
    >>> model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
    >>> model.add(keras.layers.Dense(2, "softmax"))
    >>> images = np.zeros((4, 8, 8, 1), np.uint8)
    >>> teacher = resolve.teacher(
    ...     model, images=images, classes=("cat", "dog"), preprocessing=Preprocessing(scale=255)
    ... )
    >>> teacher.notes
    ('it ends in softmax: using the logits before the softmax',)
    >>> teacher.logits(images, "float32").shape
    (4, 2)
    """
    _check(images, classes, preprocessing)
    name, resolved = find(source, _TEACHERS, _offered(images, classes, preprocessing))
    index, named = None, list[str]()
    if isinstance(resolved, Path):
        if resolved.is_dir():
            resolved = resolved / "teacher.keras"
        if not resolved.is_file() and name in MODELS:
            raise ModelError(
                f"no teacher at {name}: it is the name of a network that a run trains; give it as "
                "teacher.model"
            )
        if not resolved.is_file():
            hint = suggestions.did_you_mean(name, MODELS)
            raise ModelError(f"no teacher at {name}: expected {_TEACHERS}{hint}")
        if resolved.suffix == ".npy":
            stored, index, notes = stored_logits.read(resolved, images, classes, preprocessing)
            made = Teacher(name, storage.sha256(resolved), None, None, stored, tuple(notes))
            return _in_order(made, index)
        if resolved.suffix == ".onnx":
            logits, own, notes = onnx_adapter.from_onnx(
                resolved, images, len(classes), preprocessing
            )
            index = class_names.order(name, own, classes, notes)
            digest = onnx_digest(resolved, preprocessing)
            return _in_order(Teacher(name, digest, None, logits, None, tuple(notes)), index)
        if resolved.suffix != ".keras":
            raise RecipeError(
                f"{name} is of an unknown kind: expected {_TEACHERS}; "
                "for any other model, write a function that loads it and give its name"
            )
        index = class_names.order(name, file_metadata.classes(resolved), classes, named)
        resolved = loading.load_model(resolved)
    if isinstance(resolved, keras.Model):
        model, notes = keras_adapter.from_keras(resolved, name, images, len(classes), preprocessing)
        logits, notes = functools.partial(loading.logits, model), [*notes, *named]
        return _in_order(
            Teacher(name, keras_digest(model), model, logits, None, tuple(notes)), index
        )
    logits, notes = torch_adapter.from_torch(resolved, name, images, len(classes), preprocessing)
    return Teacher(name, torch_digest(resolved, preprocessing), None, logits, None, tuple(notes))


def student(
    source: Source,
    *,
    images: Images,
    classes: tuple[str, ...],
    preprocessing: Preprocessing = _RAW,
    seed: int,
    role: str = "student",
) -> tuple[keras.Model, tuple[str, ...]]:
    """Make a student, or a teacher to train, from a Keras model, with its weights.

    The result is a copy with the current weights, state and trainable layers: `source` itself
    is not trained, and each call starts from the same weights.

    Args:
        source: a Keras model, the path of a `.keras` file, or `package.module:function`, which
            returns a Keras model. The function is called after
            `keras.utils.set_random_seed(seed)`, with those of the keyword arguments
            `input_shape`, (height, width, channels), and `classes` that it has parameters for.
        images: as in `teacher`.
        classes: as in `teacher`.
        preprocessing: the model's preprocessing; becomes part of the student.
        seed: seed of a function's initial weights, from 0 to 2**32 - 1.
        role: `"student"`, or `"teacher"` for one that is trained, which can't be a file; for
            messages.

    Returns:
        A model from uint8 images of the data set's shape to logits (batch, classes), and notes
        for the user, one line each.

    Raises:
        RecipeError: if an argument is invalid.
        ModelError: if the model can't be loaded, copied or trained, or doesn't match the data.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from tutelage.models import resolve
    >>> from tutelage.models.preprocessing import Preprocessing
    >>> model = keras.Sequential([keras.Input((16, 16, 1)), keras.layers.Flatten()])
    >>> model.add(keras.layers.Dense(2))
    >>> images = np.zeros((4, 8, 8, 1), np.uint8)
    >>> preprocessing = Preprocessing(size=(16, 16), scale=255)
    >>> classes = ("cat", "dog")
    >>> student, _ = resolve.student(
    ...     model, images=images, classes=classes, preprocessing=preprocessing, seed=0
    ... )
    >>> student.input_shape, student.output_shape
    ((None, 8, 8, 1), (None, 2))
    """
    _check(images, classes, preprocessing)
    if not 0 <= seed < 2**32:
        raise RecipeError(f"seed: expected an integer from 0 to {2**32 - 1}, found {seed}")
    expected = _STUDENTS if role == "student" else _UNTRAINED_TEACHERS
    name, resolved = find(source, expected, _offered(images, classes, preprocessing), seed)
    own = None
    if isinstance(resolved, Path):
        if resolved.suffix != ".keras" or role != "student":
            hint = suggestions.did_you_mean(name, MODELS)
            raise RecipeError(f"{name} can't be a {role}: expected {expected}{hint}")
        own = file_metadata.classes(resolved)
        resolved = loading.load_model(resolved)
    if not isinstance(resolved, keras.Model):
        raise RecipeError(f"{name} is a PyTorch module: expected {expected}")
    model, notes = keras_adapter.from_keras(resolved, name, images, len(classes), preprocessing)
    try:
        index = class_names.order(name, own, classes, notes)
    except ModelError:  # the weights are a start, and training teaches it the data's classes
        index = None
        notes.append("its weights were trained on other classes than the data's")
    if index is not None:
        model = keras_adapter.reordered(model, index)
    if not model.trainable_weights:
        raise ModelError(f"{name} has no trainable weights: set its `trainable` to True")
    return model, tuple(notes)


def _check(images: Images, classes: tuple[str, ...], preprocessing: Preprocessing) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or not images.size:
        raise RecipeError(
            "images: expected uint8 of shape (n, height, width, channels), "
            f"found {images.dtype} of shape {images.shape}; give the raw training images"
        )
    if len(classes) < 2:
        raise RecipeError(f"classes: expected at least 2 names, found {len(classes)}")
    preprocessing.check(images.shape[3])


def _offered(
    images: Images, classes: tuple[str, ...], preprocessing: Preprocessing
) -> dict[str, Any]:
    """The keyword arguments of a function that makes a network."""
    shape = (*(preprocessing.size or images.shape[1:3]), images.shape[3])
    return {"input_shape": shape, "classes": len(classes)}


def _in_order(made: Teacher, index: np.ndarray | None) -> Teacher:
    """A teacher whose outputs were put in the order of the data's classes."""
    if index is None:
        return made
    digest = hashlib.sha256(f"{made.digest} {index.tolist()}".encode()).hexdigest()
    if made.stored is not None:
        return replace(made, digest=digest, stored=made.stored[:, index])
    if made.model is not None:
        model = keras_adapter.reordered(made.model, index)
        logits = functools.partial(loading.logits, model)
        return replace(made, digest=keras_digest(model), model=model, logits=logits)
    compute = made.logits
    assert compute is not None
    return replace(
        made, digest=digest, logits=lambda images, precision: compute(images, precision)[:, index]
    )
