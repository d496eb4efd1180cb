"""Loaders of the same images in each framework, for tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, TensorDataset

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (20, 8, 6, 3), dtype=np.uint8)
LABELS = np.arange(20) % 3


class Batches(keras.utils.PyDataset):
    """A `PyDataset` of arrays, in their order."""

    def __init__(self, images: Any = IMAGES, labels: Any = LABELS, size: int = 8, **kwargs: Any):
        super().__init__(**kwargs)
        self.images, self.labels, self.size = images, labels, size

    def __len__(self) -> int:
        return -(-len(self.images) // self.size)

    def __getitem__(self, number: int) -> tuple[Any, Any]:
        some = slice(number * self.size, (number + 1) * self.size)
        return self.images[some], self.labels[some]


class Shuffled(Batches):
    """Another order after each epoch, as many users write it."""

    def on_epoch_end(self) -> None:
        order = np.random.permutation(len(self.images))
        self.images, self.labels = self.images[order], self.labels[order]


class Augmented(Dataset):
    """A PyTorch data set that draws from the global random numbers."""

    def __init__(self, images: np.ndarray = IMAGES, labels: np.ndarray = LABELS):
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        image = self.images[number].transpose(2, 0, 1)
        if torch.rand(()) < 0.5:
            image = image[:, :, ::-1]
        image = np.clip(image.astype(int) + np.random.randint(-9, 10), 0, 255)
        return torch.tensor(image.astype(np.uint8)), int(self.labels[number])


class Endless(IterableDataset):
    """A stream without a length."""

    def __init__(self, images: np.ndarray = IMAGES, repeats: int | None = None):
        self.images, self.repeats = images, repeats

    def __iter__(self) -> Iterator[Any]:
        count = 0
        while self.repeats is None or count < self.repeats:
            yield from zip(self.images, LABELS.tolist(), strict=True)
            count += 1


class EpochOrder(Sampler):
    """An order that depends on the epoch, as of PyTorch's `DistributedSampler`."""

    def __init__(self, count: int):
        self.count, self.epoch = count, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        return iter(np.random.default_rng(self.epoch).permutation(self.count).tolist())


def tensors(images: np.ndarray = IMAGES, labels: np.ndarray = LABELS) -> TensorDataset:
    """A PyTorch data set, with the channels first."""
    return TensorDataset(torch.tensor(images).permute(0, 3, 1, 2), torch.tensor(labels))


def data_loader(images: np.ndarray = IMAGES, labels: np.ndarray = LABELS, **more: Any) -> Any:
    """A PyTorch `DataLoader` of arrays."""
    return DataLoader(tensors(images, labels), **({"batch_size": 8} | more))
