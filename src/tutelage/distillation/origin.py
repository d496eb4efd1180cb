"""What stored logits were computed from, and the arrays that they are stored as."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from tutelage.data.augmented_views import AugmentedViews
from tutelage.data.content import Images
from tutelage.distillation import top_logits
from tutelage.recipe import Views


@dataclass(frozen=True)
class Origin:
    """What stored logits were computed from; logits of another origin are refused.

    Attributes:
        teacher: hash of the teacher's architecture and weights.
        images: hash of the training images, in their order.
        seed: augmentation seed.
        flip: whether views are flipped at random.
        shift: largest random shift, in pixels.
        cutout: side of the square cut out, in pixels.
        precision: data type of the teacher's computation.
        shape: (images, classes), or (images, teachers, classes).
        exact: whether logits are stored as they are, in float32, for losses that may depend on a
            common offset or on the last digits.
        transforms: the other settings of the recipe's views.
        kept: how many of each row's largest logits are stored, with the levels of the other classes
            as in `top_logits`; 0: all are.
    """

    teacher: str
    images: str
    seed: int
    flip: bool
    shift: int
    cutout: int
    precision: str
    shape: tuple[int, ...]
    exact: bool = False
    transforms: dict[str, Any] = field(default_factory=dict)
    kept: int = 0

    def key(self) -> str:
        """The name of the origin's folder."""
        stored = "as they are" if self.exact else "less each row's maximum"
        if self.kept:
            stored += f", the others' levels at {top_logits.TEMPERATURES}"
        text = json.dumps(self.tree() | {"stored": stored}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def tree(self) -> dict[str, Any]:
        """The attributes as plain values; those added since version 0.1 only if they are set."""
        added = ("exact", "transforms", "kept")
        return {name: value for name, value in asdict(self).items() if value or name not in added}

    def array(self) -> tuple[tuple[int, ...], np.dtype]:
        """Shape and type of the array that a view is stored as."""
        if self.kept:
            return self.shape[:-1], top_logits.row_type(self.kept, self.shape[-1])
        return self.shape, np.dtype(np.float32 if self.exact else np.float16)

    def views(self, images: Images) -> AugmentedViews:
        """The views of the images that the origin identifies."""
        views = Views(flip=self.flip, shift=self.shift, **self.transforms)
        return AugmentedViews(images, views, self.seed, self.cutout)

    def bytes(self, views: int) -> int:
        """How many bytes a number of views take, without the files' heads."""
        shape, dtype = self.array()
        return views * math.prod(shape) * dtype.itemsize
