"""What users bring, as a recipe says it: a teacher, a student, data."""

import os
from pathlib import Path
from typing import Any, get_args

from tutelage.recipe.schema import MODELS, DataName


def overrides(*, teacher: Any, student: Any, data: Any, unlabeled: Any = None) -> dict[str, object]:
    """What a teacher, a student and data are in a recipe.

    Args:
        teacher: as `distill` takes it.
        student: likewise.
        data: likewise.
        unlabeled: likewise.

    Returns:
        Values by dotted key. What is no name and no path is told by its kind alone.

    Example:

    >>> from tutelage import recipe
    >>> recipe.overrides(teacher="t.keras", student="student-300k", data="digits")
    {'teacher.file': 't.keras', 'student.model': 'student-300k', 'data.name': 'digits'}
    """
    found: dict[str, object] = {}
    for role, source in (("teacher", teacher), ("student", student)):
        known = isinstance(source, str) and source in MODELS
        found[f"{role}.{'model' if known else 'file'}"] = _told(source)
    if isinstance(teacher, str | os.PathLike) and Path(teacher).suffix == ".npy":
        # Its logits are of the images as they are.
        found |= {"views.flip": False, "views.shift": 0, "views.distinct": 1}
        found["schedule.student.cutout"] = 0
    if isinstance(data, str) and data in get_args(DataName) and data != "folder":
        found["data.name"] = data
    else:
        found |= {"data.name": "folder", "data.path": _told(data)}
    if unlabeled is not None:
        found |= {"data.unlabeled": _told(unlabeled), "loss.alpha": 1.0}
    return found


def is_path(source: Any) -> bool:
    """Whether a recipe can name it: a path or name, a list of those, or None.

    Args:
        source: a teacher, a student or data, as `tutelage.distill` takes them.

    Returns:
        False for a model, an array or the like.
    """
    several = source if isinstance(source, list | tuple) and source else [source]
    return source is None or all(isinstance(one, str | os.PathLike) for one in several)


def _told(source: Any) -> Any:
    if isinstance(source, list | tuple) and is_path(source):
        return [os.fspath(one) for one in source]
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    name = getattr(source, "name", None)
    return f"<{type(source).__name__}{f' {name}' if isinstance(name, str) else ''}>"
