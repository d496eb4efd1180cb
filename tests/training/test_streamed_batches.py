"""Batches of a loader: in order, in parts, with the teacher's logits, from any of them on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.data.loader_examples import IMAGES, LABELS, Batches
from tutelage.data import training_stream
from tutelage.data.loaders import Loader
from tutelage.errors import DataError, LogitsError
from tutelage.training.streamed_batches import StreamedBatches


def streamed(loader: Any = None, **more: Any) -> StreamedBatches:
    reader = Loader(loader or Batches(), "training data", seed=0)
    return StreamedBatches(*training_stream.count(reader), **more)


def answers(images: np.ndarray) -> np.ndarray:
    return images[:, 0, 0].astype(np.float32)


def read(batches: StreamedBatches) -> list[Any]:
    return [batches[number] for number in range(len(batches))]


def test_an_epoch_is_a_pass() -> None:
    batches = streamed()
    batches.begin(epoch=0)
    images, labels = (np.concatenate(some) for some in zip(*read(batches), strict=True))
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(labels, LABELS)
    assert (batches.images, batches.step_images, batches.classes) == (20, 8, 3)
    with pytest.raises(IndexError):
        batches[0]  # again, without a new pass


@pytest.mark.parametrize("first", range(10))
def test_parts_of_steps_with_logits_from_any_batch_on(first: int) -> None:
    asked = []

    def ask(images: np.ndarray) -> np.ndarray:
        asked.append(len(images))
        return answers(images)

    batches = streamed(ask=ask, parts=3)
    assert batches.batches == 9
    batches.begin(epoch=0, first=first)
    assert len(batches) == 9 - first
    found = read(batches)
    sizes = [2, 3, 3, 2, 3, 3, 1, 1, 2]
    places = np.cumsum([0, *sizes])
    for (x, labels), low, high in zip(found, places[first:-1], places[first + 1 :], strict=True):
        np.testing.assert_array_equal(x["images"], IMAGES[low:high])
        np.testing.assert_array_equal(x["teacher_logits"], answers(IMAGES[low:high]))
        np.testing.assert_array_equal(labels, LABELS[low:high])
    # A teacher is asked for whole steps, and not for those trained before.
    assert asked == [8, 8, 4][first // 3 :]


def test_one_batch_is_inspected_without_reading_the_loader() -> None:
    class Counted(Batches):
        read = 0

        def __getitem__(self, number: int) -> Any:
            self.read += 1
            return super().__getitem__(number)

    loader = Counted(labels=np.eye(3)[LABELS])
    batches = streamed(loader, ask=lambda images: np.zeros((len(images), 2, 3), np.float32))
    before = loader.read
    batches.show(epoch=1, first=2)
    assert len(batches) == 1
    x, labels = batches[0]
    assert (x["images"].shape, x["images"].dtype) == ((8, 8, 6, 3), np.uint8)
    assert x["teacher_logits"].shape == (8, 2, 3)
    np.testing.assert_array_equal(labels, np.eye(3)[LABELS[:8]])
    assert loader.read == before
    batches.begin(epoch=1, first=2)
    assert loader.read == before  # until a batch is asked for
    assert len(batches[0][1]) == 4
    batches.close()
    batches.close()


def test_an_epoch_that_goes_on_after_its_last_batch_is_refused_there() -> None:
    class More(Batches):
        more = 0

        def __len__(self) -> int:
            return super().__len__() + self.more

        def __getitem__(self, number: int) -> Any:
            return super().__getitem__(number % 3)

    loader = More()
    batches = streamed(loader)
    loader.more = 1
    batches.begin(epoch=0)
    assert len([batches[number] for number in range(2)]) == 2
    with pytest.raises(DataError, match="3"):
        batches[2]


def test_a_batch_with_fewer_images_than_parts_is_refused() -> None:
    batches = streamed(parts=5)
    batches.begin(epoch=0)
    with pytest.raises(DataError, match="at least 5 images"):
        read(batches)


def test_logits_that_are_not_finite_are_refused() -> None:
    batches = streamed(ask=lambda images: np.full((len(images), 3), np.nan))
    batches.begin(epoch=0)
    with pytest.raises(LogitsError):
        batches[0]
