"""Recipes written for a folder of images."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tutelage import recipe
from tutelage.data.summary import ImageSummary
from tutelage.errors import DataError, RecipeError, RunError
from tutelage.experiment import template


def images(
    count: int = 1000,
    sizes: dict[tuple[int, int], int] | None = None,
    classes: int = 4,
    gray: int = 0,
    **changes: Any,
) -> ImageSummary:
    """A summary of images that have a test part of their own."""
    labels = np.arange(count) % classes
    numbers = np.bincount(labels, minlength=classes).tolist()
    given = {
        "path": "photos",
        "classes": {f"class {n}": number for n, number in enumerate(numbers)},
        "labels": labels,
        "parts": {"train": count, "test": 100},
        "sizes": Counter({(32, 32): count + 100} if sizes is None else sizes),
        "gray": gray,
        "unreadable": (),
        "notes": (),
    }
    return ImageSummary(**given | changes)


def loaded(summary: ImageSummary, tmp_path: Path) -> recipe.Recipe:
    file = tmp_path / "recipe.toml"
    file.write_text(template.template(summary, file), encoding="utf-8")
    return recipe.load(file)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({(28, 28): 5}, (28, 28)),
        ({(8, 60): 5}, (8, 60)),
        ({(64, 64): 5}, (64, 64)),
        ({(7, 20): 5}, (32, 32)),  # too small for the models
        ({(100, 100): 5}, (96, 96)),
        ({(48, 65): 5}, (64, 64)),
        ({(224, 224): 5}, (128, 128)),
        ({(1200, 1600): 5}, (128, 128)),
        ({(28, 28): 5, (28, 29): 1}, (32, 32)),
        ({(300, 100): 5, (400, 90): 4, (64, 2000): 1}, (96, 96)),
        ({(500, 500): 3, (10, 10): 4}, (32, 32)),
    ],
)
def test_images_are_resized_to_multiples_unless_they_are_small_and_equal(
    tmp_path: Path, sizes: dict[tuple[int, int], int], expected: tuple[int, int]
) -> None:
    assert loaded(images(sizes=sizes), tmp_path).data.size == expected


def test_photographs_are_cropped_not_stretched(tmp_path: Path) -> None:
    large, small = (loaded(images(sizes={size: 5}), tmp_path) for size in ((400, 533), (32, 32)))
    assert (large.data.resize, large.views.crop, large.views.shift) == ("crop", "random-resized", 0)
    base = recipe.load(template.BASE)
    assert (small.data.resize, small.views) == (None, base.views)


@pytest.mark.parametrize(
    ("count", "validation", "batch", "epochs"),
    [
        (60, 0.2, 16, (84, 60)),
        (1000, 0.2, 16, (28, 20)),
        (1250, 0.2, 32, (46, 33)),
        (4000, 0.1, 64, (28, 20)),
        (8000, 0.1, 128, (28, 20)),
        (50_000, 0.05, 128, (28, 20)),
    ],
)
def test_few_images_have_small_batches_and_more_epochs(
    tmp_path: Path, count: int, validation: float, batch: int, epochs: tuple[int, int]
) -> None:
    told = loaded(images(count), tmp_path)
    teacher, student = told.schedule.teacher, told.schedule.student
    assert told.data.validation == validation
    assert (teacher.batch_size, student.batch_size) == (batch, batch)
    assert (teacher.epochs, student.epochs) == epochs


def test_everything_else_is_the_bases(tmp_path: Path) -> None:
    told = recipe.to_dict(loaded(images(50_000), tmp_path))
    base = recipe.to_dict(recipe.load(template.BASE))
    assert told["data"].pop("size") == [32, 32]
    assert told["data"].pop("path") == "photos"
    base["data"].pop("path")
    assert told["data"].pop("validation") != base["data"].pop("validation")
    assert told == base


def test_a_class_of_few_images_gets_a_larger_fraction_of_validation_images(tmp_path: Path) -> None:
    labels = np.repeat([0, 1], [100, 4])
    few = images(labels=labels, parts={"train": 104, "test": 9})
    assert loaded(few, tmp_path).data.validation == 0.2
    assert loaded(
        images(labels=np.repeat([0, 1], [100, 2]), parts={"train": 102, "test": 9}), tmp_path
    ).data.validation > 0.2  # fmt: skip
    with pytest.raises(DataError, match="class 1"):
        template.template(images(labels=np.repeat([0, 1], [100, 1])), tmp_path)


def test_validation_images_of_its_own_need_no_fraction(tmp_path: Path) -> None:
    own = images(parts={"train": 1000, "validation": 50, "test": 60})
    assert "not used" in template.template(own, tmp_path)
    assert loaded(own, tmp_path).data.validation == recipe.load(template.BASE).data.validation


@pytest.mark.parametrize("path", ['a "b"', "back\\slash", "tab\t", "größe ☃", "red\x1b[31m", "'"])
def test_odd_names_are_written_so_that_they_are_read_again(tmp_path: Path, path: str) -> None:
    odd = images(path=path, notes=(f"the class of folder {path!r}\nis odd",))
    assert loaded(odd, tmp_path).data.path == path
    lines = template.template(odd, tmp_path).split("\n")
    assert all(line.isprintable() for line in lines)


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="UTF-8"):
        template.template(images(path="caf\udce9"), tmp_path)


def test_images_without_a_readable_header_are_refused(tmp_path: Path) -> None:
    broken = images(unreadable=("a/0.png",), sizes=Counter())
    with pytest.raises(DataError, match=r"0\.png"):
        template.template(broken, tmp_path)


def test_no_file_is_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    template.write(file, images())
    assert recipe.load(file).name == "recipe"
    text = file.read_text(encoding="utf-8")
    for call in (lambda: template.write(file, images(9000)), lambda: template.check_target(file)):
        with pytest.raises(RecipeError, match=str(file)):
            call()
    assert file.read_text(encoding="utf-8") == text
    with pytest.raises(RecipeError, match="digits"):
        template.check_target(tmp_path / "digits")
    with pytest.raises(RunError, match="none"):
        template.check_target(tmp_path / "none" / "recipe.toml")
    with pytest.raises(RunError, match="none"):
        template.write(tmp_path / "none" / "recipe.toml", images())
