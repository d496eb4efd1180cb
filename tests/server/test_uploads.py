"""Every kind of picture comes out as a model takes it, and what is none is refused in words."""

from __future__ import annotations

import asyncio
import io
import struct
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tutelage.data import image_file
from tutelage.data.geometry import Geometry
from tutelage.data.image_file import FORMATS
from tutelage.server.uploads import BodyReader, Limits, Refused, read

SHAPE = (4, 6, 3)
INPUT = (Geometry((4, 6)), 3)
RANDOM = np.random.default_rng(0)
COLORS = RANDOM.integers(0, 256, (4, 6, 3), dtype=np.uint8)


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def pixels(data: bytes, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """The picture as one model sees it."""
    taken = (Geometry(shape[:2]), shape[2])
    return read(data, [taken], pixels=10_000_000).seen[taken][0]


def refusal(data: bytes, limit: int = 10_000) -> Refused:
    with pytest.raises(Refused) as caught:
        read(data, [INPUT], pixels=limit)
    return caught.value


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_give_the_pixels_themselves(format: str) -> None:
    picture = read(encoded(Image.fromarray(COLORS), format), [INPUT], pixels=24)
    np.testing.assert_array_equal(picture.seen[INPUT][0], COLORS)
    assert (picture.width, picture.height) == (6, 4)


def test_webp_without_loss_gives_the_pixels_themselves() -> None:
    data = encoded(Image.fromarray(COLORS), "WEBP", lossless=True)
    np.testing.assert_array_equal(pixels(data), COLORS)


@pytest.mark.parametrize("format", [f for f in FORMATS if f not in ("PPM", "HEIF")])
def test_every_format_shows_a_plain_colour(format: str) -> None:
    found = pixels(encoded(Image.new("RGB", (9, 9), (200, 60, 20)), format))
    assert np.abs(found.astype(int) - (200, 60, 20)).max() <= 4


def test_it_is_resized_as_predict_resizes_it(tmp_path: Any) -> None:
    data = encoded(Image.fromarray(RANDOM.integers(0, 256, (50, 70, 3), dtype=np.uint8)))
    (tmp_path / "a.png").write_bytes(data)
    for channels in (1, 3):
        expected = image_file.read_image(
            tmp_path / "a.png", geometry=Geometry((8, 5)), channels=channels
        )
        np.testing.assert_array_equal(pixels(data, (8, 5, channels)), expected)


def test_models_of_several_shapes_see_it_each_in_its_own() -> None:
    inputs = [(Geometry((4, 6)), 3), (Geometry((2, 2)), 1), (Geometry((2, 2), "crop"), 1)]
    seen = read(encoded(Image.fromarray(COLORS)), inputs, pixels=24).seen
    for geometry, channels in inputs:
        assert seen[geometry, channels].shape == (1, *geometry.size, channels)
    assert (seen[inputs[1]] != seen[inputs[2]]).any()
    assert all(found.dtype == np.uint8 for found in seen.values())


def test_a_photo_that_was_taken_sideways_stands_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter to the left
    left = Image.fromarray(COLORS).transpose(Image.Transpose.ROTATE_90)
    np.testing.assert_array_equal(pixels(encoded(left, exif=exif)), COLORS)


@pytest.mark.parametrize(("orientation", "size"), [(1, (2000, 1000)), (6, (1000, 2000))])
def test_a_large_jpeg_is_said_to_have_its_true_size_upright(
    orientation: int, size: tuple[int, int]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.new("RGB", (2000, 1000), "blue")
    image.paste("yellow", (0, 0, 1000, 1000))
    data = encoded(image, "JPEG", exif=exif)
    picture = read(data, [(Geometry((8, 8)), 3)], pixels=2_000_000)
    assert (picture.width, picture.height) == size
    seen = picture.seen[Geometry((8, 8)), 3][0]
    yellow = seen[0] if orientation == 6 else seen[:, 0]
    assert (yellow[:, 0] > 200).all()
    assert (seen[-1, -1] < (60, 60, 256)).all()


@pytest.mark.parametrize("side", [32, 64])
def test_a_large_jpeg_looks_as_if_it_were_decoded_whole(side: int) -> None:
    rough = Image.fromarray(RANDOM.integers(0, 256, (40, 40, 3), dtype=np.uint8))
    large = rough.resize((1000, 1000), Image.Resampling.BICUBIC)
    data = encoded(large, "JPEG", quality=95)
    whole = np.asarray(
        Image.open(io.BytesIO(data)).resize((side, side), Image.Resampling.BILINEAR), int
    )
    difference = np.abs(pixels(data, (side, side, 3)).astype(int) - whole)
    assert difference.max() <= 1


def test_what_is_transparent_lies_on_white() -> None:
    alpha = np.full((4, 6), 255, np.uint8)
    alpha[0, 0] = 0
    data = encoded(Image.fromarray(np.dstack([COLORS, alpha])))
    expected = COLORS.copy()
    expected[0, 0] = 255
    np.testing.assert_array_equal(pixels(data), expected)


def test_a_palette_with_a_transparent_colour_lies_on_white() -> None:
    image = Image.new("P", (6, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.putpixel((0, 0), 0)
    found = pixels(encoded(image, transparency=0))
    assert found[0, 0].tolist() == [255, 255, 255]
    assert found[1, 1].tolist() == [10, 20, 30]


@pytest.mark.parametrize("mode", ["1", "L"])
def test_grey_is_given_to_every_channel(mode: str) -> None:
    grey = Image.fromarray(COLORS).convert(mode)
    expected = np.repeat(np.asarray(grey.convert("L"))[..., np.newaxis], 3, axis=2)
    np.testing.assert_array_equal(pixels(encoded(grey)), expected)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_of_16_bits_the_upper_8_are_seen(format: str) -> None:
    deep = (COLORS[..., 0].astype(np.uint16) << 8) + 77
    expected = np.repeat(COLORS[..., :1], 3, axis=2)
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(deep), format)), expected)


def test_formats_are_those_that_training_reads() -> None:
    avif = encoded(Image.fromarray(np.repeat(COLORS, 8, axis=0).repeat(8, axis=1)), "AVIF")
    trained_on, _ = image_file.decode(avif, "it.jpg", Geometry((4, 6)))
    np.testing.assert_array_equal(pixels(avif), trained_on)


def test_damaged_exif_does_not_refuse_a_sound_image() -> None:
    data = encoded(Image.fromarray(COLORS), exif=b"Exif\0\0MM\0*\0\0\0\xff\xff\xff")
    np.testing.assert_array_equal(pixels(data), COLORS)


def test_printers_colours_are_seen_as_the_screen_s() -> None:
    found = pixels(encoded(Image.new("CMYK", (9, 9), (0, 255, 255, 0)), "JPEG"))
    assert (np.abs(found.astype(int) - (255, 0, 0)) <= 4).all()


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_picture_is_seen(format: str) -> None:
    frames = [Image.new("RGB", (6, 4), color) for color in ("red", "lime", "blue")]
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:])
    found = pixels(data)
    assert found[0, 0, 0] > 240
    assert (found[..., 1:] < 16).all()


