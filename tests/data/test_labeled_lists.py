"""CSV, Parquet and WebDataset's shards: the data set of the folder with the same images."""

from __future__ import annotations

import io
import json

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from tests.data.example_data import encoded, noise, refusal, tarred, written
from tutelage.data import unlabeled
from tutelage.data.datasets import load
from tutelage.data.image_files import ImageFiles

PARTS = {"train": 6, "validation": 3, "test": 4}
CLASSES = ("cat", "dog")


def images_in_parts():
    """(part, label, bytes) of each image."""
    random = np.random.default_rng(0)
    return [
        (part, number % 2, encoded(random.integers(0, 256, (9, 8, 3), np.uint8)))
        for part, count in PARTS.items()
        for number in range(2 * count)
    ]


def as_folder(path):
    folders = {"train": "train", "validation": "val", "test": "test"}
    return written(
        path,
        {
            f"{folders[part]}/{CLASSES[label]}/{number:03}.png": data
            for number, (part, label, data) in enumerate(images_in_parts())
        },
    )


def as_csv(path):
    written(path, {f"all/{i:03}.png": data for i, (_, _, data) in enumerate(images_in_parts())})
    rows = [
        f"all/{i:03}.png,{CLASSES[k]},{part}" for i, (part, k, _) in enumerate(images_in_parts())
    ]
    (path / "list.csv").write_text("\n".join(["path,label,split", *rows]))
    return path / "list.csv"


def as_shards(path, named=True):
    path.mkdir()
    for part in PARTS:
        files = {}
        for i, (own, label, data) in enumerate(images_in_parts()):
            if own == part:
                files[f"{i:03}.png"] = data
                files[f"{i:03}.cls"] = str(label).encode()
        half = len(files) // 4 * 2
        for shard, names in enumerate((list(files)[:half], list(files)[half:])):
            tarred(path / f"pets-{part}-{shard:04}.tar", {n: files[n] for n in names}, "w")
    if named:
        (path / "classes.txt").write_text("cat\ndog\n")
    return path


def as_parquet(path, features=True):
    path.mkdir()
    for part in PARTS:
        chosen = [(label, data) for own, label, data in images_in_parts() if own == part]
        rows = [{"bytes": data, "path": None} for _, data in chosen]
        table = pa.table({"image": rows, "label": [label for label, _ in chosen]})
        if features:
            info = {"image": {"_type": "Image"}, "label": {"names": CLASSES, "_type": "ClassLabel"}}
            about = json.dumps({"info": {"features": info}})
            table = table.replace_schema_metadata({"huggingface": about})
        parquet.write_table(table, path / f"{part}-00000-of-00001.parquet", row_group_size=4)
    (path / "README.md").write_text("about them")
    return path


@pytest.mark.parametrize("made", [as_csv, as_shards, as_parquet])
@pytest.mark.parametrize("in_memory", [True, False])
def test_it_is_the_data_set_of_the_same_images_in_a_folder(tmp_path, made, in_memory):
    expected = load("folder", as_folder(tmp_path / "folder"))
    found = load("folder", made(tmp_path / "listed"), in_memory=in_memory)
    assert isinstance(found.train.images, ImageFiles) != in_memory
    assert (found.classes, found.held_out) == (expected.classes, expected.held_out)
    for part in ("train", "test"):
        pairs = []
        for data in (expected, found):
            one = getattr(data, part)
            keys = [image.tobytes() for image in one.images[:]]
            pairs.append(dict(zip(keys, one.labels.tolist(), strict=True)))
        assert pairs[0] == pairs[1]
    again = load("folder", tmp_path / "listed" / ("list.csv" if made is as_csv else ""))
    assert again.fingerprint == found.fingerprint


def test_numbers_are_names_in_order_if_there_are_no_names(tmp_path):
    for made in (as_shards, as_parquet):
        path = made(tmp_path / made.__name__, False)
        assert load("folder", path).classes == ("0", "1")
    rows = [f"all/{i:03}.png,{10 - i % 11}" for i in range(26)]
    as_csv(tmp_path / "csv")
    (tmp_path / "csv" / "list.csv").write_text("\n".join(["path,label", *rows]))
    data = load("folder", tmp_path / "csv" / "list.csv", whole=True)
    assert data.classes == tuple(map(str, range(11)))


