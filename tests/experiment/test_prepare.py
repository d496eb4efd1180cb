"""Networks and losses of one's own in a run."""

from __future__ import annotations

import json
import linecache
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import tutelage
from tutelage import recipe
from tutelage.data import datasets
from tutelage.errors import ModelError, RecipeError, RunError, TutelageError
from tutelage.experiment.prepare import prepare
from tutelage.models import loading, stored_logits
from tutelage.progress import EpochLog, Progress

SCHEDULE = {"epochs": 2, "batch_size": 64, "learning_rate": 0.05}
SETTINGS: dict[str, object] = {
    f"schedule.{role}.{key}": value
    for role in ("teacher", "student")
    for key, value in SCHEDULE.items()
} | {"schedule.student.weight_decay": 0.005}
CODE = """
import keras
SCALE = {scale}

@keras.saving.register_keras_serializable("{name}")
class Scaled(keras.layers.Layer):
    def call(self, x):
        return x * SCALE

def network(input_shape, classes, *, units={units}):
    keras.utils.set_random_seed(7)  # the same weights, whatever the run's seed
    return keras.Sequential([
        keras.Input(input_shape), Scaled(), keras.layers.Flatten(),
        keras.layers.Dense(units, "relu"), keras.layers.Dense(classes),
    ])

def seeded(classes):
    return keras.Sequential([
        keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(classes)
    ])

def module():
    import torch
    return torch.nn.Linear(64, 10)
"""


