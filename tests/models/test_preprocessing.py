"""Sizes, scales, means and standard deviations, against PyTorch."""

from __future__ import annotations

import numpy as np
import torch
from keras import layers

from tests.models.example_models import (
    COLORS,
    RGB_IMAGES,
    flat,
    logits_of,
    net,
    predicted,
    preprocessed,
    teacher_of,
)
from tutelage.models.preprocessing import Preprocessing


def test_images_are_resized_bilinearly_and_then_seen_as_the_entry_says() -> None:
    model = net(layers.Dense(3), shape=(12, 16, 3))
    preprocessing = Preprocessing((12, 16), COLORS.scale, COLORS.mean, COLORS.std)
    teacher = teacher_of(model, RGB_IMAGES, preprocessing=preprocessing)
    channels_first = torch.tensor(preprocessed(RGB_IMAGES, preprocessing)).permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(channels_first, (12, 16), mode="bilinear")
    expected = predicted(model, resized.permute(0, 2, 3, 1).numpy())
    np.testing.assert_allclose(logits_of(teacher, RGB_IMAGES), expected, atol=1e-4)
    assert teacher.notes == ("its images are resized from 6x8 to 12x16 pixels",)
    # The same for a model of another library.
    module = flat(inputs=12 * 16 * 3)
    teacher = teacher_of(module, RGB_IMAGES, preprocessing=preprocessing)
    np.testing.assert_allclose(
        logits_of(teacher, RGB_IMAGES), module(resized).detach().numpy(), atol=1e-4
    )
    assert teacher.notes == ("its images are resized from 6x8 to 12x16 pixels",)
