"""Runs and sweeps whose teacher's largest logits alone are stored."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tutelage import cli, recipe
from tutelage.data.datasets import Dataset, Part
from tutelage.distillation import logit_cache, stored_classes
from tutelage.distillation.logit_cache import LogitCache
from tutelage.errors import RecipeError
from tutelage.experiment import stages
from tutelage.experiment.prepare import prepare
from tutelage.experiment.spec import StageSpec
from tutelage.progress import Progress
from tutelage.sweeps import runner, search_space
from tutelage.sweeps.worker import losses
from tutelage.training.trainer import DistillationTargets

CLASSES = 64
SHORT: dict[str, Any] = {
    "schedule.teacher.epochs": 1,
    "schedule.student.epochs": 2,
    "schedule.student.batch_size": 64,
    "views.shift": 0,
    "loss.alpha": 0.5,
    "loss.temperature": 1.0,
}


class Notes(Progress):
    def __init__(self) -> None:
        self.told: list[str] = []

    def note(self, text: str) -> None:
        self.told.append(text)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))


def patterns() -> np.ndarray:
    """One image of random black and white pixels for each class."""
    return np.random.default_rng(0).integers(0, 2, (CLASSES, 8, 8, 1))


def images() -> Dataset:
    labels = np.arange(8 * CLASSES) % CLASSES
    noise = np.random.default_rng(1).integers(0, 100, (len(labels), 8, 8, 1))
    part = Part((150 * patterns()[labels] + noise).astype(np.uint8), labels)
    few = part.take(slice(CLASSES))
    return Dataset("patterns", tuple(map(str, range(CLASSES))), part, few, "", "")


def sure(scale: float = 10.0) -> keras.Model:
    """A teacher that compares an image with each pattern; at a large scale it is sure of one."""
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 125, offset=-1)(inputs))
    dense = keras.layers.Dense(CLASSES)
    model = keras.Model(inputs, dense(x))
    kernel = (2 * patterns().reshape(CLASSES, 64).T - 1) / 64
    dense.set_weights([scale * 1.5 * kernel, np.zeros(CLASSES)])
    return model


def student_stage(teacher: keras.Model | None = None, **settings: Any) -> StageSpec:
    given = {f"loss.{key}": value for key, value in settings.items()}
    return prepare(recipe.load("digits", SHORT | given), data=images(), teacher=teacher).stage(
        "student"
    )


def targets(stage: StageSpec, tmp_path: Path) -> tuple[DistillationTargets, list[str]]:
    assert stage.targets is not None
    assert stage.targets.given is not None
    path, notes = tmp_path / "teacher.keras", Notes()
    stage.targets.given.model.save(path)
    return stages.targets(stage, path, notes)[0], notes.told


def kept() -> list[int]:
    return [entry["origin"].get("kept", 0) for entry in logit_cache.stored()]


def test_many_logits_are_reduced_to_the_largest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = student_stage(sure())
    whole, notes = targets(stage, tmp_path)
    assert kept() == [0]
    assert any("64 classes: " in note for note in notes)
    monkeypatch.setattr(stored_classes, "SMALL", 0)
    reduced, notes = targets(stage, tmp_path)
    assert sorted(kept()) == [0, 10]
    (note,) = [note for note in notes if "largest" in note]
    assert re.search(
        r"2 views of \d+ images, the 10 largest of 64 classes \(KL .* at T = 1\)", note
    )
    assert student_stage(sure()).key == stage.key  # which does not depend on it
    index = np.arange(10)
    assert whole.logits is not None
    assert reduced.logits is not None
    for view in range(2):
        one, other = (x.logits.logits(view, index) for x in (whole, reduced) if x.logits)
        np.testing.assert_array_equal(one.argmax(axis=1), other.argmax(axis=1))
        largest = np.argsort(one, axis=1)[:, -10:]
        one, other = (np.take_along_axis(x, largest, 1) for x in (one, other))
        np.testing.assert_array_equal(one, other)
    # A teacher whose other classes have much of the mass: all, and why.
    _, notes = targets(student_stage(sure(scale=3.0)), tmp_path)
    assert sorted(kept()) == [0, 0, 10]
    assert any("64 classes (the 10 largest would take" in note for note in notes)


def test_logits_are_read_at_the_recipes_temperature(tmp_path: Path) -> None:
    stage = student_stage(sure(), stored_classes=5, temperature=3.0)
    found, notes = targets(stage, tmp_path)
    assert isinstance(found.logits, LogitCache)
    assert (found.logits.origin.kept, found.logits.temperature) == (5, 3.0)
    assert any("the 5 largest of 64 classes" in note for note in notes)
    other = student_stage(sure(), stored_classes=5, temperature=2.0)
    shared = stages.shared_targets(other, found)
    assert isinstance(shared.logits, LogitCache)
    assert (shared.logits.folder, shared.logits.temperature) == (found.logits.folder, 2.0)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"name": "dkd"}, "dkd weights"),
        ({"name": "nkd"}, "nkd normalizes"),
        ({"name": "dist"}, "dist correlates"),
        ({"name": "standardized-kd"}, "standardized-kd divides"),
        ({"more": [{"name": "kd", "temperature": 4.0}]}, "losses have 1 and 4"),
        ({"more": [{"name": "tutelage.losses:KD"}]}, "tutelage.losses:KD"),
    ],
)
def test_losses_that_need_all_classes_say_so(
    tmp_path: Path, settings: dict[str, Any], reason: str
) -> None:
    _, notes = targets(student_stage(sure(), stored_classes=5, **settings), tmp_path)
    (note,) = [note for note in notes if note.startswith("loss.stored_classes = 5")]
    assert reason in note
    assert kept() == [0]


def test_a_choice_without_stored_logits_is_noted(tmp_path: Path) -> None:
    _, notes = targets(student_stage(sure(), stored_classes=5, more=[{"name": "rkd"}]), tmp_path)
    assert any("loss.stored_classes = 5: not used" in note for note in notes)
    assert kept() == []


def test_all_classes_are_all(tmp_path: Path) -> None:
    _, notes = targets(student_stage(sure(), stored_classes=CLASSES), tmp_path)
    assert kept() == [0]
    assert not any("largest" in note for note in notes)


@pytest.mark.parametrize(("value", "offender"), [(11, "10"), (0, "0"), (2.5, "2.5")])
def test_impossible_choices_are_refused(value: float, offender: str) -> None:
    with pytest.raises(RecipeError, match=rf"loss\.stored_classes: .*{offender}"):
        prepare(recipe.load("digits", {"loss.stored_classes": value}))


def test_a_sweep_over_temperatures_has_one_cache_of_its_images(tmp_path: Path) -> None:
    digits = recipe.load("digits", SHORT | {"loss.stored_classes": 3})
    plan = search_space.plan(digits, temperature="1,4")
    results = runner.run(prepare(digits), plan, tmp_path / "sweep")
    assert len(results["trials"]) == 3
    entries = list(logit_cache.stored())
    # The sweep's training images, and for the best setting those with the validation images.
    assert len({entry["origin"]["images"] for entry in entries}) == len(entries) == 2
    assert kept() == [3, 3]


def test_a_sweep_measures_at_all_of_its_temperatures_and_methods() -> None:
    base = recipe.load("digits", {"loss.stored_classes": 3, "loss.temperature": 2.0}).loss

    def plan(**axes: Any) -> list[tuple[str, float | None, int | None]]:
        made = search_space.plan(recipe.load("digits"), **axes)
        return [(x.name, x.temperature, x.stored_classes) for x in losses(made, base)]

    assert plan(temperature="1,4") == [("kd", 1.0, 3), ("kd", 4.0, 3)]
    assert plan(method="kd,dkd") == [("kd", 2.0, 3), ("dkd", None, 3)]
    spanned = plan(temperature="1:16", search="random", trials=2)
    assert [degree for _, degree, _ in spanned] == pytest.approx([1, 2, 4, 8, 16])


def test_the_commands_show_what_is_stored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = SHORT | {"loss.stored_classes": 3}
    flags = [f"--set={key}={json.dumps(value)}" for key, value in settings.items()]
    assert cli.main(["run", "digits", *flags, f"--out={tmp_path}/run"]) == 0
    shown = capsys.readouterr().err
    assert "teacher logits: 2 views of 1,221 images, the 3 largest of 10 classes (" in shown
    assert "MB free" in shown
    (entry,) = logit_cache.stored()
    folder = Path(entry["folder"])
    (folder / "00001.npy").rename(folder / "00001.part")
    assert cli.main(["cache"]) == 0
    line = "1 views of 1,221 images (1 more in part), the 3 largest of 10 classes"
    assert line in capsys.readouterr().out
    assert cli.main(["cache", "--json"]) == 0
    (row,) = [row for row in json.loads(capsys.readouterr().out) if row["kind"] == "logits"]
    assert (row["views"], row["parts"], row["origin"]["kept"]) == (1, 1, 3)
