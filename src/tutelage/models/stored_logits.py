"""A teacher that is a file of logits, of certain images in a certain order."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from tutelage.errors import KnowledgeError, RecipeError
from tutelage.models.preprocessing import Preprocessing
from tutelage.models.probing import log_of_probabilities, reason


def order(images: np.ndarray) -> str:
    """A hash of images in their order, for the manifest of stored logits.

    Args:
        images: uint8 of shape (n, height, width, channels).

    Returns:
        SHA-256 in hexadecimal of the shape as `str` gives it, then the bytes in C order.

    Example:

    >>> import numpy as np
    >>> from tutelage.models import stored_logits
    >>> stored_logits.order(np.zeros((2, 8, 8, 1), np.uint8))[:12]
    'd760ac9ed879'
    """
    told = hashlib.sha256(str(images.shape).encode())
    told.update(np.ascontiguousarray(images, dtype=np.uint8).data)
    return told.hexdigest()


def read(
    path: Path, images: np.ndarray, classes: tuple[str, ...], entry: Preprocessing
) -> tuple[np.ndarray, list[str]]:
    """The logits of a `.npy` file, if its manifest says that they are of these images."""
    if entry != Preprocessing():
        raise RecipeError(f"{path} holds logits, which take no images: give no size or scale")
    manifest = path.with_suffix(".json")
    expected = {"images": order(images), "classes": list(classes)}
    try:
        told = json.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        told = reason(error)
    if told != expected:
        raise KnowledgeError(
            f"{manifest} must say whose logits {path.name} holds: expected "
            f"{json.dumps(expected, ensure_ascii=False)}, found {str(told)[:300]}"
        )
    try:
        logits = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise KnowledgeError(f"{path} can't be read as a .npy array: {reason(error)}") from error
    shape = (len(images), len(classes))
    if not isinstance(logits, np.ndarray) or logits.dtype.kind != "f" or logits.shape != shape:
        raise KnowledgeError(
            f"{path}: expected floating-point logits of shape {shape}, the images by the classes, "
            f"found {getattr(logits, 'dtype', 'an archive')} of shape {np.shape(logits)}"
        )
    if not np.isfinite(logits).all():
        raise KnowledgeError(f"{path} holds logits that are not finite: store them anew")
    notes: list[str] = []
    return log_of_probabilities(np.asarray(logits, np.float32), notes), notes
