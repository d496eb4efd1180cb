"""Distilling what users bring: every kind of teacher, student and data, in Python."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import tutelage
from tutelage import recipe
from tutelage.data import datasets, splitting
from tutelage.data.datasets import Dataset, Part
from tutelage.errors import DataError, ModelError, RecipeError, RunError, TutelageError
from tutelage.experiment import api
from tutelage.models import loading, stored_logits
from tutelage.progress import EpochLog, Progress

DIGITS = datasets.load("digits")
SETTINGS = {
    "schedule.teacher.epochs": 1,
    "schedule.student.epochs": 2,
    "schedule.student.batch_size": 64,
}


def net(units: int = 0, end: str | None = None) -> keras.Model:
    """A small net of images in 0..16, as the digits are; it learns in an epoch or two."""
    keras.utils.set_random_seed(units)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Rescaling(1 / 16)(inputs)
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Flatten()(keras.layers.MaxPooling2D()(x))
    x = keras.layers.Dense(units, "relu")(x) if units else x
    return keras.Model(inputs, keras.layers.Dense(10, end)(x))


@pytest.fixture(scope="module")
def teacher() -> keras.Model:
    keras.utils.set_random_seed(0)
    model = net(32)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(DIGITS.train.images, DIGITS.train.labels, epochs=8, batch_size=32, verbose=0)
    return model


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
        if self.name != "batch normalization":
            self.trained.append((self.name, int(row["epoch"])))
        if (self.name, int(row["epoch"])) == self.dies_at:
            raise KeyboardInterrupt


def labeled(*labels: int) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((len(labels), 8, 8, 1), np.uint8), np.array(labels)


def mine(classes: Sequence[str], arrays: tuple[np.ndarray, np.ndarray], **more: Any) -> Dataset:
    """A data set made in Python, with the same images in both parts."""
    return Dataset("mine", tuple(classes), Part(*arrays), Part(*arrays), "", "", **more)


def distil(folder: Path, **given: Any) -> api.Outcome:
    settings = SETTINGS | given.pop("settings", {})
    chosen = {"student": net(), "data": "digits", "recipe": "digits"} | given
    return tutelage.distill(**chosen, settings=settings, out=folder / "run")


# Reference


def test_the_outcome_is_what_the_run_folder_holds(tmp_path: Path, teacher: keras.Model) -> None:
    student = net()
    before = [w.copy() for w in student.get_weights()]
    found = distil(tmp_path, teacher=teacher, student=student)
    assert found.folder == tmp_path / "run"
    assert found.results == json.loads((found.folder / "results.json").read_text())
    saved = loading.load_model(found.folder / "student.keras")
    images = DIGITS.test.images
    np.testing.assert_array_equal(
        found.student.predict(images, verbose=0), saved.predict(images, verbose=0)
    )
    assert [(row["stage"], row["epoch"]) for row in found.history] == [
        ("baseline", 1),
        ("baseline", 2),
        ("student", 1),
        ("student", 2),
    ]
    assert found.results["models"]["teacher"]["accuracy"] == pytest.approx(
        (teacher.predict(images, verbose=0).argmax(1) == DIGITS.test.labels).mean()
    )
    # The caller's own models are as they were.
    for was, is_now in zip(before, student.get_weights(), strict=True):
        np.testing.assert_array_equal(was, is_now)


def test_stored_logits_teach_as_the_teacher_whose_they_are(
    tmp_path: Path, teacher: keras.Model
) -> None:
    steady = {"views.shift": 0, "schedule.student.epochs": 1, "loss.alpha": 0.7}
    student = net()
    asked = distil(tmp_path / "asked", teacher=teacher, student=student, settings=steady)
    logits = teacher.predict(DIGITS.train.images, verbose=0)
    np.save(tmp_path / "logits.npy", logits)
    manifest = {
        "images": stored_logits.image_hash(DIGITS.train.images),
        "classes": list(DIGITS.classes),
    }
    (tmp_path / "logits.json").write_text(json.dumps(manifest))
    held = distil(
        tmp_path / "held", teacher=tmp_path / "logits.npy", student=student, settings=steady
    )
    for a, b in zip(asked.student.get_weights(), held.student.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-2, atol=2e-3)  # float16 holds the answers
    assert set(held.results["models"]) == {"baseline", "student"}
    assert "The teacher's accuracy on these images is unknown" in held.results["verdict"]
    assert held.results["validation"]["teacher"]["accuracy"] > 0.8


# Kinds of teacher


def test_a_pytorch_teacher_and_a_student_that_ends_in_softmax(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    notes = Notes()
    found = tutelage.distill(
        teacher=module,
        student=net(end="softmax"),
        data="digits",
        recipe="digits",
        settings=SETTINGS | {"teacher.scale": 16},
        out=tmp_path / "run",
        progress=notes,
    )
    assert "student: it ends in softmax: using the logits before the softmax" in notes.told
    assert any(note.startswith("warning: the teacher is right on") for note in notes.told)
    assert not (tmp_path / "run" / "teacher.keras").exists()
    assert "parameters" not in found.results["models"]["teacher"]
    answers = found.student.predict(DIGITS.test.images, verbose=0)
    assert (answers < 0).any()  # logits


def test_an_onnx_teacher_answers_as_its_graph_says(tmp_path: Path) -> None:
    kernel = np.random.default_rng(0).normal(size=(64, 10)).astype(np.float32)
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"]),
        helper.make_node("Gemm", ["flat", "kernel"], ["linear"]),
        helper.make_node("Softmax", ["linear"], ["chances"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ("n", 1, 8, 8))],
        [helper.make_tensor_value_info("chances", TensorProto.FLOAT, ("n", 10))],
        [numpy_helper.from_array(kernel, "kernel")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(made, tmp_path / "net.onnx")
    notes = Notes()
    found = distil(
        tmp_path,
        teacher=tmp_path / "net.onnx",
        settings={"teacher.scale": 16},
        progress=notes,
    )
    logits = DIGITS.test.images.reshape(-1, 64) / 16 @ kernel
    right = (logits.argmax(axis=1) == DIGITS.test.labels).mean()
    assert found.results["models"]["teacher"]["accuracy"] == pytest.approx(right)
    assert "teacher: it ends in softmax: using the logits before the softmax" in notes.told


def test_an_ensemble_answers_as_the_mean_of_its_members(
    tmp_path: Path, teacher: keras.Model
) -> None:
    other = net(16)
    found = distil(tmp_path, teacher=[teacher, other])
    images = DIGITS.test.images
    mean = (teacher.predict(images, verbose=0) + other.predict(images, verbose=0)) / 2
    saved = loading.load_model(tmp_path / "run" / "teacher.keras")
    np.testing.assert_allclose(saved.predict(images, verbose=0), mean, rtol=1e-4, atol=1e-4)
    right = (mean.argmax(axis=1) == DIGITS.test.labels).mean()
    assert found.results["models"]["teacher"]["accuracy"] == pytest.approx(right)


@pytest.mark.parametrize("combine", ["probabilities", "losses"])
def test_an_ensemble_teaches_by_probabilities_or_by_each_ones_loss(
    tmp_path: Path, teacher: keras.Model, combine: str
) -> None:
    for name, model in (("one", teacher), ("two", net(16))):
        model.save(tmp_path / f"{name}.keras")
    files = [str(tmp_path / f"{name}.keras") for name in ("one", "two")]
    found = distil(tmp_path, teacher=files, settings={"teacher.combine": combine})
    assert np.isfinite(found.results["models"]["student"]["nll"])
    assert found.results["recipe"]["teacher"]["file"] == files
    assert (tmp_path / "run" / "teacher.keras").exists() == (combine == "probabilities")


# Kinds of data and of lessons


@pytest.mark.parametrize("parts", [1, 2])
def test_arrays_as_keras_data_sets_come(tmp_path: Path, teacher: keras.Model, parts: int) -> None:
    train, test = ((part.images, part.labels[:, None]) for part in (DIGITS.train, DIGITS.test))
    found = distil(tmp_path, teacher=teacher, data=(train, test) if parts == 2 else train)
    told = found.results["data"]
    assert told["name"] == "arrays"
    assert told["classes"] == [f"class {i}" for i in range(10)]
    assert told["test"] == (360 if parts == 2 else 288)


def test_a_data_set_made_in_python_follows_the_rules_of_files(
    tmp_path: Path, teacher: keras.Model
) -> None:
    names = ("red\x1b[31m", *"123456789")
    few = tuple(values[:200] for values in (DIGITS.train.images[..., 0], DIGITS.train.labels))
    found = distil(tmp_path, teacher=teacher, data=mine(names, few)).results["data"]
    assert found["classes"] == [r"red\x1b[31m", *"123456789"]
    assert found["notes"] == [
        r"class 'red\x1b[31m' is called red\x1b[31m, as its name can't be printed"
    ]
    # Without a fingerprint of its own, other images would be taken for those of the finished run.
    assert found["fingerprint"].startswith("sha256:")
    other = (255 - few[0], few[1])
    with pytest.raises(RunError):
        distil(tmp_path, teacher=teacher, data=mine(names, other))


def test_images_without_labels_are_learned_from_too(tmp_path: Path, teacher: keras.Model) -> None:
    (tmp_path / "pool" / "inner").mkdir(parents=True)
    for number, image in enumerate(DIGITS.train.images[:50]):
        Image.fromarray(image[..., 0]).save(tmp_path / "pool" / "inner" / f"{number:03d}.png")
    asked: list[int] = []

    class Counted(Notes):
        def stage(self, name: str, epochs: int, done: int, steps: int, unit: str = "epoch") -> None:
            super().stage(name, epochs, done, steps, unit)
            if unit != "layer":
                asked.append(steps)

    shared = {"data": "digits", "recipe": "digits", "settings": SETTINGS, "student": net()}
    found = tutelage.distill(
        teacher=teacher,
        unlabeled=tmp_path / "pool",
        out=tmp_path / "run",
        progress=Counted(),
        **shared,
    )
    images = found.results["data"]["train"]
    assert found.results["data"]["unlabeled"] == 50
    assert asked == [images // 64, 1, (images + 50) // 64]
    rows = [row for row in found.history if row["stage"] == "student"]
    assert not any("accuracy" in row for row in rows)
    assert rows[-1]["val_accuracy"] > 0.1
    again = tutelage.distill(
        teacher=teacher, unlabeled=DIGITS.train.images[:50], out=tmp_path / "arrays", **shared
    )
    for a, b in zip(found.student.get_weights(), again.student.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_fraction_of_the_labels(tmp_path: Path, teacher: keras.Model) -> None:
    lengths: dict[str, int] = {}

    class Heard(Notes):
        def stage(self, name: str, epochs: int, done: int, steps: int, unit: str = "epoch") -> None:
            super().stage(name, epochs, done, steps, unit)
            lengths[name] = steps

    settings, heard = SETTINGS | {"loss.alpha": "auto", "data.labels": 0.25}, Heard()
    shared = {"teacher": teacher, "student": net(), "recipe": "digits"}
    found = tutelage.distill(
        data="digits", settings=settings, out=tmp_path / "run", progress=heard, **shared
    )
    others, labeled = splitting.split(DIGITS.train, 0.25, seed=0)
    counts = found.results["data"]
    assert counts["train"] + counts["validation"] == len(labeled)
    assert counts["unlabeled"] == len(others)
    assert found.results["alpha"] == 1
    assert lengths["baseline"] == lengths["student"] == (counts["train"] + len(others)) // 64
    assert any(f"labels of {len(labeled):,} of {len(DIGITS.train):,}" in n for n in heard.told)
    again = tutelage.distill(
        data=replace(DIGITS, train=labeled),
        unlabeled=others.images,
        settings=SETTINGS,
        out=tmp_path / "again",
        **shared,
    )
    for a, b in zip(found.student.get_weights(), again.student.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    own = tutelage.distill(
        data="digits",
        settings=settings,
        out=tmp_path / "own",
        **(shared | {"teacher": "digits-teacher"}),
    )
    assert own.results["data"] == counts


def test_inner_layers_teach_in_a_run_and_a_killed_run_ends_in_the_same_bits(
    tmp_path: Path, teacher: keras.Model
) -> None:
    more = [
        {"name": "fitnet", "weight": 0.1, "ramp": "cosine"},
        {"name": "rkd", "weight": 0.01},
        {"name": "reviewkd", "weight": 0.1},
    ]
    student, settings = net(), {"loss.more": more}
    whole = distil(tmp_path / "whole", teacher=teacher, student=student, settings=settings)
    with pytest.raises(KeyboardInterrupt):
        distil(
            tmp_path / "cut",
            teacher=teacher,
            student=student,
            settings=settings,
            progress=Notes(dies_at=("student", 1)),
        )
    notes = Notes()
    cut = distil(
        tmp_path / "cut", teacher=teacher, student=student, settings=settings, progress=notes
    )
    assert notes.trained == [("student", 2)]
    losses = [[row["loss"] for row in found.history] for found in (whole, cut)]
    assert losses[0] == losses[1]
    assert whole.results["models"]["student"]["accuracy"] > 0.3  # it learns, so it could differ
    for a, b in zip(whole.student.get_weights(), cut.student.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert whole.student.count_params() == student.count_params()


def test_a_given_student_is_fine_tuned_with_every_setting(
    tmp_path: Path, teacher: keras.Model
) -> None:
    student = {
        "optimizer": "adamw",
        "learning_rate": 0.01,
        "learning_rate_schedule": "cosine",
        "clip_norm": 1.0,
        "ema": 0.9,
        "early_stopping": 1,
        "monitor": "val_loss",
        "layer_decay": 0.5,
        "frozen_epochs": 1,
        "class_weights": "balanced",
        "gradient_accumulation_steps": 2,
    }
    settings = {f"schedule.student.{name}": value for name, value in student.items()}
    given, progress = net(16), Notes()
    found = distil(tmp_path, teacher=teacher, student=given, settings=settings, progress=progress)
    head = given.layers[-1].name
    assert (
        sum(f"{head} alone is trained until the end of epoch 1" in note for note in progress.told)
        == 2
    )
    assert set(found.results["early_stopping"]) == {"baseline", "student"}
    assert found.results["recipe"]["schedule"]["student"].items() >= student.items()
    accuracies = {n: found.results["models"][n]["accuracy"] for n in ("baseline", "student")}
    assert min(accuracies.values()) > 0.15  # chance is 0.1
    with pytest.raises(KeyboardInterrupt):
        distil(
            tmp_path / "cut",
            teacher=teacher,
            student=given,
            settings=settings,
            progress=Notes(dies_at=("student", 1)),
        )
    again = distil(tmp_path / "cut", teacher=teacher, student=given, settings=settings)
    for one, other in zip(found.student.get_weights(), again.student.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_generations_are_each_taught_by_the_one_before(
    tmp_path: Path, teacher: keras.Model
) -> None:
    student, settings = net(), {"loss.generations": 3}
    with pytest.raises(KeyboardInterrupt):
        distil(
            tmp_path,
            teacher=teacher,
            student=student,
            settings=settings,
            progress=Notes(dies_at=("student-2", 2)),
        )
    notes = Notes()
    found = distil(tmp_path, teacher=teacher, student=student, settings=settings, progress=notes)
    assert [stage for stage, _ in notes.trained if stage != "caching teacher logits"] == [
        "student"
    ] * 2
    assert list(found.results["models"]) == [
        "teacher",
        "baseline",
        "student-1",
        "student-2",
        "student",
    ]
    assert found.results["models"]["student"]["accuracy"] > 0.3
    one = distil(tmp_path / "one", teacher=teacher, student=student)
    first = loading.load_model(tmp_path / "run" / "student-1.keras")
    for a, b in zip(first.get_weights(), one.student.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert any(
        (a != b).any()
        for a, b in zip(first.get_weights(), found.student.get_weights(), strict=True)
    )


def test_given_again_it_gives_what_it_came_to(
    tmp_path: Path, teacher: keras.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = SETTINGS | {"schedule.student.epochs": 1}
    given = {"teacher": teacher, "student": net(), "data": "digits", "recipe": "digits"}
    one = tutelage.distill(**given, settings=settings)
    notes = Notes()
    two = tutelage.distill(**given, settings=settings, progress=notes)
    assert notes.told == [f"already done in {one.folder}"]
    assert one.results == two.results
    assert one.folder.parent == Path("runs")


# Bad input


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"data": np.zeros(3)}, DataError, r"expected \(images, labels\)"),
        ({"data": (np.zeros((4, 8, 8, 1)), np.zeros(4, int))}, DataError, "uint8 .* found float64"),
        (
            {"data": (np.zeros((4, 8, 8, 1), np.uint8), np.eye(4))},
            DataError,
            r"found float64 .* labels.argmax",
        ),
        (
            {"data": (np.zeros((4, 8, 8, 1), np.uint8), np.array([0, 1, -1, 0]))},
            DataError,
            "label -1",
        ),
        ({"data": labeled(1, 2, 3, 4)}, DataError, "class 0"),
        ({"data": labeled(0, 1, 2, 9)}, DataError, "class 3"),
        ({"data": (labeled(0, 1, 2), labeled(0, 1, 3))}, DataError, "class 3"),
        ({"data": (labeled(0, 1, 2), labeled(0, 1))}, DataError, "class 2"),
        ({"data": (labeled(0, 1)[0], np.array([0.0, 1.0]))}, DataError, "float64"),
        ({"data": mine("abc", labeled(0, 2))}, DataError, "mine: .* 'b'"),
        ({"data": mine("abb", labeled(0, 1, 2))}, DataError, "mine: .* different names"),
        ({"data": mine(("a\x1b", r"a\x1b"), labeled(0, 1))}, DataError, "mine: .* different names"),
        ({"data": mine("a", labeled(0, 0))}, DataError, "mine: .* at least two classes"),
        ({"data": mine("ab", labeled(0, 1, 2))}, DataError, "mine: .* label 2, which is not"),
        ({"data": mine("ab", labeled(-1, 0, 1))}, DataError, "mine: .* label -1, which is not"),
        (
            {"data": mine("ab", (labeled(0, 1)[0] / 255, np.array([0, 1])))},
            DataError,
            "mine: training images: expected uint8 .* found float64",
        ),
        (
            {"data": mine("ab", (labeled(0, 1)[0].repeat(2, axis=3), np.array([0, 1])))},
            DataError,
            "mine: training images: expected uint8 .* 1 or 3",
        ),
        (
            {"data": mine("ab", (labeled(0, 1)[0], np.array([0.0, 1.0])))},
            DataError,
            "mine: training images: expected integer labels .* found float64",
        ),
        (
            {"data": mine("ab", (labeled(0, 1, 1)[0], np.array([0, 1])))},
            DataError,
            "mine: training images: .* 3 images and 2 labels",
        ),
        ({"data": mine("ab", labeled(0, 1, 1), held_out=3)}, DataError, "held_out.* to 2, found 3"),
        ({"data": mine("ab", labeled(0, 1, 1), held_out=-1)}, DataError, "held_out.* found -1"),
        ({"data": mine("ab", labeled(0, 1, 1), held_out=1)}, DataError, "mine: .* 'a'"),
        (
            {"settings": {"schedule.student.gradient_accumulation_steps": 1000}},
            RecipeError,
            r"student\.gradient_accumulation_steps: .* 1000",
        ),
        ({"settings": {"loss.alpha": 0.5}, "unlabeled": "x"}, TutelageError, "expected a folder"),
        ({"settings": {"data.labels": 0.0}}, RecipeError, "data.labels"),
        ({"settings": {"data.labels": 1.0}}, RecipeError, "data.labels"),
        ({"settings": {"data.labels": 1e-4, "loss.alpha": 1.0}}, DataError, "on both sides"),
        ({"settings": {"data.labels": 0.5, "loss.alpha": 0.5}}, RecipeError, "loss.alpha"),
        (
            {"settings": {"loss.alpha": 0.5}, "unlabeled": DIGITS.train.images[:9]},
            RecipeError,
            "expected 1, as unlabeled images have no hard loss, found 0.5",
        ),
        (
            {"settings": {"loss.name": "dkd"}, "unlabeled": DIGITS.train.images[:9]},
            RecipeError,
            "dkd needs labels",
        ),
        (
            {
                "settings": {"schedule.student.sampling": "balanced"},
                "unlabeled": DIGITS.train.images[:9],
            },
            RecipeError,
            r"schedule\.student\.sampling: expected none",
        ),
        ({"unlabeled": np.zeros((2, 9, 9, 1), np.uint8)}, DataError, "unlabeled images: expect"),
        (
            {
                "student": net(),
                "settings": {
                    "schedule.student.epochs": 2,
                    "schedule.student.frozen_epochs": 1,
                    "loss.name": "rkd",
                    "loss.alpha": 1,
                },
            },
            RecipeError,
            r"schedule\.student\.frozen_epochs: .* found loss.alpha = 1 with rkd",
        ),
        ({"teacher": ["digits-teacher"]}, TutelageError, "digits-teacher"),
        ({"student": torch.nn.Linear(2, 2)}, RecipeError, "is a PyTorch module"),
        (
            {"teacher": torch.nn.Flatten(), "settings": {"loss.name": "rkd"}},
            ModelError,
            "64 classes",
        ),
        (
            {
                "teacher": torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)),
                "settings": {"loss.name": "rkd"},
            },
            ModelError,
            "no readable intermediate layers",
        ),
        (
            {"settings": {"loss.name": "fitnet", "loss.teacher_layer": "a"}},
            RecipeError,
            "student_layer",
        ),
        (
            {
                "settings": {
                    "loss.name": "fitnet",
                    "loss.teacher_layer": "a",
                    "loss.student_layer": "b",
                }
            },
            RecipeError,
            "has no layer 'a': .*it has .*block1_conv1",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_before_training(
    tmp_path: Path, change: dict[str, Any], error: type[Exception], words: str
) -> None:
    given = {"teacher": "digits-teacher", "student": "digits-student"} | change
    with pytest.raises(error, match=words) as caught:
        distil(tmp_path, **given)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_stored_logits_refuse_views_they_know_nothing_of(
    tmp_path: Path, teacher: keras.Model
) -> None:
    np.save(tmp_path / "logits.npy", teacher.predict(DIGITS.train.images, verbose=0))
    manifest = {
        "images": stored_logits.image_hash(DIGITS.train.images),
        "classes": list(DIGITS.classes),
    }
    (tmp_path / "logits.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"views\.shift"):
        distil(tmp_path, teacher=tmp_path / "logits.npy", settings={"views.shift": 1})
    told = recipe.load("digits", recipe.overrides(teacher="a.npy", student="s", data="digits"))
    assert (told.views.flip, told.views.shift, told.views.distinct) == (False, 0, 1)


# Models given as code: their answers tell what a digest of weights and classes misses.

CODE = """
import keras, numpy as np, torch
from pathlib import Path

