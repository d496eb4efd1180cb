"""Images that stay in their files: the same data set and the same views as in memory."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
from PIL import Image

from tests.data.example_data import encoded, noise, refusal, tarred, written, zipped
from tutelage import storage
from tutelage.data import augmented_views, image_file, reader, unlabeled
from tutelage.data.augmented_views import AugmentedViews
from tutelage.data.datasets import load
from tutelage.data.geometry import Geometry
from tutelage.data.image_files import ImageFiles
from tutelage.errors import DataError
from tutelage.recipe import Views

ALL = Views(
    crop="random-resized",
    flip_vertical=True,
    policy="trivialaugment",
    color_jitter=0.3,
    hue=0.1,
    erasing=0.5,
    mixup=0.2,
    cutmix=1.0,
)


def photographs(suffix="jpg", count=7):
    """Images of several sizes, one of them upright by its EXIF tag, one gray, one huge."""
    files = {}
    for part in ("train", "val", "test"):
        for label in ("cat", "dog"):
            for number in range(count):
                pixels = noise(20 + number, 31 - number, 3)
                files[f"{part}/{label}/{number}.{suffix}"] = encoded(pixels, "JPEG")
    exif = Image.Exif()
    exif[0x0112] = 6
    files[f"train/cat/0.{suffix}"] = encoded(noise(16, 30, 3), "JPEG", exif=exif)
    files["train/dog/1.jpg"] = encoded(noise(16, 30), "JPEG")
    files["train/dog/2.jpg"] = encoded(noise(700, 900, 3), "JPEG")
    return files


def packed_tar(path, files):
    return tarred(path.with_suffix(".tar"), files, "w")


def packed_gz(path, files):
    return tarred(path.with_suffix(".tar.gz"), files)


@pytest.mark.parametrize("pack", [written, packed_tar, packed_gz, zipped])
@pytest.mark.parametrize("resize", [("stretch", 1.0), ("crop", 0.875)])
def test_a_data_set_in_files_is_the_one_in_memory(tmp_path, pack, resize):
    place = pack(tmp_path / "pets", photographs())
    how = {"size": Geometry((12, 10), *resize)}
    memory = load("folder", place, in_memory=True, **how)
    files = load("folder", place, in_memory=False, **how)
    assert isinstance(memory.train.images, np.ndarray)
    assert isinstance(files.train.images, ImageFiles)
    for name in ("name", "classes", "fingerprint", "held_out", "folders"):
        assert getattr(files, name) == getattr(memory, name)
    assert any("in_memory" in note for note in files.notes)
    for part in ("train", "test"):
        stored, decoded = getattr(files, part), getattr(memory, part)
        assert stored.images.shape == decoded.images.shape
        assert stored.images.size == decoded.images.size
        np.testing.assert_array_equal(stored.images[:], decoded.images)
        np.testing.assert_array_equal(stored.labels, decoded.labels)
    for one, other in zip(files.split(0.1, 0), memory.split(0.1, 0), strict=True):
        np.testing.assert_array_equal(one.images[:], other.images)
    np.testing.assert_array_equal(files.train.images[3], memory.train.images[3])
    np.testing.assert_array_equal(files.train.images[-2:], memory.train.images[-2:])


@pytest.mark.parametrize(
    "views", [Views(), Views(shift=3, erasing=1.0), Views(policy="randaugment"), ALL]
)
def test_views_are_the_same_in_files_in_memory_and_in_workers(tmp_path, views):
    place = written(tmp_path / "pets", photographs())
    crop = {"originals": views.crop is not None, "size": (12, 10)}
    images = [
        load("folder", place, in_memory=memory, **crop).train.images for memory in (True, False)
    ]
    index = np.array([5, 0, 3, 9, 8])
    batches = [AugmentedViews(one, views, seed=4, cutout=2)(2, index) for one in images]
    np.testing.assert_array_equal(*batches)
    requests = [(number, np.roll(index, number)) for number in range(6)]
    augmented = AugmentedViews(images[1], views, seed=4, cutout=2)
    expected = [augmented(*request) for request in requests]
    for workers in (0, 1, 2):
        with augmented.loader(workers) as loader:
            for _ in range(2):  # workers go on with the next epoch
                found = list(loader.batches(requests))
                np.testing.assert_array_equal(found, expected)
            ended = loader.batches(requests)
            next(ended)
            np.testing.assert_array_equal(list(loader.batches(requests)), expected)
    assert len({batch.tobytes() for batch in expected}) == 6


def test_a_view_depends_on_seed_number_and_index_alone(tmp_path):
    images = load("folder", written(tmp_path, photographs()), size=(12, 10), originals=True)
    augmented = AugmentedViews(images.train.images, ALL, seed=4)
    every = augmented(1, np.arange(28))
    np.testing.assert_array_equal(augmented(1, np.array([27, 3])), every[[27, 3]])
    for other in (
        augmented(2, np.arange(28)),
        AugmentedViews(augmented.images, ALL, 5)(1, np.arange(28)),
    ):
        assert (other != every).any(axis=(1, 2, 3)).all()


def test_arrays_have_the_same_transforms_as_files_of_their_size(tmp_path):
    arrays = noise(20, 9, 8, 3)
    files = {f"train/{'ab'[i // 10]}/{i:02}.png": encoded(image) for i, image in enumerate(arrays)}
    files |= {f"test/{label}/0.png": encoded(arrays[0]) for label in "ab"}
    stored = load("folder", written(tmp_path, files), originals=True).train.images
    assert isinstance(stored, ImageFiles)
    index = np.array([3, 19, 4])
    one, other = (AugmentedViews(images, ALL, seed=0)(7, index) for images in (stored, arrays))
    np.testing.assert_array_equal(one, other)


def test_an_index_is_cached_until_a_file_changes(tmp_path, monkeypatch):
    folder = written(tmp_path / "pets", photographs())
    first = load("folder", folder, size=(12, 10), in_memory=False)
    decoded = []
    opened = image_file.open_image

    def noted(data, where, least):
        decoded.append(where)
        return opened(data, where, least)

    monkeypatch.setattr(image_file, "open_image", noted)
    again = load("folder", folder, size=(12, 10), in_memory=False)
    assert (decoded, again.fingerprint) == ([], first.fingerprint)
    changed = folder / "train/dog/3.jpg"
    status = changed.stat()
    changed.write_bytes(encoded(noise(20, 31, 3), "JPEG"))
    os.utime(changed, ns=(status.st_atime_ns, status.st_mtime_ns))
    other = load("folder", folder, size=(12, 10), in_memory=False)
    assert decoded == [str(changed)]
    assert other.fingerprint != first.fingerprint
    (cached,) = (storage.cache_folder() / "indices").iterdir()
    cached.write_bytes(cached.read_bytes()[:-100])
    assert load("folder", folder, size=(12, 10), in_memory=False).fingerprint == other.fingerprint
    assert len(decoded) == 1 + 42


def test_all_damaged_files_are_counted_and_the_first_named(tmp_path):
    files = photographs()
    names = [f"train/cat/{number}.jpg" for number in (1, 2, 3, 4, 5)]
    files |= {name: files[name][:-300] for name in names}
    message = refusal(load, "folder", written(tmp_path, files), size=(8, 8), in_memory=False)
    assert all(name in message for name in names[:3])
    assert "2 more" in message
    assert names[4] not in message
    # The whole files are known from then on.
    written(tmp_path, {name: photographs()[name] for name in names})
    assert len(load("folder", tmp_path, size=(8, 8), in_memory=False).train) == 28


def test_images_of_different_sizes_need_a_size(tmp_path):
    message = refusal(load, "folder", written(tmp_path, photographs()), in_memory=False)
    assert "data.size" in message
    arrays = tmp_path / "arrays.npz"
    np.savez(arrays, x_train=noise(4, 8, 8), y_train=np.arange(4) % 2)
    assert "in_memory" in refusal(load, "folder", arrays, in_memory=False)


def test_a_file_that_vanishes_or_shrinks_is_named_in_one_line(tmp_path):
    folder = written(tmp_path / "pets", photographs())
    images = load("folder", folder, size=(12, 10), in_memory=False).train.images
    augmented = AugmentedViews(images, Views(), seed=0)
    (folder / "train/cat/3.jpg").unlink()
    assert "3.jpg" in refusal(augmented, 0, np.arange(5))
    for workers in (0, 2):
        with augmented.loader(workers) as loader:
            requests = [(0, np.array([0, 1])), (0, np.array([2, 3])), (0, np.array([4]))]
            batches = loader.batches(requests)
            assert next(batches).shape == (2, 12, 10, 3)
            with pytest.raises(DataError, match=r"3\.jpg"):
                next(batches)
    archive = packed_tar(tmp_path / "pets", photographs())
    images = load("folder", archive, size=(12, 10), in_memory=False).train.images
    with archive.open("r+b") as file:
        file.truncate(2000)
    assert "shorter" in refusal(images.image, 20)


@pytest.mark.parametrize("bytes_in_memory", [0, 10**9])
def test_they_stay_in_files_if_they_are_too_large_for_memory(
    tmp_path, monkeypatch, bytes_in_memory
):
    monkeypatch.setattr(reader, "_IN_MEMORY_BYTES", bytes_in_memory)
    folder = written(tmp_path / "pets", photographs())
    data = load("folder", folder, size=(12, 10))
    assert isinstance(data.train.images, ImageFiles) == (not bytes_in_memory)
    data = load("folder", folder, size=(12, 10), originals=True)
    assert (data.train.images.decoded is None) == (not bytes_in_memory)
    pool = written(tmp_path / "pool", {"a/1.jpg": encoded(noise(30, 20, 3), "JPEG")})
    more, _ = unlabeled.read(pool, like=data.train.images)
    assert (more.decoded is None) == (not bytes_in_memory)
    assert more.shape == (1, 12, 10, 3)


def test_unlabeled_images_are_the_same_in_files_and_in_memory(tmp_path):
    gray = {f"train/{label}/{i}.png": encoded(noise(9, 9)) for label in "ab" for i in range(4)}
    data = load("folder", written(tmp_path / "gray", gray), size=(8, 8), in_memory=False)
    pool = written(tmp_path / "pool", photographs())
    files, notes = unlabeled.read(pool, like=data.train.images)
    memory, same_notes = unlabeled.read(pool, like=np.zeros((1, 8, 8, 1), np.uint8))
    assert isinstance(files, ImageFiles)
    assert notes == same_notes
    np.testing.assert_array_equal(files[:], memory)


def test_an_archive_without_compression_is_read_in_place(tmp_path):
    archive = packed_tar(tmp_path / "pets", photographs())
    memory = load("folder", archive, size=(12, 10), in_memory=True)
    images = load("folder", archive, size=(12, 10), in_memory=False).train.images
    assert bytes(images.index.paths[0]).endswith(b"pets.tar")
    again = pickle.loads(pickle.dumps(images))  # for workers that are started anew
    np.testing.assert_array_equal(again[:], memory.train.images)
    assert images.digest() == again.digest() != images.take(np.s_[1:]).digest()


def test_workers_are_for_files_and_transforms(monkeypatch):
    monkeypatch.setattr(augmented_views, "default_workers", lambda: 2)
    arrays = noise(4, 8, 8, 3)
    for views, workers in ((Views(), 0), (Views(hue=0.1), 2)):
        with AugmentedViews(arrays, views, seed=0).loader(None) as loader:
            assert loader._workers == workers


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("pack", [written, packed_gz])
def test_damaged_images_are_refused_together_or_left_out_with_a_note(tmp_path, pack, in_memory):
    files = photographs()
    names = [f"train/cat/{number}.jpg" for number in (1, 2, 3, 4)]
    damaged = files | {name: files[name][:-300] for name in names}
    place = pack(tmp_path / "pets", damaged)
    how = {"size": (8, 8), "in_memory": in_memory}
    message = refusal(load, "folder", place, **how)
    assert all(part in message for part in (*names[:3], "4 images", "1 more", "--skip-damaged"))
    whole = {name: data for name, data in files.items() if name not in names}
    expected = load("folder", pack(tmp_path / "whole", whole), **how)
    for _ in range(2):  # also from the cache
        found = load("folder", place, skip_damaged=True, **how)
        assert found.fingerprint == expected.fingerprint
        np.testing.assert_array_equal(found.train.images[:], expected.train.images[:])
        (note,) = (note for note in found.notes if "damaged" in note)
        assert "4 of 42" in note
        assert names[0] in note
    gone = damaged | {f"test/dog/{number}.jpg": b"" for number in range(7)}
    message = refusal(load, "folder", pack(tmp_path / "gone", gone), skip_damaged=True, **how)
    assert "test image of class 'dog'" in message


def test_damaged_unlabeled_images_are_left_out_with_a_note(tmp_path):
    pool = written(tmp_path, {"a.jpg": encoded(noise(9, 9, 3), "JPEG"), "b.jpg": b"\xff\xd8\xff"})
    like = np.zeros((1, 8, 8, 3), np.uint8)
    assert "b.jpg" in refusal(unlabeled.read, pool, like=like)
    images, notes = unlabeled.read(pool, like=like, skip_damaged=True)
    assert images.shape == (1, 8, 8, 3)
    assert "b.jpg" in notes[0]
    (pool / "a.jpg").write_bytes(b"\xff\xd8\xff")
    assert "2 images" in refusal(unlabeled.read, pool, like=like, skip_damaged=True)


def test_odd_images_are_the_same_in_files_and_in_memory(tmp_path):
    """CMYK, 16 bits, palettes, transparency, EXIF turns, 8,000 pixels, names beyond ASCII."""
    colors = noise(30, 40, 3)
    exif = Image.Exif()
    exif[0x0112] = 8
    palette = Image.fromarray(colors).quantize(16)
    clear = Image.fromarray(noise(30, 40, 4), "RGBA")
    deep = Image.fromarray((noise(30, 40).astype(np.uint16) << 8) + 77)
    large = Image.fromarray(colors).resize((8000, 6000))
    odd = {
        "cmyk.jpg": (Image.fromarray(colors).convert("CMYK"), {}),
        "sixteen bits.png": (deep, {}),
        "palette.gif": (palette, {}),
        "clear.png": (clear, {}),
        "turned.jpg": (Image.fromarray(colors), {"exif": exif}),
        "8000.jpg": (large, {"quality": 80}),
        "Übung 写真 #1.jpg": (Image.fromarray(colors), {}),
        "one pixel.png": (Image.fromarray(colors[:1, :1]), {}),
    }
    for part in ("train", "test"):
        for label in ("Käfer", "猫"):
            folder = tmp_path / "data" / part / label
            folder.mkdir(parents=True)
            for name, (image, options) in odd.items():
                image.save(folder / name, **options)
    memory, files = (
        load("folder", tmp_path / "data", size=Geometry((24, 32), "crop"), in_memory=in_memory)
        for in_memory in (True, False)
    )
    assert memory.classes == files.classes == ("Käfer", "猫")
    np.testing.assert_array_equal(memory.train.images, files.train.images[:])
    crops = load("folder", tmp_path / "data", size=(24, 32), originals=True, in_memory=False)
    views = AugmentedViews(crops.train.images, ALL, seed=0)
    assert views(0, np.arange(16)).shape == (16, 24, 32, 3)
    with views.loader(2) as loader:
        (batch,) = loader.batches([(0, np.arange(16))])
    np.testing.assert_array_equal(batch, views(0, np.arange(16)))


@pytest.mark.parametrize("in_memory", [True, False])
def test_too_few_classes_and_images_are_refused_alike(tmp_path, in_memory):
    one = written(tmp_path / "one", {f"cat/{i}.png": encoded(noise(8, 8, 3)) for i in range(4)})
    assert "two classes" in refusal(load, "folder", one, in_memory=in_memory)
    files = {f"{label}/{i}.png": encoded(noise(8, 8, 3)) for label in "ab" for i in range(2)}
    two = written(tmp_path / "two", files)
    assert "has only 2" in refusal(load, "folder", two, in_memory=in_memory)