class Notes(Progress):
    """Keeps what it hears; dies at an epoch of a stage, if one is named."""

    def __init__(self, dies_at: tuple[str, int] = ("", 0)) -> None:
        self.told: list[str] = []
        self.trained: list[tuple[str, int]] = []
        self.dies_at, self.name = dies_at, ""

    def note(self, text: str) -> None:
        self.told.append(text)

    def stage(self, name: str, epochs: int, done: int, steps: int, unit: str = "epoch") -> None:
        self.name = name

    def epoch(self, row: EpochLog) -> None:
        if self.name in ("teacher", "baseline", "student"):
            self.trained.append((self.name, int(row["epoch"])))
        if (self.name, int(row["epoch"])) == self.dies_at:
            raise KeyboardInterrupt


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Write a module of networks into the current folder and give its name."""
    monkeypatch.chdir(tmp_path)
    name = f"networks_{tmp_path.name}".replace("-", "_")

    def write(scale: float = 1 / 255, units: int = 16) -> str:
        text = CODE.format(scale=scale, units=units, name=name)
        (tmp_path / f"{name}.py").write_text(text)
        shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)  # as new as the source
        monkeypatch.delitem(sys.modules, name, raising=False)
        return name

    return write


def run(out: Path, progress: Progress | None = None, **settings: object) -> Any:
    named = {key.replace("__", "."): value for key, value in settings.items()}
    return tutelage.run("digits", settings=SETTINGS | named, out=out, progress=progress)


def weights(folder: Path, stage: str) -> list[np.ndarray]:
    return loading.load_model(folder / f"{stage}.keras").get_weights()


def assert_same(one: list[np.ndarray], other: list[np.ndarray]) -> None:
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_teacher_is_trained_as_the_same_network_is_as_the_baseline(
    code: Callable[..., str], tmp_path: Path
) -> None:
    name = code()
    found = run(
        tmp_path / "run", teacher__model=f"{name}:network", student__model=f"{name}:network"
    )
    assert_same(weights(found.folder, "teacher"), weights(found.folder, "baseline"))
    assert found.results["models"]["teacher"]["accuracy"] > 0.3
    written = recipe.load(found.folder / "recipe.toml")
    assert (written.teacher.model, written.teacher.file) == (f"{name}:network", "")
    # As a file of the student, the function is the same start.
    filed = run(tmp_path / "filed", student__file=f"{name}:network")
    assert_same(weights(filed.folder, "baseline"), weights(found.folder, "baseline"))


def test_teacher_and_student_have_initial_weights_of_their_own_seeds(
    code: Callable[..., str],
) -> None:
    name = code()
    overrides = {"teacher.model": f"{name}:seeded", "student.model": f"{name}:seeded"}
    teacher, _, student = prepare(recipe.load("digits", overrides)).stages
    (kernel, _), (other, _) = (stage.build().get_weights() for stage in (teacher, student))
    assert (kernel != other).any()
    assert_same(teacher.build().get_weights(), teacher.build().get_weights())


def test_a_network_has_the_size_of_its_preprocessing(code: Callable[..., str]) -> None:
    name = code(scale=1)
    overrides = {"teacher.size": [12, 10], "teacher.scale": 255}
    made = prepare(recipe.load("digits", overrides | {"teacher.model": f"{name}:network"}))
    model = made.stages[0].build()
    assert model.input_shape == (None, 8, 8, 1)
    assert model.get_weights()[0].shape == (120, 16)
    assert made.stages[0].notes == ("its images are resized from 8x8 to 12x10 pixels",)


def test_a_killed_training_of_the_teacher_goes_on_in_the_same_bits(
    code: Callable[..., str], tmp_path: Path
) -> None:
    name = code()
    whole = run(tmp_path / "whole" / "run", teacher__model=f"{name}:network")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut" / "run", Notes(("teacher", 1)), teacher__model=f"{name}:network")
    notes = Notes()
    cut = run(tmp_path / "cut" / "run", notes, teacher__model=f"{name}:network")
    assert notes.trained[0] == ("teacher", 2)
    for stage in ("teacher", "baseline", "student"):
        assert_same(weights(whole.folder, stage), weights(cut.folder, stage))


def test_another_network_is_another_run_and_other_constants_train_anew(
    code: Callable[..., str], tmp_path: Path
) -> None:
    run(tmp_path / "run", teacher__model=f"{code()}:network")
    with pytest.raises(RunError, match="another recipe"):
        run(tmp_path / "run", teacher__model=f"{code(units=8)}:network")
    # No hash sees a constant of the module; the untrained network's outputs do.
    notes = Notes()
    run(tmp_path / "run", notes, teacher__model=f"{code(scale=1 / 16)}:network")
    assert {stage for stage, _ in notes.trained} == {"teacher", "student"}
    beside = Notes()
    run(tmp_path / "beside", beside, teacher__model=f"{code(scale=1 / 16)}:network")
    assert "teacher" not in {stage for stage, _ in beside.trained}


def test_a_model_in_memory_is_trained_if_asked_for(
    code: Callable[..., str], tmp_path: Path
) -> None:
    name = code()
    sys.path.insert(0, str(tmp_path))
    try:
        network = __import__(name).network((8, 8, 1), 10)
    finally:
        sys.path.remove(str(tmp_path))
    before = network.get_weights()
    given = {"student": "digits-student", "data": "digits", "recipe": "digits"}
    found = tutelage.distill(
        teacher=network, train_teacher=True, settings=SETTINGS, out=tmp_path / "one", **given
    )
    assert_same(network.get_weights(), before)
    named = tutelage.distill(
        teacher=f"{name}:network",
        train_teacher=True,
        settings=SETTINGS,
        out=tmp_path / "other" / "two",
        **given,
    )
    assert_same(weights(found.folder, "teacher"), weights(named.folder, "teacher"))
    # The recipe of a model in memory is read, but can't be run without it.
    written = recipe.load(found.folder / "recipe.toml")
    assert written.teacher.own == f"<Sequential {network.name}>"
    with pytest.raises(RecipeError, match="<Sequential"):
        tutelage.run(found.folder / "recipe.toml", out=tmp_path / "three")


def test_what_a_run_can_not_train_is_refused(code: Callable[..., str], tmp_path: Path) -> None:
    name = code()

    def refused(error: type[Exception], offender: str, **given: Any) -> None:
        with pytest.raises(error, match=offender) as caught:
            tutelage.distill(data="digits", recipe="digits", out=tmp_path / "run", **given)
        assert len(str(caught.value).splitlines()) == 1

    refused(RecipeError, "t.keras.*`file`", teacher="t.keras", train_teacher=True)
    refused(RecipeError, "teacher.model", teacher=["a:b", "c:d"], train_teacher=True)
    refused(RecipeError, "list", teacher=[keras.Sequential()] * 2, train_teacher=True)
    refused(RecipeError, "PyTorch", teacher=f"{name}:module", train_teacher=True)
    refused(RecipeError, f"{name}:ntwork: .*did you mean network", teacher=f"{name}:ntwork")
    # A name of the other kind leads to the right key.
    with pytest.raises(ModelError, match=r"teacher\.model"):
        tutelage.run("digits", settings={"teacher.file": "teacher-2m"}, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


LOSS = """
import keras
from keras import ops
from tutelage.losses import LogitsLoss

