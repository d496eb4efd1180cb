"""Knowledge review: a student's stages, fused from the deepest up, against its teacher's."""

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
    """Knowledge review: `sum_k 2^-k mean((p_k(f_t) - p_k(g(f_s)))^2) / sum_k 2^-k`.

    `p_0` is the whole map, and `p_1`, `p_2`, ... are its averages over 4x4, 2x2 and 1x1 windows,
    less those that aren't smaller than the map (hierarchical context loss). `g` is trained:
    `tutelage.Distiller` makes it, and it carries what deeper stages know to those before them.
    From the deepest on, each stage's features, by a 1x1 convolution with batch normalisation,
    are added to the deeper stages' sum, weighed at each place by two sigmoids; this sum goes on
    to the next stage, and by a 3x3 convolution with batch normalisation to the teacher. Called
    alone, the loss compares what it is given, and refuses other numbers of channels.

    Compares every stage. In the authors' code the teacher's maps are those before the last ReLU,
    and the pooled features are one more stage; name those layers, the deepest last, to have that.
    Source: Chen and others 2021, arXiv 2104.09044.

    Args:
        mid_channels: of the sum, at least 1; None: as many as the student's deepest stage has,
            512 at most.
        teacher_layer_name: as in `FeatureLoss`.
        student_layer_name: as in `FeatureLoss`.

    Raises:
        RecipeError: a value can't be honoured.

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
                f"ReviewKD compares features of as many channels, got {tuple(teacher.shape)} from "
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
                "ReviewKD needs layers from the largest map to the smallest, as it goes from the "
                f"student's deepest stage to the first, got the heights {sizes}"
            )
        mid = self.mid_channels or min(_MOST_CHANNELS, student_maps[-1][-1])
        seeds, deeper = itertools.count(seed), None
        inputs = [keras.Input(shape[1:]) for shape in student_shapes]
        outputs: list[Any] = []
        for i in reversed(range(len(inputs))):
            x = layers.Reshape(student_maps[i])(inputs[i])  # rows are maps of one pixel
            x = _normalised(x, mid, 1, next(seeds), f"stage{i}_in")
            if deeper is not None:
                deeper = _nearest(deeper, student_maps[i])
                weighing = _weighing(mid, seeds, f"stage{i}_attention")
                weights = weighing(ops.concatenate([x, deeper], axis=-1))
                x = weights[..., :1] * x + weights[..., 1:] * deeper
            deeper = _nearest(x, wanted[i])
            y = _normalised(deeper, wanted[i][-1], 3, next(seeds), f"stage{i}_out")
            outputs.insert(0, layers.Reshape(teacher_shapes[i][1:])(y))
        return keras.Model(inputs, outputs, name="projection")

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"mid_channels": self.mid_channels} | super().get_config()


def _map(shape: tuple[int | None, ...]) -> tuple[int, ...]:
    """(height, width, channels) of features; those without a place have one pixel."""
    if len(shape) not in (2, 4) or None in shape[1:]:
        raise ModelError(
            "ReviewKD fuses maps (batch, height, width, channels) of one size, or rows "
            f"(batch, channels), got {shape}; name convolutions"
        )
    return (1, 1, *shape[1:])[-3:]  # type: ignore[return-value]


def _normalised(x: Any, channels: int, window: int, seed: int, name: str) -> Any:
    """A convolution without a bias, its values uniform within sqrt(3 / fan_in), and its norm."""
    initial = keras.initializers.LecunUniform(seed)
    x = layers.Conv2D(
        channels, window, 1, "same", use_bias=False, kernel_initializer=initial, name=name
    )(x)
    # PyTorch's settings, as the authors have them; Keras' momentum is what is kept.
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_norm")(x)


def _weighing(mid: int, seeds: Iterator[int], name: str) -> keras.Layer:
    """Of a stage's features and of the deeper ones', at each place; begun as PyTorch would."""
    uniform, bound = keras.initializers.RandomUniform, (2 * mid) ** -0.5
    kernel, bias = uniform(-bound, bound, next(seeds)), uniform(-bound, bound, next(seeds))
    return layers.Conv2D(
        2, 1, activation="sigmoid", kernel_initializer=kernel, bias_initializer=bias, name=name
    )


def _nearest(x: Any, shape: tuple[int, ...]) -> Any:
    # By index, as backends differ in what they call nearest.
    for axis, wanted in enumerate(shape[:2], 1):
        if (here := x.shape[axis]) != wanted:
            x = ops.take(x, np.arange(wanted) * here // wanted, axis=axis)
    return x
