"""Images whose labels are listed: CSV files, Parquet files and WebDataset's shards."""

from __future__ import annotations

import csv
import io
import json
import posixpath
import re
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

from tutelage.data import archives, folder_layout
from tutelage.data.archives import ByteRange, Reader, Tree
from tutelage.data.folder_layout import Layout
from tutelage.data.image_file import SUFFIXES
from tutelage.errors import DataError, extra

_LABELS = ("cls", "json", "txt")  # of a sample of WebDataset, in the order in which they count
_CLASS_FILES = ("classes.txt", "classnames.txt", "labels.txt")


class Listed(NamedTuple):
    """One image: its name, how it is read, its part (`train`, ...) and its label."""

    name: str
    read: Reader
    part: str
    label: str | int


def find(tree: Tree, stack: ExitStack) -> tuple[Tree, Layout] | None:
    """The images of a tree whose labels are listed; None if it has no such list.

    Args:
        tree: the opened folder, archive or file.
        stack: keeps shards open while the images are read.

    Returns:
        A tree of the images, and their layout.

    Raises:
        DataError: if a list is damaged or incomplete; names the line, row or sample.
        MissingExtraError: if Parquet can't be read, as pyarrow is not installed.
    """
    tables = [name for name in tree.files if name.casefold().endswith(".parquet")]
    shards = [name for name in tree.files if name.casefold().endswith(".tar")]
    if list(tree.files) == [tree.path.name] and tree.path.suffix.casefold() == ".csv":
        return _arranged(tree, list(_csv(tree)), (), [])
    if tables:
        classes = _parquet_classes(tree, tables[0])
        return _arranged(tree, list(_parquet(tree, tables)), classes, _unused(tree, tables))
    if any(name.endswith(".cls") for name in tree.files):
        return _arranged(tree, list(_samples(tree, "")), _class_file(tree), [])
    if shards and tree.path.is_dir():
        listed: list[Listed] = []
        for name in sorted(shards):
            shard = stack.enter_context(archives.open_tree(tree.path / name))
            listed += _samples(shard, name)
        return _arranged(tree, listed, _class_file(tree), _unused(tree, shards))
    return None


def _csv(tree: Tree) -> Iterator[Listed]:
    """The rows of a CSV file with the columns `path`, `label` and, maybe, `split`."""
    (read,) = tree.files.values()
    try:
        rows = csv.DictReader(io.StringIO(read().decode("utf-8-sig")))
        columns = rows.fieldnames or []
    except UnicodeDecodeError as error:
        raise DataError(f"{tree.path}: expected a CSV file in UTF-8, found {error}") from error
    if not {"path", "label"} <= set(columns):
        raise DataError(
            f"{tree.path}: expected a first line with the columns path and label, and split if "
            f"there are parts, found {', '.join(columns) or 'nothing'}"
        )
    for row in rows:
        path, label = row["path"], row["label"]
        if not path or not label:
            raise DataError(f"{tree.path}, line {rows.line_num}: expected a path and a label")
        file = tree.path.parent / path
        if not file.is_file():
            raise DataError(
                f"{tree.path}, line {rows.line_num}: expected an image, found no file {file}"
            )
        part = _part(row.get("split") or "train")
        if not part:
            raise DataError(
                f"{tree.path}, line {rows.line_num}: expected split to be train, validation or "
                f"test, found {row['split']!r}"
            )
        yield Listed(path, ByteRange(str(file)), part, label)


def _unused(tree: Tree, used: list[str]) -> list[str]:
    others = [name for name in tree.files if name not in used and name not in _CLASS_FILES]
    if not others:
        return []
    return [f"files skipped: {folder_layout.listed(others, len(tree.files))}"]


def _samples(tree: Tree, shard: str) -> Iterator[Listed]:
    """The samples of one shard: files with the same name up to the first dot."""
    part = _part_in(shard or tree.path.name)
    found: dict[str, dict[str, str]] = {}
    for name in tree.files:
        folder, base = posixpath.split(name)
        key, _, suffix = base.partition(".")
        found.setdefault(posixpath.join(folder, key), {})[suffix.casefold()] = name
    for files in found.values():
        images = [name for suffix, name in files.items() if f".{suffix}".endswith(SUFFIXES)]
        if images:  # other samples are of metadata
            name = f"{shard}/{images[0]}".lstrip("/")
            yield Listed(name, tree.files[images[0]], part, _label(tree, files))


def _label(tree: Tree, files: dict[str, str]) -> str | int:
    for suffix in _LABELS:
        if suffix not in files:
            continue
        text = tree.files[files[suffix]]().decode("utf-8", "replace").strip()
        if suffix != "json":
            return int(text) if re.fullmatch(r"\d+", text) else text
        try:
            content = json.loads(text)
            label = content.get("label", content.get("cls"))
        except (ValueError, AttributeError):
            label = None
        if isinstance(label, str | int):
            return label
    raise DataError(
        f"{tree.where(next(iter(files.values())))}: expected its label in a file of the same name "
        "that ends in .cls, or in .json with `label`, found none"
    )


