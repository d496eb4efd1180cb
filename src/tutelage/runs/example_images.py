"""Which test images to show: what the student alone got wrong, and what a teacher knows beside."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.special import softmax

MISSED = 24
TELLING = 6


class Exhibits(NamedTuple):
    """Test images worth a look, by their numbers.

    Args:
        missed: the teacher is right and the student wrong; the surest teacher first.
        telling: the teacher is right, and its second guess weighs much; no two of one class.
        temperature: that softens the teacher's answers.
    """

    missed: np.ndarray
    telling: np.ndarray
    temperature: float


def choose(answers: Mapping[str, np.ndarray], labels: np.ndarray, temperature: float) -> Exhibits:
    """Choose the test images that show best what teacher and student know.

    Args:
        answers: each model's logits on the test part, (n, classes).
        labels: the test part's classes, (n,).
        temperature: above 0, of the teacher's softened answers.

    Returns:
        At most 24 images that were missed and 6 that are telling; none without a teacher's answers.

    Example:

    >>> import numpy as np
    >>> from tutelage.runs import example_images
    >>> teacher = np.array([[4.0, 0.0], [3.0, 2.0], [0.0, 1.0]])
    >>> answers = {"teacher": teacher, "student": -teacher}
    >>> chosen = example_images.choose(answers, np.array([0, 0, 1]), temperature=4.0)
    >>> chosen.missed.tolist(), chosen.telling.tolist()
    ([0, 1, 2], [1, 2])
    """
    nothing = np.empty(0, np.int64)
    if not {"teacher", "student"} <= answers.keys():
        return Exhibits(nothing, nothing, temperature)
    teacher = np.asarray(answers["teacher"], np.float64)
    right = teacher.argmax(axis=1) == labels
    missed = np.flatnonzero(right & (answers["student"].argmax(axis=1) != labels))
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
    return Exhibits(missed, np.array(telling, np.int64), temperature)


def save(path: Path, chosen: Exhibits, images: np.ndarray) -> None:
    """Write the chosen images with their numbers.

    Args:
        path: the `.npz` file.
        chosen: which.
        images: the test part's, uint8 of shape (n, height, width, channels).
    """
    np.savez_compressed(
        path,
        temperature=chosen.temperature,
        missed=chosen.missed,
        missed_images=images[chosen.missed],
        telling=chosen.telling,
        telling_images=images[chosen.telling],
    )
