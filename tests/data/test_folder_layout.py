"""How people lay out folders of images, and what is said about them."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.data.example_data import encoded, noise, picture_files, refusal, same, written, zipped
from tutelage.data.content import class_name
from tutelage.data.datasets import load
from tutelage.errors import DataError

PARTS = ("train", "val", "test")


def laid_out(parts, count=5, **options):
    """Images in `<part>/<class>/`, as many in each."""
    return picture_files(parts=parts, count=count, **options)


@pytest.mark.parametrize(
    "names",
    [
        ("train", "val", "test"),
        ("train", "validation", "test"),
        ("train", "valid", "test"),
        ("Training", "Validation", "Testing"),
        ("Train", "Val", "Test"),
    ],
)
def test_parts_have_the_names_that_people_give_them(tmp_path, names):
    files = laid_out(PARTS)
    expected = load("folder", written(tmp_path / "a", files))
    renamed = {}
    for name, data in files.items():
        part, rest = name.split("/", 1)
        renamed[f"{names[PARTS.index(part)]}/{rest}"] = data
    found = load("folder", zipped(tmp_path / "b.zip", {f"in/{n}": d for n, d in renamed.items()}))
    assert (len(found.train), found.held_out, len(found.test)) == (20, 10, 10)
    for one, other in ((found.train, expected.train), (found.test, expected.test)):
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.labels, other.labels)
    assert f"{names[1]}/" in found.notes[0]


def test_the_data_s_own_validation_images_are_held_out(tmp_path):
    files = laid_out(PARTS)
    folder = written(tmp_path / "pets", files)
    data = load("folder", folder)
    rest, validation = data.split(0.3, seed=5)
    held_out = [Image.open(folder / name) for name in sorted(files) if name.startswith("val/")]
    np.testing.assert_array_equal(validation.images, [np.asarray(image) for image in held_out])
    assert (len(rest), validation.labels.tolist()) == (10, [0] * 5 + [1] * 5)
    again = load("folder", folder)  # from the cache
    same(data, again)
    assert (again.held_out, again.notes) == (data.held_out, data.notes)


def test_without_a_test_part_val_is_the_test_set_as_in_imagenet(tmp_path):
    data = load("folder", written(tmp_path, laid_out(("train", "val"))))
    assert (len(data.train), data.held_out, len(data.test)) == (10, 0, 10)
    assert "val/" in data.notes[0]


def test_a_test_part_alone_can_be_evaluated_but_not_trained_on(tmp_path):
    data = load("folder", written(tmp_path, laid_out(("Test",))))
    assert (len(data.train), len(data.test)) == (0, 10)
    with pytest.raises(DataError, match="training images"):
        data.split(0.1, seed=0)


def test_validation_images_without_training_images_are_refused(tmp_path):
    data = load("folder", written(tmp_path, laid_out(("val", "test"))))
    with pytest.raises(DataError, match="training images"):
        data.split(0.1, seed=0)


def test_all_images_without_a_part_are_the_test_set_where_asked(tmp_path):
    flat = {n.removeprefix("x/"): d for n, d in laid_out(("x",), count=1).items()}
    data = load("folder", written(tmp_path, flat), whole=True)  # too few to split any off
    assert (len(data.train), len(data.test)) == (0, 2)
    assert "all images" in data.notes[-1]


def test_files_are_images_by_suffix_or_else_by_content(tmp_path):
    files = laid_out(("train",))
    image = Image.fromarray(noise(6, 6, 3))
    for name in ("0.jfif", "1.jpe", "2.avif", "3", "4.JPG"):
        form = "AVIF" if name.endswith("avif") else "JPEG"
        image.save(written(tmp_path, files) / "train" / "cat" / name, form)
    for name in ("notes.txt", "labels.csv", "5.heic", "LICENSE"):
        (tmp_path / "train" / "dog" / name).write_text("not an image")
    data = load("folder", tmp_path)
    assert len(data.train) + len(data.test) == 15
    note = data.notes[0]
    assert "4 of 19" in note
    assert "train/dog/5.heic" in note


def test_a_damaged_file_without_a_suffix_is_an_image(tmp_path):
    files = laid_out(("train",)) | {"train/cat/raw": encoded(noise(9, 9, 3))[:-40]}
    assert "train/cat/raw" in refusal(load, "folder", written(tmp_path, files))


@pytest.mark.parametrize(
    "folders",
    [
        ("train",),
        ("train", "test"),
        ("Training", "Testing"),
        ("train", "test1"),
        ("Train", "test_2", "labels"),
        ("train", "unlabeled"),
    ],
)
def test_parts_without_class_folders_are_not_classes(tmp_path, folders):
    files = {f"{f}/cat_{i}.png": encoded(noise(6, 6, 3)) for f in folders for i in range(9)}
    message = refusal(load, "folder", written(tmp_path, files))
    assert folders[0] in message
    assert "<class>/" in message


def test_a_class_among_others_may_be_called_like_a_part(tmp_path):
    names = ("car", "images", "train")
    files = {f"{n}/{i}.png": encoded(noise(6, 6, 3)) for n in names for i in range(9)}
    data = load("folder", written(tmp_path, files))
    assert data.classes == ("car", "images", "train")
    assert len(data.train) + len(data.test) == 27
    assert "'train'" in data.notes[0]


@pytest.mark.parametrize("train", ["train", "Training"])
@pytest.mark.parametrize("below", ["", "in/"])
def test_folders_that_are_no_part_are_skipped_beside_classes_of_train(tmp_path, train, below):
    files = {n.replace("train", train): data for n, data in laid_out(("train",)).items()}
    expected = load("folder", written(tmp_path / "a", files))
    beside = (
        "test1/0.png",
        "test1/1.png",
        "images/a/0.png",
        "unlabeled/deep/er/0.png",
        "zoo/0.png",
    )
    files |= dict.fromkeys(beside, b"is not decoded")
    for place in (
        written(tmp_path / "b", {below + name: data for name, data in files.items()}),
        zipped(tmp_path / "b.zip", {below + name: data for name, data in files.items()}),
    ):
        found = load("folder", place)
        same(found, expected)
        assert found.classes == ("cat", "dog")
        assert "5 in images/ (1), test1/ (2), unlabeled/ (1) and 1 more" in found.notes[0]
        assert load("folder", place).notes == found.notes  # from the cache


@pytest.mark.parametrize("below", ["", "in/"])
def test_a_part_without_images_is_noted(tmp_path, below):
    files = {f"{below}{name}": data for name, data in laid_out(("train",)).items()}
    assert not any("test/" in note for note in load("folder", written(tmp_path, files)).notes)
    (tmp_path / below / "test" / "cat").mkdir(parents=True)
    assert "test/ contains no images" in load("folder", tmp_path).notes
    archive = zipped(tmp_path.parent / "a.zip", files | {f"{below}Val/readme.txt": b"none"})
    assert "Val/ contains no images" in load("folder", archive).notes


def test_files_of_no_known_kind_are_counted_and_named(tmp_path):
    files = {f"cat/{i}.heif2": b"x" for i in range(5)}
    message = refusal(load, "folder", written(tmp_path, files))
    assert "5 files" in message
    assert "cat/0.heif2" in message


def test_two_folders_for_one_part_are_refused(tmp_path):
    message = refusal(load, "folder", written(tmp_path, laid_out(("train", "val", "valid"))))
    assert "val, valid" in message


def test_the_cache_hides_nothing_that_a_fresh_reading_refuses(tmp_path):
    folder = written(tmp_path / "pets", laid_out(("train",)))
    load("folder", folder)  # now cached
    (folder / "train" / "emu").mkdir()
    assert "emu" in refusal(load, "folder", folder)
    (folder / "train" / "emu" / "notes.txt").write_text("no image")
    assert "emu" in refusal(load, "folder", folder)
    shutil.rmtree(folder / "train" / "emu")
    (folder / "train" / "cat" / "notes.txt").write_text("no image")
    assert "notes.txt" in load("folder", folder).notes[0]


def test_a_class_with_too_few_images_is_named_before_anything_is_decoded(tmp_path):
    files = laid_out(("train",)) | {"train/emu/0.png": b"can't be decoded"}
    message = refusal(load, "folder", written(tmp_path, files))
    assert "'emu'" in message
    assert str(tmp_path / "train" / "emu") in message
    assert "only 1" in message


def test_the_split_of_validation_images_names_the_class(tmp_path):
    files = laid_out(("train", "test")) | {"test/emu/0.png": encoded(noise(6, 6, 3))}
    files["train/emu/0.png"] = encoded(noise(6, 6, 3))
    data = load("folder", written(tmp_path, files))
    message = refusal(data.split, 0.5, seed=0)
    assert "'emu'" in message
    assert str(tmp_path / "train" / "emu") in message
    data = load("folder", zipped(tmp_path / "a.zip", {f"in/{n}": d for n, d in files.items()}))
    assert f"{tmp_path / 'a.zip'}: in/train/emu" in refusal(data.split, 0.5, seed=0)


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b"caf\xe9", r"caf\xe9"),
        ("caf\udce9", r"caf\xe9"),
        ("cafe\u0301", "caf\u00e9"),
        ("red\x1b[31m", r"red\x1b[31m"),
        ("two\nlines", r"two\nlines"),
        ("gnp.\u202efdp", r"gnp.\u202efdp"),
        ("Katze \u732b", "Katze \u732b"),
        ("\U0001f468\u200d\U0001f33e", "\U0001f468\u200d\U0001f33e"),
        (7, "7"),
    ],
)
def test_class_names_can_be_printed_and_stored(raw, name):
    assert class_name(raw) == name
    assert class_name(name) == name
    name.encode()


def test_a_folder_with_a_name_that_can_not_be_printed_is_renamed_once_and_said(tmp_path):
    files = laid_out(("train",))
    files |= {
        f"train/\U0001f468\u200d\U0001f33e/{i}.png": encoded(noise(6, 6, 3)) for i in range(5)
    }
    for raw in (b"caf\xe9", b"red\x1b[31m"):
        folder = os.path.join(os.fsencode(tmp_path), b"train", raw)
        os.makedirs(folder)
        for i in range(5):
            with open(os.path.join(folder, b"%d.png" % i), "wb") as file:
                file.write(encoded(noise(6, 6, 3)))
    data = load("folder", written(tmp_path, files))
    assert data.classes == (r"caf\xe9", "cat", "dog", r"red\x1b[31m", "\U0001f468\u200d\U0001f33e")
    said = "\n".join(data.notes)
    assert said.replace("\n", "").isprintable()
    assert said.count("is called") == 2
    assert r"caf\xe9" in said
    same(data, load("folder", tmp_path))


def test_names_that_become_the_same_are_refused(tmp_path):
    files = {}
    for name in ("cafe\u0301", "caf\u00e9", "dog"):
        files |= {f"{name}/{i}.png": encoded(noise(6, 6, 3)) for i in range(3)}
    assert "caf\u00e9" in refusal(load, "folder", written(tmp_path, files))
