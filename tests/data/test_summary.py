"""What a folder of images contains, without decoding it."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.data.example_data import encoded, noise, picture_files, tarred, written, zipped
from tutelage.data import datasets, image_file, summary
from tutelage.errors import DataError, DataNotFoundError
from tutelage.progress import Progress


def summarized(folder: Path, files: dict[str, bytes]) -> summary.ImageSummary:
    return summary.summarize(written(folder, files))


def rows(found: summary.ImageSummary) -> dict[str, str]:
    return dict(found.rows())


def turned(height: int, width: int, orientation: int, kind: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(noise(height, width, 3), kind, exif=exif)


def test_parts_and_classes_are_those_that_a_run_reads(tmp_path: Path) -> None:
    files = picture_files(side=6, count=5) | picture_files(count=2, parts=("val",))
    files |= {f"train/cat/more{n}.png": encoded(noise(6, 6)) for n in range(3)}
    found = summarized(tmp_path / "pets", files)
    data = datasets.load("folder", tmp_path / "pets")
    assert found.parts == {"train": 16 - 3, "validation": 4, "test": 10}
    assert len(data.train) == 13 + 4
    assert found.classes == {"cat": 8, "dog": 5}
    np.testing.assert_array_equal(found.labels, data.train.labels[:13])
    assert (found.sizes, found.gray) == (Counter({(6, 6): 27}), 3)
    assert found.notes == data.notes
    told = rows(found)
    assert told["images"] == "27: train 13, validation 4, test 10"
    assert told["classes"] == "2, of 5 (dog) to 8 (cat) training images"
    assert told["sizes"] == "all 6x6 (height x width)"
    assert told["colors"] == "24 color, 3 gray"
    assert "unreadable" not in told


@pytest.mark.parametrize("pack", [tarred, zipped])
def test_an_archive_has_the_summary_of_its_folder(tmp_path: Path, pack: Any) -> None:
    files = picture_files(parts=("train",))
    folder = summarized(tmp_path / "pets", files)
    packed = summary.summarize(pack(tmp_path / "pets.archive", files))
    assert folder.rows() == packed.rows()
    assert rows(packed)["images"].endswith("a fifth of train becomes the test set")


def test_sizes_are_those_of_the_decoded_images(tmp_path: Path) -> None:
    files = {
        f"{label}/{kind}{orientation}.{kind.lower()}": turned(5, 9, orientation, kind)
        for label in ("a", "b")
        for kind in ("JPEG", "WEBP", "TIFF")
        for orientation in (1, 3, 6, 8)
    }
    found = summarized(tmp_path / "turned", files)
    decoded = [image_file.decode(data, "", None)[0].shape[:2] for data in files.values()]
    assert found.sizes == Counter(decoded)
    assert set(found.sizes) == {(5, 9), (9, 5)}


def test_the_distribution_of_sizes_is_told(tmp_path: Path) -> None:
    sides = [(10, 20)] * 6 + [(4, 30), (12, 20)]
    files = {f"{'ab'[n % 2]}/{n}.png": encoded(noise(*side, 3)) for n, side in enumerate(sides)}
    assert rows(summarized(tmp_path / "sides", files))["sizes"] == (
        "height 4 to 12 (median 10), width 20 to 30 (median 20); 75 % are 10x20"
    )


def test_grayscale_is_what_a_run_reads_with_one_channel(tmp_path: Path) -> None:
    deep = Image.fromarray(np.full((6, 6), 40_000, np.uint16))
    (tmp_path / "deep").mkdir()
    deep.save(tmp_path / "deep" / "16.png")
    images = {
        "1": Image.new("1", (6, 6)),
        "L": Image.new("L", (6, 6)),
        "LA": Image.new("LA", (6, 6)),
        "RGB": Image.new("RGB", (6, 6)),
        "RGBA": Image.new("RGBA", (6, 6)),
    }
    for label in ("a", "b"):
        (tmp_path / "all" / label).mkdir(parents=True)
        deep.save(tmp_path / "all" / label / "16.png")
        for mode, image in images.items():
            image.save(tmp_path / "all" / label / f"{mode}.png")
    channels = [
        image_file.decode(path.read_bytes(), "", None)[0].shape[2]
        for path in sorted((tmp_path / "all").rglob("*.png"))
    ]
    assert summary.summarize(tmp_path / "all").gray == channels.count(1) == 8


def test_pixels_are_not_read_and_headers_that_can_not_be_are_counted(tmp_path: Path) -> None:
    files = picture_files(side=40, parts=("train",))
    whole = encoded(noise(40, 40, 3))
    cut = {f"train/cat/cut{n}.png": whole[:200] for n in range(2)}  # the header is there
    broken = {f"train/dog/broken{n}.png": b"no picture" for n in range(5)}
    wide = Image.fromarray(np.zeros((40, 40), np.int32))
    (tmp_path / "pets" / "train" / "dog").mkdir(parents=True)
    wide.save(tmp_path / "pets" / "train" / "dog" / "wide.tif")
    found = summarized(tmp_path / "pets", files | cut | broken)
    assert found.sizes == Counter({(40, 40): 12})
    assert len(found.unreadable) == 6
    told = rows(found)["unreadable"]
    assert told.startswith("6, which a run refuses: 'train/dog/broken0.png'")
    assert told.endswith("and 3 more")
    with pytest.raises(DataError):
        datasets.load("folder", tmp_path / "pets")


def test_the_training_labels_are_those_of_a_run(tmp_path: Path) -> None:
    for name, parts in (("alone", ("train",)), ("both", ("train", "test"))):
        folder = written(tmp_path / name, picture_files(count=10, parts=parts))
        expected = datasets.load("folder", folder).train.labels
        found = summary.training_labels(summary.summarize(folder))
        np.testing.assert_array_equal(found, expected)
    test_only = written(tmp_path / "test_only", picture_files(parts=("test",)))
    with pytest.raises(DataError, match="training images"):
        summary.training_labels(summary.summarize(test_only))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    folder = written(tmp_path / "pets", picture_files())
    (folder / "train" / "cat" / "0.png").chmod(0)
    with pytest.raises(DataError, match=r"0\.png"):
        summary.summarize(folder)


def test_what_is_no_folder_of_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match="absent"):
        summary.summarize(tmp_path / "absent")
    with pytest.raises(DataError, match="one"):
        summarized(tmp_path / "one", {"cat/1.png": encoded(noise(6, 6))})
    np.savez(tmp_path / "arrays.npz", x_train=noise(4, 6, 6), y_train=np.arange(4) % 2)
    with pytest.raises(DataError, match=r"arrays.*arrays\.npz"):
        summary.summarize(tmp_path / "arrays.npz")


def test_reading_many_headers_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Heard(Progress):
        steps = 0

        def step(self, step: int, logs: object) -> None:
            self.steps = step

    monkeypatch.setattr(summary, "_SHOWN", 9)
    folder = written(tmp_path / "pets", picture_files(parts=("train",)))
    heard = Heard()
    summary.summarize(folder, heard)
    assert heard.steps == 10
