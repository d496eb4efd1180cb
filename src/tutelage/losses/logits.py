"""Losses on logits: what a student learns from its teacher's answers."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import keras
from keras import ops

from tutelage.errors import ModelError, RecipeError
from tutelage.losses.cross_entropy import class_numbers
from tutelage.losses.validation import check_logits, mean, temperature_of, weight_of, wide


class _OfLogits(keras.distillation.DistillationLoss):
    """What all losses on logits have in common."""

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
        teacher, student = wide(teacher_outputs), wide(student_outputs)
        self.validate_outputs(teacher, student)
        return teacher, student

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> _OfLogits:
        """The loss whose `get_config` this is."""
        return cls(**config)


class LogitsLoss(_OfLogits):
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
        return mean(values)


@keras.saving.register_keras_serializable(package="tutelage")
class KD(LogitsLoss):
    """Distillation by soft targets: `T^2 * mean KL(p_t || p_s)`, `p = softmax(z / T)`.

    The natural logarithm, from log-softmax; zero where the teacher and the
    student agree. `T^2` keeps the gradient's size as T grows.
    Source: Hinton, Vinyals, Dean 2015, arXiv 1503.02531, equation 1 (the softmax) and section 2.

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
        self.temperature = temperature_of(temperature)

    def per_sample(self, teacher_outputs: Any, student_outputs: Any, labels: Any = None) -> Any:
        teacher, student = self._read(teacher_outputs, student_outputs)
        log_teacher = ops.log_softmax(teacher / self.temperature, axis=-1)
        log_student = ops.log_softmax(student / self.temperature, axis=-1)
        return self.temperature**2 * _divergence(log_teacher, log_student)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"temperature": self.temperature}


@keras.saving.register_keras_serializable(package="tutelage")
class StandardizedKD(KD):
    """KD of standardised logits: `z <- (z - mean(z)) / (1e-7 + std(z))` in each row, then `KD`.

    The standard deviation is the unbiased one, over classes - 1. The student need only
    match its teacher's logits up to a shift and a positive factor.
    Source: Sun and others 2024, arXiv 2403.01427, algorithms 1 and 2, with the authors' code's
    unbiased standard deviation.

    Args:
        temperature: T, a finite number above 0.

    Raises:
        RecipeError: the temperature can't be honoured.

    Example:

    >>> import numpy as np
    >>> teacher, student = np.array([[2.0, 0.0, 1.0]]), np.array([[7.0, 1.0, 4.0]])
    >>> print(f"{float(StandardizedKD().compute_loss(teacher, student)):.4f}")
    0.0000
    """

    def __init__(self, temperature: float = 2.0) -> None:
        super().__init__(temperature)

    def per_sample(self, teacher_outputs: Any, student_outputs: Any, labels: Any = None) -> Any:
        teacher, student = wide(teacher_outputs), wide(student_outputs)
        return super().per_sample(_standardized(teacher), _standardized(student))


def _standardized(logits: Any) -> Any:
    apart = logits - mean(logits, -1, keepdims=True)
    variance = ops.sum(apart**2, axis=-1, keepdims=True) / (logits.shape[-1] - 1)
    return apart / (1e-7 + _root(variance))


def _root(square: Any) -> Any:
    # At zero its slope is infinite; and Keras' maximum would round float64 to float32.
    return ops.sqrt(ops.where(square > 1e-20, square, 1e-20))


class LabelledLoss(LogitsLoss):
    """A loss on logits that treats the label's class apart from the others.

    Attributes:
        classes: how many it needs at least.
    """

    classes = 3

    def validate_outputs(self, teacher_outputs: Any, student_outputs: Any) -> None:
        """As in `LogitsLoss`, and that there are classes to compare."""
        super().validate_outputs(teacher_outputs, student_outputs)
        if student_outputs.shape[-1] < self.classes:
            raise ModelError(
                f"{type(self).__name__} compares the classes beside the label, so it needs at "
                f"least {self.classes} classes, got {student_outputs.shape[-1]}; use KD()"
            )

    def _target(self, labels: Any, logits: Any) -> Any:
        """A one-hot row of booleans for each sample."""
        if labels is None:
            raise RecipeError(
                f"{type(self).__name__} needs labels, got none; give them as the third argument, "
                "or use KD()"
            )
        classes = ops.arange(logits.shape[-1], dtype="int32")
        return class_numbers(labels, logits) == classes


def _divergence(log_p: Any, log_q: Any) -> Any:
    """Kullback and Leibler's, of each row."""
    return ops.sum(ops.exp(log_p) * (log_p - log_q), axis=-1)