def _class_file(tree: Tree) -> tuple[str, ...]:
    for name in _CLASS_FILES:
        if name in tree.files:
            return tuple(tree.files[name]().decode("utf-8", "replace").split("\n"))
    return ()


def _parquet_classes(tree: Tree, name: str) -> tuple[str, ...]:
    """The names that Hugging Face `datasets` stores of a label column."""
    metadata = _opened(tree, name).schema_arrow.metadata or {}
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return tuple(map(str, features[_columns(features)[1]]["names"]))
    except (KeyError, ValueError, TypeError, StopIteration):
        return ()


def _parquet(tree: Tree, names: list[str]) -> Iterator[Listed]:
    for name in sorted(names):
        table = _opened(tree, name)
        columns = [field.name for field in table.schema_arrow]
        image, label = _columns(columns, tree.where(name))
        part, row = _part_in(posixpath.basename(name)), 0
        for group in range(table.num_row_groups):
            values = table.read_row_group(group, [label]).column(label).to_pylist()
            for place, value in enumerate(values):
                if not isinstance(value, str | int):
                    raise DataError(
                        f"{tree.where(name)}, row {row}: expected a label, a number or text, "
                        f"found {value!r}"
                    )
                reader = _Row(table, group, place, image, f"{tree.where(name)}, row {row}")
                yield Listed(f"{name}/{row}", reader, part, value)
                row += 1


class _Row:
    """Reads the image of one row; the last row group that was read is kept."""

    _last: tuple[Any, int, list[Any]] = (None, -1, [])

    def __init__(self, table: Any, group: int, place: int, column: str, where: str):
        self.table, self.group, self.place = table, group, place
        self.column, self.where = column, where

    def __call__(self) -> bytes:
        if _Row._last[:2] != (self.table, self.group):
            values = self.table.read_row_group(self.group, [self.column]).column(self.column)
            _Row._last = self.table, self.group, values.to_pylist()
        value = _Row._last[2][self.place]
        content = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(content, bytes):
            raise DataError(
                f"{self.where}: expected the bytes of an image file, found "
                f"{type(content).__name__}; store images, not paths"
            )
        return content


def _opened(tree: Tree, name: str) -> Any:
    with extra("parquet"):
        from pyarrow import ArrowException, parquet  # type: ignore[import-untyped]
    read = tree.files[name]
    if isinstance(read, ByteRange) and read.length < 0:  # a file of its own
        source: Any = read.path
    else:
        source = io.BytesIO(read())
    try:
        return parquet.ParquetFile(source)
    except (ArrowException, ValueError) as error:
        raise DataError(
            f"{tree.where(name)}: expected a Parquet file, found {archives.one_line(error)}"
        ) from error


def _columns(names: Any, where: str = "") -> tuple[str, str]:
    """The columns of images and of labels."""
    names = list(names)
    for image in ("image", "img"):
        for label in ("label", "labels", "fine_label", "cls"):
            if image in names and label in names:
                return image, label
    raise DataError(
        f"{where}: expected columns image and label, found {', '.join(names)}; rename them"
    )


def _part_in(name: str) -> str:
    """The part that a file's name begins with or contains as a word; `train` if there is none."""
    words = re.split(r"[^a-z]+", name.casefold())
    return next((part for word in words if (part := _part(word))), "train")


def _part(name: str) -> str:
    return folder_layout.PARTS.get(name.strip().casefold(), "")


def _arranged(
    tree: Tree, listed: list[Listed], names: tuple[str, ...], notes: list[str]
) -> tuple[Tree, Layout]:
    """The tree and the layout of listed images; numbers are labels in the order of `names`."""
    if not listed:
        raise DataError(f"{tree.path}: expected images with labels, found none")
    names = tuple(name.strip() for name in names if name.strip())
    files: dict[str, Reader] = {}
    places: dict[str, folder_layout.Place] = {}
    for one in listed:
        label = str(one.label)
        if isinstance(one.label, int) and names:
            if not 0 <= one.label < len(names):
                raise DataError(
                    f"{tree.where(one.name)}: expected a label below {len(names)}, the number of "
                    f"classes, found {one.label}"
                )
            label = names[one.label]
        if one.name in files:
            raise DataError(f"{tree.path}: expected each image once, found {one.name!r} twice")
        files[one.name] = one.read
        places[one.name] = folder_layout.Place(one.name, one.part, label)
    made = Tree(tree.path, files, frozenset())
    return made, folder_layout.arranged(made, places, names, notes)
