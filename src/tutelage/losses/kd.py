"""Distillation with soft targets."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tutelage.losses.logits_loss import LogitsLoss
from tutelage.losses.numerics import kl_divergence
from tutelage.losses.validation import temperature_of


@keras.saving.register_keras_serializable(package="tutelage")
class KD(LogitsLoss):
    """Distillation with soft targets: `T^2 * mean KL(p_t || p_s)`, `p = softmax(z / T)`.

    Uses natural logarithms; zero if teacher and student agree. `T^2` keeps the size of
    the gradients as T grows.
    Source: Hinton, Vinyals, Dean 2015, arXiv 1503.02531, equation 1 (the softmax) and section 2.

    Args:
        temperature: T, a finite number above 0.

    Raises:
        RecipeError: the temperature is invalid.

    Example:

    >>> import numpy as np
    >>> teacher, student = np.array([[2.0, 0.0]]), np.array([[0.0, 2.0]])
    >>> kd = KD(temperature=1.0)
    >>> print(f"{float(kd.compute_loss(teacher, student)):.4f}")
    1.5232
    >>> print(f"{float(kd.compute_loss(teacher, teacher)):.4f}")
    0.0000
    """

    def __init__(self, temperature: float = 4.0) -> None:
        self.temperature = temperature_of(temperature)

    def per_sample(self, teacher_outputs: Any, student_outputs: Any, labels: Any = None) -> Any:
        teacher, student = self._read(teacher_outputs, student_outputs)
        log_teacher = ops.log_softmax(teacher / self.temperature, axis=-1)
        log_student = ops.log_softmax(student / self.temperature, axis=-1)
        return self.temperature**2 * kl_divergence(log_teacher, log_student)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"temperature": self.temperature}
