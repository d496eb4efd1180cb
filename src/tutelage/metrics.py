"""What a classifier's logits are worth against labels, and against its teacher's logits."""

from collections.abc import Sequence
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
    """Figures for each class, every one of shape (classes,).

    Args:
        precision: the part of what was called this class that is of it; 0 if nothing was.
        recall: the part of this class that was called so; 0 if there is none of it.
        f1: the harmonic mean of both, 0 if both are.
        support: how many images are of this class.

    Example:
        >>> per_class([[2.0, 1.0], [0.0, 3.0]], [0, 0]).recall.tolist()
        [0.5, 0.0]
    """

    precision: Floats
    recall: Floats
    f1: Floats
    support: Integers


class Correction(NamedTuple):
    """A number that is added to the logits of some classes.

    Args:
        offset: that number.
        errors: how many images are then given another class than their own.

    Example:
        >>> Correction(offset=3.5, errors=109).errors
        109
    """

    offset: float
    errors: int


def score(
    logits: ArrayLike, labels: ArrayLike, teacher_logits: ArrayLike | None = None
) -> dict[str, float]:
    """Score a model's logits on labelled images, all in float64.

    `nll = mean(-log p[label])` in nats, with `p = softmax(logits)`.
    `ece = sum over bins of |correct in the bin - confidence in the bin| / images`, with the
    confidence `max(p)` in 15 bins of equal width, each closed on the right.
    `kl = mean(sum(q * log(q / p)))` in nats, with `q = softmax(teacher_logits)`.

    Args:
        logits: of shape (images, classes), finite.
        labels: class numbers of shape (images,), integers.
        teacher_logits: the teacher's for the same images, of the same shape, if there are any.

    Returns:
        `accuracy`, `precision`, `recall`, `f1`, `nll` and `ece`; with a teacher also
        `agreement`, the part of images whose top class is the teacher's, and `kl`. Precision,
        recall and F1 are means over the classes that occur among labels or predictions, as
        scikit-learn's `average="macro", zero_division=0` has them.

    Raises:
        ModelError: logits or teacher's logits that are none.
        DataError: labels that are none, or not of these classes.

    Source:
        arXiv 1706.04599, equations 2, 3 and 5.

    Example:
        >>> score([[2.0, 1.0], [0.0, 3.0]], [0, 0])["accuracy"]
        0.5
    """
    student, truth = _checked(logits, labels)
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
        teacher = _logits(teacher_logits, "teacher's logits")
        if teacher.shape != student.shape:
            raise ModelError(
                f"expected the teacher's logits to be of the model's shape {student.shape}, "
                f"found {teacher.shape}; give both for the same images and classes"
            )
        log_q = log_softmax(teacher, axis=1)
        results["agreement"] = np.mean(predicted == teacher.argmax(axis=1))
        results["kl"] = np.mean(np.sum(np.exp(log_q) * (log_q - log_p), axis=1))
    return {name: float(value) for name, value in results.items()}


def confusion(logits: ArrayLike, labels: ArrayLike) -> Integers:
    """Count what was taken for what.

    Args:
        logits: of shape (images, classes), finite.
        labels: class numbers of shape (images,), integers.

    Returns:
        Counts of shape (classes, classes), int64: a row for each true class, a column for each
        predicted one.

    Raises:
        ModelError: logits that are none.
        DataError: labels that are none, or not of these classes.

    Example:
        >>> confusion([[2.0, 1.0], [0.0, 3.0]], [0, 0]).tolist()
        [[1, 1], [0, 0]]
    """
    values, truth = _checked(logits, labels)
    classes = np.arange(values.shape[1])
    return confusion_matrix(truth, values.argmax(axis=1), labels=classes).astype(np.int64)


