"""The parts and classes of a tree of image files, from their paths."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from tutelage.data.archives import Tree
from tutelage.data.content import class_name
from tutelage.data.image_file import SUFFIXES, is_image
from tutelage.errors import DataError
from tutelage.formatting import printable

# Names of the folders of parts, in any case.
PARTS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
# Number of skipped files or folders that a note names.
_NAMED = 3


class Place(NamedTuple):
    """Where an image belongs: its path without an enclosing folder, its part and its class."""

    path: str
    part: str
    label: str


@dataclass(frozen=True)
class Layout:
    """The images of a tree.

    Args:
        places: each image's place by its path in the tree, ordered by `Place.path`.
        classes: the names of the classes, in order.
        notes: what was skipped, renamed or chosen, one line each.
    """

    places: dict[str, Place]
    classes: tuple[str, ...]
    notes: tuple[str, ...]

    def without(self, names: Collection[str]) -> Layout:
        """The layout of the other images."""
        places = {name: place for name, place in self.places.items() if name not in names}
        return replace(self, places=places)

    def names(self, part: str) -> list[str]:
        """Paths of a part's images, in order."""
        return [name for name, place in self.places.items() if place.part == part]

    def labels(self, names: Iterable[str]) -> list[int]:
        """The index of each image's class."""
        index = {label: number for number, label in enumerate(self.classes)}
        return [index[self.places[name].label] for name in names]

    def folders(self) -> list[str]:
        """The path of each class's folder: that of its training images, if there are any."""
        first: dict[str, str] = {}
        for name in self.names("train") or self.places:
            first.setdefault(self.places[name].label, name.rpartition("/")[0])
        return [first[label] for label in self.classes]


def survey(tree: Tree) -> Layout:
    """Find the images of `<part>/<class>/`, or of `<class>/`, without decoding them.

    Parts are `train`, `val` and `test` (also `training`, `valid`, `validation`, `testing`, in any
    case). If there is no test part, `val` is the test set, as in ImageNet. A single enclosing
    folder is ignored. Images in other folders beside `train/<class>/`, such as Kaggle's unlabeled
    `test1`, are skipped, with a note. Files are images by their suffix or, without one, by their
    content; others are skipped, with a note.

    Args:
        tree: the opened folder or archive.

    Returns:
        The layout.

    Raises:
        DataError: if there are no images, fewer than two classes, an empty class, different
            classes in the parts, or an image in another place; the message names the cause.
    """
    images, notes = image_names(tree)
    if not images:
        raise DataError(
            f"{tree.path}: expected images in train/<class>/ or <class>/, CIFAR-10's batches, "
            "MNIST's idx files or arrays x_train and y_train, found none of them among "
            f"{listed(list(tree.files), len(tree.files))}; "
            "give the folder or archive that contains one"
        )
    places, chosen = _places(tree, images)
    classes, renamed = _classes(tree, places)
    ordered = dict(sorted(places.items(), key=lambda item: item[1].path))
    return Layout(ordered, classes, (*notes, *chosen, *renamed))


def arranged(
    tree: Tree, places: dict[str, Place], order: Sequence[str], notes: Sequence[str]
) -> Layout:
    """The layout of images whose parts and classes are listed.

    Args:
        tree: the images.
        places: each image's place by its path in the tree, with its class as listed.
        order: the names of the classes, where their order is known; else they are sorted, by
            value if they are numbers.
        notes: notes so far.

    Returns:
        The layout. If there is no test part, validation images are the test set.

    Raises:
        DataError: as `survey`.
    """
    notes, parts = list(notes), {place.part for place in places.values()}
    if "test" not in parts and "validation" in parts:
        notes.append("there is no test part: the validation images are the test set")
        for name, place in places.items():
            if place.part == "validation":
                places[name] = place._replace(part="test")
    classes, renamed = _classes(tree, places)
    if all(name.isdecimal() for name in classes):
        classes = tuple(sorted(classes, key=int))
    if order := [class_name(name) for name in order]:
        classes = tuple(name for name in order if name in classes)
        if absent := [name for name in order if name not in classes]:
            notes.append(f"classes without images are left out: {_first_of(absent)}")
    ordered = dict(sorted(places.items(), key=lambda item: item[1].path))
    return Layout(ordered, classes, (*notes, *renamed))


