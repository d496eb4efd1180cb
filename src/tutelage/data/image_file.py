"""Reading of image files as arrays."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import PIL
from PIL import ExifTags, Image, TiffImagePlugin

from tutelage.data.archives import one_line
from tutelage.data.geometry import Geometry
from tutelage.errors import DataError, DataNotFoundError, RecipeError

# AVIF depends on how Pillow was built, HEIF on the package pillow-heif having registered itself.
_KNOWN = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "HEIF")
OUT_OF_MEMORY = "not enough memory for the images: give a smaller data.size, or fewer images"
_OF_SUFFIXES = Image.registered_extensions()
FORMATS = tuple(name for name in _KNOWN if name in Image.OPEN)
SUFFIXES = tuple(sorted(suffix for suffix, name in _OF_SUFFIXES.items() if name in FORMATS))

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(path: str | os.PathLike[str], *, geometry: Geometry, channels: int) -> np.ndarray:
    """Read an image, upright, with a given size and number of channels.

    Args:
        path: an image file.
        geometry: the size, and how the image gets it.
        channels: 1 for grayscale, 3 for RGB.

    Returns:
        uint8 `(height, width, channels)`.

    Raises:
        RecipeError: if the number of channels is invalid.
        DataNotFoundError: if there is no such file.
        DataError: if it can't be read as an image.

    Example:
        >>> import pathlib, tempfile
        >>> from PIL import Image
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "red.png"
        >>> Image.new("RGB", (4, 4), "red").save(file)
        >>> read_image(file, geometry=Geometry((2, 3)), channels=3).shape
        (2, 3, 3)
    """
    if channels not in (1, 3):
        raise RecipeError(
            f"channels: expected 1 or 3, got {channels!r}; choose a model with 1 or 3"
        )
    file = Path(path).expanduser()
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise DataNotFoundError(f"{file}: expected an image, found no such file") from None
    except OSError as error:
        raise DataError(f"{file}: can't be read ({error.strerror}); give an image file") from error
    with strict_pillow():
        pixels, _ = decode(data, str(file), geometry)
    return with_channels(pixels, channels)


def with_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """Convert uint8 `(height, width, 1 or 3)` to grayscale (1) or RGB (3)."""
    if pixels.shape[2] == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels, 3, axis=2)
    return np.array(Image.fromarray(pixels).convert("L"))[..., np.newaxis]


def decode(data: bytes, where: str, geometry: Geometry | None) -> tuple[np.ndarray, bool]:
    """Decode an image file, upright, with transparency on white.

    Args:
        data: the file's bytes.
        where: the file's name for error messages.
        geometry: the size, and how the image gets it; None: its own.

    Returns:
        uint8 `(height, width, channels)`, 1 channel if the file is grayscale, else 3;
        and whether it was resized.

    Raises:
        DataError: if the file can't be decoded, or is larger than Pillow's limit.

    Example:
        >>> import io
        >>> from PIL import Image
        >>> file = io.BytesIO()
        >>> Image.new("RGB", (4, 2), "red").save(file, "PNG")
        >>> pixels, resized = decode(file.getvalue(), "red.png", None)
        >>> pixels.shape, pixels[0, 0].tolist(), resized
        ((2, 4, 3), [255, 0, 0], False)
    """
    picture = open_image(data, where, None if geometry is None else geometry.draft())
    try:
        sized = picture if geometry is None else geometry.apply(picture)
        pixels = np.array(sized)
    except MemoryError:
        raise DataError(OUT_OF_MEMORY) from None
    return (pixels[..., np.newaxis] if pixels.ndim == 2 else pixels), sized is not picture


def open_image(data: bytes, where: str, least: tuple[int, int] | None) -> Image.Image:
    """Decode an image file as 8-bit grayscale or RGB, upright, with transparency on white.

    Args:
        data: the file's bytes.
        where: the file's name for error messages.
        least: (width, height) in pixels that a JPEG keeps if it is decoded at 1/2, 1/4 or 1/8 of
            its size, which is faster; None: always at its own.

    Returns:
        The image.

    Raises:
        DataError: if the file can't be decoded, or is larger than Pillow's limit.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as file:
            if least is not None:
                file.draft(None, least)
            return plain(file)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    except MemoryError:
        raise DataError(OUT_OF_MEMORY) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(
            f"{where}: expected an image of at most {Image.MAX_IMAGE_PIXELS} pixels, found a "
            "larger one; make it smaller or remove it"
        ) from error
    except Exception as error:  # on a damaged file Pillow's decoders raise almost anything
        unknown = isinstance(error, PIL.UnidentifiedImageError)
        reason = "no known format" if unknown else one_line(error)
        raise DataError(
            f"{where}: expected an image, found a file that can't be read as one "
            f"({reason}); replace or remove it"
        ) from error


