"""How many classes' logits are stored of each image: all, or the largest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tutelage.distillation import top_logits
from tutelage.distillation.origin import Origin
from tutelage.formatting import megabytes

# Logits that take no more in all views are stored of all classes: there is little to save.
SMALL = 256 * 2**20
# Bounds of T^2 * KL (of KL below T = 1), the distillation loss of a student that matches what is
# stored: the mean over a sample of images, and its 95th percentile. A student's own is 20 times
# that and more: 0.12 on CIFAR-10 at T = 1, 0.35 on MNIST at T = 20 (docs/results.md, docs/log.md).
MEAN, HIGH = 0.005, 0.02
_PERCENTILE = 95
_STEP = 10  # so that samples that differ a little lead to the same number
_IMAGES, _VALUES = 256, 2**24  # of the sample, at most


@dataclass(frozen=True)
class Divergence:
    """How far softmaxes of stored logits are from the teacher's, at the worst of some temperatures.

    Attributes:
        mean: mean over the sample of `max(1, T^2) * KL(teacher || stored)`.
        high: its 95th percentile.
        temperature: T.
    """

    mean: float
    high: float
    temperature: float

    @property
    def small(self) -> bool:
        """Whether both are within their bounds."""
        return self.mean <= MEAN and self.high <= HIGH

    def __str__(self) -> str:
        factor = "T^2 * KL" if self.temperature > 1 else "KL"
        return (
            f"{factor} {self.mean:.2g} in the mean and {self.high:.2g} in the {_PERCENTILE}th "
            f"percentile at T = {self.temperature:g}"
        )


def sample_size(classes: int) -> int:
    """How many images' logits to measure: 256, or fewer of very many classes."""
    return max(1, min(_IMAGES, _VALUES // classes))


def divergence(logits: np.ndarray, kept: int, temperatures: Sequence[float]) -> Divergence:
    """Measure what keeping the largest logits changes.

    Args:
        logits: the teacher's, of shape (..., classes).
        kept: how many are kept.
        temperatures: the temperatures, at least one, each above 0.

    Returns:
        The divergence at the temperature where its mean, in units of the bound, is the largest.

    Example:

    >>> import numpy as np
    >>> from tutelage.distillation import stored_classes
    >>> logits = np.array([[9.0, 7.0, 0.0, 0.0, 0.0], [9.0, 0.0, 0.0, 7.0, 0.0]])
    >>> stored_classes.divergence(logits, 2, [1.0, 4.0]).small
    True
    >>> stored_classes.divergence(logits, 1, [1.0, 4.0]).small
    False
    """
    rows, classes = top_logits.pack(logits, kept), logits.shape[-1]
    found = []
    for temperature in temperatures:
        stored = top_logits.unpack(rows, classes, temperature)
        log_p, log_q = (_log_softmax(x / temperature) for x in (logits, stored))
        each = (np.exp(log_p) * (log_p - log_q)).sum(axis=-1) * max(1.0, temperature**2)
        high = float(np.percentile(each, _PERCENTILE))
        found.append(Divergence(float(each.mean()), high, temperature))
    return max(found, key=lambda one: max(one.mean / MEAN, one.high / HIGH))


def choose(
    origin: Origin,
    views: int,
    temperatures: Sequence[float],
    sample: Callable[[], np.ndarray],
    asked: int | None = None,
) -> tuple[Origin, str]:
    """Choose how many logits of each row are stored.

    All, if they take no more than 256 MiB in all views; else as few, in steps of 10, as keep the
    divergence within its bounds on a sample; all again, if more than half of the bytes are needed
    for that.

    Args:
        origin: what the logits are computed from, with all classes.
        views: the number of views.
        temperatures: at which students take softmaxes of the logits.
        sample: computes the teacher's logits of some images, (n, ..., classes); called only if
            that decides.
        asked: the user's choice, at most the number of classes; None: none.

    Returns:
        The origin with the choice, and what to tell of it; "" if all are stored anyway.

    Example:

    >>> import numpy as np
    >>> from tutelage.distillation import stored_classes
    >>> from tutelage.distillation.origin import Origin
    >>> views = {"seed": 0, "flip": True, "shift": 2, "cutout": 0}
    >>> origin = Origin("t", "i", **views, precision="float32", shape=(10**6, 1000))
    >>> peaked = 12.0 * np.eye(64, 1000)
    >>> origin, _ = stored_classes.choose(origin, 8, [1.0], lambda: peaked)
    >>> origin.kept, origin.bytes(8)
    (10, 448000000)
    """
    classes, everything = origin.shape[-1], origin.bytes(views)
    if asked is not None and asked < classes:
        changed = divergence(sample(), asked, temperatures)
        beyond = "" if changed.small else f", above the bounds of {MEAN:g} and {HIGH:g}"
        return replace(origin, kept=asked), f"{changed}{beyond}"
    if asked is not None or everything <= SMALL:
        return origin, ""
    steps = range(_STEP, classes, _STEP)
    worth = [kept for kept in steps if 2 * replace(origin, kept=kept).bytes(views) <= everything]
    if not worth:
        return origin, ""
    logits = sample()
    changed = divergence(logits, worth[-1], temperatures)
    if not changed.small:
        fewer = megabytes(replace(origin, kept=worth[-1]).bytes(views))
        text = f"the {worth[-1]:,} largest would take {fewer} and change the softmax: {changed}"
        return origin, text
    low, high = 0, len(worth) - 1  # the divergence falls with their number
    while low < high:
        middle = (low + high) // 2
        if divergence(logits, worth[middle], temperatures).small:
            high = middle
        else:
            low = middle + 1
    return replace(origin, kept=worth[low]), str(divergence(logits, worth[low], temperatures))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    below = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    normalized: np.ndarray = below - np.log(np.exp(below).sum(axis=-1, keepdims=True))
    return normalized
