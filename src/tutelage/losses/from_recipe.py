"""Distillation losses and their weights from a recipe's loss section."""

from __future__ import annotations

import math
from typing import Any

import keras

from tutelage import losses as available
from tutelage.errors import ModelError, RecipeError
from tutelage.losses import catalog, own_loss
from tutelage.recipe import SETTINGS, Loss, Term

_COMPARE_SAMPLES = ("dist", "similarity-preserving", "rkd")
# Why a loss on logits can't do with the largest ones and the mass of the other classes.
_ALL_CLASSES = {
    "standardized-kd": "divides by the standard deviation over all classes",
    "dkd": "weights the classes other than the label apart from it, however small their mass",
    "nkd": "normalizes the classes other than the label, however small their mass",
    "dist": "correlates the probabilities of each class",
}
_RISE = 0.1  # default fraction of the steps in which a weight rises linearly


def losses(loss: Loss) -> list[keras.distillation.DistillationLoss]:
    """The distillation losses of a recipe.

    Args:
        loss: the recipe's section.

    Returns:
        One loss per term, with the term's settings.

    Example:

    >>> from tutelage.losses import from_recipe
    >>> from tutelage import recipe
    >>> [type(x).__name__ for x in from_recipe.losses(recipe.Loss(more=[{"name": "rkd"}]))]
    ['KD', 'RKD']
    """
    return [_loss(term) for term in loss.terms()]


def weights(loss: Loss, steps: int) -> list[Any]:
    """The weight of each loss, as `Distiller` expects them.

    Args:
        loss: the recipe's section.
        steps: total number of training steps.

    Returns:
        For each term a number, or a schedule over steps if its weight changes.

    Example:

    >>> from tutelage.losses import from_recipe
    >>> from tutelage import recipe
    >>> from_recipe.weights(recipe.Loss(name="fitnet"), steps=100)
    [100.0]
    """
    weights: list[Any] = []
    for term in loss.terms():
        weight = catalog.weight(term.name) if term.weight is None else term.weight
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
        The temperature; 1 if no loss has one.

    Example:

    >>> from tutelage.losses import from_recipe
    >>> from tutelage import recipe
    >>> from_recipe.temperature(recipe.Loss(name="dkd"))
    4.0
    """
    values: list[Any] = [getattr(x, "temperature", None) for x in losses(loss)]
    return next((float(x) for x in values if available.is_finite_number(x)), 1.0)


def needs_all_classes(loss: Loss) -> str:
    """Why the losses of a recipe need the teacher's logit of every class.

    A softmax at one temperature does not: it is nearly the same if the largest logits are kept and
    the other classes share one that gives them their mass.

    Args:
        loss: the recipe's section.

    Returns:
        The reason, of the first loss that has one; "" if none has.

    Example:

    >>> from tutelage.losses import from_recipe
    >>> from tutelage import recipe
    >>> from_recipe.needs_all_classes(recipe.Loss(name="dist"))
    'dist correlates the probabilities of each class'
    >>> from_recipe.needs_all_classes(recipe.Loss(name="kd"))
    ''
    """
    for term in loss.terms():
        if term.own:
            return f"{term.name}, a loss of your own, may use each of them"
        if term.name in _ALL_CLASSES:
            return f"{term.name} {_ALL_CLASSES[term.name]}"
    values = {x.temperature for x in losses(loss) if isinstance(x, available.KD)}
    if len(values) > 1:
        which = " and ".join(f"{value:g}" for value in sorted(values))
        return f"the mass of classes is right at one temperature only, and losses have {which}"
    return ""


def reads_layers(loss: Loss) -> bool:
    """Whether a loss compares intermediate layers, so the teacher must run at each step."""
    return any(isinstance(x, available.FeatureLoss) for x in losses(loss))


def code_digests(loss: Loss) -> dict[str, str]:
    """Hashes of the code of the user's own losses, by name; none for the bundled ones."""
    return {
        term.name: own_loss.code_digest(term.name, _loss(term)) for term in loss.terms() if term.own
    }


def check(
    loss: Loss, classes: int, batch_size: int, where: str = "schedule.student.batch_size"
) -> None:
    """Check that the losses are defined for the number of classes and the batch size.

    Args:
        loss: the recipe's section.
        classes: the data set's number of classes.
        batch_size: the student's batch size.
        where: what it is, for messages.

    Raises:
        ModelError: a loss is not; names it.
        RecipeError: a loss of the user's own can't be made, or more classes are to be stored than
            there are.
    """
    if loss.stored_classes is not None and loss.stored_classes > classes:
        raise RecipeError(
            f"loss.stored_classes: expected at most the number of classes, {classes}, found "
            f"{loss.stored_classes}; leave it out to store all"
        )
    for term in loss.terms():
        term_loss = _loss(term)
        if isinstance(term_loss, available.LabeledLoss) and classes < term_loss.classes:
            raise ModelError(
                f"loss.name: expected a loss for {classes} classes, found "
                f"{term.name}, which compares the classes other than the label; use kd"
            )
        if term.name in _COMPARE_SAMPLES and batch_size < 2:
            raise ModelError(
                f"{where}: expected 2 or more for {term.name}, which compares "
                f"a batch's samples, found {batch_size}"
            )


def _loss(term: Term) -> keras.distillation.DistillationLoss:
    if term.own:
        return own_loss.make(term.name, term.settings or {})
    settings = {name: value for name in SETTINGS if (value := getattr(term, name)) is not None}
    arguments = {catalog.argument(name): value for name, value in settings.items()}
    return catalog.CLASSES[term.name](**arguments)