def image_names(tree: Tree) -> tuple[list[str], tuple[str, ...]]:
    """The paths of a tree's images, in its order, and a note on the other files, if any."""
    images: list[str] = []
    others: list[str] = []
    for name, read in tree.files.items():
        bare = "." not in name.rpartition("/")[2]
        known = is_image(read()) if bare else name.casefold().endswith(SUFFIXES)
        (images if known else others).append(name)
    if not others or not images:
        return images, ()
    return images, (f"files skipped, as they are not images: {listed(others, len(tree.files))}",)


def listed(names: list[str], total: int) -> str:
    """The number of files and the first of their names."""
    count = f"{len(names):,} of {total:,}" if len(names) < total else f"{total:,} file"
    count += "s" if len(names) == total != 1 else ""
    return f"{count} ({_first_of(list(map(repr, names)))})" if names else count


def _first_of(names: list[str]) -> str:
    """The first names, and the number of the others."""
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _places(tree: Tree, images: Iterable[str]) -> tuple[dict[str, Place], list[str]]:
    """The part and class of each image, and a note on the choice of the parts."""
    steps = {name: name.split("/") for name in images}
    wrapped = _wrapped(steps.values())
    below = {_part(path[wrapped]) for path in steps.values() if len(path) - wrapped == 3}
    nested = any(below)
    counts = Counter(path[wrapped] for path in steps.values() if len(path) - wrapped > 1)
    folders = set(counts)
    if not nested and folders and all(map(_part, folders)):
        flat = ", ".join(sorted(folders))
        raise DataError(
            f"{tree.path}: expected images in <class>/ below {flat}, found them directly in "
            f"{flat}; move the images of each class to a folder with its name"
        )
    notes = _empty_parts(tree, steps) if nested else _part_names(tree, folders)
    if "train" in below and (others := sorted(folder for folder in folders if not _part(folder))):
        total = sum(counts[folder] for folder in others)
        named = _first_of([f"{folder}/ ({counts[folder]:,})" for folder in others])
        notes.append(
            "images skipped beside train/<class>/, as their folders are no part: "
            f"{total:,} in {named}"
        )
        steps = {n: path for n, path in steps.items() if path[wrapped] not in others}
        folders.difference_update(others)
    parts = {folder: _part(folder) for folder in sorted(folders)} if nested else {}
    for part, count in Counter(parts.values()).items():
        if part and count > 1:
            same = ", ".join(folder for folder in parts if parts[folder] == part)
            raise DataError(f"{tree.path}: expected one {part} part, found {same}; merge them")
    for folder, part in parts.items():
        if part == "validation" and "test" not in parts.values():
            parts[folder] = "test"
            notes.append(f"there is no test part: {folder}/ is the test set")
        elif part == "validation":
            notes.append(f"validation images are those of {folder}/, not a fraction of train")
    places = {}
    for name, path in steps.items():
        match path[wrapped:]:
            case [folder, label, _] if part := parts.get(folder, ""):
                places[name] = Place("/".join(path[wrapped:]), part, label)
            case [label, _] if not any(part == "train" for part in parts.values()):
                places[name] = Place("/".join(path[wrapped:]), "train", label)
            case _:
                raise DataError(
                    f"{tree.where(name)}: expected every image in train/<class>/, val/<class>/ or "
                    f"test/<class>/, or all in <class>/, found this one elsewhere; "
                    "move it or remove it"
                )
    return places, notes