def test_one_shard_and_one_table_are_data_sets_by_themselves(tmp_path):
    shards, tables = as_shards(tmp_path / "shards"), as_parquet(tmp_path / "tables")
    one = load("folder", shards / "pets-test-0000.tar", whole=True)
    assert (len(one.test), one.classes) == (4, ("0", "1"))
    one = load("folder", tables / "train-00000-of-00001.parquet", whole=True)
    assert (len(one.test), one.classes) == (12, CLASSES)


def test_labels_in_json_count_and_other_files_do_not(tmp_path):
    files = {}
    for i in range(8):
        files |= {f"a/{i}.jpg": encoded(noise(8, 8, 3), "JPEG"), f"a/{i}.txt": b"a caption"}
        files[f"a/{i}.json"] = json.dumps({"label": CLASSES[i % 2], "width": 8}).encode()
    folder = tmp_path / "shards"
    folder.mkdir()
    tarred(folder / "0.tar", files, "w")
    (folder / "notes.md").write_text("")
    data = load("folder", folder, whole=True)
    assert (data.classes, len(data.test)) == (CLASSES, 8)
    assert any("notes.md" in note for note in data.notes)


def test_a_split_that_is_validation_alone_is_the_test_set(tmp_path):
    path = as_parquet(tmp_path / "tables")
    (path / "test-00000-of-00001.parquet").unlink()
    data = load("folder", path)
    assert (len(data.test), data.held_out) == (6, 0)
    assert any("validation" in note for note in data.notes)


@pytest.mark.parametrize("made", [as_csv, as_shards, as_parquet])
def test_a_list_is_also_a_set_of_unlabeled_images(tmp_path, made):
    path = made(tmp_path / "listed")
    for like in (np.zeros((1, 9, 8, 3), np.uint8), load("folder", path, in_memory=False).train):
        images, notes = unlabeled.read(path, like=getattr(like, "images", like))
        assert {image.tobytes() for image in images[:]} == {
            np.asarray(Image.open(io.BytesIO(data))).tobytes() for _, _, data in images_in_parts()
        }
        assert "labels" in notes[0]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("file,label\na.png,x", "path and label"),
        ("", "path and label"),
        ("path,label\nnone.png,x", "line 2"),
        ("path,label\nall/000.png,x\nall/001.png,", "line 3"),
        ("path,label,split\nall/000.png,x,holdout", "'holdout'"),
        ("path,label\nall/000.png,x\nall/000.png,y", "'all/000.png' twice"),
        ("path,label\nall/000.png,x\nall/001.png,x", "two classes"),
        ("path,label\n", "no"),
    ],
)
def test_a_bad_table_is_refused_with_its_line(tmp_path, text, named):
    path = as_csv(tmp_path / "csv")
    path.write_text(text)
    message = refusal(load, "folder", path)
    assert named in message
    assert "list.csv" in message
    path.write_bytes(b"path,label\n\xff\xfe,x")
    assert "UTF-8" in refusal(load, "folder", path)


def test_bad_shards_and_tables_are_refused(tmp_path):
    shards = as_shards(tmp_path / "shards")
    tarred(shards / "pets-train-0000.tar", {"a.png": encoded(noise(9, 8, 3))}, "w")
    assert "a.png" in refusal(load, "folder", shards)
    (shards / "classes.txt").write_text("cat\ndog")
    tarred(shards / "pets-train-0000.tar", {"a.png": encoded(noise(9, 8, 3)), "a.cls": b"7"}, "w")
    assert "found 7" in refusal(load, "folder", shards)
    tables = as_parquet(tmp_path / "tables")
    file = tables / "train-00000-of-00001.parquet"
    for table, named in (
        (pa.table({"picture": [b""], "label": [0]}), "picture"),
        (pa.table({"image": [b"", b""], "label": [0, None]}), "row 1"),
        (pa.table({"image": ["a.png", "b.png"], "label": [0, 1]}), "row 0"),
    ):
        parquet.write_table(table, file)
        message = refusal(load, "folder", tables)
        assert named in message
        assert file.name in message
    file.write_bytes(b"PAR1 and nothing else")
    assert file.name in refusal(load, "folder", tables)
