"""Data given in Python: data sets, arrays and loaders."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tutelage.data import splitting, training_stream
from tutelage.data.content import (
    Part,
    check_classes,
    checked_content,
    checked_part,
    class_name,
    fingerprint,
)
from tutelage.data.datasets import Dataset
from tutelage.data.image_files import ImageFiles
from tutelage.data.loaders import LOADERS, Loader, is_loader
from tutelage.data.training_stream import TrainingStream
from tutelage.errors import DataError
from tutelage.formatting import printable
from tutelage.models import class_names
from tutelage.progress import Progress

_TRAINING, _VALIDATION, _TEST = "training data", "validation data", "test data"


def has_training_loader(data: Any) -> bool:
    """Whether training images come from a loader, so that each epoch is a pass over it."""
    return is_loader(data) or (
        isinstance(data, tuple | list) and len(data) > 0 and is_loader(data[0])
    )


def dataset(
    data: Any, *, seed: int = 0, unused: Sequence[str] = (), progress: Progress | None = None
) -> Dataset:
    """Make a data set of what a user gives as data, by the rules of files.

    Args:
        data: a `Dataset`; arrays `(images, labels)` or `((images, labels), (test images, test
            labels))`; or `(training, validation, test)`, each arrays `(images, labels)` or a
            loader.
        seed: the recipe's seed, for the passes of loaders.
        unused: settings of the recipe that a loader takes the place of, for the note on it.
        progress: notified of each batch of a loader.

    Returns:
        The data set. If its training images are a loader's, its `stream`, and a sample of them.

    Raises:
        DataError: if it is not such data.
    """
    if isinstance(data, Dataset):
        in_files = isinstance(data.train.images, ImageFiles)  # checked when they were indexed
        return data if in_files else _checked(data)
    pairs = data if isinstance(data, tuple | list) else ()
    if is_loader(data) or (len(pairs) != 3 and any(map(is_loader, pairs))):
        raise DataError(
            "data: expected (training, validation, test) with loaders, as a loader's images can't "
            f"be split, found {_kinds(pairs) or type(data).__name__}; give all three, each a "
            "loader or arrays (images, labels)"
        )
    if len(pairs) == 3:
        found = _in_three(pairs, seed, progress)
        notes = () if found.stream is None else (_note(found.stream, unused),)
        return replace(found, notes=notes + found.notes)
    if len(pairs) == 2 and not isinstance(pairs[0], tuple | list):
        pairs = (pairs,)
    if len(pairs) not in (1, 2) or any(len(pair) != 2 for pair in pairs):
        raise DataError(
            "data: expected (images, labels), ((images, labels), (test images, test labels)) or "
            f"(training, validation, test), found {type(data).__name__}; or give a folder"
        )
    train, *rest = (
        checked_part(np.asarray(images), np.asarray(labels), name)
        for name, (images, labels) in zip((_TRAINING, _TEST), pairs, strict=False)
    )
    test = rest[0] if rest else None
    count = max(int(part.labels.max()) for part in (train, *rest)) + 1
    content = checked_content("data", class_names.numbered(count), train, test)
    if test is None:
        train, test = splitting.split(train, splitting.TEST_FRACTION, splitting.TEST_SEED)
    return Dataset("arrays", content.classes, train, test, content.fingerprint, "memory")


def _in_three(data: Sequence[Any], seed: int, progress: Progress | None) -> Dataset:
    """A data set of training, validation and test data."""
    names = (_TRAINING, _VALIDATION, _TEST)
    loaders = {
        name: Loader(one, name, seed)
        for name, one in zip(names, data, strict=True)
        if is_loader(one)
    }
    parts, stream = dict[str, Part](), None
    for name, one in [*zip(names, data, strict=True)][::-1]:  # the training data takes longest
        if name not in loaders:
            parts[name] = _arrays(one, name)
        elif name == _TRAINING:
            stream, parts[name] = training_stream.count(loaders[name], progress)
        else:
            parts[name] = loaders[name].part(progress)
    classes = _classes(loaders, parts, stream)
    _check_parts(classes, parts, stream)
    if stream is not None:
        missing = len(classes) - len(stream.shares)
        stream = replace(stream, shares=np.pad(stream.shares, (0, missing)))
    train, validation, test = (parts[name] for name in names)
    both = Part(
        np.concatenate([train.images, validation.images]),
        np.concatenate([train.labels, validation.labels]),
    )
    kind = "arrays" if stream is None else stream.loader.kind
    notes = [f"{name}: {note}" for name, loader in loaders.items() for note in loader.format.notes]
    return Dataset(
        kind,
        classes,
        both,
        test,
        _fingerprint(classes, parts, stream),
        kind if stream else "memory",
        held_out=len(validation),
        notes=tuple(notes),
        stream=stream,
    )


def _arrays(data: Any, name: str) -> Part:
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise DataError(
            f"{name}: expected arrays (images, labels) or {LOADERS}, found {type(data).__name__}"
        )
    images, labels = data
    return checked_part(np.asarray(images), np.asarray(labels), name)


def _classes(
    loaders: dict[str, Loader], parts: dict[str, Part], stream: TrainingStream | None
) -> tuple[str, ...]:
    """The names of the classes that loaders tell, or as many numbers as there are classes."""
    named = {name: names for name, loader in loaders.items() if (names := loader.class_names())}
    widths = {name: width for name, loader in loaders.items() if (width := loader.format.width)}
    widths |= {name: len(names) for name, names in named.items() if name not in widths}
    if len(set(named.values())) > 1 or len(set(widths.values())) > 1:
        told = [f"{name}: {', '.join(named.get(name, ())) or n}" for name, n in widths.items()]
        raise DataError(
            f"data: expected the same classes in all parts, found {'; '.join(told)}; a label must "
            "mean the same in each"
        )
    if named:
        return next(iter(named.values()))
    counts = [*widths.values(), *(int(part.labels.max()) + 1 for part in parts.values())]
    if stream is not None:
        counts.append(len(stream.shares))
    return class_names.numbered(max(counts))


def _check_parts(
    classes: tuple[str, ...], parts: dict[str, Part], stream: TrainingStream | None
) -> None:
    """Raise DataError unless the parts are of one shape and have images of every class."""
    train = parts[_TRAINING]
    if stream is not None:  # of the sample, only the shape counts
        train = Part(train.images, np.flatnonzero(stream.shares))
    check_classes("data", classes, train, parts[_TEST])
    check_classes("data", classes, train, parts[_VALIDATION], "validation")


def _fingerprint(
    classes: tuple[str, ...], parts: dict[str, Part], stream: TrainingStream | None
) -> str:
    """`"sha256:<hex>"` of all parts; of a stream, whose passes differ, only the numbers."""
    train = parts[_TRAINING]
    numbers = "" if stream is None else f"{stream.images} images in {stream.batches} batches"
    told = {
        "classes": classes,
        "shape": train.images.shape[1:],
        "train": numbers or fingerprint(classes, train, None),
        "validation": _digest(parts[_VALIDATION]),
        "test": _digest(parts[_TEST]),
    }
    return f"sha256:{hashlib.sha256(json.dumps(told).encode()).hexdigest()}"


def _digest(part: Part) -> str:
    """A hash of images and labels in whatever order, as a loader may shuffle them."""
    total = 0
    for image, label in zip(part.images[:], part.labels.tolist(), strict=True):
        digest = hashlib.sha256(f"{label} ".encode() + image.tobytes()).digest()
        total += int.from_bytes(digest, "big")
    return f"{len(part)} {total % 2**256:064x}"


def _note(stream: TrainingStream, unused: Sequence[str]) -> str:
    """What a user should know of a run with a loader."""
    sizes = f"{stream.largest}"
    if stream.smallest != stream.largest:
        sizes = f"{stream.smallest} to {stream.largest}"
    same = (
        "a second pass with the same random seeds began with the same batch, so baseline and "
        "student see the same images, and a resumed run ends with the weights of an undisturbed one"
    )
    if not stream.repeats:
        same = (
            "a second pass with the same random seeds began with another batch, so baseline and "
            "student do not see the same images, a resumed run ends with other weights than an "
            "undisturbed one, and other images of the same number are not noticed: give those "
            "another out"
        )
    return (
        f"an epoch is a pass over the {stream.loader.kind}, a step one of its batches: "
        f"{stream.images:,} images in {stream.batches:,} batches of {sizes}; views are the "
        f"loader's own (not used: {', '.join(unused) or 'none'}); the teacher is asked in each "
        f"step, as its logits can't be stored; {same}; a resumed run reads the batches of its "
        "epoch that were trained before"
    )


def _kinds(data: Sequence[Any]) -> str:
    return ", ".join(type(one).__name__ for one in data)


def _checked(data: Dataset) -> Dataset:
    """A data set made in Python, by the rules of files."""
    train, test = (
        checked_part(np.asarray(part.images), np.asarray(part.labels), f"{data.name}: {name}")
        for name, part in (("training images", data.train), ("test images", data.test))
    )
    classes = tuple(map(class_name, data.classes))
    check_classes(data.name, classes, train, test)
    if data.folders and len(data.folders) != len(classes):
        raise DataError(
            f"{data.name}: expected no folders or one for each of {len(classes)} classes, found "
            f"{len(data.folders)}; change folders"
        )
    if not 0 <= data.held_out < len(train):
        raise DataError(
            f"{data.name}: expected held_out, the number of the last training images that are for "
            f"validation, from 0 to {len(train) - 1}, found {data.held_out}; change it"
        )
    if data.held_out:
        rest, validation = splitting.at(train, len(train) - data.held_out)
        check_classes(data.name, classes, rest, validation, "validation")
    notes = tuple(
        f"class {name!r} is called {new}, as its name can't be printed"
        for name, new in zip(data.classes, classes, strict=True)
        if printable(str(name)) != name
    )
    return replace(
        data,
        classes=classes,
        train=train,
        test=test,
        fingerprint=data.fingerprint or fingerprint(classes, train, test),
        notes=data.notes + notes,
    )
