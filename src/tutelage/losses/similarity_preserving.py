"""Similarity-preserving distillation."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tutelage.losses.feature_loss import FeatureLoss
from tutelage.losses.numerics import flat, mean, unit_vectors


@keras.saving.register_keras_serializable(package="tutelage")
class SimilarityPreserving(FeatureLoss):
    """Similarities in a batch: `sum((G_t - G_s)^2) / N^2`, `G = f f^T` with rows of unit norm.

    f are the flattened features of N samples, of any size. Compares the last stage.
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
        similarities = [
            unit_vectors(ops.einsum("nd,md->nm", f, f)) for f in (flat(teacher), flat(student))
        ]
        return mean((similarities[0] - similarities[1]) ** 2)
