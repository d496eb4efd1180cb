"""One image file."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.data.example_data import (
    encoded,
    noise,
    refusal,
)
from tutelage.data.geometry import Geometry
from tutelage.data.image_file import decode, read_image, strict_pillow
from tutelage.errors import DataNotFoundError, RecipeError


def test_images_are_turned_upright_as_the_camera_says(tmp_path):
    pixels = noise(4, 6, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    (tmp_path / "a.png").write_bytes(encoded(pixels, exif=exif))
    loaded = read_image(tmp_path / "a.png", geometry=Geometry((6, 4)), channels=3)
    np.testing.assert_array_equal(loaded, np.rot90(pixels, -1))


def test_a_picture_is_given_in_the_colours_and_size_a_model_takes(tmp_path):
    pixels = noise(9, 7, 3)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "a.png")
    image.convert("L").save(tmp_path / "grey.png")
    small = np.asarray(image.resize((4, 5), Image.Resampling.BILINEAR))
    loaded = read_image(tmp_path / "a.png", geometry=Geometry((5, 4)), channels=3)
    np.testing.assert_array_equal(loaded, small)
    grey = read_image(tmp_path / "a.png", geometry=Geometry((5, 4)), channels=1)
    np.testing.assert_array_equal(grey[..., 0], Image.fromarray(small).convert("L"))
    wide = read_image(tmp_path / "grey.png", geometry=Geometry((9, 7)), channels=3)
    np.testing.assert_array_equal(wide, np.asarray(image.convert("L").convert("RGB")))
    assert (wide.dtype, wide.shape) == (np.uint8, (9, 7, 3))


def test_a_picture_that_can_not_be_read_is_named(tmp_path):
    missing = tmp_path / "none.png"
    assert str(missing) in refusal(
        read_image, missing, geometry=Geometry((4, 4)), channels=3, kind=DataNotFoundError
    )
    (tmp_path / "bad.png").write_bytes(b"no image")
    for path in (tmp_path / "bad.png", tmp_path):
        assert str(path) in refusal(read_image, path, geometry=Geometry((4, 4)), channels=3)
    with pytest.raises(RecipeError, match="channels"):
        read_image(tmp_path / "bad.png", geometry=Geometry((4, 4)), channels=2)


def saved(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


DAMAGED_EXIF = {
    "offset outside": b"Exif\0\0MM\0*\0\xff\xff\xff",
    "no header": b"Exif\0\0nothing of the kind",
    "cut": b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01",
    "orientation is text": b"Exif\0\0MM\0*\0\0\0\x08\0\1\x01\x12\0\2\0\0\0\4abc\0\0\0\0\0",
}


@pytest.mark.parametrize("format", ["PNG", "WEBP", "JPEG"])
@pytest.mark.parametrize("exif", DAMAGED_EXIF.values(), ids=DAMAGED_EXIF)
def test_damaged_metadata_does_not_refuse_a_sound_image(exif, format):
    pixels = np.full((16, 24, 3), 120, np.uint8)
    kept = {"lossless": True} if format == "WEBP" else {}
    with strict_pillow():
        read, _ = decode(encoded(pixels, format, exif=exif, **kept), "it", None)
    np.testing.assert_allclose(read.astype(int), pixels, atol=4)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_all_orientations_are_turned_as_pillow_turns_them(orientation, format):
    exif = Image.Exif()
    exif[0x0112] = orientation
    kept = {"lossless": True} if format == "WEBP" else {}
    data = encoded(noise(4, 6, 3), format, exif=exif, **kept)
    with Image.open(io.BytesIO(data)) as file:
        expected = np.asarray(ImageOps.exif_transpose(file).convert("RGB"))
    np.testing.assert_array_equal(decode(data, "it", None)[0], expected)


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_gray_maps_of_any_depth_keep_their_brightness(bits):
    most = 2**bits - 1
    values = np.linspace(0, most, 24).astype(">u2" if bits > 8 else "u1").reshape(4, 6)
    data = f"P5\n6 4\n{most}\n".encode() + values.tobytes()
    read, _ = decode(data, "it.pgm", None)
    assert read.shape == (4, 6, 1)
    np.testing.assert_allclose(read[..., 0], values * (255 / most), atol=1)


@pytest.mark.parametrize("clear", [None, 0, 0x8000])
def test_gray_pngs_of_16_bits_keep_their_brightness_and_are_clear_on_white(clear):
    values = np.linspace(0, 0xFFFF, 24).astype(">u2").reshape(4, 6)
    values[1, 2] = 0x8000
    known = b"" if clear is None else chunk(b"tRNS", struct.pack(">H", clear))
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 6, 4, 16, 0, 0, 0, 0))
    data += known + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    read, _ = decode(data, "it.png", None)
    expected = np.where(values == clear, 255, values / 257) if known else values / 257
    assert read.shape == (4, 6, 1)
    np.testing.assert_allclose(read[..., 0], expected, atol=1)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


# Pillow does not read the fourth combination.
@pytest.mark.parametrize(
    ("bits", "white_is_zero"), [(8, False), (8, True), (12, False), (16, False), (16, True)]
)
def test_gray_tiffs_of_any_depth_keep_their_brightness(bits, white_is_zero):
    values = np.linspace(0, 2**bits - 1, 24).astype(int).reshape(4, 6)
    read, _ = decode(gray_tiff(values, bits, white_is_zero), "it.tif", None)
    expected = values * (255 / (2**bits - 1))
    np.testing.assert_allclose(read[..., 0], 255 - expected if white_is_zero else expected, atol=1)


def gray_tiff(values, bits, white_is_zero):
    """A TIFF file of one uncompressed strip, written by the specification."""
    (height, width), order = values.shape, "little" if bits == 16 else "big"
    if bits == 12:
        text = "".join(f"{value:012b}" for value in values.ravel())
        strip = int(text, 2).to_bytes(len(text) // 8, "big")
    else:
        strip = b"".join(int(value).to_bytes(bits // 8, order) for value in values.ravel())
    photometric = 0 if white_is_zero else 1
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1}
    tags |= {278: height, 279: len(strip)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(strip)) + strip + directory


@pytest.mark.parametrize("format", ["GIF", "PNG"])
def test_a_palette_of_grays_is_grayscale(format):
    shades = np.array([7, 7, 7, 90, 90, 90, 250, 250, 250, 255, 0, 0], np.uint8)
    indices = noise(4, 6, 1)[..., 0] % 3
    image = Image.fromarray(indices, "P")
    image.putpalette(shades)  # its red is not used
    read, _ = decode(saved(image, format), "it", None)
    np.testing.assert_array_equal(read[..., 0], shades[::3][indices])
    assert read.shape == (4, 6, 1)
    clear, _ = decode(saved(image, format, transparency=0), "it", None)
    np.testing.assert_array_equal(clear[..., 0], np.array([255, 90, 250])[indices])
    image.putpixel((0, 0), 3)
    red, _ = decode(saved(image, format), "it", None)
    assert red.shape == (4, 6, 3)
    assert red[0, 0].tolist() == [255, 0, 0]


def test_32_bits_are_refused_by_name():
    floats = saved(Image.fromarray(noise(4, 6, 1)[..., 0].astype(np.float32)), "TIFF")
    assert "it.tif" in refusal(decode, floats, "it.tif", None)
