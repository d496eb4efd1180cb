"""Losses on features: what a student learns from the inner layers of its teacher."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tutelage.errors import ModelError, RecipeError
from tutelage.losses.layer_selection import embedding, named, stages
from tutelage.losses.pooling import same_size
from tutelage.losses.validation import mean, weight_of, wide

Names = str | Sequence[str] | None


class FeatureLoss(keras.distillation.DistillationLoss):
    """A distillation loss on the outputs of inner layers, the sum over one or more pairs of them.

    Subclasses define `of_pair` and, by `picks`, which layers they compare where none are named.

    Args:
        teacher_layer_name: the teacher's layer, or several; None: picked by itself.
        student_layer_name: the student's, as many; None: picked by itself.

    Attributes:
        picks: `"stages"`: the last layer of each stage, paired from the smallest map on;
            `"middle"` or `"last"`: one pair of those; `"embedding"`: what the heads read.

    Raises:
        RecipeError: one model's layers are named and the other's aren't, or not as many.
    """

    picks = "stages"

    def __init__(self, teacher_layer_name: Names = None, student_layer_name: Names = None) -> None:
        teacher, student = _listed(teacher_layer_name), _listed(student_layer_name)
        if (teacher is None) != (student is None) or len(teacher or ()) != len(student or ()):
            raise RecipeError(
                "as many layers of the teacher as of the student are expected, got "
                f"{teacher_layer_name!r} and {student_layer_name!r}; name both, or neither"
            )
        # By these names Keras' own distiller knows which outputs to hand over.
        self.teacher_layer_name = teacher_layer_name
        self.student_layer_name = student_layer_name

    @abstractmethod
    def of_pair(self, teacher: Any, student: Any) -> Any:
        """Value for one layer of the teacher and one of the student.

        Args:
            teacher: the teacher's features, (batch, ...), float32 or wider.
            student: the student's features, (batch, ...), float32 or wider.

        Returns:
            a scalar.

        Raises:
            ModelError: the shapes can't be compared.
        """

    def compute_loss(self, teacher_outputs: Any, student_outputs: Any, labels: Any = None) -> Any:
        """Sum over the pairs.

        Args:
            teacher_outputs: the teacher's features, (batch, ...), or a list of those.
            student_outputs: the student's features, as many.
            labels: not needed.

        Returns:
            a scalar in float32 or wider.

        Raises:
            ModelError: the shapes can't be compared.
        """
        teacher, student = (
            [wide(x) for x in outputs] if isinstance(outputs, list | tuple) else [wide(outputs)]
            for outputs in (teacher_outputs, student_outputs)
        )
        self.validate_outputs(teacher, student)
        values = [self.of_pair(t, s) for t, s in zip(teacher, student, strict=True)]
        return sum(values[1:], values[0])

    def validate_outputs(self, teacher_outputs: Any, student_outputs: Any) -> None:
        """Check that there are as many features of both, of one batch.

        Raises:
            ModelError: there aren't.
        """
        teacher, student = (keras.tree.flatten(x) for x in (teacher_outputs, student_outputs))
        if len(teacher) != len(student):
            raise ModelError(
                f"as many features of the teacher as of the student are expected, got "
                f"{len(teacher)} and {len(student)}"
            )
        for one, other in zip(teacher, student, strict=True):
            if len(one.shape) < 2 or len(other.shape) < 2 or one.shape[0] != other.shape[0]:
                raise ModelError(
                    "features (batch, ...) of one batch are expected, got "
                    f"{tuple(one.shape)} from the teacher and {tuple(other.shape)} from the student"
                )

    def pairs(self, teacher: keras.Model, student: keras.Model) -> list[tuple[str, str]]:
        """Which layers are compared.

        Args:
            teacher: the teacher, Functional or Sequential.
            student: the student, likewise.

        Returns:
            Pairs of a layer's name in the teacher and one in the student.

        Raises:
            RecipeError: a layer that was named isn't there.
            ModelError: a model has no such layers.
        """
        if self.teacher_layer_name is not None:
            chosen = [
                named(model, _listed(names) or (), role)
                for model, names, role in (
                    (teacher, self.teacher_layer_name, "teacher"),
                    (student, self.student_layer_name, "student"),
                )
            ]
        elif self.picks == "embedding":
            chosen = [[embedding(model)] for model in (teacher, student)]
        else:
            chosen = [stages(model) for model in (teacher, student)]
        count = min(len(names) for names in chosen)
        found = list(zip(*(names[-count:] for names in chosen), strict=True))
        if self.teacher_layer_name is None and self.picks in ("middle", "last"):
            found = [found[-1 if self.picks == "last" else count // 2]]
        return found

    def validate_model_compatibility(self, teacher: keras.Model, student: keras.Model) -> None:
        """Check that the layers to compare are there; raises as `pairs` does."""
        self.pairs(teacher, student)

    def projection(
        self,
        teacher_shapes: Sequence[tuple[int | None, ...]],
        student_shapes: Sequence[tuple[int | None, ...]],
        seed: int,
    ) -> keras.Model | None:
        """What is trained between the student's features and the loss; None for most losses.

        Args:
            teacher_shapes: of the teacher's features, each (batch, ...).
            student_shapes: of the student's, as many.
            seed: of the initial weights.

        Returns:
            A model from the student's features, a list, to what `compute_loss` is to have.
        """
        return None

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "teacher_layer_name": self.teacher_layer_name,
            "student_layer_name": self.student_layer_name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> FeatureLoss:
        """The loss whose `get_config` this is."""
        return cls(**config)


@keras.saving.register_keras_serializable(package="tutelage")
class FitNet(FeatureLoss):
    """Hints: `mean((f_t - r(f_s))^2)`, over all values of the features.

    `r` is a trained linear map to the teacher's channels, at each place of its own (a 1x1
    convolution): `tutelage.Distiller` makes and trains it. Called alone, the loss compares what
    it is given, and refuses other numbers of channels. The larger of two maps is averaged to the
    size of the smaller. Picks the middle stage.
    Source: Romero and others 2015, arXiv 1412.6550, equation 3, less its factor of a half.

    Args:
        teacher_layer_name: as in `FeatureLoss`.
        student_layer_name: as in `FeatureLoss`.

    Example:

    >>> import numpy as np
    >>> print(f"{float(FitNet().compute_loss(np.ones((2, 4, 4, 3)), np.zeros((2, 4, 4, 3)))):.4f}")
    1.0000
    """

    picks = "middle"

    def of_pair(self, teacher: Any, student: Any) -> Any:
        teacher, student = same_size(teacher, student)
        if teacher.shape[-1] != student.shape[-1]:
            raise ModelError(
                f"FitNet compares features of as many channels, got {tuple(teacher.shape)} from "
                f"the teacher and {tuple(student.shape)} from the student; train with "
                "tutelage.Distiller, which learns a projection"
            )
        return mean((teacher - student) ** 2)

    def projection(
        self,
        teacher_shapes: Sequence[tuple[int | None, ...]],
        student_shapes: Sequence[tuple[int | None, ...]],
        seed: int,
    ) -> keras.Model:
        inputs = [keras.Input(shape[1:]) for shape in student_shapes]
        outputs = [
            keras.layers.Dense(
                wanted[-1], kernel_initializer=keras.initializers.GlorotUniform(seed + i)
            )(x)
            for i, (wanted, x) in enumerate(zip(teacher_shapes, inputs, strict=True))
        ]
        return keras.Model(inputs, outputs, name="projection")


@keras.saving.register_keras_serializable(package="tutelage")
class AttentionTransfer(FeatureLoss):
    """Attention: `mean((a_t - a_s)^2)`, `a = flatten(mean_c f^2)` divided by its length.

    The larger of two maps is averaged to the size of the smaller. Compares every stage.
    Source: Zagoruyko and Komodakis 2017, arXiv 1612.03928, equation 2, in the form of the authors'
    code: means of squares, where the paper has norms and sums.

    Args:
        teacher_layer_name: as in `FeatureLoss`.
        student_layer_name: as in `FeatureLoss`.

    Example:

    >>> import numpy as np
    >>> maps = np.random.default_rng(0).normal(size=(2, 4, 4, 3))
    >>> print(f"{float(AttentionTransfer().compute_loss(maps, 7 * maps)):.4f}")
    0.0000
    """

    def of_pair(self, teacher: Any, student: Any) -> Any:
        if len(teacher.shape) != 4 or len(student.shape) != 4:
            raise ModelError(
                "AttentionTransfer compares maps (batch, height, width, channels), got "
                f"{tuple(teacher.shape)} from the teacher and {tuple(student.shape)} from the "
                "student; name convolutions"
            )
        maps = [_unit(_flat(mean(f * f, axis=-1))) for f in same_size(teacher, student)]
        return mean((maps[0] - maps[1]) ** 2)


@keras.saving.register_keras_serializable(package="tutelage")
class SimilarityPreserving(FeatureLoss):
    """Alike images stay alike: `sum((G_t - G_s)^2) / N^2`, `G = f f^T`, each row of length 1.

    f is a batch of N flattened features, of any size. Compares the last stage.
    Source: Tung and Mori 2019, arXiv 1907.09682, equation 4.

    Args:
        teacher_layer_name: as in `FeatureLoss`.
        student_layer_name: as in `FeatureLoss`.

    Example:

    >>> import numpy as np
    >>> teacher, student = np.eye(2), np.ones((2, 5))
    >>> print(f"{float(SimilarityPreserving().compute_loss(teacher, student)):.4f}")
    0.2929
    """

    picks = "last"

    def of_pair(self, teacher: Any, student: Any) -> Any:
        alike = [_unit(ops.einsum("nd,md->nm", f, f)) for f in (_flat(teacher), _flat(student))]
        return mean((alike[0] - alike[1]) ** 2)


@keras.saving.register_keras_serializable(package="tutelage")
class RKD(FeatureLoss):
    """Relations: `distance_weight * mean h(d_t - d_s) + angle_weight * mean h(a_t - a_s)`.

    `h(x) = x^2 / 2` within 1 and `|x| - 1/2` beyond. d are the N^2 distances between a batch's
    features, divided by the mean of those that are positive; a are the N^3 cosines of the angles
    that two samples make at a third. Compares what the heads read.
    Source: Park and others 2019, arXiv 1904.05068, equation 4, with the potentials of sections
    3.2.1 and 3.2.2.

    Args:
        distance_weight: at least 0.
        angle_weight: at least 0.
        teacher_layer_name: as in `FeatureLoss`.
        student_layer_name: as in `FeatureLoss`.

    Raises:
        RecipeError: a value can't be honoured.

    Example:

    >>> import numpy as np
    >>> points = np.random.default_rng(0).normal(size=(4, 3))
    >>> print(f"{float(RKD().compute_loss(points, 7 * points)):.4f}")
    0.0000
    """

    picks = "embedding"

    def __init__(
        self,
        distance_weight: float = 25.0,
        angle_weight: float = 50.0,
        teacher_layer_name: Names = None,
        student_layer_name: Names = None,
    ) -> None:
        super().__init__(teacher_layer_name, student_layer_name)
        self.distance_weight = weight_of("distance_weight", distance_weight)
        self.angle_weight = weight_of("angle_weight", angle_weight)

    def of_pair(self, teacher: Any, student: Any) -> Any:
        if teacher.shape[0] == 1:
            raise ModelError(
                "RKD compares the samples of a batch, so it needs at least 2 samples, got 1; "
                "use larger batches"
            )
        apart = [f[None] - f[:, None] for f in (_flat(teacher), _flat(student))]
        distances = [_distances(x) for x in apart]
        units = [_unit(x) for x in apart]
        cosines = [ops.einsum("nid,njd->nij", x, x) for x in units]
        return self.distance_weight * _huber(*distances) + self.angle_weight * _huber(*cosines)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        own = {"distance_weight": self.distance_weight, "angle_weight": self.angle_weight}
        return own | super().get_config()


def _listed(names: Names) -> tuple[str, ...] | None:
    if names is None:
        return None
    listed = tuple(names) if isinstance(names, list | tuple) else (names,)
    if not listed or not all(isinstance(name, str) and name for name in listed):
        raise RecipeError(f"a layer's name, or a list of names, is expected, got {names!r}")
    return listed


def _flat(features: Any) -> Any:
    return ops.reshape(features, (-1, math.prod(features.shape[1:])))


def _unit(x: Any) -> Any:
    """Vectors along the last axis, divided by their length."""
    square = ops.sum(x * x, axis=-1, keepdims=True)
    return x / ops.sqrt(ops.where(square > 1e-24, square, 1e-24))


def _distances(apart: Any) -> Any:
    """Lengths of the differences (N, N, ...), divided by the mean of those between two samples."""
    square = ops.sum(apart * apart, axis=-1)
    others = 1 - ops.eye(ops.shape(square)[0], dtype=square.dtype)
    lengths = others * ops.sqrt(ops.where(square > 1e-12, square, 1e-12))
    return lengths * (ops.sum(others) / ops.sum(lengths))


def _huber(one: Any, other: Any) -> Any:
    gap = ops.abs(one - other)
    return mean(ops.where(gap < 1, gap * gap / 2, gap - 0.5))
