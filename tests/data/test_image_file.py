"""One image file."""

import numpy as np
import pytest
from PIL import Image

from tests.data.example_data import (
    encoded,
    noise,
    refusal,
)
from tutelage.data.image_file import read_image
from tutelage.errors import DataNotFoundError, RecipeError


def test_images_are_turned_upright_as_the_camera_says(tmp_path):
    pixels = noise(4, 6, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    (tmp_path / "a.png").write_bytes(encoded(pixels, exif=exif))
    loaded = read_image(tmp_path / "a.png", size=(6, 4), channels=3)
    np.testing.assert_array_equal(loaded, np.rot90(pixels, -1))


def test_a_picture_is_given_in_the_colours_and_size_a_model_takes(tmp_path):
    pixels = noise(9, 7, 3)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "a.png")
    image.convert("L").save(tmp_path / "grey.png")
    small = np.asarray(image.resize((4, 5), Image.Resampling.BILINEAR))
    loaded = read_image(tmp_path / "a.png", size=(5, 4), channels=3)
    np.testing.assert_array_equal(loaded, small)
    grey = read_image(tmp_path / "a.png", size=(5, 4), channels=1)
    np.testing.assert_array_equal(grey[..., 0], Image.fromarray(small).convert("L"))
    wide = read_image(tmp_path / "grey.png", size=(9, 7), channels=3)
    np.testing.assert_array_equal(wide, np.asarray(image.convert("L").convert("RGB")))
    assert (wide.dtype, wide.shape) == (np.uint8, (9, 7, 3))


def test_a_picture_that_can_not_be_read_is_named(tmp_path):
    missing = tmp_path / "none.png"
    assert str(missing) in refusal(
        read_image, missing, size=(4, 4), channels=3, kind=DataNotFoundError
    )
    (tmp_path / "bad.png").write_bytes(b"no image")
    for path in (tmp_path / "bad.png", tmp_path):
        assert str(path) in refusal(read_image, path, size=(4, 4), channels=3)
    with pytest.raises(RecipeError, match="channels"):
        read_image(tmp_path / "bad.png", size=(4, 4), channels=2)
