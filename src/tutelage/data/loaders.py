"""A loader of batches of one of the frameworks, read a pass at a time."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Generator, Iterator, Mapping
from os import PathLike
from typing import Any

import numpy as np

from tutelage.data.content import Part, class_name
from tutelage.data.decoding import refuse_too_many
from tutelage.data.loader_batches import Batch, BatchFormat
from tutelage.data.random_numbers import RandomNumbers
from tutelage.errors import DataError, TutelageError, reason
from tutelage.progress import Progress

LOADERS = (
    "a keras.utils.PyDataset, a tf.data.Dataset, a grain MapDataset, IterDataset or DataLoader, or "
    "a torch.utils.data.DataLoader"
)
_ENDLESS = 2**40  # batches that only a loader which repeats its images without end can have
_END = object()


def is_loader(value: Any) -> bool:
    """Whether a value gives batches in passes: one of `LOADERS`, or an iterable like them."""
    if isinstance(value, str | bytes | PathLike | tuple | list | Mapping | set):
        return False
    return hasattr(type(value), "__iter__") and not hasattr(value, "__array__")


class Loader:
    """A loader, whose passes are seeded by the recipe's seed and the epoch.

    While a batch is loaded, the global random numbers of Python, NumPy and PyTorch are the pass's
    own, and the generators of a PyTorch DataLoader are seeded anew for each pass. A method
    `set_epoch` of the loader, its data set or its samplers is called with the epoch.

    Args:
        loader: one of `LOADERS`, or another object that can be iterated over several times.
        name: what its images are for, for messages: `training data` and the like.
        seed: the recipe's seed.

    Attributes:
        kind: the loader's class.
        where: its name and class, for messages.
        format: the format of its batches.
        length: the number of batches that the loader tells; None if it tells none.

    Raises:
        DataError: if it can be read only once, or has no end.

    Example:

    >>> import numpy as np
    >>> from torch.utils.data import DataLoader, TensorDataset
    >>> import torch
    >>> from tutelage.data.loaders import Loader
    >>> images = torch.zeros((5, 3, 8, 6), dtype=torch.uint8)
    >>> loader = DataLoader(TensorDataset(images, torch.arange(5)), batch_size=2, shuffle=True)
    >>> reader = Loader(loader, "training data", seed=0)
    >>> [images.shape for images, _ in reader.batches(epoch=0)]
    [(2, 8, 6, 3), (2, 8, 6, 3), (1, 8, 6, 3)]
    >>> one, other = (np.concatenate([y for _, y in reader.batches(epoch=0)]) for _ in range(2))
    >>> bool((one == other).all())
    True
    """

    def __init__(self, loader: Any, name: str, seed: int):
        self.loader, self.seed = loader, seed
        self.kind = type(loader).__name__.lstrip("_")
        self.name, self.where = name, f"{name} ({self.kind})"
        if hasattr(loader, "__next__"):
            raise DataError(
                f"{self.where}: expected {LOADERS}, found an iterator, which can be read only "
                "once; give what it is made from"
            )
        self.format = BatchFormat(channels_first=_is_data_loader(loader))
        self.generators = [(g, g.initial_seed()) for g in _generators(loader)]
        self.length = self._length()

    def batches(self, epoch: int | None = None) -> Generator[Batch]:
        """The batches of a pass, in the loader's order.

        Args:
            epoch: the number of the epoch that the pass is for, from 0; None: it is for none, and
                seeded as that of epoch 0.

        Yields:
            Images and labels, as from `BatchFormat.arrays`.

        Raises:
            DataError: if the loader raises an exception, or a batch can't be used; names it.
        """
        numbers, number = RandomNumbers(self.seed, epoch or 0), 0
        of_epoch = "" if epoch is None else f" of epoch {epoch + 1}"
        iterator: Iterator[Any] = iter(())
        try:
            while True:
                where = f"{self.where}: batch {number + 1}{of_epoch}"
                try:
                    with numbers.used():
                        if not number:
                            iterator = self._opened(epoch or 0)
                        batch = next(iterator, _END)
                except TutelageError:
                    raise
                except Exception as error:  # the user's own code can raise anything
                    raise DataError(f"{where}: the loader raised {_cause(error)}") from error
                if batch is _END:
                    return
                number += 1
                yield self.format.arrays(batch, where)
        finally:
            if hasattr(iterator, "close"):
                with numbers.used():
                    iterator.close()

    def part(self, progress: Progress | None = None) -> Part:
        """Read all images into memory, for validation and test.

        Args:
            progress: notified of each batch.

        Returns:
            The images and their labels.

        Raises:
            DataError: if there are none, they won't fit in memory, or labels are mixed.
        """
        progress = progress or Progress()
        progress.stage(f"reading batches of {self.name}", 1, 0, self.length or 0, "pass")
        began, parts, count, taken = time.monotonic(), list[Batch](), 0, 0
        for images, labels in self.batches():
            if labels.ndim == 2 and not np.isin(labels, (0, 1)).all():
                raise DataError(
                    f"{self.where}: expected class indices or one-hot labels, found mixed ones; "
                    "leave out mixup and the like, which are for training"
                )
            classes = labels.argmax(axis=1) if labels.ndim == 2 else labels
            parts.append((images.copy(), classes))  # a worker's shared memory is given back
            count, taken = count + len(images), taken + images.nbytes
            share = max(self.length or 0, len(parts)) / len(parts)
            refuse_too_many(
                self.where,
                round(share * count),
                2 * share * taken,  # batches, and all of them as one array
                taken,
                "give fewer images, or smaller ones",
            )
            progress.step(len(parts), {})
        if not parts:
            raise DataError(f"{self.where}: expected images, found no batch")
        progress.epoch({"epoch": 1, "seconds": time.monotonic() - began})
        whole = [np.concatenate(some) for some in zip(*parts, strict=True)]
        return Part(*whole)

    def class_names(self) -> tuple[str, ...] | None:
        """The names of the classes that the loader or its data set tells, if it tells any.

        They are the attribute `class_names`, as of Keras' `image_dataset_from_directory`, or
        `classes`, as of torchvision's data sets.
        """
        place = self.loader
        while place is not None:
            for attribute in ("class_names", "classes"):
                names = getattr(place, attribute, None)
                if isinstance(names, list | tuple) and all(isinstance(n, str) for n in names):
                    return tuple(map(class_name, names))
            place = getattr(place, "dataset", None)
        return None

    def _opened(self, epoch: int) -> Iterator[Any]:
        for part in _parts(self.loader):
            if callable(set_epoch := getattr(part, "set_epoch", None)):
                set_epoch(epoch)
        for generator, first in self.generators:
            seeds = np.random.SeedSequence([first, epoch])
            generator.manual_seed(int(seeds.generate_state(1, np.uint64)[0] >> 1))
        if _is_py_dataset(self.loader):
            from tutelage import private_api  # loads Keras

            return private_api.read_py_dataset(self.loader)
        return iter(self.loader)

    def _length(self) -> int | None:
        """The number of batches that the loader tells; None if it tells none."""
        try:
            if _is_py_dataset(self.loader):
                length = self.loader.num_batches
                length = _ENDLESS if length is None else length
            elif hasattr(self.loader, "cardinality"):  # of tf.data, where -1 is infinite
                length = int(self.loader.cardinality())
                length = _ENDLESS if length == -1 else length if length >= 0 else None
            else:
                length = len(self.loader)
        except TypeError:
            return None
        except Exception as error:  # the user's own code can raise anything
            raise DataError(
                f"{self.where}: expected a number of batches, found that asking for it raised "
                f"{_cause(error)}"
            ) from error
        if length is not None and length >= _ENDLESS:
            raise DataError(
                f"{self.where}: expected an end, as an epoch is one pass, found a loader that "
                "repeats its images without end; leave out repeat(), or give the number of batches"
            )
        return length


def _is_py_dataset(loader: Any) -> bool:
    # Who has made one has imported Keras; importing it takes seconds.
    keras = sys.modules.get("keras")
    return keras is not None and isinstance(loader, keras.utils.PyDataset)


def _is_data_loader(loader: Any) -> bool:
    torch = sys.modules.get("torch.utils.data")
    return torch is not None and isinstance(loader, torch.DataLoader)


def _parts(loader: Any) -> list[Any]:
    """A loader, its data set and its samplers, each once."""
    batches = getattr(loader, "batch_sampler", None)
    places = [
        loader,
        getattr(loader, "dataset", None),
        getattr(loader, "sampler", None),
        batches,
        getattr(batches, "sampler", None),
    ]
    return list({id(place): place for place in places if place is not None}.values())


def _generators(loader: Any) -> list[Any]:
    """The generators of random numbers of a PyTorch DataLoader and its samplers."""
    if not _is_data_loader(loader):
        return []
    found = (getattr(part, "generator", None) for part in _parts(loader))
    kind = sys.modules["torch"].Generator
    return list({id(one): one for one in found if isinstance(one, kind)}.values())


def _cause(error: Exception) -> str:
    """An error in one line; of one whose message is a worker's traceback, what was raised there."""
    text = str(error)
    if "Traceback (most recent call last)" in text:
        raised = re.findall(r"^[A-Za-z_][\w.]*: .*$", text, re.MULTILINE)
        return " ".join(raised[-1].split())[:300] if raised else type(error).__name__
    return reason(error)