def _part_names(tree: Tree, folders: set[str]) -> list[str]:
    """Notes on classes that are called like a part; raises DataError if they look like parts."""
    notes = []
    for folder in sorted(filter(_part, folders)):
        others = sorted(folders - {folder})
        if any(_like_part(other) for other in others):
            raise DataError(
                f"{tree.path}: expected images in <class>/ below {folder}, found them directly in "
                f"{folder} and {', '.join(others)}; move the images of each class to a folder with "
                f"its name, or classes that are called so to train/{folder}/ and so on"
            )
        notes.append(f"{folder}/ is the class {folder!r}, not a part: it has no class folders")
    return notes


def _empty_parts(tree: Tree, images: Mapping[str, list[str]]) -> list[str]:
    """Notes on folders that are called like a part and contain no images."""
    wrapped, (first, *_) = _wrapped(images.values()), next(iter(images.values()))
    paths = [name.split("/") for name in tree.folders]
    paths += [name.split("/")[:-1] for name in tree.files]
    beside = {
        path[wrapped]
        for path in paths
        if len(path) > wrapped and (not wrapped or path[0] == first) and _part(path[wrapped])
    }
    empty = sorted(beside - {path[wrapped] for path in images.values()})
    return [f"{folder}/ contains no images" for folder in empty]


def _like_part(folder: str) -> bool:
    """Whether a name is of unlabeled images or a part with something behind it, as `test1`."""
    word = re.match("[a-z]*", folder.casefold())[0]  # type: ignore[index]
    return bool(_part(word)) or word in {"unlabeled", "unlabelled"}


def _part(folder: str) -> str:
    return PARTS.get(folder.casefold(), "")


def _wrapped(paths: Iterable[list[str]]) -> bool:
    """Whether one folder encloses the parts and classes."""
    paths = list(paths)
    first, least = paths[0][0], min(len(path) for path in paths)
    if any(path[0] != first for path in paths):
        return False
    return least > 3 or (least == 3 and not _part(first))


def _classes(tree: Tree, places: dict[str, Place]) -> tuple[tuple[str, ...], list[str]]:
    """The classes, and notes on renamed ones; `places` gets the names."""
    _refuse_empty(tree, places)
    by_part: dict[str, dict[str, str]] = {}
    for name, place in places.items():
        label = class_name(place.label)
        if by_part.setdefault(place.part, {}).setdefault(label, place.label) != place.label:
            raise DataError(
                f"{tree.path}: expected different class names, found {label!r} twice once "
                "characters that can't be printed are replaced; rename one folder"
            )
        places[name] = place._replace(label=label)
    reference = "train" if "train" in by_part else next(iter(by_part))
    classes = tuple(sorted(by_part[reference]))
    if len(classes) < 2:
        raise DataError(
            f"{tree.path}: expected at least two classes, found only {classes[0]!r}; "
            "add a folder of images for each other class"
        )
    for part, labels in by_part.items():
        if strange := sorted(labels.keys() ^ set(classes)):
            raise DataError(
                f"{tree.path}: expected the same classes in {part} as in {reference}, found "
                f"{', '.join(map(repr, strange))} in only one of them; add or remove their images"
            )
    changed = sorted({item for part in by_part.values() for item in part.items()})
    return classes, [
        f"the class of folder {folder!r} is called {label}, as its name can't be printed"
        for label, folder in changed
        if printable(folder) != folder
    ]


def _refuse_empty(tree: Tree, places: dict[str, Place]) -> None:
    # Folders next to those with images would be classes, too.
    homes = {name.rpartition("/")[0] for name in places}
    sides = {home.rpartition("/")[0] for home in homes}
    for folder in sorted(tree.folders - homes):
        contains_parts = any(side == folder or side.startswith(f"{folder}/") for side in sides)
        if folder.rpartition("/")[0] in sides and not contains_parts:
            raise DataError(
                f"{tree.where(folder)}: expected images of a class, found none; "
                "add images or remove the folder"
            )
