"""A model's answers: whether they can be used, and are those that results depend on."""

from __future__ import annotations

import numpy as np

from tutelage.errors import LogitsError

_IMAGES = 64
# Of the largest difference between a sample's logits; batch sizes and threads change less.
_TOLERANCE = {"float32": 1e-3, "bfloat16": 2e-2}


def sample(count: int, most: int = _IMAGES) -> np.ndarray:
    """Indices of the images to ask a model for: at most 64 or `most`, spread over all `count`."""
    return np.linspace(0, count - 1, min(most, count)).astype(int)


def agree(answers: np.ndarray, stored: np.ndarray, precision: str = "float32") -> bool:
    """Whether logits are those stored earlier, up to rounding and a constant per row.

    A digest of weights and code can't cover all that a model's answers depend on, such as plain
    attributes, hooks and constants of other modules; a sample of the answers does.

    Args:
        answers: logits of shape (images, classes), or (images, teachers, classes).
        stored: the logits as stored, of any floating-point type.
        precision: precision of their computation, `"float32"` or `"bfloat16"`.

    Returns:
        Whether they agree; False if the shapes differ.

    Example:

    >>> import numpy as np
    >>> from tutelage.distillation.answers import agree
    >>> stored = np.array([[1.0, 2.0, 4.0]], np.float16)
    >>> agree(np.array([[1.0, 2.0, 4.001]]), stored), agree(np.array([[2.0, 1.0, 4.0]]), stored)
    (True, False)
    """
    if answers.shape != stored.shape:
        return False
    now, then = (
        x.astype(np.float64) - x.max(axis=-1, keepdims=True).astype(np.float64)
        for x in (answers, stored)
    )
    spread, largest = (np.abs(x[np.isfinite(x)]).max(initial=0) for x in (then, stored))
    rounding = float(np.finfo(stored.dtype).eps) * largest
    tolerance = _TOLERANCE[precision] * spread + rounding
    return np.allclose(now, then, rtol=0, atol=tolerance)


def finite(logits: np.ndarray) -> np.ndarray:
    """A teacher's logits, or LogitsError if one is not finite."""
    if not np.isfinite(logits).all():
        raise LogitsError("the teacher's logits must be finite; is it trained, and on such images?")
    return logits
