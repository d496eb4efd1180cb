"""Loaders of every framework give the same arrays, and the same ones again for an epoch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, RandomSampler, Subset

from tests.data.loader_examples import (
    IMAGES,
    LABELS,
    Augmented,
    Batches,
    Endless,
    EpochOrder,
    Shuffled,
    data_loader,
    tensors,
)
from tutelage.data import decoding
from tutelage.data.loaders import Loader, is_loader
from tutelage.errors import DataError
from tutelage.progress import Progress

Arrays = tuple[np.ndarray, np.ndarray]


def passed(loader: Any, epoch: int | None = None, seed: int = 0) -> Arrays:
    reader = loader if isinstance(loader, Loader) else Loader(loader, "training data", seed)
    images, labels = zip(*reader.batches(epoch), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def same(one: Arrays, other: Arrays) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def tf_dataset() -> Any:
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(8)


def tf_dictionaries() -> Any:
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices({"image": IMAGES, "label": LABELS}).batch(8)


def grain_map() -> Any:
    grain = pytest.importorskip("grain")
    rows = [{"image": image, "label": label} for image, label in zip(IMAGES, LABELS, strict=True)]
    return grain.MapDataset.source(rows).batch(8)


def grain_iter() -> Any:
    return grain_map().to_iter_dataset()


def grain_loader() -> Any:
    grain = pytest.importorskip("grain")
    rows = [{"image": image, "label": label} for image, label in zip(IMAGES, LABELS, strict=True)]
    sampler = grain.samplers.IndexSampler(len(rows), num_epochs=1)
    return grain.DataLoader(
        data_source=rows, sampler=sampler, operations=[grain.transforms.Batch(8)], worker_count=0
    )


KINDS: dict[str, Callable[[], Any]] = {
    "PyDataset": Batches,
    "PyDataset in threads": lambda: Batches(workers=2),
    "PyDataset in processes": lambda: Batches(workers=2, use_multiprocessing=True),
    "DataLoader": data_loader,
    "DataLoader in processes": lambda: data_loader(num_workers=2),
    "DataLoader of subsets": lambda: DataLoader(Subset(tensors(), range(20)), batch_size=8),
    "IterableDataset": lambda: DataLoader(Endless(repeats=1), batch_size=8),
    "tf.data": tf_dataset,
    "tf.data of dictionaries": tf_dictionaries,
    "grain MapDataset": grain_map,
    "grain IterDataset": grain_iter,
    "grain DataLoader": grain_loader,
    "list of batches": lambda: Listed([(IMAGES[:8], LABELS[:8]), (IMAGES[8:], LABELS[8:])]),
}


class Listed:
    """A class of the user's own, which is only iterable."""

    def __init__(self, batches: list[Any]):
        self.batches = batches

    def __iter__(self) -> Any:
        return iter(self.batches)


@pytest.mark.parametrize("kind", KINDS)
def test_the_arrays_of_each_framework(kind: str) -> None:
    loader = KINDS[kind]()
    assert is_loader(loader)
    for _ in range(2):
        assert same(passed(loader), (IMAGES, LABELS))
    part = Loader(loader, "test data", 0).part()
    assert same((part.images, part.labels), (IMAGES, LABELS))


@pytest.mark.parametrize(
    "value",
    [
        "digits",
        b"x",
        IMAGES,
        torch.zeros(3),
        (IMAGES, LABELS),
        [Batches()],
        {"train": 1},
        None,
        tensors(),
    ],
)
def test_what_is_no_loader(value: Any) -> None:
    assert not is_loader(value)


def test_lengths_that_are_told() -> None:
    for kind in ("PyDataset", "DataLoader"):
        assert Loader(KINDS[kind](), "mine", 0).length == 3
    for kind in ("IterableDataset", "list of batches"):
        assert Loader(KINDS[kind](), "mine", 0).length is None


# Random numbers


RANDOM: dict[str, Callable[[], Any]] = {
    "global numbers": lambda: DataLoader(Augmented(), batch_size=8, shuffle=True),
    "processes": lambda: DataLoader(Augmented(), batch_size=8, shuffle=True, num_workers=2),
    "a generator": lambda: data_loader(shuffle=True, generator=torch.Generator().manual_seed(3)),
    "a sampler's generator": lambda: data_loader(
        sampler=RandomSampler(IMAGES, generator=torch.Generator().manual_seed(3))
    ),
    "set_epoch": lambda: data_loader(sampler=EpochOrder(20)),
}


@pytest.mark.parametrize("kind", RANDOM)
def test_a_pass_depends_on_its_epoch_alone(kind: str) -> None:
    """Whatever passes were before, and whatever else draws in between."""
    one, other = (Loader(RANDOM[kind](), "training data", seed=0) for _ in range(2))
    first = [passed(one, epoch) for epoch in (0, 1, 2)]
    assert not same(first[0], first[1])
    for epoch in (2, 0, 1, 1):
        batches = []
        for batch in other.batches(epoch):
            np.random.rand()
            torch.rand(())
            batches.append(batch)
        images, labels = (np.concatenate(some) for some in zip(*batches, strict=True))
        assert same((images, labels), first[epoch])
    assert same(passed(other), first[0])  # as that of epoch 0
    if "set_epoch" not in kind and "generator" not in kind:
        assert not same(passed(RANDOM[kind](), 0, seed=1), first[0])


