"""Files of teacher logits for the training images in their order."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from tutelage.data import view_loader
from tutelage.data.content import Images
from tutelage.distillation import output_kind
from tutelage.errors import LogitsError, ModelError, RecipeError, reason
from tutelage.models import class_names
from tutelage.models.preprocessing import Preprocessing

_BATCH = 256  # images hashed at once


def image_hash(images: Images) -> str:
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
    for batch in view_loader.in_batches(images, _BATCH):
        sha256.update(np.ascontiguousarray(batch, dtype=np.uint8).data)
    return sha256.hexdigest()


def read(
    path: Path, images: Images, classes: tuple[str, ...], preprocessing: Preprocessing
) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """Read the logits of a `.npy` file whose manifest matches the images and classes.

    Args:
        path, images, classes, preprocessing: as for `resolve.teacher`.

    Returns:
        The logits as stored, their order from `class_names.order`, and notes for the user.

    Raises:
        RecipeError: if there is preprocessing.
        LogitsError: if the file or its manifest doesn't fit.
    """
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
    notes: list[str] = []
    try:
        named = list(map(str, content["classes"]))
        index = class_names.order(path, named, classes, notes)
        fits = content == expected | {"classes": named} and len(named) == len(classes)
    except (KeyError, TypeError, ModelError):
        fits = False
    if not fits:
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
    logits = np.asarray(logits, np.float32)
    bound = output_kind.lowest_probability(str(path), logits, notes)
    return logits if bound is None else output_kind.log_of(logits, bound), index, notes
