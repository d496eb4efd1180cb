"""Attention transfer."""

from __future__ import annotations

from typing import Any

import keras

from tutelage.errors import ModelError
from tutelage.losses.feature_loss import FeatureLoss
from tutelage.losses.numerics import flat, mean, unit_vectors
from tutelage.losses.pooling import same_size


@keras.saving.register_keras_serializable(package="tutelage")
class AttentionTransfer(FeatureLoss):
    """Attention maps of each stage: `mean((a_t - a_s)^2)`, `a = flatten(mean_c f^2)` by its norm.

    The larger of two maps is pooled to the size of the smaller. Compares every stage.
    Source: Zagoruyko and Komodakis 2017, arXiv 1612.03928, equation 2, in the form of the authors'
    code: means of squares instead of the paper's norms and sums.

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
        maps = [unit_vectors(flat(mean(f * f, axis=-1))) for f in same_size(teacher, student)]
        return mean((maps[0] - maps[1]) ** 2)
