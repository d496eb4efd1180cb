"""Training batches: of augmented views, or of a loader."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from tutelage.data import view_loader
from tutelage.data.augmented_views import AugmentedViews
from tutelage.data.content import Part
from tutelage.data.image_files import ImageFiles
from tutelage.data.sampling import balanced_order
from tutelage.distillation.logit_cache import GivenLogits, LogitCache
from tutelage.recipe import Schedule, Views


class TrainingBatches(keras.utils.PyDataset):
    """Batches to train on, one or several for each step.

    Attributes:
        classes: number of classes.
        parts: batches of a step.
        batches: batches of an epoch.
        step_images: images of a step, at most.
        unlabeled: whether images have no labels.
        mixed: whether labels are (n, classes), one-hot or shares.
        first: the batch of the epoch that number 0 is, as the others were trained before.
        images: images from that batch to the end of the epoch, or so far.
        waited: seconds that the model waited for batches of this epoch.
    """

    classes: int
    parts: int
    batches: int
    step_images: int
    unlabeled: bool
    mixed: bool
    first: int
    images: int
    waited: float

    def begin(self, epoch: int, first: int = 0) -> None:
        """Go to an epoch, at a batch of it, and be asked for its batches in order."""
        raise NotImplementedError

    def show(self, epoch: int, first: int = 0) -> None:
        """Go to an epoch, at a batch of it, and be asked for no batch or one, to inspect it."""
        raise NotImplementedError

    def close(self) -> None:
        """Stop the workers."""
        raise NotImplementedError

    def __len__(self) -> int:
        return self.batches - self.first


class ViewedBatches(TrainingBatches):
    """Batches of views; the last, incomplete step of an epoch is dropped.

    The images of a step are one batch, or several whose sizes differ by at most one. Batches are
    prepared ahead while they are asked for in order.

    Args:
        part: the training images; a label of -1 means unlabeled.
        classes: number of classes.
        schedule: batch size and cutout.
        views: the augmentation.
        seed: seed of image order and augmentation.
        logits: the teacher's logits of each view, if they are known.
        parts: batches of a step.
        workers: number of worker processes; None: chosen by the images and views.
    """

    def __init__(
        self,
        part: Part,
        classes: int,
        schedule: Schedule,
        views: Views,
        seed: int,
        logits: LogitCache | GivenLogits | None = None,
        parts: int = 1,
        workers: int | None = None,
    ):
        super().__init__()
        self.part, self.classes, self.logits = part, classes, logits
        self.distinct, self.unlabeled = views.distinct, bool((part.labels < 0).any())
        self.balanced = schedule.sampling == "balanced"
        self.parts, self.step_images = parts, images_per_step(schedule, len(part))
        self.starts = np.arange(parts + 1) * self.step_images // parts
        self.batches = parts * steps_per_epoch(schedule, len(part))
        self.augmented = AugmentedViews(part.images, views, seed, schedule.cutout)
        self.mixed = views.mixup is not None or views.cutmix is not None
        self.loader = self.augmented.loader(workers)
        self.show(epoch=0)

    def begin(self, epoch: int, first: int = 0) -> None:
        # Called explicitly: Keras also opens and closes the data to inspect one batch.
        self.show(epoch, first)
        requests = ((self.view, self._index(number)) for number in range(first, self.batches))
        self.ahead, self.following = self.loader.batches(requests), first

    def close(self) -> None:
        self.ahead = iter(())
        self.loader.close()

    def __getitem__(self, number: int) -> tuple[Any, ...]:
        number += self.first
        index = self._index(number)
        if number == self.following:
            began = time.monotonic()
            images = next(self.ahead)
            self.waited += time.monotonic() - began
            self.following += 1
        else:
            images = self.augmented(self.view, index)
        if self.unlabeled:
            labels: tuple[np.ndarray, ...] = ()
        elif (mixed := self.augmented.mixing(self.view, index)) is None:
            labels = (self.part.labels[index],)
        else:
            both = self.part.labels[np.stack([index, mixed.partner])]
            labels = (mixed.labels(both, self.classes),)
        if self.logits is None:
            return images, *labels
        return {"images": images, "teacher_logits": self.logits.logits(self.view, index)}, *labels

    def show(self, epoch: int, first: int = 0) -> None:
        self.first, self.view = first, epoch % (self.distinct or epoch + 1)
        self.images, self.waited = len(self) // self.parts * self.step_images, 0.0
        if self.balanced:
            seed = self.augmented.seed
            self.order = balanced_order(self.part.labels, seed=seed, epoch=epoch)
        else:
            self.order = self.augmented.order(epoch, self.view)
        self.ahead, self.following = iter(()), -1  # batches are computed when asked for

    def _index(self, number: int) -> np.ndarray:
        step, part = divmod(number, self.parts)
        first = step * self.starts[-1]
        return self.order[first + self.starts[part] : first + self.starts[part + 1]]


class StoredBatches(keras.utils.PyDataset):
    """Batches of images in files without augmentation, in order, for validation."""

    def __init__(self, images: ImageFiles, labels: np.ndarray, size: int):
        super().__init__()
        self.images, self.labels, self.batch_size = images, labels, size
        self.ahead: Iterator[np.ndarray] = iter(())

    def __len__(self) -> int:
        return math.ceil(len(self.images) / self.batch_size)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        start = number * self.batch_size
        if number == 0:
            self.ahead = view_loader.in_batches(self.images, self.batch_size)
        return next(self.ahead), self.labels[start : start + self.batch_size]


def images_per_step(schedule: Schedule, images: int) -> int:
    """Images of a training step, of a number of images."""
    return min(schedule.batch_size, images)


def steps_per_epoch(schedule: Schedule, images: int) -> int:
    """Training steps per epoch for a number of images."""
    return images // images_per_step(schedule, images)
