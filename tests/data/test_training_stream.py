"""Training images as a stream: what a first pass counts, and that later ones are the same."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from torch.utils.data import DataLoader

from tests.data.loader_examples import (
    IMAGES,
    LABELS,
    Augmented,
    Batches,
    Endless,
    Shuffled,
    data_loader,
)
from tutelage.data import training_stream
from tutelage.data.content import Part
from tutelage.data.loaders import Loader
from tutelage.data.training_stream import TrainingStream
from tutelage.errors import DataError
from tutelage.progress import EpochLog, Progress


def counted(loader: Any, progress: Progress | None = None) -> tuple[TrainingStream, Part]:
    return training_stream.count(Loader(loader, "training data", seed=0), progress)


def test_the_first_pass_is_counted() -> None:
    stream, sample = counted(data_loader())
    assert (stream.batches, stream.images, stream.smallest, stream.largest) == (3, 20, 4, 8)
    np.testing.assert_array_equal(stream.labels, LABELS)
    np.testing.assert_array_equal(stream.shares, np.bincount(LABELS))
    np.testing.assert_array_equal(sample.images, IMAGES)
    np.testing.assert_array_equal(sample.labels, LABELS)
    assert stream.repeats
    assert not stream.mixed


def test_mixed_labels_count_by_their_shares() -> None:
    shares = np.random.default_rng(1).dirichlet(np.ones(4), 20)
    stream, sample = counted(Batches(labels=shares))
    np.testing.assert_allclose(stream.shares, shares.sum(axis=0), rtol=1e-6)
    np.testing.assert_array_equal(stream.labels, shares.argmax(axis=1))
    np.testing.assert_array_equal(sample.labels, stream.labels)
    assert stream.mixed
    _, labels = next(stream.epoch(0))
    np.testing.assert_allclose(labels, shares[:8], rtol=1e-6)


def test_labels_of_later_batches_may_be_higher() -> None:
    stream, _ = counted(Batches(labels=np.arange(20)))
    np.testing.assert_array_equal(stream.shares, np.ones(20))


def test_the_sample_is_bounded_and_every_image_as_likely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_stream, "_SAMPLE_BYTES", 6 * IMAGES[0].nbytes + 1)
    numbers = np.broadcast_to(np.arange(20, dtype=np.uint8)[:, None, None, None], IMAGES.shape)
    found: Counter[int] = Counter()
    for seed in range(500):
        loader = Batches(images=numbers, labels=np.arange(20), size=seed % 20 + 1)
        _, sample = training_stream.count(Loader(loader, "training data", seed))
        np.testing.assert_array_equal(sample.images[:, 0, 0, 0], sample.labels)
        assert len(set(sample.labels.tolist())) == len(sample) == 6
        found.update(sample.labels.tolist())
    # 500 samples of 6 of 20: 150 each, with a standard deviation of 10.
    assert all(100 < found[number] < 200 for number in range(20))


def test_a_digest_tells_order_images_and_labels() -> None:
    digests = [
        counted(loader)[0].digest
        for loader in (
            Batches(),
            data_loader(),
            Batches(images=IMAGES[::-1]),
            Batches(labels=LABELS[::-1]),
            Batches(size=7),
            DataLoader(Augmented(), batch_size=8, shuffle=True),
        )
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 5
    again = DataLoader(Augmented(), batch_size=8, shuffle=True)
    assert counted(again)[0].digest == digests[-1]


def test_a_loader_that_does_not_repeat_itself_has_no_digest() -> None:
    stream, _ = counted(Shuffled())
    assert (stream.repeats, stream.digest) == (False, "")


def test_an_epoch_can_begin_at_a_batch() -> None:
    stream, _ = counted(DataLoader(Augmented(), batch_size=8, shuffle=True))
    whole = list(stream.epoch(3))
    rest = list(stream.epoch(3, first=2))
    assert len(rest) == 1
    for one, other in zip(whole[2], rest[0], strict=True):
        np.testing.assert_array_equal(one, other)
    assert list(stream.epoch(3, first=3)) == []


class Varying(Batches):
    """Fewer or more batches, or other labels, from some pass on."""

    passes, lengths, label = 0, (3, 3, 2), 0

    def on_epoch_begin(self) -> None:
        self.passes += 1

    def __len__(self) -> int:
        return self.lengths[min(self.passes, len(self.lengths)) - 1]

    def __getitem__(self, number: int) -> Any:
        images, labels = super().__getitem__(number)
        return images, labels + (self.label if self.passes > 2 else 0)


@pytest.mark.parametrize(("last", "named"), [(2, "found 2"), (4, "found more")])
def test_another_number_of_batches_is_refused(last: int, named: str) -> None:
    loader = Varying(images=np.tile(IMAGES, (2, 1, 1, 1)), labels=np.tile(LABELS, 2))
    loader.lengths = (3, 3, last)
    stream, _ = counted(loader)
    with pytest.raises(DataError, match=r"training data \(Varying\).* 3 .*epoch 2") as raised:
        list(stream.epoch(1))
    assert named in str(raised.value)


def test_a_label_that_the_first_pass_had_not_is_refused() -> None:
    loader = Varying()
    loader.lengths, loader.label = (3,), 1
    stream, _ = counted(loader)
    with pytest.raises(DataError, match=r"batch 1 of epoch 2.*found 3"):
        list(stream.epoch(1))


def test_loaders_without_a_length(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, _ = counted(DataLoader(Endless(repeats=2), batch_size=8))
    assert (stream.batches, stream.images) == (5, 40)
    monkeypatch.setattr(training_stream, "_MOST_IMAGES", 100)
    with pytest.raises(DataError, match="100"):
        counted(DataLoader(Endless(), batch_size=8))
    stream, _ = counted(data_loader(np.tile(IMAGES, (9, 1, 1, 1)), np.tile(LABELS, 9)))
    assert stream.images == 180  # with a length, as many as it says


class Once:
    """Its batches can be read only once, which its class does not tell."""

    def __init__(self) -> None:
        self.left = [(IMAGES, LABELS)]

    def __iter__(self) -> Any:
        while self.left:
            yield self.left.pop()


def test_loaders_that_give_nothing() -> None:
    with pytest.raises(DataError, match="once"):
        counted(Once())
    with pytest.raises(DataError, match="no batch"):
        counted(Batches(images=IMAGES[:0], labels=LABELS[:0]))


class Heard(Progress):
    def __init__(self) -> None:
        self.said: list[Any] = []

    def stage(self, name: str, epochs: int, done: int, steps: int, unit: str = "epoch") -> None:
        self.said.append((epochs, done, steps, unit))

    def step(self, step: int, logs: object) -> None:
        self.said.append(step)

    def epoch(self, row: EpochLog) -> None:
        self.said.append("end")


@pytest.mark.parametrize(
    ("loader", "length"),
    [(data_loader(), 3), (DataLoader(Endless(repeats=1), batch_size=8), 0)],
)
def test_progress_of_the_first_pass(loader: Any, length: int) -> None:
    heard = Heard()
    counted(loader, heard)
    assert heard.said == [(1, 0, length, "pass"), 1, 2, 3, "end"]
    heard = Heard()
    Loader(loader, "test data", 0).part(heard)
    assert heard.said == [(1, 0, length, "pass"), 1, 2, 3, "end"]
