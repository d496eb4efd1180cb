"""Knowledge review: match the student's stages, fused from the deepest, to the teacher's."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from tutelage.errors import ModelError, RecipeError
from tutelage.losses.feature_loss import FeatureLoss, Names
from tutelage.losses.numerics import mean
from tutelage.losses.pooling import pooled, same_size

_MOST_CHANNELS, _LEVELS = 512, (4, 2, 1)


@keras.saving.register_keras_serializable(package="tutelage")
class ReviewKD(FeatureLoss):
    """Knowledge review of stages: `sum_k 2^-k mean((p_k(f_t) - p_k(g(f_s)))^2) / sum_k 2^-k`.

    `p_0` is the whole map; `p_1`, `p_2`, ... are the map pooled to 4x4, 2x2 and 1x1, without sizes
    that aren't smaller than the map (hierarchical context loss). `g` fuses features of deeper
    stages into earlier ones; `tutelage.Distiller` creates and trains it. From the deepest stage
    on, a stage's features pass a 1x1 convolution with batch normalization and are added to the
    deeper stages' sum, weighted at each position by two sigmoids. The sum is passed to the next
    stage and, through a 3x3 convolution with batch normalization, compared with the teacher.
    Called directly, the loss requires the same number of channels.

    Compares every stage. The authors' code takes the teacher's maps before the last ReLU and the
    pooled features as one more stage; to do so, name those layers, the deepest last.
    Source: Chen and others 2021, arXiv 2104.09044.

    Args:
        mid_channels: channels of the sum, at least 1; None: those of the student's deepest
            stage, up to 512.
        teacher_layer_name: as in `FeatureLoss`.
        student_layer_name: as in `FeatureLoss`.

    Raises:
        RecipeError: a value is invalid.

    Example:

    >>> import numpy as np
    >>> teacher, student = np.ones((2, 8, 8, 3)), np.zeros((2, 8, 8, 3))
    >>> print(f"{float(ReviewKD().compute_loss(teacher, student)):.4f}")
    1.0000
    """

    def __init__(
        self,
        mid_channels: int | None = None,
        teacher_layer_name: Names = None,
        student_layer_name: Names = None,
    ) -> None:
        super().__init__(teacher_layer_name, student_layer_name)
        if mid_channels is not None and (type(mid_channels) is not int or mid_channels < 1):
            raise RecipeError(
                f"mid_channels must be a whole number of at least 1, or None, got {mid_channels!r}"
            )
        self.mid_channels = mid_channels

    def of_pair(self, teacher: Any, student: Any) -> Any:
        teacher, student = same_size(teacher, student)
        if teacher.shape[-1] != student.shape[-1]:
            raise ModelError(
                f"ReviewKD needs the same number of channels, got {tuple(teacher.shape)} from "
                f"the teacher and {tuple(student.shape)} from the student; train with "
                "tutelage.Distiller, which learns to fuse the student's stages"
            )
        gap = teacher - student  # averaging is linear
        height = 1 if len(gap.shape) == 2 else gap.shape[1]
        levels = [gap, *(pooled(gap, (size, size)) for size in _LEVELS if size < height)]
        terms = [mean(level**2) / 2**k for k, level in enumerate(levels)]
        return sum(terms[1:], terms[0]) / sum(0.5**k for k in range(len(levels)))

    def projection(
        self,
        teacher_shapes: Sequence[tuple[int | None, ...]],
        student_shapes: Sequence[tuple[int | None, ...]],
        seed: int,
    ) -> keras.Model:
        wanted, student_maps = (
            [_map(shape) for shape in x] for x in (teacher_shapes, student_shapes)
        )
        sizes = [shape[0] for shape in student_maps]
        if sizes != sorted(sizes, reverse=True):
            raise ModelError(
                "ReviewKD needs layers from the largest map to the smallest, as it fuses the "
                f"student's stages from the deepest to the first, got the heights {sizes}"
            )
        mid = self.mid_channels or min(_MOST_CHANNELS, student_maps[-1][-1])
        seeds, deeper = itertools.count(seed), None
        inputs = [keras.Input(shape[1:]) for shape in student_shapes]
        outputs: list[Any] = []
        for i in reversed(range(len(inputs))):
            x = layers.Reshape(student_maps[i])(inputs[i])  # vectors: maps of one pixel
            x = _conv_norm(x, mid, 1, next(seeds), f"stage{i}_in")
            if deeper is not None:
                deeper = _nearest(deeper, student_maps[i])
                attention = _attention(mid, seeds, f"stage{i}_attention")
                weights = attention(ops.concatenate([x, deeper], axis=-1))
                x = weights[..., :1] * x + weights[..., 1:] * deeper
            deeper = _nearest(x, wanted[i])
            y = _conv_norm(deeper, wanted[i][-1], 3, next(seeds), f"stage{i}_out")
            outputs.insert(0, layers.Reshape(teacher_shapes[i][1:])(y))
        return keras.Model(inputs, outputs, name="projection")

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"mid_channels": self.mid_channels} | super().get_config()


def _map(shape: tuple[int | None, ...]) -> tuple[int, ...]:
    """(height, width, channels) of features; those without positions have one pixel."""
    if len(shape) not in (2, 4) or None in shape[1:]:
        raise ModelError(
            "ReviewKD fuses maps (batch, height, width, channels) of fixed size, or features "
            f"(batch, channels), got {shape}; name convolutions"
        )
    return (1, 1, *shape[1:])[-3:]  # type: ignore[return-value]


def _conv_norm(x: Any, channels: int, window: int, seed: int, name: str) -> Any:
    """A convolution without bias, uniform within sqrt(3 / fan_in), and its batch norm."""
    initial = keras.initializers.LecunUniform(seed)
    x = layers.Conv2D(
        channels, window, 1, "same", use_bias=False, kernel_initializer=initial, name=name
    )(x)
    # The authors' settings; Keras' momentum is 1 minus PyTorch's.
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_norm")(x)


def _attention(mid: int, seeds: Iterator[int], name: str) -> keras.Layer:
    """Weights of a stage's and the deeper features at each position; PyTorch's initialization."""
    uniform, bound = keras.initializers.RandomUniform, (2 * mid) ** -0.5
    kernel, bias = uniform(-bound, bound, next(seeds)), uniform(-bound, bound, next(seeds))
    return layers.Conv2D(
        2, 1, activation="sigmoid", kernel_initializer=kernel, bias_initializer=bias, name=name
    )


def _nearest(x: Any, shape: tuple[int, ...]) -> Any:
    # By index, as backends define nearest differently.
    for axis, size in enumerate(shape[:2], 1):
        if (old := x.shape[axis]) != size:
            x = ops.take(x, np.arange(size) * old // size, axis=axis)
    return x
