"""The picture of augmented views."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.data.example_data import encoded, noise, written
from tutelage import cli
from tutelage.data.augmented_views import AugmentedViews
from tutelage.recipe import Views
from tutelage.report import contact_sheet

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 9, 7, 3), dtype=np.uint8)


def test_each_row_is_an_image_and_its_views():
    views = AugmentedViews(IMAGES, Views(shift=3), seed=1)
    names = ["a", "b", "caf\u00e9 \u4e2d"]
    sheet = contact_sheet.draw(views, np.arange(12) % 3, names, rows=3, columns=4)
    pixels = np.asarray(sheet)
    factor = 11  # the least that gives 96 pixels
    for row, number in enumerate((0, 1, 2)):
        top = 4 + row * (9 * factor + 18) + 14
        expected = [IMAGES[number]] + [views(k, np.array([number]))[0] for k in range(4)]
        for column, image in enumerate(expected):
            left = 4 + column * (7 * factor + 4)
            cell = pixels[top : top + 9 * factor, left : left + 7 * factor]
            np.testing.assert_array_equal(cell[::factor, ::factor], image)


@pytest.mark.parametrize(
    ("rows", "kinds"), [(2, {0, 4}), (5, {0, 1, 2, 3, 4}), (99, set(range(5)))]
)
def test_images_are_of_as_many_classes_as_possible(rows, kinds):
    labels = np.repeat(np.arange(5), 4)
    chosen = contact_sheet._spread(labels, min(rows, 20))
    assert set(labels[chosen].tolist()) == kinds
    assert len(chosen) == len(set(chosen.tolist())) == min(rows, 20)


def test_the_command_draws_a_folder(tmp_path, capsys):
    files = {
        f"{part}/{label}/{i}.jpg": encoded(noise(20 + i, 30, 3), "JPEG")
        for part in ("train", "test")
        for label in ("cat", "dog")
        for i in range(12)
    }
    data = ["views", "--data", str(written(tmp_path / "pets", files))]
    shown = ["--set", "data.size=[16,16]", "--set", "views.crop=random-resized"]
    out = tmp_path / "sheet.png"
    assert cli.main([*data, *shown, "--out", str(out), "--rows", "2", "--columns", "3"]) == 0
    assert str(out) in capsys.readouterr().out
    with Image.open(out) as sheet:
        assert sheet.size == (4 * 100 + 4, 2 * 114 + 4)
    first = out.read_bytes()
    assert cli.main([*data, *shown, "--out", str(out), "--rows", "2", "--columns", "3"]) == 0
    assert out.read_bytes() == first
    for wrong, named in (
        (["--out", str(tmp_path / "sheet.txt")], "sheet.txt"),
        (["--role", "pupil"], "pupil"),
        (["--set", "views.shift=16"], "views.shift"),
    ):
        assert cli.main([*data, *shown, *wrong]) == 2
        assert named in capsys.readouterr().err
