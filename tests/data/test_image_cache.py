"""Decoded images in the cache."""

import logging

import numpy as np
import pytest

from tests.data.example_data import (
    cached,
    encoded,
    noise,
    picture_files,
    refusal,
    same,
    tarred,
    written,
    zipped,
)
from tutelage.data import decoding, image_file
from tutelage.data.datasets import load


def test_decoded_images_are_read_from_the_cache(tmp_path, monkeypatch):
    path = tarred(tmp_path / "pets.tar.xz", picture_files(), "w:xz")
    first = load("folder", path)
    assert len(cached(tmp_path)) == 1
    monkeypatch.setattr(decoding, "decode", None)  # nothing is decoded any more
    same(first, load("folder", path))


@pytest.mark.parametrize("pack", [written, tarred, zipped])
def test_a_split_that_can_not_be_is_refused_alike_with_and_without_the_cache(tmp_path, pack):
    files = picture_files(parts=("train",)) | {"train/emu/0.png": encoded(noise(6, 6, 3))}
    place = pack(tmp_path / "pets", files)
    cold = refusal(load, "folder", place)
    assert len(load("folder", place, whole=True).test) == 11
    assert len(cached(tmp_path)) == 1
    assert refusal(load, "folder", place) == cold
    assert load("folder", place, whole=True).notes == load("folder", place, whole=True).notes


@pytest.mark.parametrize("pack", [written, tarred, zipped])
def test_a_pillow_that_can_not_read_a_format_refuses_it_whatever_the_cache_has(
    tmp_path, monkeypatch, pack
):
    place = pack(tmp_path / "pets", picture_files())
    load("folder", place)
    monkeypatch.setattr(image_file, "FORMATS", ("JPEG",))
    assert "0.png: expected an image" in refusal(load, "folder", place)


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text"])
def test_a_damaged_cache_is_made_again(tmp_path, caplog, damage):
    path = tarred(tmp_path / "pets.tar.xz", picture_files(), "w:xz")
    first = load("folder", path)
    (kept,) = cached(tmp_path)
    data = kept.read_bytes()
    middle = data.index(first.train.images.tobytes()) + 7
    flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    damaged = {"cut": data[: len(data) // 2], "flip": flipped, "empty": b"", "text": b"hello"}
    kept.write_bytes(damaged[damage])
    with caplog.at_level(logging.WARNING):
        same(first, load("folder", path))
    assert "decoding the images again" in caplog.text
    assert kept.read_bytes() != damaged[damage]
    same(first, load("folder", path))


def test_a_cache_that_can_not_be_written_is_only_warned_of(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "file" / "cache"))
    path = tarred(tmp_path / "pets.tar.xz", picture_files(), "w:xz")
    assert len(load("folder", path).train) == 10
    assert "not cached" in caplog.text


def test_a_changed_folder_is_not_read_from_the_cache(tmp_path):
    folder = written(tmp_path / "pets", picture_files())
    first = load("folder", folder)
    pixels = noise(6, 6, 3)
    (folder / "train/cat/0.png").write_bytes(encoded(pixels))
    second = load("folder", folder)
    np.testing.assert_array_equal(second.train.images[0], pixels)
    assert second.fingerprint != first.fingerprint
