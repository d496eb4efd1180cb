"""FitNets: match the student's projected features to the teacher's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from tutelage.errors import ModelError
from tutelage.losses.feature_loss import FeatureLoss
from tutelage.losses.numerics import mean
from tutelage.losses.pooling import same_size


@keras.saving.register_keras_serializable(package="tutelage")
class FitNet(FeatureLoss):
    """Hints from a middle stage: `mean((f_t - r(f_s))^2)`, over all values of the features.

    `r` is a 1x1 convolution to the teacher's channels that `tutelage.Distiller` creates and
    trains. Called directly, the loss compares its inputs as they are and requires the same number
    of channels. The larger of two maps is pooled to the size of the smaller. Compares the middle
    stage.
    Source: Romero and others 2015, arXiv 1412.6550, equation 3, without its factor of 1/2.

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
                f"FitNet needs the same number of channels, got {tuple(teacher.shape)} from "
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