def _parts(logits: Any, target: Any) -> tuple[Any, Any, Any]:
    """Log of the probability of the label, of all others together, and of each among the others.

    The last is very negative, and finite, at the label.
    """
    others = ops.where(target, -1e9, logits)
    rest, whole = ops.logsumexp(others, axis=-1), ops.logsumexp(logits, axis=-1)
    hit = ops.sum(ops.where(target, logits, 0.0), axis=-1)
    return hit - whole, rest - whole, others - rest[:, None]


@keras.saving.register_keras_serializable(package="tutelage")
class DKD(LabelledLoss):
    """Decoupled distillation: `alpha * TCKD + beta * NCKD`, means over the batch.

    TCKD is `T^2 * KL` of the label's probability and all others' together, NCKD is `T^2 * KL`
    of the softmax over the other classes, which plain KD gives the less weight the surer the
    teacher is.
    Source: Zhao and others 2022, arXiv 2203.08679.

    Args:
        alpha: weight of TCKD, at least 0; not the distiller's alpha.
        beta: weight of NCKD, at least 0.
        temperature: T, a finite number above 0.

    Raises:
        RecipeError: a value can't be honoured, or there are no labels.
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
        hit_t, rest_t, others_t = _parts(teacher / self.temperature, target)
        hit_s, rest_s, others_s = _parts(student / self.temperature, target)
        binary = ops.exp(hit_t) * (hit_t - hit_s) + ops.exp(rest_t) * (rest_t - rest_s)
        value = self.alpha * binary + self.beta * _divergence(others_t, others_s)
        return self.temperature**2 * value

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"alpha": self.alpha, "beta": self.beta, "temperature": self.temperature}


@keras.saving.register_keras_serializable(package="tutelage")
class NKD(LabelledLoss):
    """Normalised distillation: `-p_t[y] log p_s[y] - gamma * T^2 * sum_c p^_t[c] log p^_s[c]`.

    `p` is the softmax at temperature 1 and `p^` the softmax at T over the classes beside the
    label y; means over the batch. A cross-entropy, so not zero where the two agree.
    Source: Yang and others 2023, arXiv 2303.13005.

    Args:
        gamma: weight of the second term, at least 0.
        temperature: T, a finite number above 0.

    Raises:
        RecipeError: a value can't be honoured, or there are no labels.
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
        hit_t, hit_s = (_parts(logits, target)[0] for logits in (teacher, student))
        others_t, others_s = (
            _parts(logits / self.temperature, target)[2] for logits in (teacher, student)
        )
        rest = -ops.sum(ops.exp(others_t) * ops.where(target, 0.0, others_s), axis=-1)
        return -ops.exp(hit_t) * hit_s + self.gamma * self.temperature**2 * rest

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"gamma": self.gamma, "temperature": self.temperature}


@keras.saving.register_keras_serializable(package="tutelage")
class DIST(_OfLogits):
    """Matched relations: `T^2 * (beta * (1 - r_rows) + gamma * (1 - r_columns))`.

    `r_rows` is the mean, over the batch, of Pearson's correlation between the teacher's and
    the student's `softmax(z / T)` of a sample; `r_columns` the mean, over the classes, of that
    between a class's probabilities in the batch. It has no value for a single sample, so sample
    and class weights can't be honoured; a batch of one has no columns to compare.
    Source: Huang and others 2022, arXiv 2205.10536, with the authors' code's T^2.

    Args:
        beta: weight of the rows, at least 0.
        gamma: weight of the columns, at least 0.
        temperature: T, a finite number above 0.

    Raises:
        RecipeError: a value can't be honoured.

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
            labels: not needed.

        Returns:
            a scalar in float32 or wider.

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
        """As in `LogitsLoss`, and that there are samples to compare."""
        super().validate_outputs(teacher_outputs, student_outputs)
        if student_outputs.shape[0] == 1:
            raise ModelError(
                "DIST compares the samples of a batch, so it needs at least 2 samples, got 1; "
                "use larger batches"
            )

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"beta": self.beta, "gamma": self.gamma, "temperature": self.temperature}


def _correlation(one: Any, other: Any, axis: int) -> Any:
    """Mean of Pearson's correlations along an axis."""
    one, other = (x - mean(x, axis, keepdims=True) for x in (one, other))
    lengths = [_root(ops.sum(x * x, axis=axis)) for x in (one, other)]
    values = ops.sum(one * other, axis=axis) / (lengths[0] * lengths[1] + 1e-8)
    return mean(values)
