"""Teachers and students: where they are found, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from tests.models.example_models import (
    CLASSES,
    GREY,
    SEEN,
    conv_net,
    dense,
    flat,
    logits_of,
    net,
    onnx_file,
    predicted,
    preprocessed,
    refused,
    student_of,
    teacher_of,
)
from tutelage.errors import (
    ModelError,
    RecipeError,
)
from tutelage.models import loading, resolve
from tutelage.models.preprocessing import Preprocessing


def test_files_and_run_folders_are_found(tmp_path: Path) -> None:
    model = net(dense(), dtype="uint8")
    model.save(tmp_path / "teacher.keras")
    expected = predicted(model, GREY)
    for source in (tmp_path, str(tmp_path), tmp_path / "teacher.keras"):
        teacher = teacher_of(source)
        np.testing.assert_allclose(logits_of(teacher), expected, rtol=1e-5, atol=1e-3)
        assert teacher.name == str(source)
    (tmp_path / "results.json").write_text(json.dumps({"data": {"classes": CLASSES}}))
    np.testing.assert_array_equal(logits_of(teacher_of(tmp_path)), logits_of(teacher))
    np.testing.assert_array_equal(predicted(student_of(tmp_path / "teacher.keras"), GREY), expected)


def test_a_student_is_a_copy_with_weights_state_and_what_is_frozen() -> None:
    model = conv_net()
    model.layers[1].trainable = False
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    labels = np.arange(len(GREY)) % 3
    model.fit(preprocessed(GREY, SEEN), labels, verbose=0)
    before = [np.array(ops.convert_to_numpy(v)) for v in model.variables]
    one, two = (student_of(model, preprocessing=SEEN) for _ in range(2))
    assert [v.shape for v in one.trainable_weights] == [v.shape for v in model.trainable_weights]
    np.testing.assert_allclose(
        predicted(one, GREY), predicted(model, preprocessed(GREY, SEEN)), atol=1e-5
    )
    one.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    one.fit(GREY, labels, verbose=0)
    changed = [np.any(a != b) for a, b in zip(one.get_weights(), two.get_weights(), strict=True)]
    assert any(changed)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), value)
    # JAX gives arrays away in training: the model it came from works on.
    model.fit(preprocessed(GREY, SEEN), labels, verbose=0)


@keras.saving.register_keras_serializable("test_sources")
class CustomClass(keras.Model):
    def __init__(self, units: int = 3, **kwargs: Any):
        super().__init__(**kwargs)
        self.units, self.flatten, self.dense = units, layers.Flatten(), layers.Dense(units)

    def call(self, x: Any) -> Any:
        return self.dense(self.flatten(x))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"units": self.units}


def test_a_saved_student_takes_raw_images_by_itself(tmp_path: Path) -> None:
    custom = CustomClass()
    custom(np.zeros((1, 8, 8, 1), np.float32))
    for model in (net(dense("softmax")), conv_net(), custom):
        student = student_of(model, preprocessing=SEEN)
        student.save(tmp_path / "student.keras")
        loaded = loading.load_model(tmp_path / "student.keras")
        loading.check_fit(loaded, "student", (8, 8, 1), 3)
        np.testing.assert_array_equal(loading.logits(loaded, GREY), loading.logits(student, GREY))
        # And fits as it is, under the names it has.
        assert student_of(tmp_path / "student.keras").count_params() == student.count_params()
    np.testing.assert_allclose(
        predicted(loaded, GREY), predicted(custom, preprocessed(GREY, SEEN)), atol=1e-5
    )


def test_a_model_that_was_fitted_before_can_be_fitted_again() -> None:
    first = student_of(net(dense(), dtype="uint8"), preprocessing=Preprocessing((8, 8)))
    second = student_of(first, GREY.repeat(2, axis=1), preprocessing=Preprocessing((8, 8)))
    third = student_of(second, GREY.repeat(4, axis=1), preprocessing=Preprocessing((16, 8)))
    assert third.input_shape == (None, 32, 8, 1)
    assert len({layer.name for layer in third.layers}) == len(third.layers)


def test_paths_that_lead_nowhere_or_to_something_else_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_text("")
    (tmp_path / "torn.keras").write_text("torn")
    refused(ModelError, r"none\.onnx", tmp_path / "none.onnx")
    refused(ModelError, str(tmp_path), tmp_path)
    refused(ModelError, "my-package:f", "my-package:f")
    refused(RecipeError, r"model\.pt", tmp_path / "model.pt")
    refused(ModelError, r"torn\.keras", tmp_path / "torn.keras")
    refused(RecipeError, "found int", 3)
    refused(RecipeError, "found Dense", layers.Dense(3))
    refused(ModelError, r"none\.keras", tmp_path / "none.keras", make=student_of)


def test_a_teacher_of_other_classes_is_refused(tmp_path: Path) -> None:
    net(dense(), dtype="uint8").save(tmp_path / "teacher.keras")
    results = tmp_path / "results.json"
    for there, offender in [
        (["cat", "emu", "yak"], "'yak' there"),
        (["cat", "dog", "emu", "yak"], "'yak' there"),
    ]:
        results.write_text(json.dumps({"data": {"classes": there}}))
        refused(ModelError, offender, tmp_path)
        refused(ModelError, offender, tmp_path / "teacher.keras")
    for unreadable in ("[]", "torn", '{"data": null}'):
        results.write_text(unreadable)
        teacher_of(tmp_path)


def test_a_student_that_can_not_be_trained_is_refused(tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "net.onnx")
    refused(RecipeError, r"net\.onnx", path, make=student_of)
    refused(RecipeError, "PyTorch module", flat(), make=student_of)
    frozen = net(dense())
    frozen.trainable = False
    refused(ModelError, "trainable weights", frozen, make=student_of)
    for seed in (-1, 2**32):
        refused(RecipeError, "^seed", net(dense()), make=student_of, seed=seed)


def test_arguments_that_mean_nothing_are_refused() -> None:
    refused(RecipeError, "^images", net(dense()), GREY / 255)
    refused(RecipeError, "^images", net(dense()), GREY[..., 0])
    refused(RecipeError, "^images", net(dense()), GREY[:0])
    with pytest.raises(RecipeError, match="2 names"):
        resolve.teacher(net(dense()), images=GREY, classes=("cat",))
    for offender, preprocessing in [
        ("^size", Preprocessing(size=(0, 8))),
        ("^size", Preprocessing(size=(8,))),  # type: ignore[arg-type]
        ("^scale", Preprocessing(scale=0)),
        ("^scale", Preprocessing(scale=float("nan"))),
        ("^mean", Preprocessing(mean=(0.1, 0.2))),
        ("^mean", Preprocessing(mean=(float("inf"),))),
        ("^std", Preprocessing(std=(0.0,))),
    ]:
        refused(RecipeError, offender, net(dense()), preprocessing=preprocessing)
    raw = net(dense(), dtype="uint8")
    refused(RecipeError, "uint8 pixels", raw, preprocessing=SEEN)