# --- refusals


def test_nothing_is_refused() -> None:
    error = refusal(b"")
    assert error.status == 400
    assert "found nothing" in str(error)


@pytest.mark.parametrize(
    "data",
    [
        b"just text",
        b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        b"PK\x03\x04" + bytes(30),
        b"\x00" * 100,
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        encoded(Image.new("RGB", (4, 4)), "ICO"),
        encoded(Image.new("RGB", (4, 4)), "TGA"),
        encoded(Image.new("RGB", (4, 4)), "PDF"),
    ],
    ids=["text", "svg", "zip", "zeros", "eps", "ico", "tga", "pdf"],
)
def test_what_is_no_image_of_a_known_format_is_refused(data: bytes) -> None:
    error = refusal(data)
    assert error.status == 415
    assert "PNG, JPEG" in str(error)
    assert "BytesIO" not in str(error)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_a_file_that_is_cut_off_is_refused(format: str) -> None:
    noise = Image.fromarray(RANDOM.integers(0, 256, (60, 60, 3), dtype=np.uint8))
    data = encoded(noise, format)
    error = refusal(data[: len(data) // 2])
    # The sizes of a TIFF stand at its end, so what is cut off may be no TIFF at all.
    assert error.status == 422 or (format in ("TIFF", "WEBP") and error.status == 415)


def png_of(width: int, height: int) -> bytes:
    """A PNG whose header promises so many pixels, and that holds none."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_pixels_are_counted_before_they_are_decoded() -> None:
    error = refusal(png_of(101, 100))
    assert error.status == 413
    assert "10,000 pixels, found 101 x 100" in str(error)
    assert refusal(png_of(100, 100)).status == 422  # as many as are allowed, but none there
    assert refusal(png_of(100_000, 100_000)).status == 413  # Pillow's own limit


def test_a_picture_that_is_very_long_is_refused() -> None:
    error = refusal(png_of(20_001, 1), limit=10_000_000)
    assert error.status == 413
    assert "per side" in str(error)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_32_bits_are_refused(dtype: Any) -> None:
    error = refusal(encoded(Image.fromarray(COLORS[..., 0].astype(dtype)), "TIFF"))
    assert error.status == 422
    assert "32" in str(error)


def test_a_compressed_tiff_is_read() -> None:
    data = encoded(Image.fromarray(COLORS), "TIFF", compression="tiff_lzw")
    np.testing.assert_array_equal(pixels(data), COLORS)


# --- bodies


def arriving(*chunks: bytes, ends: bool = True) -> Callable[[], Awaitable[dict[str, Any]]]:
    """What ASGI's receive gives, one chunk after another; a body without an end hangs."""
    left = list(chunks)

    async def receive() -> dict[str, Any]:
        if not left:
            await asyncio.sleep(60)
        chunk = left.pop(0)
        return {"type": "http.request", "body": chunk, "more_body": bool(left) or not ends}

    return receive


def received(
    receive: Callable[[], Awaitable[dict[str, Any]]],
    limits: Limits = Limits(bytes=10),  # noqa: B008
    **headers: str,
) -> bytes:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return asyncio.run(BodyReader(limits).body(named, receive))


def test_a_body_is_received_up_to_its_limit() -> None:
    assert received(arriving(b"12345", b"", b"67890")) == b"1234567890"
    with pytest.raises(Refused, match="10 bytes") as caught:
        received(arriving(b"12345", b"678901"))
    assert caught.value.status == 413


def test_a_length_that_is_too_large_is_refused_before_anything_arrives() -> None:
    with pytest.raises(Refused, match="found 11") as caught:
        received(arriving(ends=False), content_length="11")
    assert caught.value.status == 413


def test_a_body_that_comes_too_slowly_is_refused() -> None:
    with pytest.raises(Refused, match=r"0\.05 s") as caught:
        received(arriving(b"123", ends=False), Limits(seconds=0.05))
    assert caught.value.status == 408


def test_a_body_that_ends_early_is_refused() -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    with pytest.raises(Refused, match="ended early") as caught:
        received(receive)
    assert caught.value.status == 400


@pytest.mark.parametrize("kind", ["image/png", "IMAGE/JPEG; q=1", "application/octet-stream", ""])
def test_images_and_bytes_are_received_whatever_they_are_called(kind: str) -> None:
    assert received(arriving(b"x"), content_type=kind) == b"x"


@pytest.mark.parametrize(
    "kind", ["text/html", "multipart/form-data", "application/x-www-form-urlencoded"]
)
def test_what_is_declared_to_be_something_else_is_refused(kind: str) -> None:
    with pytest.raises(Refused, match=kind) as caught:
        received(arriving(b"x"), content_type=kind)
    assert caught.value.status == 415


def test_a_compressed_body_is_refused() -> None:
    with pytest.raises(Refused, match="gzip") as caught:
        received(arriving(b"x"), content_encoding="gzip")
    assert caught.value.status == 415


def test_bodies_together_have_a_limit_which_is_given_back() -> None:
    async def many() -> list[Any]:
        mailbox = BodyReader(Limits(bytes=10, seconds=0.2))
        hanging = [mailbox.body({}, arriving(b"x" * 9, ends=False)) for _ in range(9)]
        first = await asyncio.gather(*hanging, return_exceptions=True)
        again = await mailbox.body({}, arriving(b"x" * 10))
        return [*first, again]

    *first, again = asyncio.run(many())
    assert sorted(error.status for error in first) == [*[408] * 8, 503]
    assert again == b"x" * 10
