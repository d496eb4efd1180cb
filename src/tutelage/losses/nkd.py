"""Normalized knowledge distillation."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tutelage.losses.logits_loss import LabeledLoss, split_at_label
from tutelage.losses.validation import temperature_of, weight_of


@keras.saving.register_keras_serializable(package="tutelage")
class NKD(LabeledLoss):
    """Normalized distillation: `-p_t[y] log p_s[y] - gamma * T^2 * sum_c p^_t[c] log p^_s[c]`.

    `p` is the softmax at temperature 1 and `p^` the softmax at T over the classes other than
    the label y; means over the batch. A cross-entropy, so not zero if the two agree.
    Source: Yang and others 2023, arXiv 2303.13005.

    Args:
        gamma: weight of the second term, at least 0.
        temperature: T, a finite number above 0.

    Raises:
        RecipeError: a value is invalid, or there are no labels.
        ModelError: there are fewer than 3 classes.

    Example:

    >>> import numpy as np
    >>> teacher, student = np.array([[2.0, 0.0, 1.0]]), np.array([[2.0, 1.0, 0.0]])
    >>> print(f"{float(NKD().compute_loss(teacher, student, np.array([0]))):.4f}")
    1.8376
    """

    def __init__(self, gamma: float = 1.5, temperature: float = 1.0) -> None:
        self.gamma = weight_of("gamma", gamma)
        self.temperature = temperature_of(temperature)

    def per_sample(self, teacher_outputs: Any, student_outputs: Any, labels: Any = None) -> Any:
        teacher, student = self._read(teacher_outputs, student_outputs)
        target = self._target(labels, student)
        hit_t, hit_s = (split_at_label(logits, target)[0] for logits in (teacher, student))
        others_t, others_s = (
            split_at_label(logits / self.temperature, target)[2] for logits in (teacher, student)
        )
        rest = -ops.sum(ops.exp(others_t) * ops.where(target, 0.0, others_s), axis=-1)
        return -ops.exp(hit_t) * hit_s + self.gamma * self.temperature**2 * rest

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"gamma": self.gamma, "temperature": self.temperature}
