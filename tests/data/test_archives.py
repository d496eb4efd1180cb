"""Folders and archives are the same data; archives that can't be trusted."""

import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.example_data import (
    RANDOM,
    encoded,
    noise,
    picture_files,
    refusal,
    same,
    tarred,
    written,
    zipped,
)
from tutelage.data.datasets import load
from tutelage.errors import DataError


def test_archives_and_folders_of_the_same_files_are_the_same_data(tmp_path):
    files = picture_files()
    junk = {"README.txt": b"hello", "__MACOSX/train/cat/._0.png": b"x", ".DS_Store": b"x"}
    junk |= {"train/cat/Thumbs.db": b"x", "train/.hidden/0.png": b"x"}
    folder = written(tmp_path / "pets", files)
    wrapped = {f"pets/{name}": data for name, data in files.items()}
    shuffled = dict(reversed(files.items()))
    sources = [
        folder,
        written(tmp_path / "wrapped", wrapped | {"pets/README.txt": b"hello"}),
        tarred(tmp_path / "pets.tar", files, "w"),
        tarred(tmp_path / "pets.tar.gz", files | junk),
        tarred(tmp_path / "pets.tar.xz", wrapped | junk, "w:xz"),
        zipped(tmp_path / "pets.zip", shuffled | junk),
        zipped(tmp_path / "wrapped.zip", wrapped),
        tarred(tmp_path / "dotted.tar", {f"./{name}": data for name, data in files.items()}, "w"),
    ]
    first = load("folder", folder)
    assert (first.name, first.classes) == ("pets", ("cat", "dog"))
    for which in ("train", "test"):
        part = getattr(first, which)
        expected = [
            np.asarray(Image.open(folder / which / label / f"{number}.png"))
            for label in ("cat", "dog")
            for number in range(5)
        ]
        np.testing.assert_array_equal(part.images, expected)
        assert part.labels.tolist() == [0] * 5 + [1] * 5
    for source in sources[1:]:
        same(first, load("folder", source))
    files["train/cat/0.png"] = encoded(noise(6, 6, 3))
    changed = load("folder", tarred(tmp_path / "changed.tar", files, "w"))
    assert changed.fingerprint != first.fingerprint


def test_the_kind_of_a_file_is_told_by_its_content(tmp_path):
    files = picture_files()
    path = zipped(tmp_path / "pets.tar.gz", files)
    same(load("folder", path), load("folder", tarred(tmp_path / "pets.zip", files, "w:xz")))


@pytest.mark.parametrize("name", ["/etc/0.png", "train/../../0.png", "C:\\0.png", "..\\0.png"])
def test_a_member_outside_of_the_archive_is_refused(tmp_path, name):
    files = picture_files() | {name: b"x"}
    for path in (tarred(tmp_path / "a.tar", files, "w"), zipped(tmp_path / "a.zip", files)):
        message = refusal(load, "folder", path)
        assert "points outside" in message
        assert repr(name) in message


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_a_link_in_a_tar_is_refused(tmp_path, kind):
    path = tarred(tmp_path / "a.tar", picture_files(), "w")
    with tarfile.open(path, "a") as archive:
        info = tarfile.TarInfo("train/cat/link.png")
        info.type, info.linkname = kind, "train/cat/0.png"
        archive.addfile(info)
    assert "'train/cat/link.png' is a link" in refusal(load, "folder", path)


def test_a_link_or_a_repeated_name_in_a_zip_is_refused(tmp_path):
    path = zipped(tmp_path / "a.zip", picture_files())
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo("train/cat/link.png")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    assert "'train/cat/link.png' is a link" in refusal(load, "folder", path)
    path = tarred(tmp_path / "a.tar", picture_files(), "w")
    with tarfile.open(path, "a") as archive:
        archive.addfile(tarfile.TarInfo("train/cat/0.png"))
    assert "'train/cat/0.png' occurs twice" in refusal(load, "folder", path)


@pytest.mark.parametrize("kind", ["w", "w:gz", "w:xz", "w:bz2", "zip"])
def test_an_archive_cut_anywhere_is_refused(tmp_path, kind):
    files = picture_files(side=3)
    whole = tmp_path / "whole"
    path = zipped(whole, files) if kind == "zip" else tarred(whole, files, kind)
    data = path.read_bytes()
    # The zeros that fill a plain tar's last record tell nothing.
    end = len(data.rstrip(b"\0")) if kind == "w" else len(data)
    cut = tmp_path / "cut"
    for length in [*range(0, end, end // 40), end - 1]:
        cut.write_bytes(data[:length])
        assert str(cut) in refusal(load, "folder", cut)


def test_a_flipped_bit_in_an_archive_is_never_taken_for_the_same_data(tmp_path):
    files = picture_files(side=3)
    for path in (zipped(tmp_path / "a.zip", files), tarred(tmp_path / "a.tar", files, "w")):
        data = path.read_bytes()
        first = load("folder", path)
        for place in RANDOM.integers(0, len(data.rstrip(b"\0")), 60).tolist():
            damaged = bytearray(data)
            damaged[place] ^= 1 << place % 8
            path.write_bytes(damaged)
            try:
                loaded = load("folder", path)
            except DataError as error:
                assert "\n" not in str(error)  # noqa: PT017
            else:
                if loaded.fingerprint == first.fingerprint:
                    same(loaded, first)


def test_folders_may_hold_links(tmp_path):
    files = picture_files()
    folder = written(tmp_path / "pets", files)
    linked = tmp_path / "linked"
    linked.mkdir()
    for part in ("train", "test"):
        try:
            Path(linked / part).symlink_to(folder / part, target_is_directory=True)
        except OSError:
            pytest.skip("this system makes no links")
    same(load("folder", folder), load("folder", linked))