def test_reading_changes_no_global_random_numbers() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    expected = torch.rand(()), np.random.rand()
    torch.manual_seed(0)
    np.random.seed(0)
    passed(RANDOM["global numbers"]())
    next(Loader(RANDOM["global numbers"](), "mine", 0).batches())
    assert (torch.rand(()), np.random.rand()) == expected


def test_a_pydataset_is_told_of_epochs() -> None:
    heard = []

    class Told(Batches):
        def on_epoch_begin(self) -> None:
            heard.append("begin")

        def on_epoch_end(self) -> None:
            heard.append("end")

    passed(Told())
    reader = Loader(Told(), "mine", 0).batches()
    next(reader)
    reader.close()
    assert heard == ["begin", "end", "begin", "end"]
    shuffled = Loader(Shuffled(), "mine", 0)
    assert not same(passed(shuffled), passed(shuffled))


# Names of classes


def test_names_that_a_loader_tells() -> None:
    assert Loader(data_loader(), "mine", 0).class_names() is None
    data = tensors()
    data.classes = ["a", "b", "c"]
    loader = DataLoader(Subset(data, range(10)), batch_size=8)
    assert Loader(loader, "mine", 0).class_names() == ("a", "b", "c")
    named = Batches()
    named.class_names = ["x\n", "y", "z"]
    assert Loader(named, "mine", 0).class_names() == ("x\\n", "y", "z")


# What can't be read


class Broken(Batches):
    def __getitem__(self, number: int) -> Any:
        if number == 1:
            raise ValueError("no\nsuch file")
        return super().__getitem__(number)


class BrokenData(Augmented):
    def __getitem__(self, number: int) -> Any:
        if number == 9:
            raise ValueError("no such file")
        return super().__getitem__(number)


@pytest.mark.parametrize(
    "make",
    [
        Broken,
        lambda: Broken(workers=2),
        lambda: DataLoader(BrokenData(), batch_size=8),
        lambda: DataLoader(BrokenData(), batch_size=8, num_workers=2),
    ],
)
def test_an_exception_of_the_users_code_names_the_batch(make: Callable[[], Any]) -> None:
    loader = make()
    for epoch, named in ((None, "batch 2:"), (4, "batch 2 of epoch 5:")):
        with pytest.raises(DataError, match=named) as raised:
            passed(loader, epoch)
        text = str(raised.value)
        assert text.startswith(f"training data ({type(loader).__name__})")
        assert "ValueError: no such file" in text
        assert "\n" not in text
        assert isinstance(raised.value.__cause__, ValueError)


class Infinite(Batches):
    num_batches = None


class WithoutLength(Batches):
    def __len__(self) -> int:
        raise OSError("disk")


@pytest.mark.parametrize(
    ("loader", "named"),
    [
        (iter([(IMAGES, LABELS)]), "list_iterator"),
        ((batch for batch in [(IMAGES, LABELS)]), "generator"),
        (Infinite(), "Infinite"),
        (WithoutLength(), "OSError: disk"),
    ],
)
def test_loaders_that_are_refused(loader: Any, named: str) -> None:
    with pytest.raises(DataError, match="training data") as raised:
        Loader(loader, "training data", 0)
    assert named in str(raised.value)


def test_endless_loaders_of_other_frameworks() -> None:
    grain = pytest.importorskip("grain")
    endless = grain.MapDataset.source([1]).repeat().batch(8)
    with pytest.raises(DataError, match="repeat"):
        Loader(endless, "training data", 0)


def test_an_endless_tf_dataset() -> None:
    with pytest.raises(DataError, match="repeat"):
        Loader(tf_dataset().repeat(), "training data", 0)


def test_an_exception_in_tensorflow() -> None:
    tf = pytest.importorskip("tensorflow")

    def fail(number: Any) -> Any:
        if number == 3:
            raise ValueError("no such file")
        return IMAGES[0]

    data = tf.data.Dataset.range(5).map(
        lambda i: (tf.ensure_shape(tf.py_function(fail, [i], tf.uint8), (8, 6, 3)), i)
    )
    with pytest.raises(DataError, match="batch 2") as raised:
        passed(data.batch(2))
    assert "no such file" in str(raised.value)
    assert "\n" not in str(raised.value)


# Validation and test


def test_images_that_do_not_fit_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "available_memory", lambda: 1000)
    with pytest.raises(DataError, match=r"test data \(DataLoader\): 24 images"):
        Loader(data_loader(), "test data", 0).part()


def test_labels_of_a_part_are_classes() -> None:
    whole = Loader(data_loader(labels=np.eye(3)[LABELS]), "test data", 0).part()
    np.testing.assert_array_equal(whole.labels, LABELS)
    mixed = data_loader(labels=np.full((20, 3), 1 / 3))
    with pytest.raises(DataError, match="test data"):
        Loader(mixed, "test data", 0).part()


def test_a_part_without_images() -> None:
    with pytest.raises(DataError, match="test data"):
        Loader(Listed([]), "test data", 0).part()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_a_part_keeps_no_shared_memory() -> None:
    """Each tensor of a worker holds an open file, of which there may be only so many."""
    open_files = []

    class Watched(Progress):
        def step(self, step: int, logs: object) -> None:
            open_files.append(len(list(Path("/proc/self/fd").iterdir())))

    gray = IMAGES[..., :1].repeat(10, axis=0)
    loader = data_loader(gray, np.arange(200) % 2, batch_size=1, num_workers=1)
    Loader(loader, "test data", 0).part(Watched())
    assert len(open_files) == 200
    assert max(open_files) < min(open_files) + 50