class Ordered(torch.nn.Module):
    def __init__(self):
        super().__init__()
        weights = np.load(Path(__file__).with_name("weights.npy"))
        self.linear = torch.nn.Linear(64, 10, bias=False)
        self.linear.weight = torch.nn.Parameter(torch.tensor(weights))

    def forward(self, x):
        return self.linear(x.flatten(1))[:, self.order]

def teacher():
    module = Ordered()
    module.order = {order}
    return module

@keras.saving.register_keras_serializable("test_api_{name}")
class Scaled(keras.layers.Layer):
    def call(self, x):
        return x * SCALE

SCALE = {scale}

def student():
    return keras.Sequential(
        [keras.Input((8, 8, 1)), Scaled(), keras.layers.Flatten(), keras.layers.Dense(10)]
    )
"""
RIGHT, WRONG = list(range(10)), [*range(1, 10), 0]


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Write a module, with a class order of its teacher and a scale of its student."""
    images = DIGITS.train.images.reshape(-1, 64) / 255
    weights = np.linalg.lstsq(images, np.eye(10)[DIGITS.train.labels], rcond=None)[0].T
    np.save(tmp_path / "weights.npy", 8 * weights.astype(np.float32) / 255)
    monkeypatch.chdir(tmp_path)
    name = f"given_{tmp_path.name}".replace("-", "_")

    def write(order: list[int] = RIGHT, scale: float = 1 / 255) -> str:
        text = CODE.format(order=order, scale=scale, name=name)
        (tmp_path / f"{name}.py").write_text(text)
        shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)  # as new as the source
        monkeypatch.delitem(sys.modules, name, raising=False)
        return name

    return write


