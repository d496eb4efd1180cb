"""Relational knowledge distillation."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tutelage.errors import ModelError
from tutelage.losses.feature_loss import FeatureLoss, Names
from tutelage.losses.numerics import flat, mean, unit_vectors
from tutelage.losses.validation import weight_of


@keras.saving.register_keras_serializable(package="tutelage")
class RKD(FeatureLoss):
    """Distances and angles in a batch: `distance_weight * mean h(d_t - d_s) + angle_weight * mean
    h(a_t - a_s)`.

    `h(x)` is `x^2 / 2` for `|x| < 1`, else `|x| - 1/2`. d are the N^2 distances between a batch's
    features, divided by the mean of the positive ones; a are the N^3 cosines of the angles
    that two samples form at a third. Compares the heads' inputs.
    Source: Park and others 2019, arXiv 1904.05068, equation 4, with the potentials of sections
    3.2.1 and 3.2.2.

    Args:
        distance_weight: weight of the distances, at least 0.
        angle_weight: weight of the angles, at least 0.
        teacher_layer_name: as in `FeatureLoss`.
        student_layer_name: as in `FeatureLoss`.

    Raises:
        RecipeError: a value is invalid.

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
        differences = [f[None] - f[:, None] for f in (flat(teacher), flat(student))]
        distances = [_distances(x) for x in differences]
        units = [unit_vectors(x) for x in differences]
        cosines = [ops.einsum("nid,njd->nij", x, x) for x in units]
        return self.distance_weight * _huber(*distances) + self.angle_weight * _huber(*cosines)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        weights = {"distance_weight": self.distance_weight, "angle_weight": self.angle_weight}
        return weights | super().get_config()


def _distances(differences: Any) -> Any:
    """Norms of the differences (N, N, ...), divided by the mean over pairs of samples."""
    square = ops.sum(differences * differences, axis=-1)
    others = 1 - ops.eye(ops.shape(square)[0], dtype=square.dtype)
    lengths = others * ops.sqrt(ops.where(square > 1e-12, square, 1e-12))
    return lengths * (ops.sum(others) / ops.sum(lengths))


def _huber(first: Any, second: Any) -> Any:
    gap = ops.abs(first - second)
    return mean(ops.where(gap < 1, gap * gap / 2, gap - 0.5))