def per_class(logits: ArrayLike, labels: ArrayLike) -> PerClass:
    """Give precision, recall, F1 and support of every class, absent ones too.

    Args:
        logits: of shape (images, classes), finite.
        labels: class numbers of shape (images,), integers.

    Returns:
        Four arrays of shape (classes,): three float64, the support int64.

    Raises:
        ModelError: logits that are none.
        DataError: labels that are none, or not of these classes.

    Example:
        >>> per_class([[2.0, 1.0], [0.0, 3.0]], [0, 0]).support.tolist()
        [2, 0]
    """
    values, truth = _checked(logits, labels)
    classes = np.arange(values.shape[1])
    precision, recall, f1, support = precision_recall_fscore_support(
        truth, values.argmax(axis=1), labels=classes, zero_division=0
    )
    return PerClass(precision, recall, f1, support.astype(np.int64))


def correction(logits: ArrayLike, labels: ArrayLike, classes: Sequence[int]) -> Correction:
    """Find the one number that, added to the logits of some classes, leaves the fewest errors.

    `offset = argmin_b sum_i [argmax_k (z_ik + b * [k in classes]) != y_i]`. The errors change
    only where b passes a `max of the other logits - max of the classes' logits` of an image, so
    all values of b are compared. Of the stretches between those that are best, the middle of
    the longest is taken; of one without an end, the place that is 1 beyond where it begins.

    Args:
        logits: of shape (images, classes), finite.
        labels: class numbers of shape (images,), integers.
        classes: the class numbers whose logits are moved, some but not all of them.

    Returns:
        The offset and the number of errors with it.

    Raises:
        ModelError: logits that are none.
        DataError: labels that are none, or classes that are none, all or unknown.

    Source:
        Section 3 of arXiv 1503.02531, where it is chosen on the test images.

    Example:
        >>> correction([[4.0, 1.0], [3.0, 2.0], [0.0, 1.0]], [0, 1, 1], classes=[1])
        Correction(offset=2.0, errors=0)
    """
    values, truth = _checked(logits, labels)
    moved = np.isin(np.arange(values.shape[1]), classes)
    if moved.sum() != len(set(classes)) or moved.all() or not moved.any():
        raise DataError(
            f"expected some but not all of the classes 0 to {values.shape[1] - 1}, "
            f"found {list(classes)}"
        )
    inside = np.where(moved, values, -np.inf)
    outside = np.where(moved, -np.inf, values)
    margins = outside.max(axis=1) - inside.max(axis=1)  # passed by b, the answer changes
    # Each image gains an error, loses one, or neither, when b passes its margin.
    change = (outside.argmax(axis=1) == truth).astype(int) - (inside.argmax(axis=1) == truth)
    places, which = np.unique(margins, return_inverse=True)
    steps = np.bincount(which, weights=change).astype(int)
    errors = np.sum(outside.argmax(axis=1) != truth) + np.concatenate([[0], steps.cumsum()])
    ends = np.concatenate([[places[0] - 2], places, [places[-1] + 2]])
    lengths = np.where(errors == errors.min(), np.diff(ends), -1)
    chosen = int(lengths.argmax())
    return Correction(float(ends[chosen : chosen + 2].mean()), int(errors[chosen]))


def raised(logits: ArrayLike, classes: Sequence[int], offset: float) -> Floats:
    """Add a number to the logits of some classes.

    Args:
        logits: of shape (images, classes), finite.
        classes: the class numbers whose logits are moved.
        offset: the number, as `correction` finds it.

    Returns:
        Logits of the same shape, float64.

    Raises:
        ModelError: logits that are none.

    Example:
        >>> raised([[4.0, 1.0]], classes=[1], offset=3.5).tolist()
        [[4.0, 4.5]]
    """
    values = _logits(logits, "logits").copy()
    values[:, list(classes)] += offset
    return values


