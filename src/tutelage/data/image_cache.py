"""A cache of decoded images."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from tutelage import storage
from tutelage.data import image_file
from tutelage.data.archives import one_line
from tutelage.data.content import Content, Part
from tutelage.data.geometry import Geometry
from tutelage.errors import DataError

# Increased when the same files are decoded to different arrays.
_READER = 4

log = logging.getLogger(__name__)


def load(digest: str, geometry: Geometry | None) -> Content | None:
    """Load what `save` was given, without notes and folders; None if it is missing or damaged.

    Args:
        digest: hash of the source's content.
        geometry: the requested size, and how images get it.
    """
    path = _file(digest, geometry)
    try:
        storage.mark_used(path)
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            parts = {
                part: Part(arrays[f"{part}_images"], arrays[f"{part}_labels"])
                for part in ("train", "test")
                if f"{part}_images" in arrays
            }
            return Content(
                tuple(arrays["classes"].tolist()),
                parts["train"],
                parts.get("test"),
                str(arrays["fingerprint"]),
                bool(arrays["resized"]),
                int(arrays["held_out"]),
            )
    except FileNotFoundError:
        return None
    except MemoryError:
        raise DataError(image_file.OUT_OF_MEMORY) from None
    except Exception as error:  # a damaged file can make NumPy and zipfile raise anything
        log.warning("%s is damaged (%s): decoding the images again", path, one_line(error))
        return None


def save(digest: str, geometry: Geometry | None, content: Content) -> None:
    """Save decoded images for `load`; only warns if they can't be written."""
    arrays: dict[str, Any] = {
        "classes": np.array(content.classes),
        "fingerprint": np.array(content.fingerprint),
        "resized": np.array(content.resized),
        "held_out": np.array(content.held_out),
    }
    for name, part in (("train", content.train), ("test", content.test)):
        if part is not None:
            arrays |= {f"{name}_images": part.images, f"{name}_labels": part.labels}
    path = _file(digest, geometry)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with storage.replacing(path) as temporary:
            np.savez(temporary, **arrays)
        storage.evict()
    except OSError as error:
        log.warning("decoded images are not cached: %s", error)


def _file(digest: str, geometry: Geometry | None) -> Path:
    key = f"{_READER} {digest} {geometry} {PIL.__version__} {image_file.FORMATS}"
    return (
        storage.cache_folder() / "images" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz"
    )