def natural_size(data: bytes) -> tuple[int, int]:
    """The (height, width) of an image file that `open_image` reads, upright, in pixels."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as file:
        width, height = file.size
        return (width, height) if orientation(file) >= 5 else (height, width)


def is_image(data: bytes) -> bool:
    """Whether a file's bytes begin like an image of a known format."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS):
            return True
    except PIL.UnidentifiedImageError:
        return False
    except Exception:  # of a known format, but damaged: `decode` says how
        return True


@contextlib.contextmanager
def strict_pillow() -> Iterator[None]:
    """Turn Pillow's decompression bomb warning into an error and ignore other warnings.

    Warning filters are global to the process: enter this in the main thread, around
    the decoding threads.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def plain(image: Image.Image) -> Image.Image:
    """Convert an opened image to 8-bit grayscale or RGB, upright, with transparency on white.

    Raises DataError if it has 32 bits per channel.
    """
    image.load()  # an error from here on is one of the metadata
    turned = _TURNS.get(orientation(image))
    if image.mode == "I" and image.format == "PPM":  # Pillow scales any PGM of over 8 bits to 16
        image = image.convert("I;16")
    if image.mode.startswith("I;16"):
        image = _with_8_bits(image)
    if image.mode in ("I", "F"):
        raise DataError(
            "expected an image with 8 or 16 bits without sign, found 32 or a sign; "
            "save it with 8 bits"
        )
    if turned is not None:
        image = image.transpose(turned)
    gray = image.mode in ("1", "L", "LA", "La")
    flat = _on_white(image, "L" if gray else "RGB")
    if image.mode in ("P", "PA"):  # a palette may hold grays only
        red, green, blue = flat.split()
        return red if red.tobytes() == green.tobytes() == blue.tobytes() else flat
    return flat


def _with_8_bits(image: Image.Image) -> Image.Image:
    """Convert a grayscale image of 12 or 16 bits, with a transparent gray of PNG on white."""
    values = np.array(image)
    if isinstance(clear := image.info.get("transparency"), int):
        values[values == clear] = 65535
    if image.format == "TIFF":  # Pillow gives the file's values: of 12 bits, or with white as zero
        tags = cast(TiffImagePlugin.TiffImageFile, image).tag_v2
        depth = tags[ExifTags.Base.BitsPerSample][0]
        values = values << (16 - depth)
        if tags[ExifTags.Base.PhotometricInterpretation] == 0:
            values = ~values
    return Image.fromarray((values >> 8).astype(np.uint8))


def orientation(image: Image.Image) -> int:
    """An image's EXIF orientation, 1 to 8; 1 (upright) if the metadata is missing or damaged."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow's parsers raise almost anything; the pixels are sound
        return 1


def _on_white(image: Image.Image, mode: str) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert(mode)
    image = image.convert("LA" if mode == "L" else "RGBA")
    background = Image.new(mode, image.size, "white")
    background.paste(image.convert(mode), mask=image.getchannel("A"))
    return background
