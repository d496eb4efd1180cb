"""Batches of a loader, with the teacher's logits computed in each step."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

import numpy as np

from tutelage.data.content import Part
from tutelage.data.training_stream import TrainingStream
from tutelage.distillation.answers import finite
from tutelage.errors import DataError
from tutelage.training.batches import TrainingBatches


class StreamedBatches(TrainingBatches):
    """The batches of a loader, each a step, in order; an epoch is one pass.

    A step's images are one batch, or several whose sizes differ by at most one. Of an epoch that
    was trained in part, those batches are read and left out.

    Args:
        stream: the loader.
        sample: some of its images, of which Keras inspects one batch before training.
        ask: returns a teacher's logits of uint8 images, (n, classes) or (n, teachers, classes);
            None: batches have no logits.
        parts: batches of a step, at most the images of the smallest one.
    """

    def __init__(
        self,
        stream: TrainingStream,
        sample: Part,
        ask: Callable[[np.ndarray], np.ndarray] | None = None,
        parts: int = 1,
    ):
        super().__init__()
        self.stream, self.sample, self.ask, self.parts = stream, sample, ask, parts
        self.classes, self.mixed, self.unlabeled = len(stream.shares), stream.mixed, False
        self.batches, self.step_images = parts * stream.batches, stream.largest
        self.ahead: Generator[tuple[Any, ...]] | None = None
        self.show(epoch=0)

    def show(self, epoch: int, first: int = 0) -> None:
        self.close()
        self.first, self.images, self.waited = first, 0, 0.0

    def begin(self, epoch: int, first: int = 0) -> None:
        self.show(epoch, first)
        self.ahead, self.following = self._pass(epoch, first), 0

    def close(self) -> None:
        if self.ahead is not None:
            self.ahead.close()
        self.ahead = None

    def __getitem__(self, number: int) -> tuple[Any, ...]:
        if self.ahead is None:  # Keras inspects a batch
            labels = self.sample.labels[: self.step_images]
            if self.mixed:
                labels = np.eye(self.classes, dtype=np.float32)[labels]
            return next(self._parts(self.sample.images[: len(labels)], labels))
        if number != self.following:
            raise IndexError(f"expected batch {self.following}, the next one, found {number}")
        batch = next(self.ahead)
        self.following += 1
        if self.following == len(self):
            next(self.ahead, None)  # a pass that goes on is refused
        return batch

    def _pass(self, epoch: int, first: int) -> Generator[tuple[Any, ...]]:
        whole, part = divmod(first, self.parts)
        with contextlib.closing(self.stream.epoch(epoch, whole)) as batches:
            while True:
                began = time.monotonic()
                batch = next(batches, None)
                self.waited += time.monotonic() - began
                if batch is None:
                    return
                self.images += len(batch[0])
                yield from itertools.islice(self._parts(*batch), part, None)
                part = 0

    def _parts(self, images: np.ndarray, labels: np.ndarray) -> Iterator[tuple[Any, ...]]:
        """A batch in parts, each with the teacher's logits."""
        count = len(images)
        if count < self.parts:
            raise DataError(
                f"{self.stream.loader.where}: expected batches of at least {self.parts} images, "
                f"the parts of a step, found {count}; let the loader drop smaller ones, as "
                "drop_last=True does, or set schedule.*.gradient_accumulation_steps"
            )
        logits = None if self.ask is None else finite(self.ask(images))
        starts = np.arange(self.parts + 1) * count // self.parts
        for some in map(slice, starts[:-1], starts[1:]):
            if logits is None:
                yield images[some], labels[some]
            else:
                yield {"images": images[some], "teacher_logits": logits[some]}, labels[some]
