"""The test images that a run has kept to be shown, with what its models say of them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image
from scipy.special import softmax

from tutelage.report.elements import Picture, Section
from tutelage.runs.run_reader import Record

_LARGEST = 96  # pixels of a side, as a page holds thirty of them
_GUESSES = 5


def missed(record: Record, names: Sequence[str]) -> Section:
    """Images on which the teacher is right and the student wrong."""
    section = Section("missed", "What the student gets wrong and the teacher right")
    if not _kept(record, section):
        return section
    index, images = record.pictures["missed"], record.pictures["missed_images"]
    answers, labels = record.answers, record.labels
    if {"teacher", "student"} <= answers.keys():
        right = {stage: answers[stage].argmax(axis=1) == labels for stage in ("teacher", "student")}
        alone = int((right["teacher"] & ~right["student"]).sum())
        other = int((right["student"] & ~right["teacher"]).sum())
        section.text.append(
            f"Of {len(labels):,} test images the teacher alone is right on {alone:,}, the student "
            f"alone on {other:,}."
            + (f" Shown: {len(index)}, the surest teacher first." if len(index) else "")
        )
    elif not len(index):
        section.text.append("The teacher's answers to the test images are not known.")
    for i, image in zip(index, images, strict=True):
        if not {"teacher", "student"} <= answers.keys():
            section.pictures.append(Picture(_source(image), f"test image {i}"))
            continue
        lines = []
        for stage in ("student", "teacher"):
            p = softmax(np.asarray(answers[stage][i], np.float64))
            lines.append(f"{stage}: {names[p.argmax()]} ({100 * p.max():.0f} %)")
        section.pictures.append(Picture(_source(image), names[labels[i]], lines))
    return section


def telling(record: Record, names: Sequence[str]) -> Section:
    """Images of which the teacher says more than the label does: its softened answers."""
    section = Section("knowledge", "What the teacher knows beside the label")
    if not _kept(record, section):
        return section
    index, images = record.pictures["telling"], record.pictures["telling_images"]
    degree = float(record.pictures["temperature"])
    if not len(index) or "teacher" not in record.answers:
        section.text.append("The teacher's answers to the test images are not known.")
        return section
    section.text.append(
        "A label names one class. The teacher's answers, softened by the temperature "
        f"{degree:g}, also say what an image looks like beside; a student is taught by these. "
        "Shown are test images, each of another class, on which the second guess weighs much."
    )
    for i, image in zip(index, images, strict=True):
        p = softmax(np.asarray(record.answers["teacher"][i], np.float64) / degree)
        order = np.argsort(-p, kind="stable")[:_GUESSES]
        shares = [(names[k], float(p[k])) for k in order]
        section.pictures.append(Picture(_source(image), names[record.labels[i]], (), shares))
    return section


def _kept(record: Record, section: Section) -> bool:
    """Whether the run has kept pictures; if not, the section says so."""
    if record.pictures:
        return True
    lines = [line for line in record.missing if line.startswith("pictures.npz")]
    section.text.append(f"No pictures to show: {lines[0] if lines else 'none were kept'}.")
    return False


def _source(image: np.ndarray) -> str:
    """An image of shape (height, width, 1 or 3), uint8, as a PNG in a `data:` address."""
    drawn = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    drawn.thumbnail((_LARGEST, _LARGEST))
    png = io.BytesIO()
    drawn.save(png, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(png.getvalue()).decode()
