"""Base classes of losses on logits."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import keras
from keras import ops

from tutelage.errors import ModelError, RecipeError
from tutelage.losses.cross_entropy import class_numbers
from tutelage.losses.numerics import mean, wide_logits
from tutelage.losses.validation import check_logits


class LogitsLossBase(keras.distillation.DistillationLoss):
    """Base class of all losses on logits."""

    def validate_outputs(self, teacher_outputs: Any, student_outputs: Any) -> None:
        """Check that two sets of logits can be compared.

        Args:
            teacher_outputs: the teacher's logits, (batch, classes).
            student_outputs: the student's logits, of the same shape.

        Raises:
            ModelError: the shapes differ or aren't (batch, classes).
        """
        check_logits(teacher_outputs, student_outputs)

    def _read(self, teacher_outputs: Any, student_outputs: Any) -> tuple[Any, Any]:
        teacher, student = wide_logits(teacher_outputs), wide_logits(student_outputs)
        self.validate_outputs(teacher, student)
        return teacher, student

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> LogitsLossBase:
        """Create the loss from `get_config`."""
        return cls(**config)


class LogitsLoss(LogitsLossBase):
    """A distillation loss on logits with a value per sample.

    Subclasses define `per_sample`; the loss of a batch is its mean, and sample
    weights multiply it.
    """

    @abstractmethod
    def per_sample(self, teacher_outputs: Any, student_outputs: Any, labels: Any = None) -> Any:
        """The loss of each sample.

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
            A scalar in float32 or wider.

        Raises:
            ModelError: as in `per_sample`.
        """
        values = self.per_sample(teacher_outputs, student_outputs, labels)
        if sample_weight is not None:
            weight = ops.cast(ops.convert_to_tensor(sample_weight), values.dtype)
            values = values * ops.reshape(weight, ops.shape(values))
        return mean(values)


class LabeledLoss(LogitsLoss):
    """A loss on logits that treats the label's class separately from the others.

    Attributes:
        classes: the minimum number of classes.
    """

    classes = 3

    def validate_outputs(self, teacher_outputs: Any, student_outputs: Any) -> None:
        """Check as in `LogitsLoss`, and that there are enough classes."""
        super().validate_outputs(teacher_outputs, student_outputs)
        if student_outputs.shape[-1] < self.classes:
            raise ModelError(
                f"{type(self).__name__} compares the classes other than the label, so it needs at "
                f"least {self.classes} classes, got {student_outputs.shape[-1]}; use KD()"
            )

    def _target(self, labels: Any, logits: Any) -> Any:
        """One-hot labels as booleans."""
        if labels is None:
            raise RecipeError(
                f"{type(self).__name__} needs labels, got none; give them as the third argument, "
                "or use KD()"
            )
        classes = ops.arange(logits.shape[-1], dtype="int32")
        return class_numbers(labels, logits) == classes


def split_at_label(logits: Any, target: Any) -> tuple[Any, Any, Any]:
    """Log-probabilities of the label, of all others together, and of each among the others.

    The last is a large negative, finite number at the label.
    """
    others = ops.where(target, -1e9, logits)
    rest, whole = ops.logsumexp(others, axis=-1), ops.logsumexp(logits, axis=-1)
    hit = ops.sum(ops.where(target, logits, 0.0), axis=-1)
    return hit - whole, rest - whole, others - rest[:, None]
