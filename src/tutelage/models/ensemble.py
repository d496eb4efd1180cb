"""Ensembles of teachers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import keras
import numpy as np
from keras import layers, ops

from tutelage.data.content import Images
from tutelage.errors import RecipeError
from tutelage.models.resolve import Teacher

_LEAST = 1e-7


def ensemble(teachers: Sequence[Teacher], combine: str = "logits") -> Teacher:
    """Combine several teachers into one.

    Args:
        teachers: at least two, of one data set, without stored logits.
        combine: `"logits"`: returns the mean of their logits; `"probabilities"`: the logarithm of
            the mean of their probabilities; `"losses"`: as `"logits"`, but a student's loss is
            the mean of its losses over the members.

    Returns:
        The teacher; a Keras model if all members are and `combine` is not `"losses"`.

    Raises:
        RecipeError: there are too few teachers, or one has stored logits.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from tutelage.models import resolve
    >>> from tutelage.models.ensemble import ensemble
    >>> images, teachers = np.zeros((4, 8, 8, 1), np.uint8), []
    >>> for _ in range(2):
    ...     net = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
    ...     net.add(keras.layers.Dense(2))
    ...     teachers.append(resolve.teacher(net, images=images, classes=("cat", "dog")))
    >>> ensemble(teachers).logits(images, "float32").shape
    (4, 2)
    >>> ensemble(teachers, "losses").member_logits(images, "float32").shape
    (4, 2, 2)
    """
    if len(teachers) < 2:
        raise RecipeError(f"an ensemble needs at least 2 teachers, found {len(teachers)}")
    for teacher in teachers:
        if teacher.stored is not None:
            raise RecipeError(
                f"{teacher.name} has stored logits, which an ensemble can't use: "
                "average the logits yourself, or give models only"
            )
    names = ", ".join(teacher.name for teacher in teachers)
    digests = " ".join([combine, *(teacher.digest for teacher in teachers)])
    notes = [f"{teacher.name}: {note}" for teacher in teachers for note in teacher.notes]
    functions = [teacher.logits for teacher in teachers if teacher.logits is not None]

    def member_logits(images: Images, precision: str) -> np.ndarray:
        return np.stack([compute(images, precision) for compute in functions], axis=1)

    def logits(images: Images, precision: str) -> np.ndarray:
        each = member_logits(images, precision)
        if combine != "probabilities":
            return np.asarray(each.mean(axis=1))
        probabilities = np.exp(each - each.max(axis=-1, keepdims=True))
        probabilities /= probabilities.sum(axis=-1, keepdims=True)
        return np.log(np.maximum(probabilities.mean(axis=1), np.float32(_LEAST)))

    models = [teacher.model for teacher in teachers if teacher.model is not None]
    as_one_model = len(models) == len(teachers) and combine != "losses"
    return Teacher(
        name=f"an ensemble of {names}",
        digest=hashlib.sha256(digests.encode()).hexdigest(),
        model=_mean(models, combine) if as_one_model else None,
        logits=logits,
        stored=None,
        notes=tuple(notes),
        member_logits=member_logits if combine == "losses" else None,
    )


def _mean(models: Sequence[keras.Model], combine: str) -> keras.Model:
    images = keras.Input(models[0].input_shape[1:], dtype="uint8", name="images")
    outputs = []
    for number, model in enumerate(models):
        member = keras.Model(model.inputs, model.outputs, name=f"member_{number}")
        (output,) = keras.tree.flatten(member(images))
        outputs.append(output)
    if combine == "probabilities":
        mean = layers.Average()([layers.Softmax()(output) for output in outputs])
        logits = layers.Identity(name="logits")(ops.log(ops.maximum(mean, _LEAST)))
    else:
        logits = layers.Average(name="logits")(outputs)
    return keras.Model(images, logits, name="ensemble")
