"""Cross-entropy with integer, one-hot or soft labels."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tutelage.errors import ModelError, RecipeError
from tutelage.losses import numerics
from tutelage.losses.validation import is_finite_number


def class_numbers(labels: Any, logits: Any) -> Any:
    """Convert integer, one-hot or soft labels to class indices.

    Args:
        labels: integer labels, (batch,) or (batch, 1), or one-hot or soft ones,
            (batch, classes), which are reduced by argmax.
        logits: of shape (batch, classes).

    Returns:
        (batch, 1), int32.

    Raises:
        ModelError: the shapes don't match.
    """
    labels = ops.convert_to_tensor(labels)
    label_shape, shape = tuple(labels.shape), tuple(logits.shape)
    if len(shape) == 2 and label_shape == shape:
        labels = ops.argmax(labels, axis=-1)
    elif len(shape) != 2 or label_shape not in {shape[:1], (*shape[:1], 1)}:
        raise ModelError(
            "labels must have the shape (batch,), (batch, 1) or that of the logits, "
            f"got labels {label_shape} and logits {shape}; give one label per image"
        )
    return ops.cast(ops.reshape(labels, (-1, 1)), "int32")


@keras.saving.register_keras_serializable(package="tutelage")
class CrossEntropy(keras.losses.Loss):
    """Cross-entropy of logits with labels: `-sum_c y_c log softmax(z)_c`.

    Accepts integer labels, (batch,) or (batch, 1), and one-hot or soft labels,
    (batch, classes). With smoothing s, y becomes `(1 - s) y + s / classes`.

    Args:
        label_smoothing: s, at least 0 and below 1.
        reduction: as in every Keras loss.
        name: as in every Keras loss.

    Raises:
        RecipeError: the smoothing is invalid.

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
                "0 disables it"
            )
        wide = "float64" if keras.config.floatx() == "float64" else "float32"
        super().__init__(name=name, reduction=reduction, dtype=wide)
        self.label_smoothing = float(label_smoothing)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The loss of each sample.

        Args:
            y_true: labels, (batch,), (batch, 1) or (batch, classes).
            y_pred: logits, (batch, classes).

        Returns:
            (batch,) in float32 or wider.

        Raises:
            ModelError: the shapes don't match.
        """
        log_p = ops.log_softmax(numerics.wide_logits(y_pred), axis=-1)
        if tuple(y_true.shape) == tuple(y_pred.shape):
            loss = -ops.sum(y_true * log_p, axis=-1)
        else:
            loss = -ops.take_along_axis(log_p, class_numbers(y_true, y_pred), axis=-1)[:, 0]
        if self.label_smoothing:
            even = -ops.mean(log_p, axis=-1)
            loss = (1 - self.label_smoothing) * loss + self.label_smoothing * even
        return loss

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "label_smoothing": self.label_smoothing}
