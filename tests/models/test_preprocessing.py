"""Sizes, scales, means and standard deviations, against PyTorch."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import torch
from keras import layers
from PIL import Image

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
from tutelage.data import image_file
from tutelage.data.geometry import Geometry
from tutelage.models import loading, resolve
from tutelage.models.preprocessing import Preprocessing, prepared

SIZES = [
    ((32, 32), (16, 16)),
    ((100, 80), (32, 32)),
    ((64, 64), (63, 9)),
    ((31, 47), (17, 50)),  # one side smaller, one larger
    ((28, 28), (32, 32)),
    ((9, 300), (8, 7)),
]


def noise(shape: tuple[int, ...]) -> np.ndarray:
    """Random images and a checkerboard, whose resizing without smoothing is the most wrong."""
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    images[0] = np.indices(shape[1:3]).sum(axis=0)[..., np.newaxis] % 2 * 255
    return images


def by_pillow(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    pictures = [Image.fromarray(image.squeeze()) for image in images]
    resized = [np.asarray(p.resize(size[::-1], Image.Resampling.BILINEAR)) for p in pictures]
    return np.stack(resized).reshape(len(images), *size, -1).astype(float)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("raw", "size"), SIZES)
def test_a_model_sees_images_resized_as_pillow_does(
    raw: tuple[int, int], size: tuple[int, int], channels: int, tmp_path: Path
) -> None:
    images = noise((3, *raw, channels))
    for dtype, scale in (("float32", 255.0), ("uint8", 1.0)):
        preprocessing = Preprocessing(size, scale)
        front = keras.Model(*prepared("mine", images.shape[1:], preprocessing, size, dtype, set()))
        front.save(tmp_path / "front.keras")
        stock = keras.saving.load_model(tmp_path / "front.keras")
        seen = stock.predict(images, verbose=0).astype(float) * scale
        np.testing.assert_allclose(seen, by_pillow(images, size), rtol=0, atol=1 + 1e-3)


def test_a_student_is_trained_on_the_pixels_that_predict_sees(tmp_path: Path) -> None:
    images, classes = noise((4, 32, 32, 3)), tuple(map(str, range(12)))
    pixels = keras.Sequential([keras.Input((16, 16, 3)), layers.Flatten(), layers.Dense(12)])
    kernel = np.zeros((768, 12))
    kernel[np.arange(0, 768, 64), np.arange(12)] = 1  # its logits are pixels
    pixels.set_weights([kernel, np.zeros(12)])
    model, _ = resolve.student(
        pixels, images=images, classes=classes, preprocessing=Preprocessing((16, 16)), seed=0
    )
    trained = model.predict(images, verbose=0)
    for image, logits in zip(images, trained, strict=True):
        Image.fromarray(image).save(tmp_path / "image.png")
        geometry = Geometry((16, 16))
        read = image_file.read_image(tmp_path / "image.png", geometry=geometry, channels=3)
        np.testing.assert_allclose(logits, read.reshape(-1)[::64], rtol=0, atol=1 + 1e-3)
    np.testing.assert_array_equal(loading.logits(model, images), trained)


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