def taught(name: str, out: Path, progress: Progress | None = None) -> api.Outcome:
    return tutelage.distill(
        teacher=f"{name}:teacher",
        student=f"{name}:student",
        data="digits",
        recipe="digits",
        settings=SETTINGS,
        out=out,
        progress=progress,
    )


def assert_same(one: api.Outcome, other: api.Outcome) -> None:
    for stage in ("baseline", "student"):
        models = [loading.load_model(found.folder / f"{stage}.keras") for found in (one, other)]
        for a, b in zip(*(model.get_weights() for model in models), strict=True):
            np.testing.assert_array_equal(a, b)
    accuracies = [[m["accuracy"] for m in x.results["models"].values()] for x in (one, other)]
    assert accuracies[0] == accuracies[1]


def test_a_mended_teacher_is_asked_anew_and_its_student_trained_anew(
    code: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = taught(code(order=WRONG), tmp_path / "run")
    assert wrong.results["models"]["teacher"]["accuracy"] < 0.2
    notes = Notes()
    mended = taught(code(), tmp_path / "run", notes)
    assert mended.results["models"]["teacher"]["accuracy"] > 0.9
    assert {stage for stage, _ in notes.trained} == {"caching teacher logits", "student"}
    assert sum("answers otherwise" in text for text in notes.told) == 1
    again = Notes()
    assert taught(code(), tmp_path / "run", again).results == mended.results
    assert again.trained == []
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))
    assert_same(mended, taught(code(), tmp_path / "fresh" / "run"))


