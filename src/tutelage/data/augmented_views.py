"""Augmented views of images, wherever the images are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from tutelage.data import augmentation, mixing, transforms
from tutelage.data.content import Images
from tutelage.data.geometry import Geometry
from tutelage.data.image_files import ImageFiles
from tutelage.data.mixing import Mixing
from tutelage.data.view_loader import ViewLoader, default_workers
from tutelage.recipe import Views

# First stream of random numbers of `transforms`, beside those of `augmentation` and `mixing`.
_TRANSFORMS = 64


@dataclass(frozen=True, eq=False)
class AugmentedViews:
    """The views of some images: each a pure function of (seed, number, index).

    Args:
        images: uint8 of shape (count, height, width, channels), or in files.
        views: the augmentation.
        seed: the recipe's seed, at least 0.
        cutout: side of the square masked in each view, in pixels.

    Example:

    >>> import numpy as np
    >>> from tutelage.data.augmented_views import AugmentedViews
    >>> from tutelage.recipe import Views
    >>> images = np.arange(2 * 4 * 4, dtype=np.uint8).reshape(2, 4, 4, 1)
    >>> views = AugmentedViews(images, Views(shift=1, mixup=0.2), seed=0)
    >>> views(3, np.array([1, 0])).shape
    (2, 4, 4, 1)
    """

    images: Images
    views: Views
    seed: int
    cutout: int = 0

    def __call__(self, number: int, index: np.ndarray) -> np.ndarray:
        """Images in one view.

        Args:
            number: the view's number, from 0.
            index: indices of the images, integers of shape (n,).

        Returns:
            uint8 of shape (n, height, width, channels).
        """
        if (mixed := self.mixing(number, index)) is None:
            return self._unmixed(number, index)
        both = np.concatenate([index, mixed.partner])
        unique, places = np.unique(both, return_inverse=True)
        own, other = self._unmixed(number, unique)[places.reshape(2, -1)]
        return mixed.pixels(own, other)

    def mixing(self, number: int, index: np.ndarray) -> Mixing | None:
        """How images are mixed in one view; None if they are not."""
        if self.views.mixup is None and self.views.cutmix is None:
            return None
        return mixing.mixing(
            index,
            count=len(self.images),
            seed=self.seed,
            view=number,
            views=self.views,
            size=self.images.shape[1:3],
        )

    def order(self, epoch: int, number: int) -> np.ndarray:
        """The order in which an epoch visits all images in a view, int64 of shape (count,)."""
        if self.views.mixup is None and self.views.cutmix is None:
            return augmentation.order(len(self.images), seed=self.seed, epoch=epoch)
        return mixing.order(len(self.images), seed=self.seed, epoch=epoch, view=number)

    def loader(self, workers: int | None) -> ViewLoader:
        """A loader of batches: by default, in workers unless a batch takes no time.

        Args:
            workers: number of worker processes; None: as many as `default_workers` if images are
                decoded or transformed one by one, else 0.
        """
        if workers is None:
            one_by_one = isinstance(self.images, ImageFiles) or self._draws
            workers = default_workers() if one_by_one else 0
        return ViewLoader(self, workers)

    @property
    def _draws(self) -> int:
        return transforms.draws_per_image(self.views)

    def _unmixed(self, number: int, index: np.ndarray) -> np.ndarray:
        images, places = self.images, index
        if self._draws or isinstance(images, ImageFiles):
            images, places = self._pictures(number, index), np.arange(len(index))
        return augmentation.changed(
            images,
            places,
            index,
            seed=self.seed,
            epoch=number,
            flip=self.views.flip,
            shift=self.views.shift,
            cutout=self.cutout,
            flip_vertical=bool(self.views.flip_vertical),
            erasing=self.views.erasing or 0.0,
        )

    def _pictures(self, number: int, index: np.ndarray) -> np.ndarray:
        """Images as decoded, cropped and with other colors, one by one."""
        shape, streams = self.images.shape[1:], range(_TRANSFORMS, _TRANSFORMS + self._draws)
        draws = [augmentation.uniform(stream, self.seed, number, index) for stream in streams]
        columns = np.array(draws).reshape(-1, len(index)).T.tolist()
        images = np.empty((len(index), *shape), np.uint8)
        for image, place, drawn in zip(images, index.tolist(), columns, strict=True):
            if isinstance(self.images, ImageFiles):
                picture, geometry = self.images.picture(place), self.images.geometry
                picture = transforms.transform(picture, geometry, self.views, drawn)
                image[:] = self.images.pixels(picture)
            else:
                pixels, geometry = self.images[place], Geometry((shape[0], shape[1]))
                picture = Image.fromarray(pixels[..., 0] if shape[2] == 1 else pixels)
                picture = transforms.transform(picture, geometry, self.views, drawn)
                image[:] = np.asarray(picture).reshape(shape)
        return images