def gap_closed(teacher: float | None, baseline: float, student: float) -> str:
    """Say in one sentence what the teacher was worth.

    Args:
        teacher: its accuracy, 0 to 1; None where it is not known.
        baseline: accuracy of the student trained without the teacher, 0 to 1.
        student: accuracy of the student trained with the teacher, 0 to 1.

    Returns:
        How much of the gap from baseline to teacher the student closed, in points (hundredths
        of accuracy, to two decimals), or that the teacher did not help, or that it was no
        better than the baseline.

    Raises:
        ModelError: an accuracy that is not from 0 to 1.

    Example:
        >>> gap_closed(0.90, 0.88, 0.89)
        'The student closed 1.00 of the 2.00 points from baseline to teacher (50 %).'
    """
    accuracies = {"baseline": baseline, "student": student}
    if teacher is not None:
        accuracies = {"teacher": teacher} | accuracies
    for name, accuracy in accuracies.items():
        if not 0 <= accuracy <= 1:
            raise ModelError(
                f"expected the {name}'s accuracy as a number from 0 to 1, "
                f"found {accuracy}; divide a percentage by 100"
            )
    # In whole hundredths of a point, so that the figures shown add up and equal means equal.
    bottom, reached = round(10_000 * baseline), round(10_000 * student)
    gain = reached - bottom
    place = f"{_points(gain)} above" if gain > 0 else f"{_points(-gain)} below"
    beside = f"the student is {place} the baseline" if gain else "the student equals the baseline"
    if teacher is None:
        return f"The teacher's accuracy on these images is not known; {beside}."
    gap = round(10_000 * teacher) - bottom
    if gap <= 0:
        why = f"is {_points(-gap)} below the baseline" if gap else "equals the baseline"
        end = " all the same" if gain > 0 else ", so the teacher did not help"
        return f"There was no gap to close, as the teacher {why}; {beside}{end}."
    if gain <= 0:
        return f"The teacher did not help: {beside}, which is {_points(gap)} below the teacher."
    if gain < gap:
        part = min(round(100 * gain / gap), 99)  # 100 % would claim all of it
        closed = f"closed {gain / 100:.2f} of the {_points(gap)}"
        return f"The student {closed} from baseline to teacher ({part} %)."
    end = f"is {_points(gain - gap)} above" if gain > gap else "equals"
    closed = f"closed all of the {_points(gap)}"
    return f"The student {closed} from baseline to teacher and {end} the teacher."


def _points(hundredths: int) -> str:
    return f"{hundredths / 100:.2f} points"


def _calibration_error(confidence: Floats, correct: NDArray[np.bool_]) -> float:
    edges = np.linspace(0, 1, BINS + 1)
    bins = np.searchsorted(edges, confidence, side="left")
    return np.abs(np.bincount(bins, weights=correct - confidence)).sum() / len(correct)


def _checked(logits: ArrayLike, labels: ArrayLike) -> tuple[Floats, Integers]:
    values = _logits(logits, "logits")
    truth = np.asarray(labels)
    images, classes = values.shape
    if truth.shape != (images,) or truth.dtype.kind not in "iu":
        raise DataError(
            f"expected labels as integers of shape ({images},), one for each row of logits, "
            f"found {truth.dtype} of shape {truth.shape}; give class numbers"
        )
    if truth.min() < 0 or truth.max() >= classes:
        raise DataError(
            f"expected labels from 0 to {classes - 1}, as there are {classes} logits, "
            f"found {truth.min()} to {truth.max()}; take a model of the same classes"
        )
    return values, truth.astype(np.int64)


def _logits(logits: ArrayLike, name: str) -> Floats:
    values = np.asarray(logits)
    if values.dtype.kind not in "fiu" or values.ndim != 2 or not len(values) or values.shape[1] < 2:
        raise ModelError(
            f"expected {name} as numbers of shape (images, classes), at least one image and two "
            f"classes, found {values.dtype} of shape {values.shape}; give the model's raw output"
        )
    strange = np.argwhere(~np.isfinite(values))
    if len(strange):
        row, column = strange[0]
        raise ModelError(
            f"expected finite {name}, found {values[row, column]} in row {row}; "
            "look for training that diverged or a damaged file"
        )
    return values.astype(np.float64)
