"""Selects test images for the report: student errors, and informative soft targets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.special import softmax

from tutelage.data.content import Images

MISSED = 24
TELLING = 6


class Examples(NamedTuple):
    """Indices of selected test images.

    Args:
        missed: correct by the teacher, wrong by the student; most confident teacher first.
        telling: correct by the teacher, with a probable second class; at most one per class.
        temperature: temperature of the soft targets.
    """

    missed: np.ndarray
    telling: np.ndarray
    temperature: float


def choose(logits: Mapping[str, np.ndarray], labels: np.ndarray, temperature: float) -> Examples:
    """Select test images for the report.

    Args:
        logits: logits of each model on the test set, (n, classes).
        labels: labels of the test set, (n,).
        temperature: temperature of the soft targets, above 0.

    Returns:
        At most 24 `missed` and 6 `telling` images; none without the teacher's logits.

    Example:

    >>> import numpy as np
    >>> from tutelage.runs import example_images
    >>> teacher = np.array([[4.0, 0.0], [3.0, 2.0], [0.0, 1.0]])
    >>> logits = {"teacher": teacher, "student": -teacher}
    >>> chosen = example_images.choose(logits, np.array([0, 0, 1]), temperature=4.0)
    >>> chosen.missed.tolist(), chosen.telling.tolist()
    ([0, 1, 2], [1, 2])
    """
    nothing = np.empty(0, np.int64)
    if not {"teacher", "student"} <= logits.keys():
        return Examples(nothing, nothing, temperature)
    teacher = np.asarray(logits["teacher"], np.float64)
    right = teacher.argmax(axis=1) == labels
    missed = np.flatnonzero(right & (logits["student"].argmax(axis=1) != labels))
    sure = softmax(teacher[missed], axis=1).max(axis=1)
    missed = missed[np.argsort(-sure, kind="stable")][:MISSED]
    second = np.sort(softmax(teacher / temperature, axis=1), axis=1)[:, -2]
    telling: list[int] = []
    seen: set[int] = set()
    for image in np.argsort(-second, kind="stable"):
        if right[image] and int(labels[image]) not in seen:
            telling.append(int(image))
            seen.add(int(labels[image]))
        if len(telling) == TELLING:
            break
    return Examples(missed, np.array(telling, np.int64), temperature)


def save(path: Path, chosen: Examples, images: Images) -> None:
    """Write the selected images and their indices.

    Args:
        path: the `.npz` file.
        chosen: the selection.
        images: images of the test set, uint8 of shape (n, height, width, channels).
    """
    np.savez_compressed(
        path,
        temperature=chosen.temperature,
        missed=chosen.missed,
        missed_images=images[chosen.missed],
        telling=chosen.telling,
        telling_images=images[chosen.telling],
    )
