"""Losses on logits: what a student learns from its teacher, and from the labels."""

from __future__ import annotations

import math
import numbers
from abc import abstractmethod
from typing import Any

import keras
from keras import ops

from tutelage.errors import ModelError, RecipeError


def is_finite_number(value: object) -> bool:
    """Whether a value is a real, finite number; a bool is none.

    Args:
        value: anything.

    Returns:
        True for a finite int, float or NumPy scalar.

    Example:

    >>> is_finite_number(0.5), is_finite_number(True), is_finite_number(float("nan"))
    (True, False, False)
    """
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def _wide(logits: Any) -> Any:
    """Logits as a tensor of float32 or wider: a softmax in half precision loses small classes."""
    logits = ops.convert_to_tensor(logits)
    wide = keras.backend.standardize_dtype(logits.dtype) in {"float32", "float64"}
    return logits if wide else ops.cast(logits, "float32")


class LogitsLoss(keras.distillation.DistillationLoss):
    """A distillation loss on logits that has a value for each sample.

    Subclasses define `per_sample`; the loss of a batch is its mean, and sample
    weights multiply it.
    """

    @abstractmethod
    def per_sample(self, teacher_outputs: Any, student_outputs: Any, labels: Any = None) -> Any:
        """Value for each sample.

        Args:
            teacher_outputs: the teacher's logits, (batch, classes), any float type.
            student_outputs: the student's logits, of the same shape.
            labels: integer labels, (batch,) or (batch, 1), or one-hot or soft
                ones, (batch, classes), for a loss that needs them.

        Returns:
            (batch,) in float32 or wider.

        Raises:
            ModelError: the shapes differ or aren't (batch, classes).
        """

    def compute_loss(
        self,
        teacher_outputs: Any,
        student_outputs: Any,
        labels: Any = None,
        sample_weight: Any = None,
    ) -> Any:
        """Mean over the batch of `sample_weight * per_sample`.

        Args:
            teacher_outputs: as in `per_sample`.
            student_outputs: as in `per_sample`.
            labels: as in `per_sample`.
            sample_weight: (batch,) or (batch, 1); ones by default.

        Returns:
            a scalar in float32 or wider.

        Raises:
            ModelError: as in `per_sample`.
        """
        values = self.per_sample(teacher_outputs, student_outputs, labels)
        if sample_weight is not None:
            weight = ops.cast(ops.convert_to_tensor(sample_weight), values.dtype)
            values = values * ops.reshape(weight, ops.shape(values))
        # Keras' mean would round float64 to float32 on the PyTorch backend.
        return ops.sum(values) / ops.shape(values)[0]

    def validate_outputs(self, teacher_outputs: Any, student_outputs: Any) -> None:
        """Check that two sets of logits can be compared.

        Args:
            teacher_outputs: the teacher's logits, (batch, classes).
            student_outputs: the student's logits, of the same shape.

        Raises:
            ModelError: the shapes differ or aren't (batch, classes).
        """
        teacher, student = tuple(teacher_outputs.shape), tuple(student_outputs.shape)
        if len(teacher) != 2 or teacher != student:
            raise ModelError(
                "teacher and student must both give logits of one shape (batch, classes), "
                f"got {teacher} from the teacher and {student} from the student; "
                "give both models the same classes"
            )


@keras.saving.register_keras_serializable(package="tutelage")
class KD(LogitsLoss):
    """Distillation by soft targets: `T^2 * mean KL(p_t || p_s)`, `p = softmax(z / T)`.

    The natural logarithm, from log-softmax; zero where the teacher and the
    student agree. `T^2` keeps the gradient's size as T grows.
    Source: Hinton, Vinyals, Dean 2015, arXiv 1503.02531, section 2.

    Args:
        temperature: T, a finite number above 0.

    Raises:
        RecipeError: the temperature can't be honoured.

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
        if not is_finite_number(temperature) or temperature <= 0:
            raise RecipeError(
                f"temperature must be a finite number above 0, got {temperature!r}; 4 is common"
            )
        self.temperature = float(temperature)

    def per_sample(self, teacher_outputs: Any, student_outputs: Any, labels: Any = None) -> Any:
        teacher, student = _wide(teacher_outputs), _wide(student_outputs)
        self.validate_outputs(teacher, student)
        log_teacher = ops.log_softmax(teacher / self.temperature, axis=-1)
        log_student = ops.log_softmax(student / self.temperature, axis=-1)
        divergence = ops.sum(ops.exp(log_teacher) * (log_teacher - log_student), axis=-1)
        return self.temperature**2 * divergence

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"temperature": self.temperature}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> KD:
        """The loss whose `get_config` this is."""
        return cls(**config)


@keras.saving.register_keras_serializable(package="tutelage")
class CrossEntropy(keras.losses.Loss):
    """Cross-entropy of logits with labels: `-sum_c y_c log softmax(z)_c`.

    One loss for integer labels, (batch,) or (batch, 1), and for one-hot or soft
    ones, (batch, classes). With smoothing s, y becomes `(1 - s) y + s / classes`.

    Args:
        label_smoothing: s, at least 0 and below 1.
        reduction: as in every Keras loss.
        name: as in every Keras loss.

    Raises:
        RecipeError: the smoothing can't be honoured.

    Example:

    >>> import numpy as np
    >>> logits = np.array([[2.0, 0.0], [0.0, 2.0]])
    >>> print(f"{float(CrossEntropy()(np.array([0, 1]), logits)):.4f}")
    0.1269
    >>> print(f"{float(CrossEntropy()(np.eye(2), logits)):.4f}")
    0.1269
    """

    def __init__(
        self,
        label_smoothing: float = 0.0,
        reduction: str | None = "sum_over_batch_size",
        name: str = "cross_entropy",
    ) -> None:
        if not is_finite_number(label_smoothing) or not 0 <= label_smoothing < 1:
            raise RecipeError(
                f"label_smoothing must be at least 0 and below 1, got {label_smoothing!r}; "
                "0 switches it off"
            )
        wide = "float64" if keras.config.floatx() == "float64" else "float32"
        super().__init__(name=name, reduction=reduction, dtype=wide)
        self.label_smoothing = float(label_smoothing)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Value for each sample.

        Args:
            y_true: labels, (batch,), (batch, 1) or (batch, classes).
            y_pred: logits, (batch, classes).

        Returns:
            (batch,) in float32 or wider.

        Raises:
            ModelError: the shapes don't fit each other.
        """
        labels, logits = tuple(y_true.shape), tuple(y_pred.shape)
        log_p = ops.log_softmax(y_pred, axis=-1)
        if labels == logits:
            loss = -ops.sum(y_true * log_p, axis=-1)
        elif len(logits) == 2 and labels in {logits[:1], (*logits[:1], 1)}:
            index = ops.cast(ops.reshape(y_true, (-1, 1)), "int32")
            loss = -ops.take_along_axis(log_p, index, axis=-1)[:, 0]
        else:
            raise ModelError(
                "labels must have the shape (batch,), (batch, 1) or the logits' own, "
                f"got labels {labels} and logits {logits}; give one label to each image"
            )
        if self.label_smoothing:
            even = -ops.mean(log_p, axis=-1)
            loss = (1 - self.label_smoothing) * loss + self.label_smoothing * even
        return loss

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "label_smoothing": self.label_smoothing}