def test_a_mended_teacher_of_an_interrupted_run_begins_its_student_anew(
    code: Callable[..., str], tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        taught(code(order=WRONG), tmp_path / "run", Notes(dies_at=("student", 1)))
    notes = Notes()
    mended = taught(code(), tmp_path / "run", notes)
    assert ("student", 1) in notes.trained
    assert ("baseline", 1) not in notes.trained
    assert_same(mended, taught(code(), tmp_path / "fresh" / "run"))


def test_an_unchanged_teacher_of_an_interrupted_run_goes_on_in_the_same_bits(
    code: Callable[..., str], tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        taught(code(), tmp_path / "run", Notes(dies_at=("student", 1)))
    notes = Notes()
    resumed = taught(code(), tmp_path / "run", notes)
    assert notes.trained == [("student", 2)]
    assert_same(resumed, taught(code(), tmp_path / "fresh" / "run"))


def test_a_student_whose_constants_changed_is_trained_anew_with_its_baseline(
    code: Callable[..., str], tmp_path: Path
) -> None:
    taught(code(scale=1 / 16), tmp_path / "run")
    notes = Notes()
    changed = taught(code(), tmp_path / "run", notes)
    assert {stage for stage, _ in notes.trained} == {"baseline", "student"}
    # The baseline of a run beside it is not taken either.
    taught(code(scale=1 / 16), tmp_path / "runs" / "one")
    beside = Notes()
    assert_same(changed, taught(code(), tmp_path / "runs" / "two", beside))
    assert ("baseline", 1) in beside.trained


def test_hooks_on_a_module_in_memory_are_seen(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    given = {"teacher": module, "student": "digits-student", "settings": {"teacher.scale": 16}}
    distil(tmp_path, **given)
    notes = Notes()
    hook = module.register_forward_hook(lambda layer, inputs, outputs: 1.05 * outputs)
    distil(tmp_path, **given, progress=notes)
    assert {stage for stage, _ in notes.trained} == {"caching teacher logits", "student"}
    hook.remove()
    again = Notes()
    distil(tmp_path, **given, progress=again)
    assert {stage for stage, _ in again.trained} == {"student"}  # the first logits are still there


def test_a_damaged_record_of_answers_is_refused(tmp_path: Path, teacher: keras.Model) -> None:
    distil(tmp_path, teacher=teacher)
    (tmp_path / "run" / "answers.npz").write_bytes(b"PK damaged")
    with pytest.raises(RunError, match="answers"):
        distil(tmp_path, teacher=teacher)