class Squares(LogitsLoss):
    def __init__(self, factor=1.0):
        self.factor = factor

    def per_sample(self, teacher_outputs, student_outputs, labels=None):
        squares = (teacher_outputs - student_outputs) ** 2
        return {scale} * self.factor * ops.mean(squares, axis=-1)

class PerClass(Squares):
    def compute_loss(self, teacher_outputs, student_outputs, labels=None, sample_weight=None):
        return (teacher_outputs - student_outputs) ** 2

class Largest(Squares):
    def per_sample(self, teacher_outputs, student_outputs, labels=None):
        return ops.max(teacher_outputs, axis=-1) + 0 * student_outputs[:, 0]

class NotFinite(Squares):
    def per_sample(self, teacher_outputs, student_outputs, labels=None):
        return ops.log(0 * student_outputs[:, 0])

def kl():
    return keras.distillation.LogitsDistillation(temperature=2.0, loss=keras.losses.KLDivergence())
"""


@pytest.fixture
def loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Write a module with losses into the current folder and give its name."""
    monkeypatch.chdir(tmp_path)
    name = f"losses_{tmp_path.name}".replace("-", "_")

    def write(scale: int = 1) -> str:
        (tmp_path / f"{name}.py").write_text(LOSS.format(scale=scale))
        shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
        linecache.clearcache()  # of files as long and as new
        monkeypatch.delitem(sys.modules, name, raising=False)
        return name

    return write


@pytest.mark.parametrize(
    ("name", "arguments", "named"),
    [
        ("tutelage.losses:KD", {"temperature": 3.0}, {"name": "kd", "temperature": 3.0}),
        ("tutelage.losses:DKD", {"beta": 2.0}, {"name": "dkd", "beta": 2.0}),  # needs labels
        ("tutelage.losses:RKD", {"angle_weight": 1.0}, {"name": "rkd", "angle_weight": 1.0}),
    ],
)
def test_a_bundled_loss_by_its_class_trains_the_same_student(
    tmp_path: Path, name: str, arguments: dict[str, object], named: dict[str, object]
) -> None:
    data = datasets.load("digits")
    teacher = "digits-teacher"
    if "rkd" not in named.values():  # stored logits are the same for both
        teacher = str(tmp_path / "logits.npy")
        random = np.random.default_rng(0).normal(size=(len(data.train), 10))
        np.save(teacher, (4 * np.eye(10)[data.train.labels] + random).astype(np.float32))
        images = stored_logits.image_hash(data.train.images)
        manifest = {"images": images, "classes": list(data.classes)}
        (tmp_path / "logits.json").write_text(json.dumps(manifest))

    def taught(out: str, loss: dict[str, object]) -> list[np.ndarray]:
        settings = SETTINGS | {f"loss.{key}": value for key, value in loss.items()}
        given = {"student": "digits-student", "data": "digits", "recipe": "digits"}
        tutelage.distill(teacher=teacher, settings=settings, out=tmp_path / out / "run", **given)
        return weights(tmp_path / out / "run", "student")

    one, two = taught("one", {"name": name, "settings": arguments}), taught("two", named)
    assert_same(one, two)
    alone = weights(tmp_path / "one" / "run", "baseline")
    assert any((a != b).any() for a, b in zip(one, alone, strict=True))


