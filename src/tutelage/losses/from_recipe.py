"""What a recipe's loss section comes to: distillation losses with their weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras

from tutelage import losses as known
from tutelage.errors import ModelError
from tutelage.recipe import SETTINGS, Loss, Term

_LOSSES: dict[str, Callable[..., keras.distillation.DistillationLoss]] = {
    "kd": known.KD,
    "standardized-kd": known.StandardizedKD,
    "dkd": known.DKD,
    "nkd": known.NKD,
    "dist": known.DIST,
    "fitnet": known.FitNet,
    "attention-transfer": known.AttentionTransfer,
    "similarity-preserving": known.SimilarityPreserving,
    "rkd": known.RKD,
    "reviewkd": known.ReviewKD,
}
_USUAL_WEIGHTS = {
    "fitnet": 100.0,
    "attention-transfer": 1000.0,
    "similarity-preserving": 3000.0,
    "reviewkd": 5.0,
}
_COMPARE_SAMPLES = ("dist", "similarity-preserving", "rkd")
_RISE = 0.1  # part of the steps in which a weight rises linearly, where not said


def losses(loss: Loss) -> list[keras.distillation.DistillationLoss]:
    """The distillation losses of a recipe.

    Args:
        loss: its section.

    Returns:
        One for each of its terms, with the settings given there.

    Example:

    >>> from tutelage.losses import from_recipe
    >>> from tutelage import recipe
    >>> [type(x).__name__ for x in from_recipe.losses(recipe.Loss(more=[{"name": "rkd"}]))]
    ['KD', 'RKD']
    """
    return [_loss(term) for term in loss.terms()]


def weights(loss: Loss, steps: int) -> list[Any]:
    """Each loss's weight, as `Distiller` takes them.

    Args:
        loss: the recipe's section.
        steps: training steps in all.

    Returns:
        For each term a number, or a schedule of the step where its weight changes.

    Example:

    >>> from tutelage.losses import from_recipe
    >>> from tutelage import recipe
    >>> from_recipe.weights(recipe.Loss(name="fitnet"), steps=100)
    [100.0]
    """
    found: list[Any] = []
    for term in loss.terms():
        weight = _USUAL_WEIGHTS.get(term.name, 1.0) if term.weight is None else term.weight
        if term.ramp == "linear":
            rise = math.ceil(steps * (_RISE if term.warmup is None else term.warmup))
            found.append(keras.optimizers.schedules.PolynomialDecay(0.0, rise, weight))
        elif term.ramp == "cosine":
            found.append(keras.optimizers.schedules.CosineDecay(weight, steps))
        else:
            found.append(weight)
    return found


def temperature(loss: Loss) -> float:
    """The temperature at which a recipe's student sees its teacher's answers.

    Args:
        loss: the recipe's section.

    Returns:
        That of the first loss on logits; 1 where there is none, as on inner layers.

    Example:

    >>> from tutelage.losses import from_recipe
    >>> from tutelage import recipe
    >>> from_recipe.temperature(recipe.Loss(name="dkd"))
    4.0
    """
    return next((float(x.temperature) for x in losses(loss) if hasattr(x, "temperature")), 1.0)


def reads_layers(loss: Loss) -> bool:
    """Whether the student needs its teacher at each step, as logits don't say enough."""
    return any(isinstance(one, known.FeatureLoss) for one in losses(loss))


def check(loss: Loss, classes: int, batch_size: int) -> None:
    """Refuse losses that have no meaning for so many classes or images a step.

    Args:
        loss: the recipe's section.
        classes: of the data.
        batch_size: of the student's training.

    Raises:
        ModelError: what was expected, and of which loss.
    """
    for term in loss.terms():
        one = _loss(term)
        if isinstance(one, known.LabelledLoss) and classes < one.classes:
            raise ModelError(
                f"loss.name: expected a loss for {classes} classes, found "
                f"{term.name}, which compares the classes beside the label; use kd"
            )
        if term.name in _COMPARE_SAMPLES and batch_size < 2:
            raise ModelError(
                f"schedule.student.batch_size: expected 2 or more for {term.name}, which compares "
                f"a batch's samples, found {batch_size}"
            )


def _loss(term: Term) -> keras.distillation.DistillationLoss:
    given = {name: value for name in SETTINGS if (value := getattr(term, name)) is not None}
    layers = ("teacher_layer", "student_layer")
    return _LOSSES[term.name](
        **{f"{name}_name" if name in layers else name: value for name, value in given.items()}
    )
