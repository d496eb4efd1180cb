"""What a user names, made into a teacher that answers images or a student that can be trained."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import torch
from scipy.stats import binomtest

from tutelage import storage
from tutelage.errors import ModelError, RecipeError
from tutelage.models import adapters, keras_adapter, loading, stored_logits
from tutelage.models.preprocessing import Preprocessing
from tutelage.models.probing import TeacherFunction
from tutelage.models.source import Source, find

_RAW = Preprocessing()
_TEACHERS = "a .keras, .onnx or .npy file, a run folder, or package.module:function"
_STUDENTS = "a .keras file or package.module:function: a student is trained, as a Keras model"


@dataclass(frozen=True)
class Teacher:
    """What a student learns from: a model that answers any image, or stored logits.

    Attributes:
        name: what to call it in messages.
        digest: hash of what its answers depend on: weights, architecture, entry. Of a class that
            is no library's it holds the source, where there is one.
        model: from uint8 images to logits, a copy that can be saved; None if it is no Keras model.
        answer: gives the float32 logits (n, classes) of uint8 images (n, height, width, channels),
            computed in a precision, which ONNX Runtime does not heed; None for stored logits.
        stored: float32 logits (n, classes) of the training images in their order, or None.
        notes: what was noticed and done, a line each, for the user.
        apart: of several teachers, what each answers, (n, teachers, classes), where a student's
            losses with each are averaged; else None.
    """

    name: str
    digest: str
    model: keras.Model | None
    answer: TeacherFunction | None
    stored: np.ndarray | None
    notes: tuple[str, ...]
    apart: TeacherFunction | None = None


def teacher(
    source: Source, *, images: np.ndarray, classes: tuple[str, ...], entry: Preprocessing = _RAW
) -> Teacher:
    """Make a teacher of a model or of stored logits.

    A model that ends in softmax is taken from before it, or by the logarithm of its
    probabilities. A Keras model is copied; a PyTorch module is asked as it is, in
    evaluation mode, and left as found: leave it unchanged while a student learns.

    Args:
        source: a Keras model; a PyTorch module of one NCHW input; the path of a `.keras` file,
            of a run folder with `teacher.keras`, of an `.onnx` file, or of a `.npy` file of the
            training images' logits with its manifest `NAME.json` beside it, which says
            `{"images": order(images), "classes": [...]}`; or `package.module:function`, called
            without arguments for a Keras model or PyTorch module.
        images: the training images, uint8 of shape (n, height, width, channels).
        classes: the classes' names, at least 2, in the labels' order.
        entry: how the model takes its images; stored logits have none.

    Returns:
        The teacher.

    Raises:
        RecipeError: if an argument is none of these.
        ModelError: if the model can't be loaded, or doesn't fit the images or the classes.
        KnowledgeError: if the stored logits don't.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from tutelage.models import resolve
    >>> from tutelage.models.preprocessing import Preprocessing
    >>> model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
    >>> model.add(keras.layers.Dense(2, "softmax"))
    >>> images = np.zeros((4, 8, 8, 1), np.uint8)
    >>> found = resolve.teacher(
    ...     model, images=images, classes=("cat", "dog"), entry=Preprocessing(scale=255)
    ... )
    >>> found.notes
    ('it ends in softmax: its logits are taken from before that',)
    >>> found.answer(images, "float32").shape
    (4, 2)
    """
    _check(images, classes, entry)
    name, found = find(source, _TEACHERS)
    if isinstance(found, Path):
        if found.is_dir():
            found = found / "teacher.keras"
        if not found.is_file():
            raise ModelError(f"no teacher at {name}: expected {_TEACHERS}")
        if found.suffix == ".npy":
            stored, notes = stored_logits.read(found, images, classes, entry)
            return Teacher(name, storage.sha256(found), None, None, stored, tuple(notes))
        if found.suffix == ".onnx":
            ask, notes = adapters.from_onnx(found, images, len(classes), entry)
            return Teacher(name, _onnx_digest(found, entry), None, ask, None, tuple(notes))
        if found.suffix != ".keras":
            raise RecipeError(
                f"{name} is of no known kind: expected {_TEACHERS}; "
                "load any other model by a function, and name that"
            )
        _refuse_other_classes(found, classes)
        found = loading.load_model(found)
    if isinstance(found, keras.Model):
        model, notes = keras_adapter.from_keras(found, name, images, len(classes), entry)
        ask = functools.partial(loading.logits, model)
        return Teacher(name, loading.digest(model), model, ask, None, tuple(notes))
    ask, notes = adapters.from_torch(found, name, images, len(classes), entry)
    return Teacher(name, _torch_digest(found, entry), None, ask, None, tuple(notes))


def student(
    source: Source,
    *,
    images: np.ndarray,
    classes: tuple[str, ...],
    entry: Preprocessing = _RAW,
    seed: int,
) -> tuple[keras.Model, tuple[str, ...]]:
    """Make a student of a Keras model, with the weights that it has.

    The student is a copy, with weights, state and trainable layers as they are at the moment of
    the call: a model that is given is not trained itself, and calls again begin alike.

    Args:
        source: a Keras model, the path of a `.keras` file, or `package.module:function`, called
            without arguments for a Keras model after `keras.utils.set_random_seed(seed)`.
        images: as for `teacher`.
        classes: as for `teacher`.
        entry: how the model takes its images; becomes a part of the student.
        seed: of a function's initial weights, from 0 to 2**32 - 1.

    Returns:
        A model from uint8 images of the data set's shape to logits (batch, classes), and what
        was noticed and done, a line each, for the user.

    Raises:
        RecipeError: if an argument is none of these.
        ModelError: if the model can't be loaded, copied or trained, or doesn't fit.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from tutelage.models import resolve
    >>> from tutelage.models.preprocessing import Preprocessing
    >>> model = keras.Sequential([keras.Input((16, 16, 1)), keras.layers.Flatten()])
    >>> model.add(keras.layers.Dense(2))
    >>> images = np.zeros((4, 8, 8, 1), np.uint8)
    >>> entry = Preprocessing(size=(16, 16), scale=255)
    >>> classes = ("cat", "dog")
    >>> made, _ = resolve.student(model, images=images, classes=classes, entry=entry, seed=0)
    >>> made.input_shape, made.output_shape
    ((None, 8, 8, 1), (None, 2))
    """
    _check(images, classes, entry)
    if not 0 <= seed < 2**32:
        raise RecipeError(f"seed: expected an integer from 0 to {2**32 - 1}, found {seed}")
    name, found = find(source, _STUDENTS, seed)
    if isinstance(found, Path):
        if found.suffix != ".keras":
            raise RecipeError(f"{name} can't be a student: expected {_STUDENTS}")
        found = loading.load_model(found)
    if not isinstance(found, keras.Model):
        raise RecipeError(f"{name} is a PyTorch module: expected {_STUDENTS}")
    model, notes = keras_adapter.from_keras(found, name, images, len(classes), entry)
    if not model.trainable_weights:
        raise ModelError(f"{name} has no trainable weights: set its `trainable` to True")
    return model, tuple(notes)


def doubtful(answers: np.ndarray, labels: np.ndarray) -> str | None:
    """Say so if a teacher's answers are no better than naming the commonest class.

    Args:
        answers: logits of shape (n, classes), of images it has not been trained on.
        labels: integers of shape (n,).

    Returns:
        A warning of one line with the accuracy, unless that is above the commonest class's
        share by a one-sided binomial test at 1 %.

    Raises:
        RecipeError: if there are no answers, or not as many as labels.

    Example:

    >>> import numpy as np
    >>> from tutelage.models import resolve
    >>> from tutelage.models.preprocessing import Preprocessing
    >>> labels = np.arange(40) % 4
    >>> resolve.doubtful(np.eye(4)[labels], labels) is None
    True
    """
    if answers.ndim != 2 or labels.shape != answers.shape[:1] or not len(labels):
        raise RecipeError(
            "expected answers of shape (n, classes) and labels of shape (n,), "
            f"found {answers.shape} and {labels.shape}"
        )
    right = int((answers.argmax(axis=1) == labels).sum())
    share = np.unique(labels, return_counts=True)[1].max() / len(labels)
    if binomtest(right, len(labels), share, alternative="greater").pvalue < 0.01:
        return None
    return (
        f"the teacher is right on {right / len(labels):.1%} of {len(labels)} images, no better "
        f"than always naming the commonest class ({share:.1%}): check the order of its classes "
        "and how it takes its images (size, scale, mean, std)"
    )


def _check(images: np.ndarray, classes: tuple[str, ...], entry: Preprocessing) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or not images.size:
        raise RecipeError(
            "images: expected uint8 of shape (n, height, width, channels), "
            f"found {images.dtype} of shape {images.shape}; give the raw training images"
        )
    if len(classes) < 2:
        raise RecipeError(f"classes: expected at least 2 names, found {len(classes)}")
    entry.check(images.shape[3])


def _refuse_other_classes(path: Path, classes: tuple[str, ...]) -> None:
    """Compare with the classes that the run a model lies in was of, if it lies in one."""
    try:
        results = json.loads((path.parent / "results.json").read_text(encoding="utf-8"))
        there = tuple(results["data"]["classes"])
    except (OSError, ValueError, KeyError, TypeError):
        return
    if there != classes:
        pairs = itertools.zip_longest(there, classes)
        first, (one, other) = next((i, p) for i, p in enumerate(pairs) if p[0] != p[1])
        raise ModelError(
            f"{path} was trained on {len(there)} classes, the data has {len(classes)}; class "
            f"{first} is {one!r} there and {other!r} here: names and order must be the same"
        )


def _torch_digest(module: torch.nn.Module, entry: Preprocessing) -> str:
    told = hashlib.sha256(f"{entry} {module} {loading.own_code(module.modules())}".encode())
    for name, tensor in itertools.chain(module.named_parameters(), module.named_buffers()):
        told.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        told.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return told.hexdigest()


def _onnx_digest(path: Path, entry: Preprocessing) -> str:
    told = hashlib.sha256(f"{entry} {storage.sha256(path)}".encode())
    # Weights of more than 2 GB, and often smaller ones, lie in files beside that it names.
    graph = path.read_bytes()
    for beside in sorted(path.parent.iterdir()):
        if beside != path and beside.name.encode() in graph and beside.is_file():
            told.update(f"{beside.name} {storage.sha256(beside)}".encode())
    return told.hexdigest()
