"""Validation of the losses' arguments."""

from __future__ import annotations

import math
import numbers
from typing import Any

from tutelage.errors import ModelError, RecipeError


def is_finite_number(value: object) -> bool:
    """Whether a value is a real, finite number and not a bool.

    Args:
        value: anything.

    Returns:
        True for a finite int, float or NumPy scalar.

    Example:

    >>> is_finite_number(0.5), is_finite_number(True), is_finite_number(float("nan"))
    (True, False, False)
    """
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def temperature_of(value: Any) -> float:
    """Validate a temperature.

    Args:
        value: the argument.

    Returns:
        The value as a float.

    Raises:
        RecipeError: it isn't a finite number above 0.
    """
    if not is_finite_number(value) or value <= 0:
        raise RecipeError(
            f"temperature must be a finite number above 0, got {value!r}; 4 is common"
        )
    return float(value)


def weight_of(name: str, value: Any) -> float:
    """Validate the weight of a term.

    Args:
        name: the argument's name.
        value: the argument.

    Returns:
        The value as a float.

    Raises:
        RecipeError: it isn't a finite number of at least 0.
    """
    if not is_finite_number(value) or value < 0:
        raise RecipeError(f"{name} must be a finite number of at least 0, got {value!r}")
    return float(value)


def check_logits(teacher_outputs: Any, student_outputs: Any) -> None:
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
            "teacher and student must both return logits of one shape (batch, classes), "
            f"got {teacher} from the teacher and {student} from the student; "
            "give both models the same classes"
        )