def distillation_losses(outcome: Any) -> list[float]:
    rows = [row for row in outcome.history if row["stage"] == "student"]
    return [row["distillation_loss"] for row in rows]


def test_a_loss_of_keras_trains_as_kd_does(loss: Callable[..., str], tmp_path: Path) -> None:
    one = run(tmp_path / "one", loss__name=f"{loss()}:kl")
    two = run(tmp_path / "two", loss__name="kd", loss__temperature=2.0)
    assert distillation_losses(one) == pytest.approx(distillation_losses(two), rel=1e-2)


def test_ones_own_loss_gets_the_teachers_logits_as_they_are(
    loss: Callable[..., str], tmp_path: Path
) -> None:
    # Those that are stored for other losses are less each row's maximum.
    found = run(tmp_path / "run", loss__name=f"{loss()}:Largest", views__shift=0)
    teacher = loading.load_model(found.folder / "teacher.keras")
    images = prepare(recipe.load("digits", SETTINGS)).train.images
    largest = loading.logits(teacher, images).max(axis=1).mean()
    assert largest > 1
    assert distillation_losses(found)[-1] == pytest.approx(largest, rel=0.02)


def test_a_changed_loss_is_trained_with_again_and_nothing_else_is(
    loss: Callable[..., str], tmp_path: Path
) -> None:
    def keys(scale: int, **settings: object) -> dict[str, str]:
        named = {"loss.name": f"{loss(scale)}:Squares"} | settings
        return prepare(recipe.load("digits", SETTINGS | named)).keys()

    one, again, other = keys(1), keys(1), keys(2)
    assert one == again
    assert {stage for stage in one if one[stage] != other[stage]} == {"student"}
    assert keys(1, **{"loss.settings": {"factor": 2}})["student"] != one["student"]
    plain = prepare(recipe.load("digits", SETTINGS)).keys()
    assert {stage for stage in one if one[stage] != plain[stage]} == {"student"}

    first = run(tmp_path / "runs" / "one", loss__name=f"{loss(1)}:Squares")
    with pytest.raises(RunError, match="other code"):
        run(tmp_path / "runs" / "one", loss__name=f"{loss(2)}:Squares")
    notes = Notes()
    second = run(tmp_path / "runs" / "two", notes, loss__name=f"{loss(2)}:Squares")
    assert {stage for stage, _ in notes.trained} == {"student"}
    students = (weights(found.folder, "student") for found in (first, second))
    assert any((a != b).any() for a, b in zip(*students, strict=True))


def test_a_killed_training_with_ones_own_loss_goes_on_in_the_same_bits(
    loss: Callable[..., str], tmp_path: Path
) -> None:
    name = f"{loss()}:Squares"
    whole = run(tmp_path / "whole" / "run", loss__name=name)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut" / "run", Notes(("student", 1)), loss__name=name)
    notes = Notes()
    cut = run(tmp_path / "cut" / "run", notes, loss__name=name)
    assert notes.trained == [("student", 2)]
    assert_same(weights(whole.folder, "student"), weights(cut.folder, "student"))


@pytest.mark.parametrize(
    ("name", "offender"),
    [
        ("Squars", "did you mean Squares?"),
        ("PerClass", "digits-student can't be trained with losses_.*:PerClass"),
        ("NotFinite", "losses_.*:NotFinite: the loss is"),
    ],
)
def test_a_loss_that_can_not_be_trained_with_is_refused_before_the_teacher_is_trained(
    loss: Callable[..., str], tmp_path: Path, name: str, offender: str
) -> None:
    with pytest.raises(TutelageError, match=offender) as caught:
        run(tmp_path / "run", loss__name=f"{loss()}:{name}")
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_an_untrained_network_given_as_a_trained_one_is_warned_of_with_the_key_to_use(
    code: Callable[..., str], tmp_path: Path
) -> None:
    notes = Notes()
    run(tmp_path / "run", notes, teacher__file=f"{code()}:seeded")
    (warning,) = [text for text in notes.told if text.startswith("warning: the teacher is right")]
    assert "teacher.model" in warning
    assert "--train-teacher" in warning
