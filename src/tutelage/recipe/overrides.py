"""A user's teacher, student and data as recipe overrides."""

import os
from pathlib import Path
from typing import Any, get_args

from tutelage.recipe.data import DataName
from tutelage.recipe.network import MODELS


def overrides(
    *,
    teacher: Any,
    student: Any,
    data: Any,
    unlabeled: Any = None,
    train_teacher: bool = False,
) -> dict[str, object]:
    """Express a teacher, a student and data as recipe overrides.

    Args:
        teacher: as in `distill`.
        student: as in `distill`.
        data: as in `distill`.
        unlabeled: as in `distill`.
        train_teacher: as in `distill`.

    Returns:
        Values by dotted key. An object that is neither a name nor a path appears as its type.

    Example:

    >>> from tutelage import recipe
    >>> recipe.overrides(teacher="t.keras", student="student-300k", data="digits")
    {'teacher.file': 't.keras', 'student.model': 'student-300k', 'data.name': 'digits'}
    """
    values: dict[str, object] = {}
    for role, source in (("teacher", teacher), ("student", student)):
        is_name = isinstance(source, str) and source in MODELS
        trained = is_name or (role == "teacher" and train_teacher)
        values[f"{role}.{'model' if trained else 'file'}"] = _described(source)
    if isinstance(teacher, str | os.PathLike) and Path(teacher).suffix == ".npy":
        # The stored logits belong to the unaugmented images.
        values |= {"views.flip": False, "views.shift": 0, "views.distinct": 1}
        values["schedule.student.cutout"] = 0
    if isinstance(data, str) and data in get_args(DataName) and data != "folder":
        values["data.name"] = data
    else:
        values |= {"data.name": "folder", "data.path": _described(data)}
    if unlabeled is not None:
        values |= {"data.unlabeled": _described(unlabeled), "loss.alpha": 1.0}
    return values


def is_path(source: Any) -> bool:
    """Whether a recipe can express this source: a path or name, a list of those, or None.

    Args:
        source: a teacher, a student or data, as in `tutelage.distill`.

    Returns:
        False for a model, an array or the like.
    """
    sources = source if isinstance(source, list | tuple) and source else [source]
    return source is None or all(isinstance(item, str | os.PathLike) for item in sources)


def _described(source: Any) -> Any:
    if isinstance(source, list | tuple) and is_path(source):
        return [os.fspath(item) for item in source]
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    name = getattr(source, "name", None)
    return f"<{type(source).__name__}{f' {name}' if isinstance(name, str) else ''}>"
