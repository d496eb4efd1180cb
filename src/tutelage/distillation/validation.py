"""Validation of a distiller's models, losses and weights."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

import keras

from tutelage.distillation import output_kind
from tutelage.distillation.loss_terms import compares_layers
from tutelage.errors import ModelError, RecipeError
from tutelage.kernels import accelerate
from tutelage.losses import is_finite_number

_INPUTS = {"images", "teacher_logits"}
_FORMER_NAMES = {"loss": "distillation_losses", "loss_weights": "distillation_loss_weights"}


def check(student: Any, teachers: list[Any], losses: list[Any], alpha: Any) -> None:
    """Check the arguments of a `Distiller`.

    Args:
        student: the student.
        teachers: one or more; None if stored logits are used instead.
        losses: the distillation losses.
        alpha: weight of the distillation losses.

    Raises:
        ModelError: the models can't be used together.
        RecipeError: a loss or alpha is invalid.
    """
    if not losses or not teachers:
        raise RecipeError(
            "at least one distillation loss and one teacher are expected, got an empty list; "
            "leave distillation_losses out for KD(), and give teacher=None with stored logits"
        )
    for loss in losses:
        _check_loss(loss, teachers)
    if not is_finite_number(alpha) or not 0 <= alpha <= 1:
        raise RecipeError(
            f"alpha must be a number from 0 to 1, got {alpha!r}; 0 is the baseline, 0.9 is common"
        )
    _check_model("student", student)
    _, activation = output_kind.logits_model(accelerate.stock(student))
    if activation == "sigmoid":
        raise ModelError(
            "student must return logits or end in softmax, got a model that ends in sigmoid, one "
            "probability per class; remove the sigmoid, as the losses are of a softmax"
        )
    for teacher in teachers:
        if teacher is None and len(teachers) == 1:
            return
        _check_model("teacher", teacher)
        _check_pair(student, teacher)
        for loss in losses:
            loss.validate_model_compatibility(accelerate.stock(teacher), accelerate.stock(student))


def check_class_weights(weights: Any) -> None:
    """Check the weights of classes in the hard loss.

    Args:
        weights: a weight by class, or None.

    Raises:
        RecipeError: they are invalid.
    """
    if weights is None:
        return
    if not isinstance(weights, Mapping) or not all(
        str(k).isdecimal() and is_finite_number(weight) and weight >= 0
        for k, weight in weights.items()
    ):
        raise RecipeError(
            "class_weights must map class numbers to finite numbers of at least 0, got "
            f"{weights!r}; give such as {{0: 1.0, 1: 2.5}}"
        )


def check_hard_loss(loss: Any) -> None:
    """Check the loss given to `Distiller.compile`.

    Raises:
        RecipeError: it is computed from probabilities.
    """
    for each in keras.tree.flatten(loss):
        found = keras.losses.get(each) if isinstance(each, str) else each
        from_logits = getattr(found, "from_logits", None)
        if inspect.isroutine(found) or isinstance(found, functools.partial):
            argument = inspect.signature(found).parameters.get("from_logits")
            from_logits = argument and argument.default
        if from_logits is False:
            name = getattr(getattr(found, "func", found), "__name__", type(found).__name__)
            raise RecipeError(
                f"loss must be computed from logits, got {name} with Keras' default of "
                "from_logits=False; set from_logits=True, also for a student that ends in softmax, "
                "or leave loss out for CrossEntropy()"
            )


def check_arguments(unknown: dict[str, Any]) -> None:
    """Raise on unknown arguments of `Distiller`; those of version 0.1.0 by their new names.

    Args:
        unknown: the unknown arguments.

    Raises:
        TypeError: names the argument and its replacement.
    """
    for name in unknown:
        hint = ""
        if name in _FORMER_NAMES:
            hint = f": since version 0.2 it is {_FORMER_NAMES[name]}"
        elif name == "student_loss_weight":
            hint = ": give alpha = 1 - student_loss_weight"
        raise TypeError(f"Distiller has no argument {name!r}{hint}")


def _check_loss(loss: Any, teachers: list[Any]) -> None:
    if not isinstance(loss, keras.distillation.DistillationLoss):
        raise RecipeError(
            "distillation_losses must be keras.distillation.DistillationLoss, got "
            f"{loss!r}; use tutelage.losses.KD(), and give the hard loss to compile"
        )
    if compares_layers(loss) and None in teachers:
        raise RecipeError(
            f"{type(loss).__name__} compares intermediate layers, so it needs the teacher itself, "
            "got none; give teacher=, or use a loss on logits"
        )


def _check_model(role: str, model: Any) -> None:
    if not isinstance(model, keras.Model):
        raise ModelError(
            f"{role} must be a keras.Model, got {type(model).__name__}; "
            "load a saved one with keras.saving.load_model"
        )
    output = getattr(model, "output_shape", None)
    if output is not None and not _is_logits(output):
        raise ModelError(
            f"{role} must return logits (batch, classes) of at least 2 classes, "
            f"got the output shape {output}; end it in one Dense layer"
        )


def _check_pair(student: keras.Model, teacher: keras.Model) -> None:
    for which in ("input_shape", "output_shape"):
        shapes = getattr(student, which, None), getattr(teacher, which, None)
        if None not in shapes and not _agree(*shapes):
            raise ModelError(
                f"student and teacher must have the same {which.replace('_', ' ')}, "
                f"got {shapes[0]} for the student and {shapes[1]} for the teacher; "
                "give both the same images and classes"
            )
    student_ids = {id(variable) for variable in student.weights}
    if student is teacher or any(id(variable) in student_ids for variable in teacher.weights):
        raise ModelError(
            "student and teacher must not share weights, got models that share some; "
            "copy the teacher with keras.models.clone_model and set_weights"
        )


def weights_of(losses: list[Any], given: Any) -> list[Any]:
    """One weight per loss: a number, or a schedule over steps.

    Args:
        losses: the distillation losses.
        given: one weight for all, a list, or None for 1.

    Raises:
        RecipeError: a weight is missing or invalid.
    """
    given = 1.0 if given is None else given
    weights = list(given) if isinstance(given, list | tuple) else [given] * len(losses)
    if len(weights) != len(losses):
        raise RecipeError(
            f"expected one weight for each of the {len(losses)} losses, got {len(weights)}"
        )
    for weight in weights:
        schedule = isinstance(weight, keras.optimizers.schedules.LearningRateSchedule)
        if not schedule and not (is_finite_number(weight) and weight >= 0):
            raise RecipeError(
                "a loss's weight must be a finite number of at least 0 or a Keras learning rate "
                f"schedule, got {weight!r}"
            )
    return weights


def _is_logits(shape: Any) -> bool:
    """Whether an output shape is (batch, classes); the classes may be unknown."""
    return (
        isinstance(shape, tuple)
        and len(shape) == 2
        and (shape[1] is None or (isinstance(shape[1], int) and shape[1] >= 2))
    )


def _agree(first: Any, second: Any) -> bool:
    """Whether two shapes can be the same; None matches any size."""
    return len(first) == len(second) and all(
        a == b or a is None or b is None for a, b in zip(first, second, strict=True)
    )


def split_inputs(x: Any) -> tuple[Any, Any]:
    """Split inputs into images and stored teacher logits, or None.

    Args:
        x: images, or `{"images": ..., "teacher_logits": ...}`.

    Raises:
        RecipeError: a dict has other keys.
    """
    if not isinstance(x, dict):
        return x, None
    if set(x) != _INPUTS:
        raise RecipeError(
            f"a dict of inputs must have the keys {sorted(_INPUTS)}, got {sorted(x)}; "
            "give the images alone if the distiller has a teacher"
        )
    return x["images"], x["teacher_logits"]
