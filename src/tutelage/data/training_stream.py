"""Training images as a stream: a loader that is read anew in each epoch."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Generator
from dataclasses import dataclass

import numpy as np

from tutelage.data.content import Part
from tutelage.data.loader_batches import Batch
from tutelage.data.loaders import Loader
from tutelage.errors import DataError
from tutelage.progress import Progress

# The sample of the images that is kept in memory.
_SAMPLE_IMAGES, _SAMPLE_BYTES = 2_000, 2**27
# Images of a loader that does not tell its length, before it counts as endless.
_MOST_IMAGES = 20_000_000


@dataclass(frozen=True, eq=False)
class TrainingStream:
    """The training images of a loader, counted in a first pass.

    Attributes:
        loader: the loader.
        batches: number of batches of a pass.
        smallest: images of the smallest batch.
        largest: images of the largest batch.
        labels: the class of each image in the first pass, int64 (images,); of mixed labels, the
            one with the largest share.
        shares: the sum of the shares of each class, float64 (classes,).
        repeats: whether a second pass with the same random seeds began with the same batch.
        digest: SHA-256 of the first pass in its order; empty if it does not repeat.
    """

    loader: Loader
    batches: int
    smallest: int
    largest: int
    labels: np.ndarray
    shares: np.ndarray
    repeats: bool
    digest: str

    @property
    def images(self) -> int:
        """Number of images of the first pass."""
        return len(self.labels)

    @property
    def mixed(self) -> bool:
        """Whether labels are (n, classes), one-hot or shares."""
        return bool(self.loader.format.width)

    def epoch(self, number: int, first: int = 0) -> Generator[Batch]:
        """The batches of an epoch.

        Args:
            number: the epoch, from 0.
            first: the batch to begin with, from 0; those before it are read, too.

        Yields:
            uint8 (n, height, width, channels); int64 (n,), or float32 (n, classes) if `mixed`.

        Raises:
            DataError: if the pass has another number of batches than the first one, a batch can't
                be used, or a label is not a class.
        """
        count, classes = 0, len(self.shares)
        with contextlib.closing(self.loader.batches(number)) as batches:
            for images, labels in batches:
                if count == self.batches:
                    raise self._other_length(number, "more")
                count += 1
                if not self.mixed and labels.max() >= classes:
                    raise DataError(
                        f"{self.loader.where}: batch {count} of epoch {number + 1}: expected "
                        f"labels from 0 to {classes - 1}, as in the first pass, found "
                        f"{labels.max()}"
                    )
                if count > first:
                    yield images, labels
        if count < self.batches:
            raise self._other_length(number, f"{count:,}")

    def _other_length(self, number: int, found: str) -> DataError:
        return DataError(
            f"{self.loader.where}: expected {self.batches:,} batches in epoch {number + 1}, as in "
            f"the first pass, found {found}; the learning rate depends on their number: let the "
            "loader give the same in each pass"
        )


def count(loader: Loader, progress: Progress | None = None) -> tuple[TrainingStream, Part]:
    """Read a loader once, to count its images and keep a sample of them.

    Args:
        loader: the loader of the training images.
        progress: notified of each batch.

    Returns:
        The stream, and a sample, drawn uniformly from the first pass: at most 2,000 images that
        take at most 128 MiB; if there are no more, all of them in their order.

    Raises:
        DataError: if there are no images, a batch can't be used, the loader can be read only once
            or has no end.

    Example:

    >>> import torch
    >>> from torch.utils.data import DataLoader, TensorDataset
    >>> from tutelage.data import training_stream
    >>> from tutelage.data.loaders import Loader
    >>> images = torch.zeros((5, 1, 8, 8), dtype=torch.uint8)
    >>> loader = DataLoader(TensorDataset(images, torch.arange(5)), batch_size=2)
    >>> stream, sample = training_stream.count(Loader(loader, "training data", seed=0))
    >>> stream.batches, stream.images, stream.smallest, len(sample), stream.repeats
    (3, 5, 1, 5, True)
    """
    progress = progress or Progress()
    progress.stage(f"counting batches of {loader.name}", 1, 0, loader.length or 0, "pass")
    began, seen = time.monotonic(), _FirstPass(loader.seed)
    for images, labels in loader.batches():
        seen.add(images, labels)
        progress.step(len(seen.sizes), {})
        if loader.length is None and sum(seen.sizes) > _MOST_IMAGES:
            raise DataError(
                f"{loader.where}: expected at most {_MOST_IMAGES:,} images from a loader that "
                "doesn't tell its number of batches, found more; let it tell them by __len__ "
                "(tf.data: assert_cardinality), or end, as an epoch is one pass"
            )
    if not seen.sizes:
        raise DataError(f"{loader.where}: expected images, found no batch")
    progress.epoch({"epoch": 1, "seconds": time.monotonic() - began})
    with contextlib.closing(loader.batches()) as again:
        second = next(again, None)
    if second is None:
        raise DataError(
            f"{loader.where}: expected a loader that can be read once for each epoch, found no "
            "batch in a second pass; give one that begins anew"
        )
    repeats = _digest(*second) == seen.first
    stream = TrainingStream(
        loader=loader,
        batches=len(seen.sizes),
        smallest=min(seen.sizes),
        largest=max(seen.sizes),
        labels=np.concatenate(seen.labels),
        shares=seen.shares,
        repeats=repeats,
        digest=seen.digest.hexdigest() if repeats else "",
    )
    return stream, seen.sample()


class _FirstPass:
    """What is kept of the batches of the first pass.

    Args:
        seed: seed of the sample.

    Attributes:
        sizes: the images of each batch.
        labels: the class of each image, by batch.
        shares: as in `TrainingStream`.
        first: the digest of the first batch.
        digest: the hash of all batches' digests.
    """

    def __init__(self, seed: int) -> None:
        self.sizes: list[int] = []
        self.labels: list[np.ndarray] = []
        self.shares = np.zeros(0)
        self.first, self.digest = b"", hashlib.sha256()
        self._kept: list[tuple[np.ndarray, int]] = []
        self._random = np.random.default_rng(seed)

    def add(self, images: np.ndarray, labels: np.ndarray) -> None:
        digest = _digest(images, labels)
        self.first = self.first or digest
        self.digest.update(digest)
        shares = labels.sum(axis=0) if labels.ndim == 2 else np.bincount(labels)
        missing = len(shares) - len(self.shares)
        self.shares = np.pad(self.shares, (0, max(0, missing)))
        self.shares[: len(shares)] += shares
        classes = labels.argmax(axis=1) if labels.ndim == 2 else labels
        self._draw(images, classes)
        self.sizes.append(len(images))
        self.labels.append(classes)

    def sample(self) -> Part:
        images, labels = zip(*self._kept, strict=True)
        return Part(np.stack(images), np.array(labels, np.int64))

    def _draw(self, images: np.ndarray, labels: np.ndarray) -> None:
        """Keep each image seen so far with the same probability (Algorithm R)."""
        most = min(_SAMPLE_IMAGES, max(1, _SAMPLE_BYTES // images[0].nbytes))
        begun = sum(self.sizes)
        places = np.arange(begun, begun + len(images))
        if begun + len(images) > most:
            drawn = self._random.integers(0, places + 1)
            places = np.where(places < most, places, drawn)
        for i in np.flatnonzero(places < most).tolist():
            one = images[i].copy(), int(labels[i])
            if places[i] < len(self._kept):
                self._kept[places[i]] = one
            else:
                self._kept.append(one)


def _digest(images: np.ndarray, labels: np.ndarray) -> bytes:
    sha256 = hashlib.sha256(json.dumps([images.shape, labels.shape]).encode())
    sha256.update(np.ascontiguousarray(labels).data)
    sha256.update(images.data)
    return sha256.digest()
