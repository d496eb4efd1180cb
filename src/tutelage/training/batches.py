"""Batches of augmented views."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import keras
import numpy as np

from tutelage.data import augmentation
from tutelage.data.datasets import Part
from tutelage.data.sampling import balanced_order
from tutelage.distillation.logit_cache import GivenLogits, LogitCache
from tutelage.recipe import Schedule, Views


class ViewedBatches(keras.utils.PyDataset):
    """Batches of views; the last, incomplete step of an epoch is dropped.

    The images of a step are one batch, or several whose sizes differ by at most one.
    """

    def __init__(
        self,
        part: Part,
        schedule: Schedule,
        views: Views,
        seed: int,
        logits: LogitCache | GivenLogits | None = None,
        parts: int = 1,
    ):
        super().__init__()
        self.part, self.views, self.seed, self.logits = part, views, seed, logits
        self.cutout, self.unlabeled = schedule.cutout, bool((part.labels < 0).any())
        self.balanced = schedule.sampling == "balanced"
        self.parts, batch = parts, images_per_step(schedule, len(part))
        self.starts = np.arange(parts + 1) * batch // parts
        self.batches = parts * steps_per_epoch(schedule, len(part))
        self.background = ThreadPoolExecutor(1, "views")
        self.begin(epoch=0)

    def begin(self, epoch: int, first: int = 0) -> None:
        """Go to an epoch, at a batch of it."""
        # Called explicitly: Keras also opens and closes the data to inspect one batch.
        self.first = first
        self.view = epoch % (self.views.distinct or epoch + 1)
        if self.balanced:
            self.order = balanced_order(self.part.labels, seed=self.seed, epoch=epoch)
        else:
            self.order = augmentation.order(len(self.part), seed=self.seed, epoch=epoch)
        self.ahead: dict[int, Future[Any]] = {}

    def __len__(self) -> int:
        return self.batches - self.first

    def __getitem__(self, number: int) -> tuple[Any, ...]:
        number += self.first
        # The next batch is prepared while this one is trained on. Keras' own workers would
        # carry batches over into the next epoch.
        ready = self.ahead.pop(number, None)
        batch = ready.result() if ready else self._batch(self.view, self._index(number))
        if number + 1 < self.batches:
            following = self._index(number + 1)
            self.ahead[number + 1] = self.background.submit(self._batch, self.view, following)
        return batch

    def _index(self, number: int) -> np.ndarray:
        step, part = divmod(number, self.parts)
        first = step * self.starts[-1]
        return self.order[first + self.starts[part] : first + self.starts[part + 1]]

    def _batch(self, view: int, index: np.ndarray) -> tuple[Any, ...]:
        images = augmentation.view(
            self.part.images,
            index,
            seed=self.seed,
            epoch=view,
            flip=self.views.flip,
            shift=self.views.shift,
            cutout=self.cutout,
        )
        labels = () if self.unlabeled else (self.part.labels[index],)
        if self.logits is None:
            return images, *labels
        logits = self.logits.logits(view, index)
        return {"images": images, "teacher_logits": logits}, *labels


def images_per_step(schedule: Schedule, images: int) -> int:
    """Images of a training step, of a number of images."""
    return min(schedule.batch_size, images)


def steps_per_epoch(schedule: Schedule, images: int) -> int:
    """Training steps per epoch for a number of images."""
    return images // images_per_step(schedule, images)
