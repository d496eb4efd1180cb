"""A recipe's loss section as distillation losses with their weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras

from tutelage import losses as available
from tutelage.errors import ModelError
from tutelage.recipe import SETTINGS, Loss, Term

_LOSSES: dict[str, Callable[..., keras.distillation.DistillationLoss]] = {
    "kd": available.KD,
    "standardized-kd": available.StandardizedKD,
    "dkd": available.DKD,
    "nkd": available.NKD,
    "dist": available.DIST,
    "fitnet": available.FitNet,
    "attention-transfer": available.AttentionTransfer,
    "similarity-preserving": available.SimilarityPreserving,
    "rkd": available.RKD,
    "reviewkd": available.ReviewKD,
}
_USUAL_WEIGHTS = {
    "fitnet": 100.0,
    "attention-transfer": 1000.0,
    "similarity-preserving": 3000.0,
    "reviewkd": 5.0,
}
_COMPARE_SAMPLES = ("dist", "similarity-preserving", "rkd")
_RISE = 0.1  # part of the steps in which a weight rises linearly, by default


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
    weights: list[Any] = []
    for term in loss.terms():
        weight = _USUAL_WEIGHTS.get(term.name, 1.0) if term.weight is None else term.weight
        if term.ramp == "linear":
            rise = math.ceil(steps * (_RISE if term.warmup is None else term.warmup))
            weights.append(keras.optimizers.schedules.PolynomialDecay(0.0, rise, weight))
        elif term.ramp == "cosine":
            weights.append(keras.optimizers.schedules.CosineDecay(weight, steps))
        else:
            weights.append(weight)
    return weights


def temperature(loss: Loss) -> float:
    """The temperature of a recipe's first loss on logits.

    Args:
        loss: the recipe's section.

    Returns:
        The temperature; 1 where no loss has one.

    Example:

    >>> from tutelage.losses import from_recipe
    >>> from tutelage import recipe
    >>> from_recipe.temperature(recipe.Loss(name="dkd"))
    4.0
    """
    return next((float(x.temperature) for x in losses(loss) if hasattr(x, "temperature")), 1.0)


def reads_layers(loss: Loss) -> bool:
    """Whether a loss compares inner layers, so that the teacher runs at each step."""
    return any(isinstance(one, available.FeatureLoss) for one in losses(loss))


def check(loss: Loss, classes: int, batch_size: int) -> None:
    """Check that the losses are defined for so many classes and images a step.

    Args:
        loss: the recipe's section.
        classes: of the data.
        batch_size: of the student's training.

    Raises:
        ModelError: if one is not; names it.
    """
    for term in loss.terms():
        one = _loss(term)
        if isinstance(one, available.LabelledLoss) and classes < one.classes:
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
    settings = {name: value for name in SETTINGS if (value := getattr(term, name)) is not None}
    layers = ("teacher_layer", "student_layer")
    return _LOSSES[term.name](
        **{f"{name}_name" if name in layers else name: value for name, value in settings.items()}
    )
