"""Images that stay in their files: decoded when they are used."""

from __future__ import annotations

import hashlib
import operator
import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from tutelage.data import file_index, image_file
from tutelage.data.file_index import FileIndex
from tutelage.data.geometry import Geometry
from tutelage.progress import Progress


class ImageFiles:
    """Images in files, used like an array of uint8 (n, height, width, channels).

    Only an index is in memory; indexing decodes images and gives them the data's size.

    Args:
        index: the files.
        geometry: the images' size, and how they get it.
        channels: 1 for grayscale, 3 for RGB.
        decoded: the images as `picture` gives them, if they are kept in memory.

    Example:

    >>> import pathlib, tempfile
    >>> from PIL import Image
    >>> from tutelage.data import archives, file_index
    >>> from tutelage.data.geometry import Geometry
    >>> from tutelage.data.image_files import ImageFiles
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> Image.new("RGB", (40, 30)).save(folder / "a.png")
    >>> with archives.open_tree(folder) as tree:
    ...     index = file_index.build(tree, ["a.png"])
    >>> images = ImageFiles(index, Geometry((8, 8)), channels=3)
    >>> images.shape, images[:1].shape, images.picture(0).size
    ((1, 8, 8, 3), (1, 8, 8, 3), (40, 30))
    """

    dtype, ndim = np.dtype(np.uint8), 4

    def __init__(
        self,
        index: FileIndex,
        geometry: Geometry,
        channels: int,
        decoded: list[np.ndarray] | None = None,
    ):
        self.index, self.geometry, self.channels, self.decoded = index, geometry, channels, decoded

    def __len__(self) -> int:
        return len(self.index)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(n, height, width, channels)."""
        return (len(self), *self.geometry.size, self.channels)

    @property
    def size(self) -> int:
        """The number of values."""
        count, height, width, channels = self.shape
        return count * height * width * channels

    def __getitem__(self, key: int | slice | np.ndarray) -> np.ndarray:
        """The images of an index, a slice or an array of indices, decoded in threads."""
        if isinstance(key, int | np.integer):
            return self.image(operator.index(key) % len(self))
        numbers = np.arange(len(self))[key]
        images = np.empty((len(numbers), *self.shape[1:]), np.uint8)
        with image_file.strict_pillow(), ThreadPoolExecutor(os.cpu_count()) as pool:
            for image, pixels in zip(images, pool.map(self.image, numbers), strict=True):
                image[:] = pixels
        return images

    def take(self, numbers: np.ndarray | slice) -> ImageFiles:
        """Some of the images, still in their files."""
        kept = self.decoded
        if kept is not None:
            kept = [kept[number] for number in np.arange(len(self))[numbers]]
        return ImageFiles(self.index.take(numbers), self.geometry, self.channels, kept)

    def image(self, number: int) -> np.ndarray:
        """One image in the data's size, uint8 of shape (height, width, channels)."""
        return self.pixels(self.geometry.apply(self.picture(number)))

    def picture(self, number: int) -> Image.Image:
        """One image as its file has it: of any size, grayscale or RGB."""
        if self.decoded is not None:
            return Image.fromarray(self.decoded[number])
        data, name = self.index.read(number)
        return image_file.open_image(data, name, self.geometry.draft())

    def pixels(self, picture: Image.Image) -> np.ndarray:
        """A picture's pixels with the data's channels, uint8 of (height, width, channels)."""
        picture = picture.convert("L" if self.channels == 1 else "RGB")
        return np.asarray(picture).reshape(*picture.size[::-1], self.channels)

    def with_channels(self, channels: int) -> ImageFiles:
        """The same images in grayscale (1) or RGB (3)."""
        return ImageFiles(self.index, self.geometry, channels, self.decoded)

    def in_memory(self, progress: Progress) -> ImageFiles:
        """The same images, decoded now and kept in memory; `progress` is notified of each."""
        decoded: list[np.ndarray] = []
        progress.stage("decoding images", 1, 0, len(self), "pass")
        began = time.monotonic()
        with image_file.strict_pillow(), ThreadPoolExecutor(os.cpu_count()) as pool:
            for picture in pool.map(self.picture, range(len(self))):
                decoded.append(np.asarray(picture))
                progress.step(len(decoded), {})
        progress.epoch({"epoch": 1, "seconds": time.monotonic() - began})
        return ImageFiles(self.index, self.geometry, self.channels, decoded)

    def decoded_bytes(self) -> int:
        """About the memory that all images take when decoded."""
        return int((self.index.sizes.astype(np.int64).prod(axis=1) * self.index.channels).sum())

    def digest(self) -> str:
        """SHA-256 of the files' hashes in order, and of how they become images."""
        sha256 = hashlib.sha256(f"{self.geometry} {self.channels} {len(self)}".encode())
        sha256.update(np.ascontiguousarray(self.index.digests).data)
        return sha256.hexdigest()


def joined(parts: list[ImageFiles]) -> ImageFiles:
    """The images of one part after the other, as the first one has its size and channels."""
    first = parts[0]
    index = file_index.joined([part.index for part in parts])
    decoded = None
    if all(part.decoded is not None for part in parts):
        decoded = [image for part in parts for image in part.decoded or ()]
    return ImageFiles(index, first.geometry, first.channels, decoded)
