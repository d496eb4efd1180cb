"""Preprocessing of a model's images: size, scale, mean and standard deviation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers

from tutelage.errors import ModelError, RecipeError


@dataclass(frozen=True)
class Preprocessing:
    """A model's preprocessing: resize to `size`, then (pixel / scale - mean) / std.

    Images are resized bilinearly, with smoothing when shrinking, as by Pillow's BILINEAR.

    Attributes:
        size: (height, width) in pixels; None: that of the images.
        scale: divisor of the pixels (0 to 255).
        mean: one value per channel; () for none.
        std: one value per channel; () for none.
    """

    size: tuple[int, int] | None = None
    scale: float = 1.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def check(self, channels: int) -> None:
        """Raise RecipeError for values that are invalid for the number of channels."""
        if self.size is not None and (
            len(self.size) != 2 or not all(isinstance(n, int) and n > 0 for n in self.size)
        ):
            raise RecipeError(f"size: expected (height, width) in pixels, found {self.size}")
        if not 0 < self.scale < math.inf:
            raise RecipeError(f"scale: expected a number above 0, such as 255, found {self.scale}")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values and (len(values) != channels or not np.isfinite(values).all()):
                raise RecipeError(
                    f"{name}: expected a finite number for each of {channels} channels, "
                    f"found {values}"
                )
        if min(self.std, default=1.0) <= 0:
            raise RecipeError(f"std: expected numbers above 0, found {self.std}")


def input_size(
    name: str,
    shape: tuple[int, ...],
    takes: tuple[Any, ...],
    preprocessing: Preprocessing,
    notes: list[str],
) -> tuple[int, int]:
    """The (height, width) of a model's images; non-integers in `takes` are free."""
    raw = (shape[0], shape[1])
    height, width = size = tuple(preprocessing.size or raw)
    fits = tuple(t if isinstance(t, int) else s for t, s in zip(takes, size, strict=True))
    if fits != size:
        raise ModelError(
            f"{name} takes images of {fits[0]}x{fits[1]} pixels, found {height}x{width}: "
            f"set size to {fits}"
        )
    if size != raw:
        notes.append(f"its images are resized from {raw[0]}x{raw[1]} to {height}x{width} pixels")
    return height, width


def refuse_channels(name: str, takes: Any, channels: int) -> None:
    """Raise ModelError if the number of channels differs from the model's."""
    if isinstance(takes, int) and takes != channels:
        raise ModelError(
            f"{name} takes images of {takes} channels, but these have {channels} (gray 1, color "
            "3): choose another model, or other images"
        )


def refuse_outputs(name: str, shape: tuple[int | None, ...], classes: int) -> None:
    """Raise ModelError for outputs that are not logits of these classes."""
    if len(shape) != 2:
        raise ModelError(f"{name} has output of shape {shape}: expected logits (batch, classes)")
    if shape[1] != classes:
        raise ModelError(
            f"{name} has {shape[1]} classes, but the data has {classes}: choose another model"
        )


def prepared(
    name: str,
    shape: tuple[int, ...],
    preprocessing: Preprocessing,
    size: tuple[int, int],
    dtype: str,
    taken: set[str],
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """An input of raw images, and the images of `dtype` preprocessed by stock layers."""
    x = inputs = keras.Input(shape, dtype="uint8", name=unused_name("images", taken))
    if dtype == "float32":
        std = np.asarray(preprocessing.std or [1.0] * shape[2])
        mean = np.asarray(preprocessing.mean or [0.0] * shape[2])
        scale, offset = 1 / (preprocessing.scale * std), -mean / std
        # Before resizing, which commutes with it.
        x = layers.Rescaling(
            scale.tolist(), offset.tolist(), dtype=dtype, name=unused_name("entry_scale", taken)
        )(x)
    elif preprocessing.scale != 1 or preprocessing.mean or preprocessing.std:
        raise RecipeError(f"{name} takes uint8 pixels: leave out scale, mean and std")
    if size != shape[:2]:
        # Antialiased as Pillow's BILINEAR, by which files and uploads are resized.
        sized = unused_name("entry_size", taken)
        x = layers.Resizing(*size, antialias=True, dtype=dtype, name=sized)(x)
    return inputs, x


def unused_name(name: str, taken: set[str]) -> str:
    """A layer's name, with underscores behind it until it is not taken."""
    return name if name not in taken else unused_name(f"{name}_", taken)
