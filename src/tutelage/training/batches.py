"""Batches of augmented views."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import keras
import numpy as np

from tutelage.data import augmentation
from tutelage.data.datasets import Part
from tutelage.distillation.logit_cache import GivenLogits, LogitCache
from tutelage.recipe import Schedule, Views


class ViewedBatches(keras.utils.PyDataset):
    """Batches of views; the last, incomplete batch of an epoch is dropped."""

    def __init__(
        self,
        part: Part,
        schedule: Schedule,
        views: Views,
        seed: int,
        logits: LogitCache | GivenLogits | None = None,
    ):
        super().__init__()
        self.part, self.views, self.seed, self.logits = part, views, seed, logits
        self.cutout, self.unlabeled = schedule.cutout, bool((part.labels < 0).any())
        self.batch = min(schedule.batch_size, len(part))
        self.steps = steps_per_epoch(schedule, len(part))
        self.background = ThreadPoolExecutor(1, "views")
        self.begin(epoch=0)

    def begin(self, epoch: int) -> None:
        # Called explicitly: Keras also opens and closes the data to inspect one batch.
        self.view = epoch % (self.views.distinct or epoch + 1)
        self.order = augmentation.order(len(self.part), seed=self.seed, epoch=epoch)
        self.ahead: dict[int, Future[Any]] = {}

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> tuple[Any, ...]:
        # The next batch is prepared while this one is trained on. Keras' own workers would
        # carry batches over into the next epoch.
        ready = self.ahead.pop(step, None)
        batch = ready.result() if ready else self._batch(self.view, self._index(step))
        if step + 1 < self.steps:
            following = self._index(step + 1)
            self.ahead[step + 1] = self.background.submit(self._batch, self.view, following)
        return batch

    def _index(self, step: int) -> np.ndarray:
        return self.order[step * self.batch : (step + 1) * self.batch]

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


def steps_per_epoch(schedule: Schedule, images: int) -> int:
    """Training steps per epoch for a number of images."""
    return images // min(schedule.batch_size, images)
