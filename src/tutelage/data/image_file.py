"""Reading of image files as arrays."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, ImageOps

from tutelage.data.archives import one_line
from tutelage.errors import DataError, DataNotFoundError, RecipeError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


def read_image(path: str | os.PathLike[str], *, size: tuple[int, int], channels: int) -> np.ndarray:
    """Read an image, upright, with a given size and number of channels.

    Args:
        path: an image file.
        size: (height, width) in pixels; resized bilinearly (Pillow's BILINEAR).
        channels: 1 for grayscale, 3 for RGB.

    Returns:
        uint8 `(height, width, channels)`.

    Raises:
        RecipeError: if the size or the number of channels is invalid.
        DataNotFoundError: if there is no such file.
        DataError: if it can't be read as an image.

    Example:
        >>> import pathlib, tempfile
        >>> from PIL import Image
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "red.png"
        >>> Image.new("RGB", (4, 4), "red").save(file)
        >>> read_image(file, size=(2, 3), channels=3).shape
        (2, 3, 3)
    """
    if channels not in (1, 3):
        raise RecipeError(
            f"channels: expected 1 or 3, got {channels!r}; choose a model with 1 or 3"
        )
    height_width = checked_size(size)
    file = Path(path).expanduser()
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise DataNotFoundError(f"{file}: expected an image, found no such file") from None
    except OSError as error:
        raise DataError(f"{file}: can't be read ({error.strerror}); give an image file") from error
    with strict_pillow():
        pixels, _ = decode(data, str(file), height_width)
    if pixels.shape[2] == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels, 3, axis=2)
    return np.array(Image.fromarray(pixels).convert("L"))[..., np.newaxis]


def decode(data: bytes, where: str, size: tuple[int, int] | None) -> tuple[np.ndarray, bool]:
    """Decode an image file, upright, with transparency on white.

    Args:
        data: the file's bytes.
        where: the file's name for error messages.
        size: (height, width) in pixels; other sizes are resized bilinearly, with smoothing
            when shrinking (Pillow's BILINEAR), without preserving the aspect ratio.

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
    try:
        with Image.open(io.BytesIO(data)) as file:
            image = plain(ImageOps.exif_transpose(file))
            resized = size is not None and image.size != size[::-1]
            if size is not None and resized:
                image = image.resize(size[::-1], Image.Resampling.BILINEAR)
            pixels = np.array(image)
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
    return (pixels[..., np.newaxis] if pixels.ndim == 2 else pixels), resized


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
    """Convert an image to 8-bit grayscale or RGB, with transparency on white."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError("it has 32 bits per pixel; save it with 8")
    gray = image.mode in ("1", "L", "LA", "La")
    mode = "L" if gray else "RGB"
    if image.has_transparency_data:
        image = image.convert("LA" if gray else "RGBA")
        background = Image.new(mode, image.size, "white")
        background.paste(image.convert(mode), mask=image.getchannel("A"))
        return background
    return image.convert(mode)


def checked_size(size: tuple[int, int] | None) -> tuple[int, int] | None:
    """Validate a size in pixels or None; raises RecipeError."""
    if size is None:
        return None
    if len(size) != 2 or any(type(side) is not int or side < 1 for side in size):
        raise RecipeError(
            f"data.size: expected (height, width) in pixels, each at least 1, got {size!r}; "
            "change it"
        )
    return size[0], size[1]
