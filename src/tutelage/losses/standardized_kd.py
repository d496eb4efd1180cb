"""Distillation with soft targets of standardized logits."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tutelage.losses.kd import KD
from tutelage.losses.numerics import mean, safe_sqrt, wide_logits


@keras.saving.register_keras_serializable(package="tutelage")
class StandardizedKD(KD):
    """KD of standardized logits: `z <- (z - mean(z)) / (1e-7 + std(z))` per sample, then `KD`.

    The standard deviation is the unbiased one, over classes - 1. The student need only match
    its teacher's logits up to a shift and a positive factor.
    Source: Sun and others 2024, arXiv 2403.01427, algorithms 1 and 2, with the authors' code's
    unbiased standard deviation.

    Args:
        temperature: T, a finite number above 0.

    Raises:
        RecipeError: the temperature is invalid.

    Example:

    >>> import numpy as np
    >>> teacher, student = np.array([[2.0, 0.0, 1.0]]), np.array([[7.0, 1.0, 4.0]])
    >>> print(f"{float(StandardizedKD().compute_loss(teacher, student)):.4f}")
    0.0000
    """

    def __init__(self, temperature: float = 2.0) -> None:
        super().__init__(temperature)

    def per_sample(self, teacher_outputs: Any, student_outputs: Any, labels: Any = None) -> Any:
        teacher, student = wide_logits(teacher_outputs), wide_logits(student_outputs)
        return super().per_sample(_standardized(teacher), _standardized(student))


def _standardized(logits: Any) -> Any:
    centered = logits - mean(logits, -1, keepdims=True)
    variance = ops.sum(centered**2, axis=-1, keepdims=True) / (logits.shape[-1] - 1)
    return centered / (1e-7 + safe_sqrt(variance))
