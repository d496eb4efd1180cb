"""Decoupled knowledge distillation."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tutelage.losses.logits_loss import LabeledLoss, split_at_label
from tutelage.losses.numerics import kl_divergence
from tutelage.losses.validation import temperature_of, weight_of


@keras.saving.register_keras_serializable(package="tutelage")
class DKD(LabeledLoss):
    """Decoupled distillation: `alpha * TCKD + beta * NCKD`, means over the batch.

    TCKD is `T^2 * KL` between the label's probability and the sum of all others; NCKD is
    `T^2 * KL` between softmaxes over the other classes, which plain KD weights less the more
    confident the teacher is.
    Source: Zhao and others 2022, arXiv 2203.08679.

    Args:
        alpha: weight of TCKD, at least 0; not the distiller's alpha.
        beta: weight of NCKD, at least 0.
        temperature: T, a finite number above 0.

    Raises:
        RecipeError: a value is invalid, or there are no labels.
        ModelError: there are fewer than 3 classes.

    Example:

    >>> import numpy as np
    >>> teacher, student = np.array([[2.0, 0.0, 1.0]]), np.array([[2.0, 1.0, 0.0]])
    >>> print(f"{float(DKD(beta=1.0).compute_loss(teacher, student, np.array([0]))):.4f}")
    0.4974
    """

    def __init__(self, alpha: float = 1.0, beta: float = 8.0, temperature: float = 4.0) -> None:
        self.alpha = weight_of("alpha", alpha)
        self.beta = weight_of("beta", beta)
        self.temperature = temperature_of(temperature)

    def per_sample(self, teacher_outputs: Any, student_outputs: Any, labels: Any = None) -> Any:
        teacher, student = self._read(teacher_outputs, student_outputs)
        target = self._target(labels, student)
        hit_t, rest_t, others_t = split_at_label(teacher / self.temperature, target)
        hit_s, rest_s, others_s = split_at_label(student / self.temperature, target)
        binary = ops.exp(hit_t) * (hit_t - hit_s) + ops.exp(rest_t) * (rest_t - rest_s)
        value = self.alpha * binary + self.beta * kl_divergence(others_t, others_s)
        return self.temperature**2 * value

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"alpha": self.alpha, "beta": self.beta, "temperature": self.temperature}
