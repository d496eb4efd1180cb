"""Sections with example test images and the predictions of the models."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image
from scipy.special import softmax

from tutelage.report.elements import Picture, Section
from tutelage.runs.run_reader import Record

_LARGEST = 96  # pixels of a side, as a report has thirty of them
_SHOWN_CLASSES = 5


def missed(record: Record, names: Sequence[str]) -> Section:
    """Images that the teacher classifies correctly and the student does not."""
    section = Section("missed", "Errors of the student that the teacher avoids")
    if not _available(record, section):
        return section
    index, images = record.pictures["missed"], record.pictures["missed_images"]
    logits, labels = record.logits, record.labels
    if {"teacher", "student"} <= logits.keys():
        right = {stage: logits[stage].argmax(axis=1) == labels for stage in ("teacher", "student")}
        alone = int((right["teacher"] & ~right["student"]).sum())
        other = int((right["student"] & ~right["teacher"]).sum())
        section.text.append(
            f"Of {len(labels):,} test images, {alone:,} are classified correctly by the teacher "
            f"only and {other:,} by the student only."
            + (f" Shown: {len(index)}, most confident teacher first." if len(index) else "")
        )
    elif not len(index):
        section.text.append("The teacher's predictions on the test images are unknown.")
    for i, image in zip(index, images, strict=True):
        if not {"teacher", "student"} <= logits.keys():
            section.pictures.append(Picture(_source(image), f"test image {i}"))
            continue
        lines = []
        for stage in ("student", "teacher"):
            p = softmax(np.asarray(logits[stage][i], np.float64))
            lines.append(f"{stage}: {names[p.argmax()]} ({100 * p.max():.0f} %)")
        section.pictures.append(Picture(_source(image), names[labels[i]], lines))
    return section


def telling(record: Record, names: Sequence[str]) -> Section:
    """Images whose soft targets carry much more information than the label."""
    section = Section("soft-targets", "Soft targets")
    if not _available(record, section):
        return section
    index, images = record.pictures["telling"], record.pictures["telling_images"]
    degree = float(record.pictures["temperature"])
    if not len(index) or "teacher" not in record.logits:
        section.text.append("The teacher's predictions on the test images are unknown.")
        return section
    section.text.append(
        "A label names one class. The teacher's soft targets, its probabilities at temperature "
        f"{degree:g}, also rank the other classes; the student is trained on these. Shown: test "
        "images, one per class, with a high probability of a second class."
    )
    for i, image in zip(index, images, strict=True):
        p = softmax(np.asarray(record.logits["teacher"][i], np.float64) / degree)
        order = np.argsort(-p, kind="stable")[:_SHOWN_CLASSES]
        shares = [(names[k], float(p[k])) for k in order]
        section.pictures.append(Picture(_source(image), names[record.labels[i]], (), shares))
    return section


def _available(record: Record, section: Section) -> bool:
    """Whether the run has example images; if not, the section says so."""
    if record.pictures:
        return True
    lines = [line for line in record.missing if line.startswith("pictures.npz")]
    section.text.append(f"No images to show: {lines[0] if lines else 'the run saved none'}.")
    return False


def _source(image: np.ndarray) -> str:
    """An image of shape (height, width, 1 or 3), uint8, as a PNG in a `data:` URL."""
    drawn = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    drawn.thumbnail((_LARGEST, _LARGEST))
    png = io.BytesIO()
    drawn.save(png, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(png.getvalue()).decode()
