"""Files of teacher logits for the training images in their order."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from tutelage.errors import LogitsError, RecipeError
from tutelage.models.preprocessing import Preprocessing
from tutelage.models.probing import log_of_probabilities, reason


def image_hash(images: np.ndarray) -> str:
    """Hash images and their order, for the manifest of stored logits.

    Args:
        images: uint8 of shape (n, height, width, channels).

    Returns:
        SHA-256 in hexadecimal of `str(shape)` followed by the bytes in C order.

    Example:

    >>> import numpy as np
    >>> from tutelage.models import stored_logits
    >>> stored_logits.image_hash(np.zeros((2, 8, 8, 1), np.uint8))[:12]
    'd760ac9ed879'
    """
    sha256 = hashlib.sha256(str(images.shape).encode())
    sha256.update(np.ascontiguousarray(images, dtype=np.uint8).data)
    return sha256.hexdigest()


def read(
    path: Path, images: np.ndarray, classes: tuple[str, ...], preprocessing: Preprocessing
) -> tuple[np.ndarray, list[str]]:
    """Read the logits of a `.npy` file whose manifest matches the images and classes."""
    if preprocessing != Preprocessing():
        raise RecipeError(
            f"{path} has logits: preprocessing doesn't apply; leave out size, scale, mean and std"
        )
    manifest = path.with_suffix(".json")
    expected = {"images": image_hash(images), "classes": list(classes)}
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        content = reason(error)
    if content != expected:
        raise LogitsError(
            f"{manifest} must identify the images and classes of {path.name}: expected "
            f"{json.dumps(expected, ensure_ascii=False)}, found {str(content)[:300]}"
        )
    try:
        logits = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise LogitsError(f"{path} can't be read as a .npy array: {reason(error)}") from error
    shape = (len(images), len(classes))
    if not isinstance(logits, np.ndarray) or logits.dtype.kind != "f" or logits.shape != shape:
        raise LogitsError(
            f"{path}: expected floating-point logits of shape {shape}, images by classes, "
            f"found {getattr(logits, 'dtype', 'an archive')} of shape {np.shape(logits)}"
        )
    if not np.isfinite(logits).all():
        raise LogitsError(f"{path} contains logits that are not finite: compute them again")
    notes: list[str] = []
    return log_of_probabilities(np.asarray(logits, np.float32), notes), notes
