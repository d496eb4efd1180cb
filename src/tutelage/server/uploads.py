"""Decode uploaded images: untrusted bytes, checked throughout, never written to disk."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import PIL
from PIL import Image

from tutelage.data import image_file
from tutelage.data.geometry import Geometry
from tutelage.errors import DataError, TutelageError

KNOWN = f"{', '.join(image_file.FORMATS[:-1])} or {image_file.FORMATS[-1]}"
# Resizing needs memory proportional to the longer side.
_SIDE = 20_000
# Total size of bodies in memory, in multiples of the largest allowed body.
_BODIES = 8

# What a model takes: the size of its images, how they get it, and their channels.
Input = tuple[Geometry, int]


class Refused(TutelageError, ValueError):
    """A request that is refused, with its HTTP status.

    Args:
        status: the HTTP status, at least 400.
        text: says what was expected, what was found and what to do.
    """

    def __init__(self, status: int, text: str):
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class Limits:
    """Limits on images and on the queue.

    Args:
        bytes: size of a request's body.
        pixels: number of pixels, according to the image's header.
        seconds: time for a body to arrive.
        waiting: images that may wait while all threads are busy.
    """

    bytes: int = 10_000_000
    pixels: int = 25_000_000
    seconds: float = 20.0
    waiting: int = 32


class Picture(NamedTuple):
    """An image, resized for each model's input.

    Args:
        width: width of the uploaded image, upright.
        height: its height.
        seen: by input, uint8 of shape (1, height, width, channels).
    """

    width: int
    height: int
    seen: dict[Input, np.ndarray]


class BodyReader:
    """Receives bodies within the limits, with bounded memory in total.

    Args:
        limits: limits on one body; the total may be eight times as large.
    """

    def __init__(self, limits: Limits):
        self._limits = limits
        self._held = 0

    async def body(
        self, headers: Mapping[str, str], receive: Callable[[], Awaitable[Any]]
    ) -> bytes:
        """Receive a request's body.

        Args:
            headers: the request's headers by lower-case name.
            receive: ASGI's function that returns the next message.

        Returns:
            The body's bytes.

        Raises:
            Refused: 415 if it is declared not to be an image, 413 if it is too large, 408 if it
                is too slow, 400 if it is incomplete, 503 if too many others are being received.
        """
        self._check(headers)
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._limits.seconds):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise Refused(
                            400, "expected the whole body, but the connection ended early"
                        )
                    chunk = message.get("body", b"")
                    size += len(chunk)
                    self._held += len(chunk)
                    chunks.append(chunk)
                    if size > self._limits.bytes:
                        raise self._too_large(f"more than {self._limits.bytes:,}")
                    if self._held > _BODIES * self._limits.bytes:
                        raise busy()
                    if not message.get("more_body", False):
                        return b"".join(chunks)
        except TimeoutError:
            raise Refused(
                408,
                f"expected the complete image within {self._limits.seconds:g} s, received {size:,} "
                "bytes; send it again, or a smaller one",
            ) from None
        finally:
            self._held -= size

    def _check(self, headers: Mapping[str, str]) -> None:
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind and kind != "application/octet-stream" and not kind.startswith("image/"):
            raise Refused(
                415,
                f"expected an image as the body, found Content-Type {kind[:80]!r}; "
                "send the file itself, as image/jpeg or application/octet-stream",
            )
        coding = headers.get("content-encoding", "identity").strip().lower()
        if coding != "identity":
            raise Refused(
                415, f"expected no content encoding, found Content-Encoding {coding[:80]!r}"
            )
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._limits.bytes:
            raise self._too_large(f"{int(length):,}")

    def _too_large(self, found: str) -> Refused:
        return Refused(
            413,
            f"expected an image of at most {self._limits.bytes:,} bytes, found {found}; "
            "make it smaller",
        )


def busy() -> Refused:
    """The error for a full queue."""
    return Refused(503, "too many images are waiting; try again in a second")


def read(data: bytes, inputs: Collection[Input], pixels: int) -> Picture:
    """Decode an image file and resize it as models take it.

    The result is upright, with transparency on white, in 8 bits; of an animation, the first
    frame. It is resized as in training and `tutelage predict`.

    Args:
        data: the file's bytes.
        inputs: sizes and how images get them, each with 1 or 3 channels.
        pixels: maximum number of pixels, according to the file's header.

    Returns:
        The image, resized for each input.

    Raises:
        Refused: 400 if there are no bytes, 415 if they are not an image of a known format, 413 if
            it is too large, 422 if it is damaged.

    Example:

    >>> import io
    >>> from PIL import Image
    >>> from tutelage.data.geometry import Geometry
    >>> from tutelage.server import uploads
    >>> file = io.BytesIO()
    >>> Image.new("RGB", (4, 2), "red").save(file, "PNG")
    >>> taken = (Geometry((1, 1)), 3)
    >>> picture = uploads.read(file.getvalue(), [taken], pixels=8)
    >>> picture.width, picture.height, picture.seen[taken].tolist()
    (4, 2, [[[[255, 0, 0]]]])
    """
    if not data:
        raise Refused(400, "expected an image, found nothing; send the file's bytes as the body")
    try:
        with Image.open(io.BytesIO(data), formats=image_file.FORMATS) as image:
            return _seen(image, inputs, pixels)
    except Refused:
        raise
    except DataError as error:
        raise Refused(422, str(error)) from None
    except PIL.UnidentifiedImageError:
        raise Refused(415, f"expected an image ({KNOWN}), found none") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_many(pixels) from None
    except MemoryError:
        raise Refused(
            503, "not enough memory for this image at present; send it later, or a smaller one"
        ) from None
    except Exception as error:  # on a damaged file Pillow's decoders raise almost anything
        raise Refused(
            422, "expected a complete image, found one that is damaged or truncated; send it again"
        ) from error


def _seen(image: Image.Image, inputs: Collection[Input], pixels: int) -> Picture:
    width, height = image.size
    if width * height > pixels:
        raise _too_many(pixels, f"{width} x {height}")
    if max(width, height) > _SIDE:
        raise Refused(
            413,
            f"expected an image of at most {_SIDE:,} pixels per side, found {width} x {height}; "
            "crop it or make it smaller",
        )
    if image_file.orientation(image) in (5, 6, 7, 8):
        width, height = height, width
    image.draft(None, max(geometry.draft() for geometry, _ in inputs))
    flat = image_file.plain(image)
    seen = {}
    for geometry, channels in inputs:
        sized = geometry.apply(flat).convert("RGB" if channels == 3 else "L")
        seen[geometry, channels] = np.array(sized).reshape(1, *geometry.size, channels)
    return Picture(width, height, seen)


def _too_many(pixels: int, found: str = "a larger one") -> Refused:
    return Refused(
        413, f"expected an image of at most {pixels:,} pixels, found {found}; make it smaller"
    )
