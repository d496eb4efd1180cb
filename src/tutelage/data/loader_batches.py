"""The batches of a loader, of whatever framework, as arrays of images and labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tutelage.errors import DataError, reason

# The keys of batches that are dictionaries.
_IMAGES = ("image", "images", "img", "pixel_values", "inputs", "x")
_LABELS = ("label", "labels", "target", "targets", "y")
_WEIGHTS = ("sample_weight", "sample_weights", "weight", "weights")
_MOST_CLASSES = 2**20  # else labels are something else, such as the images' numbers
_ROUNDING = 1e-2  # of the sum of an image's soft labels, which may be in half precision

Batch = tuple[np.ndarray, np.ndarray]


@dataclass
class BatchFormat:
    """The format of a loader's batches, known from the first one, which the others must have.

    Args:
        channels_first: whether images may be (n, channels, height, width), as PyTorch has them.

    Attributes:
        shape: (height, width, channels) of the images; None before the first batch.
        width: the classes of one-hot or soft labels, (n, classes); 0: labels are integers.
        transposed: whether images come as (n, channels, height, width).
        notes: what was chosen in reading, one line each.

    Example:

    >>> import numpy as np
    >>> from tutelage.data.loader_batches import BatchFormat
    >>> batch = {"image": np.zeros((4, 3, 8, 6), np.uint8), "label": np.arange(4)}
    >>> form = BatchFormat(channels_first=True)
    >>> images, labels = form.arrays(batch, "batch 1")
    >>> images.shape, labels, form.shape
    ((4, 8, 6, 3), array([0, 1, 2, 3]), (8, 6, 3))
    """

    channels_first: bool
    shape: tuple[int, ...] | None = None
    width: int = 0
    transposed: bool = False
    notes: list[str] = field(default_factory=list)

    def arrays(self, batch: Any, where: str) -> Batch:
        """The images and labels of a batch.

        Args:
            batch: (images, labels), or a dictionary with a key for either.
            where: its loader and number, for messages.

        Returns:
            uint8 (n, height, width, channels); int64 (n,), or float32 (n, classes).

        Raises:
            DataError: if it is no such batch, or has another format than the first one.
        """
        images, labels = (_array(value, where) for value in self._pair(batch, where))
        first = self.shape is None
        if labels.ndim == 0:
            raise DataError(
                f"{where}: expected a batch of images, found a single one; let the loader make "
                "batches, as .batch(32) or batch_size=32 does"
            )
        images = self._images(images, where, first)
        labels, width = _labels(labels, where)
        if len(images) != len(labels) or not images.size:
            raise DataError(
                f"{where}: expected equal numbers of images and labels, at least one, found "
                f"{len(images)} images and {len(labels)} labels"
            )
        if first:
            self.shape, self.width = images.shape[1:], width
        if images.shape[1:] != self.shape or width != self.width:
            raise DataError(
                f"{where}: expected {_described(self.shape, self.width)} as in the first batch, "
                f"found {_described(images.shape[1:], width)}"
            )
        return images, labels

    def _pair(self, batch: Any, where: str) -> tuple[Any, Any]:
        if isinstance(batch, Mapping):
            return self._from_keys(batch, where)
        if not isinstance(batch, tuple | list) or len(batch) < 2:
            raise DataError(
                f"{where}: expected (images, labels), found {_kind(batch)}; labels are needed for "
                "the hard loss and for measuring"
            )
        if len(batch) > 2 and any(value is not None for value in batch[2:]):
            raise DataError(
                f"{where}: expected (images, labels), found {len(batch)} values; sample weights "
                "and the like are not used: leave them out"
            )
        for name, value in zip(("images", "labels"), batch, strict=False):
            if isinstance(value, Mapping | tuple):
                raise DataError(f"{where}: expected an array of {name}, found {_kind(value)}")
        return batch[0], batch[1]

    def _from_keys(self, batch: Mapping[Any, Any], where: str) -> tuple[Any, Any]:
        found = []
        for name, keys in (("images", _IMAGES), ("labels", _LABELS)):
            present = [key for key in keys if key in batch]
            if len(present) != 1:
                raise DataError(
                    f"{where}: expected one key of the {name}, of {', '.join(keys)}, found "
                    f"{', '.join(map(str, batch)) or 'none'}; rename one, or give (images, labels)"
                )
            found.append(present[0])
        for key in _WEIGHTS:
            if key in batch:
                raise DataError(f"{where}: sample weights are not used: leave out {key!r}")
        others = [str(key) for key in batch if key not in found]
        if others and self.shape is None:
            self.notes.append(f"not used of a batch: {', '.join(others)}")
        return batch[found[0]], batch[found[1]]

    def _images(self, images: np.ndarray, where: str, first: bool) -> np.ndarray:
        if images.dtype != np.uint8:
            hint = "raw pixels from 0 to 255 are needed"
            if images.dtype.kind == "f":
                hint = (
                    "give raw pixels from 0 to 255 (torchvision's PILToTensor instead of ToTensor; "
                    "a cast where they are whole numbers), and put normalization into the models, "
                    "or into teacher.scale, mean and std"
                )
            raise DataError(
                f"{where}: expected uint8 images, found {images.dtype} {images.shape}; {hint}"
            )
        if images.ndim == 3:
            images = images[..., np.newaxis]
        if first and self.channels_first and images.ndim == 4 and images.shape[1] in (1, 3):
            self.transposed = True
            if images.shape[3] in (1, 3):
                self.notes.append(
                    f"images of shape {images.shape[1:]} are taken as (channels, height, width)"
                )
        if self.transposed and images.ndim == 4:
            images = images.transpose(0, 2, 3, 1)
        if images.ndim != 4 or images.shape[3] not in (1, 3):
            hint = ""
            if images.ndim == 4 and images.shape[1] in (1, 3):
                hint = "; only a torch.utils.data.DataLoader may give (n, channels, height, width)"
            raise DataError(
                f"{where}: expected images of (n, height, width) or (n, height, width, 1 or 3), "
                f"found {images.shape}{hint}"
            )
        # PyTorch warns of arrays that can't be written to, as those of TensorFlow.
        return np.require(images, requirements=["C", "W"])


def _labels(labels: np.ndarray, where: str) -> tuple[np.ndarray, int]:
    """Labels, and the number of classes if each is an image's shares of them, else 0."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 1 and labels.dtype.kind in "iu":
        if labels.size and not 0 <= labels.min() <= labels.max() < _MOST_CLASSES:
            raise DataError(
                f"{where}: expected class indices from 0 to {_MOST_CLASSES - 1}, found "
                f"{labels.min()} to {labels.max()}; a loader can't have unlabeled images"
            )
        return labels.astype(np.int64), 0
    if labels.ndim == 2 and labels.dtype.kind in "fiu":
        shares = labels.astype(np.float32)
        sums = shares.sum(axis=1)
        if (shares >= 0).all() and np.allclose(sums, 1, rtol=0, atol=_ROUNDING):
            return shares, shares.shape[1]
        raise DataError(
            f"{where}: expected labels of (n, classes) that are at least 0 and sum to 1 for "
            f"each image, found {shares.min():g} to {shares.max():g} and sums of "
            f"{sums.min():g} to {sums.max():g}; give class indices, one-hot labels or shares"
        )
    raise DataError(
        f"{where}: expected integer labels of (n,) or (n, 1), or shares of (n, classes), found "
        f"{labels.dtype} {labels.shape}; give the class index of each image"
    )


def _array(value: Any, where: str) -> np.ndarray:
    if hasattr(value, "detach"):  # a PyTorch tensor, perhaps on a GPU
        value = value.detach().cpu()
    try:
        return np.asarray(value)
    except (TypeError, ValueError) as error:  # such as images of several sizes
        found = f"{_kind(value)}: {reason(error)}"
        raise DataError(f"{where}: expected an array, found {found}") from error


def _kind(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return type(value).__name__ + (f" of shape {tuple(shape)}" if shape is not None else "")


def _described(shape: tuple[int, ...] | None, width: int) -> str:
    return f"images of {shape} and {f'labels of (n, {width})' if width else 'class indices'}"
