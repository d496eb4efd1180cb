"""Metrics of a classifier's logits relative to labels and its teacher's logits."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from tutelage.errors import DataError, ModelError

BINS = 15

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class PerClass(NamedTuple):
    """Metrics per class, each of shape (classes,).

    Args:
        precision: fraction of predictions of this class that are correct; 0 without predictions.
        recall: fraction of this class that is predicted correctly; 0 without images.
        f1: the harmonic mean of both, 0 if both are.
        support: number of images of this class.

    Example:
        >>> per_class([[2.0, 1.0], [0.0, 3.0]], [0, 0]).recall.tolist()
        [0.5, 0.0]
    """

    precision: Floats
    recall: Floats
    f1: Floats
    support: Integers


class Calibration(NamedTuple):
    """Confidence and accuracy in bins of confidence, each of shape (15,).

    Args:
        confidence: mean of `max(p)` over a bin's images; nan for an empty bin.
        accuracy: fraction of a bin's images predicted correctly; nan for an empty bin.
        support: number of images in a bin.

    Example:
        >>> calibration([[2.0, 1.0], [0.0, 3.0]], [0, 0]).support.tolist()
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1]
    """

    confidence: Floats
    accuracy: Floats
    support: Integers


def score(
    logits: ArrayLike, labels: ArrayLike, teacher_logits: ArrayLike | None = None
) -> dict[str, float]:
    """Score a model's logits on labeled images, in float64.

    `nll = mean(-log p[label])` in nats, with `p = softmax(logits)`.
    `ece = sum over bins of |correct in the bin - confidence in the bin| / images`, with the
    confidence `max(p)` in 15 bins of equal width, each closed on the right.
    `kl = mean(sum(q * log(q / p)))` in nats, with `q = softmax(teacher_logits)`.

    Args:
        logits: finite logits of shape (images, classes).
        labels: class indices of shape (images,), integers.
        teacher_logits: the teacher's logits of the same images and shape, if any.

    Returns:
        `accuracy`, `precision`, `recall`, `f1`, `nll` and `ece`; with a teacher also
        `agreement`, the fraction of images with the teacher's top class, and `kl`. Precision,
        recall and F1 are means over the classes that occur among labels or predictions, as with
        `average="macro", zero_division=0` in scikit-learn.

    Raises:
        ModelError: invalid logits or teacher's logits.
        DataError: invalid or out-of-range labels.

    Source:
        arXiv 1706.04599, equations 2, 3 and 5.

    Example:
        >>> score([[2.0, 1.0], [0.0, 3.0]], [0, 0])["accuracy"]
        0.5
    """
    student, truth = checked(logits, labels)
    log_p = log_softmax(student, axis=1)
    predicted = student.argmax(axis=1)
    precision, recall, f1, _ = precision_recall_fscore_support(
        truth, predicted, average="macro", zero_division=0
    )
    results = {
        "accuracy": np.mean(predicted == truth),
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "nll": -np.mean(log_p[np.arange(len(truth)), truth]),
        "ece": _calibration_error(np.exp(log_p.max(axis=1)), predicted == truth),
    }
    if teacher_logits is not None:
        teacher = finite(teacher_logits, "teacher's logits")
        if teacher.shape != student.shape:
            raise ModelError(
                f"expected the teacher's logits to have the model's shape {student.shape}, "
                f"found {teacher.shape}; give both for the same images and classes"
            )
        log_q = log_softmax(teacher, axis=1)
        results["agreement"] = np.mean(predicted == teacher.argmax(axis=1))
        results["kl"] = np.mean(np.sum(np.exp(log_q) * (log_q - log_p), axis=1))
    return {name: float(value) for name, value in results.items()}


def confusion(logits: ArrayLike, labels: ArrayLike) -> Integers:
    """Compute the confusion matrix.

    Args:
        logits: finite logits of shape (images, classes).
        labels: class indices of shape (images,), integers.

    Returns:
        Counts of shape (classes, classes), int64: one row per true class, one column per
        predicted class.

    Raises:
        ModelError: invalid logits.
        DataError: invalid or out-of-range labels.

    Example:
        >>> confusion([[2.0, 1.0], [0.0, 3.0]], [0, 0]).tolist()
        [[1, 1], [0, 0]]
    """
    values, truth = checked(logits, labels)
    classes = np.arange(values.shape[1])
    return confusion_matrix(truth, values.argmax(axis=1), labels=classes).astype(np.int64)


def per_class(logits: ArrayLike, labels: ArrayLike) -> PerClass:
    """Compute precision, recall, F1 and support of every class, including absent ones.

    Args:
        logits: finite logits of shape (images, classes).
        labels: class indices of shape (images,), integers.

    Returns:
        Four arrays of shape (classes,): three in float64, support in int64.

    Raises:
        ModelError: invalid logits.
        DataError: invalid or out-of-range labels.

    Example:
        >>> per_class([[2.0, 1.0], [0.0, 3.0]], [0, 0]).support.tolist()
        [2, 0]
    """
    values, truth = checked(logits, labels)
    classes = np.arange(values.shape[1])
    precision, recall, f1, support = precision_recall_fscore_support(
        truth, values.argmax(axis=1), labels=classes, zero_division=0
    )
    return PerClass(precision, recall, f1, support.astype(np.int64))


def calibration(logits: ArrayLike, labels: ArrayLike) -> Calibration:
    """Compute confidence and accuracy in the bins of `score`'s ECE.

    Args:
        logits: finite logits of shape (images, classes).
        labels: class indices of shape (images,), integers.

    Returns:
        Three arrays of shape (15,), for bins of equal width from 0 to 1, closed on the right.

    Raises:
        ModelError: invalid logits.
        DataError: invalid or out-of-range labels.

    Example:
        >>> calibration([[2.0, 1.0], [0.0, 3.0]], [0, 0]).accuracy[10:].tolist()
        [1.0, nan, nan, nan, 0.0]
    """
    values, truth = checked(logits, labels)
    confidence = np.exp(log_softmax(values, axis=1).max(axis=1))
    support, confident, correct = (
        _in_bins(confidence, weights)
        for weights in (None, confidence, values.argmax(axis=1) == truth)
    )
    some = np.where(support, support, np.nan)
    return Calibration(confident / some, correct / some, support.astype(np.int64))


def _calibration_error(confidence: Floats, correct: NDArray[np.bool_]) -> float:
    return np.abs(_in_bins(confidence, correct - confidence)).sum() / len(correct)


def _in_bins(confidence: Floats, weights: NDArray | None) -> Floats:
    """The sum of the weights in each bin, or the count without weights."""
    edges = np.linspace(0, 1, BINS + 1)
    bins = np.searchsorted(edges, confidence, side="left") - 1  # no confidence is 0
    return np.bincount(bins, weights=weights, minlength=BINS).astype(np.float64)


def checked(logits: ArrayLike, labels: ArrayLike) -> tuple[Floats, Integers]:
    """Validate and convert logits to float64 and labels to int64; raises like `score`."""
    values = finite(logits, "logits")
    truth = np.asarray(labels)
    images, classes = values.shape
    if truth.shape != (images,) or truth.dtype.kind not in "iu":
        raise DataError(
            f"expected labels as integers of shape ({images},), one per row of logits, "
            f"found {truth.dtype} of shape {truth.shape}; give class indices"
        )
    if truth.min() < 0 or truth.max() >= classes:
        raise DataError(
            f"expected labels from 0 to {classes - 1}, as there are {classes} logits, "
            f"found {truth.min()} to {truth.max()}; use a model of the same classes"
        )
    return values, truth.astype(np.int64)


def finite(logits: ArrayLike, name: str) -> Floats:
    """Validate and convert logits to float64; raises like `score`."""
    values = np.asarray(logits)
    if values.dtype.kind not in "fiu" or values.ndim != 2 or not len(values) or values.shape[1] < 2:
        raise ModelError(
            f"expected {name} as numbers of shape (images, classes), at least one image and two "
            f"classes, found {values.dtype} of shape {values.shape}; give the model's raw output"
        )
    not_finite = np.argwhere(~np.isfinite(values))
    if len(not_finite):
        row, column = not_finite[0]
        raise ModelError(
            f"expected finite {name}, found {values[row, column]} in row {row}; "
            "look for training that diverged or a damaged file"
        )
    return values.astype(np.float64)
