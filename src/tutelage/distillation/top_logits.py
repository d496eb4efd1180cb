"""The largest logits of a row with their classes, and what the other classes add up to."""

from __future__ import annotations

import math

import numpy as np

from tutelage.errors import LogitsError

_LARGEST = float(np.finfo(np.float16).max)
_VALUES = 2**22  # logits that are packed at a time, which takes several times their memory
# The temperatures at which the level of the other classes is stored, from their mean to their
# maximum: whatever the temperature, it lies between two of them.
TEMPERATURES = (math.inf, 16.0, 8.0, 4.0, 2.0, 1.0, 0.5, 0.0)


def row_type(kept: int, classes: int) -> np.dtype:
    """The type of a row: 4 bytes for each class that is kept (6 above 65,536 classes), and 16.

    Args:
        kept: how many of the largest logits a row has.
        classes: the number of classes.

    Returns:
        A structure of `logits`, float16, less the row's maximum, the largest first; `classes`,
        their indices; and `rest`, float16, the levels of the other classes at `TEMPERATURES`.

    Example:

    >>> from tutelage.distillation import top_logits
    >>> top_logits.row_type(50, 1000).itemsize, top_logits.row_type(50, 100_000).itemsize
    (216, 316)
    """
    number = "<u2" if classes <= 2**16 else "<u4"
    fields = [("logits", "<f2", (kept,)), ("classes", number, (kept,))]
    return np.dtype([*fields, ("rest", "<f2", (len(TEMPERATURES),))])


def pack(logits: np.ndarray, kept: int) -> np.ndarray:
    """Reduce rows of logits to their largest ones and the levels of the others.

    The level of m classes with logits z at temperature T is `T log(mean_j exp(z_j / T))`: m classes
    of this one logit have the mass of all. It falls with T from their maximum to their mean, slowly
    and smoothly, whatever they are, so a few of its values serve any temperature. One value would
    serve one temperature, and a distribution fitted to the others would be exact at none; a level
    is exact, up to float16, at the temperatures that it is stored for, which recipes use.

    Args:
        logits: of shape (n, ..., classes), of any floating-point type, finite.
        kept: how many are kept, 1 to the number of classes.

    Returns:
        Of shape (n, ...), of type `row_type`.

    Raises:
        LogitsError: if a logit is not finite, or too far below its row's maximum for float16.

    Example:

    >>> import numpy as np
    >>> from tutelage.distillation import top_logits
    >>> rows = top_logits.pack(np.array([[2.0, 5.0, 1.0, 4.0]]), kept=2)
    >>> rows["classes"].tolist(), rows["logits"].tolist()
    ([[1, 3]], [[0.0, -1.0]])
    >>> top_logits.unpack(rows, classes=4, temperature=1.0).round(2).tolist()
    [[-3.380000114440918, 0.0, -3.380000114440918, -1.0]]
    """
    below = below_maximum(logits)
    rows = np.empty(below.shape[:-1], row_type(kept, below.shape[-1]))
    first, step = below.shape[-1] - kept, max(1, _VALUES // math.prod(below.shape[1:]))
    for some in (slice(start, start + step) for start in range(0, len(below), step)):
        chosen = np.argpartition(below[some], first, axis=-1)[..., first:]
        order = np.argsort(-np.take_along_axis(below[some], chosen, -1), axis=-1, kind="stable")
        rows[some] = _rows(below[some], np.take_along_axis(chosen, order, -1))
    return rows


def pack_classes(logits: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """As `pack`, but keep the logits of given classes, of shape (..., kept)."""
    return _rows(below_maximum(logits), classes.astype(np.int64))


def unpack(rows: np.ndarray, classes: int, temperature: float) -> np.ndarray:
    """Logits of all classes, of which those that were not kept share one.

    Args:
        rows: from `pack`, of any shape.
        classes: the number of classes.
        temperature: T, at which the classes that were not kept have their mass; above 0.

    Returns:
        float32 of shape (..., classes), less each row's maximum.
    """
    dense = np.empty((*rows.shape, classes), np.float32)
    dense[...] = _level(rows["rest"].astype(np.float64), temperature)[..., np.newaxis]
    chosen, logits = rows["classes"].astype(np.int64), rows["logits"].astype(np.float32)
    np.put_along_axis(dense, chosen, logits, axis=-1)
    return dense


def below_maximum(logits: np.ndarray) -> np.ndarray:
    """Logits less each row's maximum.

    Args:
        logits: of shape (..., classes).

    Returns:
        Of the same shape and type, at most 0.

    Raises:
        LogitsError: if one is not finite, or too far below its row's maximum for float16.
    """
    below = np.full_like(logits, np.nan)
    if np.isfinite(logits).all():
        below = logits - logits.max(axis=-1, keepdims=True)
    if not below.min() >= -_LARGEST:  # NaN fails too
        raise LogitsError(
            f"the teacher's logits must be finite and within {_LARGEST:g} of each other, found "
            f"{logits.flat[np.abs(logits).argmax()]}; is it trained, and on such images?"
        )
    return below


def _rows(below: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    others = np.ones(below.shape, bool)
    np.put_along_axis(others, chosen, False, axis=-1)
    kept, classes = chosen.shape[-1], below.shape[-1]
    rows = np.empty(below.shape[:-1], row_type(kept, classes))
    rows["logits"] = np.take_along_axis(below, chosen, axis=-1)
    rows["classes"] = chosen
    rows["rest"] = _levels(below[others].reshape(*below.shape[:-1], classes - kept))
    return rows


def _levels(logits: np.ndarray) -> np.ndarray:
    """The levels of logits (..., n) at `TEMPERATURES`; zeros if there are none."""
    levels = np.zeros((*logits.shape[:-1], len(TEMPERATURES)))
    if not logits.shape[-1]:
        return levels
    top = logits.max(axis=-1, keepdims=True).astype(np.float64)
    below = logits - top
    for place, temperature in enumerate(TEMPERATURES):
        if temperature == math.inf:
            level = below.mean(axis=-1)
        elif temperature:
            level = temperature * np.log(np.exp(below / temperature).mean(axis=-1))
        else:
            level = np.zeros(below.shape[:-1])
        levels[..., place] = top[..., 0] + level
    return levels


def _level(levels: np.ndarray, temperature: float) -> np.ndarray:
    """Levels (..., temperatures) at another temperature, by a monotone cubic.

    It runs over b / (1 + b) with b = 1 / T, which is 0 at infinity and 1 at T = 0: there the level
    is smooth up to both ends.
    """
    from scipy.interpolate import PchipInterpolator  # slow to import, for those that only list

    places = [1 / (1 + temperature) for temperature in TEMPERATURES]
    curve = PchipInterpolator(places, levels, axis=-1)
    return np.asarray(curve(1 / (1 + temperature)))
