"""DIST: distillation by correlation of probabilities."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tutelage.errors import ModelError
from tutelage.losses.logits_loss import LogitsLossBase
from tutelage.losses.numerics import mean, safe_sqrt
from tutelage.losses.validation import temperature_of, weight_of


@keras.saving.register_keras_serializable(package="tutelage")
class DIST(LogitsLossBase):
    """Correlations of probabilities: `T^2 * (beta * (1 - r_rows) + gamma * (1 - r_columns))`.

    `r_rows` is the Pearson correlation between the teacher's and the student's
    `softmax(z / T)` of a sample, averaged over the batch; `r_columns` that between a class's
    probabilities in the batch, averaged over the classes. The loss has no value per sample, so
    sample and class weights are not supported; a batch needs at least 2 samples.
    Source: Huang and others 2022, arXiv 2205.10536, with the T^2 of the authors' code.

    Args:
        beta: weight of the row term, at least 0.
        gamma: weight of the column term, at least 0.
        temperature: T, a finite number above 0.

    Raises:
        RecipeError: a value is invalid.

    Example:

    >>> import numpy as np
    >>> teacher, student = np.array([[2.0, 0.0], [0.0, 1.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> print(f"{float(DIST().compute_loss(teacher, student)):.4f}")
    0.0000
    """

    def __init__(self, beta: float = 1.0, gamma: float = 1.0, temperature: float = 1.0) -> None:
        self.beta = weight_of("beta", beta)
        self.gamma = weight_of("gamma", gamma)
        self.temperature = temperature_of(temperature)

    def compute_loss(self, teacher_outputs: Any, student_outputs: Any, labels: Any = None) -> Any:
        """The loss of a batch.

        Args:
            teacher_outputs: the teacher's logits, (batch, classes), any float type.
            student_outputs: the student's logits, of the same shape.
            labels: ignored.

        Returns:
            A scalar in float32 or wider.

        Raises:
            ModelError: the shapes differ or aren't (batch, classes).
        """
        teacher, student = self._read(teacher_outputs, student_outputs)
        teacher = ops.softmax(teacher / self.temperature, axis=-1)
        student = ops.softmax(student / self.temperature, axis=-1)
        rows = self.beta * (1 - _correlation(teacher, student, axis=1))
        columns = self.gamma * (1 - _correlation(teacher, student, axis=0))
        return self.temperature**2 * (rows + columns)

    def validate_outputs(self, teacher_outputs: Any, student_outputs: Any) -> None:
        """Check as in `LogitsLoss`, and that there are at least 2 samples."""
        super().validate_outputs(teacher_outputs, student_outputs)
        if student_outputs.shape[0] == 1:
            raise ModelError(
                "DIST compares the samples of a batch, so it needs at least 2 samples, got 1; "
                "use larger batches"
            )

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"beta": self.beta, "gamma": self.gamma, "temperature": self.temperature}


def _correlation(first: Any, second: Any, axis: int) -> Any:
    """Mean of the Pearson correlations along an axis."""
    first, second = (x - mean(x, axis, keepdims=True) for x in (first, second))
    norms = [safe_sqrt(ops.sum(x * x, axis=axis)) for x in (first, second)]
    values = ops.sum(first * second, axis=axis) / (norms[0] * norms[1] + 1e-8)
    return mean(values)
