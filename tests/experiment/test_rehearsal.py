"""What can be found wrong with an untrained model is found before the first epoch."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers, ops

import tutelage
from tutelage.errors import ModelError, TrainingError
from tutelage.progress import Progress


class Unregistered(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.flat, self.dense = layers.Flatten(), layers.Dense(10)

    def call(self, inputs):
        return self.dense(self.flat(inputs))


@keras.saving.register_keras_serializable("tests")
class Forgetful(layers.Layer):
    """Has a state that isn't saved."""

    def __init__(self, **options):
        super().__init__(**options)
        self.shift = np.random.default_rng().normal()

    def call(self, inputs):
        return inputs + self.shift


@keras.saving.register_keras_serializable("tests")
class Untrainable(layers.Layer):
    def call(self, inputs, training=False):
        return ops.matmul(inputs, ops.ones((3, 3))) if training else inputs


@keras.saving.register_keras_serializable("tests")
class NotFinite(layers.Layer):
    def call(self, inputs, training=False):
        return inputs / 0.0 if training else inputs


def network(*middle: keras.Layer) -> keras.Model:
    head = [layers.Flatten(), layers.Dense(10)]
    return keras.Sequential([keras.Input((8, 8, 1)), layers.Rescaling(1 / 16), *middle, *head])


def unregistered() -> keras.Model:
    model = Unregistered()
    model(np.zeros((1, 8, 8, 1), "float32"))
    return model


class Notes(Progress):
    def __init__(self):
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


def distill(folder: Path, student: keras.Model, progress=None, teacher=None, **settings):
    return tutelage.distill(
        teacher=teacher or network(),
        student=student,
        data="digits",
        recipe="digits",
        settings={"schedule.student.epochs": 1} | settings,
        out=folder,
        progress=progress,
    )


@pytest.mark.parametrize(
    ("student", "error", "words"),
    [
        (unregistered, ModelError, "register"),
        (lambda: network(Forgetful()), ModelError, "other outputs"),
        (lambda: network(Untrainable()), ModelError, "Untrainable"),
        (lambda: network(NotFinite()), TrainingError, "step 1"),
    ],
)
def test_a_student_is_refused_before_anything_is_trained(student, error, words, tmp_path):
    with pytest.raises(error, match=words):
        distill(tmp_path / "run", student())
    assert not (tmp_path / "run").exists()


def test_so_is_one_that_only_distillation_breaks(tmp_path):
    with pytest.raises(ModelError, match="register"):
        distill(tmp_path / "run", unregistered(), **{"loss.alpha": 1.0})


@pytest.mark.parametrize("teacher", [unregistered, lambda: network(Forgetful())])
def test_so_is_a_teacher(teacher, tmp_path):
    with pytest.raises(ModelError, match="read again"):
        distill(tmp_path / "run", network(), teacher=teacher())
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_exported_is_trained_after_a_note(tmp_path):
    notes = Notes()
    distill(tmp_path / "run", network(layers.AdaptiveAveragePooling2D((5, 3))), notes)
    (line,) = [line for line in notes.lines if "exported" in line]
    assert "adaptive_avg_pool2d" in line
    assert (tmp_path / "run" / "student.keras").is_file()


def test_what_can_be_exported_is_not_mentioned_and_not_changed(tmp_path):
    notes, student = Notes(), network(layers.RandomFlip(seed=1), layers.BatchNormalization())
    before = [np.array(weights) for weights in student.get_weights()]
    outcome = distill(tmp_path / "run", student, notes)
    assert not any("exported" in line for line in notes.lines)
    for old, new in zip(before, student.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    tutelage.export(outcome.folder, data="digits")
    assert (tmp_path / "run" / "student.onnx").is_file()
