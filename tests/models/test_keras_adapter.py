"""Keras models as teachers, against their own predictions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from keras import layers, ops
from scipy.special import log_softmax
from scipy.special import softmax as softmax_of

from tests.models.example_models import (
    BIAS,
    GREY,
    SEEN,
    WEIGHTS,
    conv_net,
    dense,
    linear,
    logits_of,
    net,
    predicted,
    preprocessed,
    refused,
    student_of,
    teacher_of,
)
from tutelage.errors import (
    ModelError,
)
from tutelage.models import loading
from tutelage.models.preprocessing import Preprocessing


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_a_keras_model_answers_raw_images_as_it_answers_what_it_is_made_for(dtype: str) -> None:
    model = conv_net(dtype)
    if dtype == "uint8":
        teacher, expected = teacher_of(model), predicted(model, GREY)
    else:
        teacher, expected = (
            teacher_of(model, preprocessing=SEEN),
            predicted(model, preprocessed(GREY, SEEN)),
        )
    np.testing.assert_allclose(logits_of(teacher), expected, atol=1e-5)
    assert teacher.name == "conv"
    assert teacher.notes == ()
    assert teacher.model is not None
    assert teacher.model.name == "conv"
    # Nothing is put before what takes the images as they are.
    prefix = [layer for layer in teacher.model.layers if layer.name.startswith("entry_")]
    assert len(prefix) == (dtype == "float32")
    loading.check_fit(teacher.model, "teacher", (8, 8, 1), 3)


def test_a_model_of_uint8_images_gets_them_resized_as_uint8() -> None:
    model = net(layers.Dense(3), shape=(16, 16, 1), dtype="uint8")
    teacher = teacher_of(model, preprocessing=Preprocessing((16, 16)))
    channels_first = torch.tensor(GREY, dtype=torch.float32).permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(channels_first, (16, 16), mode="bilinear")
    expected = predicted(model, resized.round().permute(0, 2, 3, 1).numpy().astype(np.uint8))
    # A half is rounded either way: one of 255 steps in few pixels.
    np.testing.assert_allclose(logits_of(teacher), expected, atol=0.02 * np.abs(expected).max())
    assert teacher.model is not None
    again = teacher_of(teacher.model)  # which takes raw images by itself now
    np.testing.assert_array_equal(logits_of(again), logits_of(teacher))


def functional_softmax() -> keras.Model:
    inputs = keras.Input((8, 8, 1))
    return keras.Model(inputs, dense("softmax")(layers.Flatten()(inputs)))


@pytest.mark.parametrize(
    "build",
    [
        lambda: net(dense("softmax")),
        functional_softmax,
        lambda: net(dense(), layers.Softmax()),
        lambda: net(dense(), layers.Activation("softmax")),
    ],
    ids=["dense", "functional", "softmax", "activation"],
)
def test_a_softmax_head_gives_its_exact_logits(build: Callable[[], keras.Model]) -> None:
    # Far apart, so that logarithms of probabilities would not do.
    teacher = teacher_of(build(), preprocessing=Preprocessing(scale=16))
    expected = linear(GREY / np.float32(16))
    assert np.exp(log_softmax(expected, axis=1)).min() < 1e-12
    np.testing.assert_allclose(logits_of(teacher), expected, rtol=1e-5, atol=1e-4)
    assert teacher.notes == ("it ends in softmax: using the logits before the softmax",)


def test_a_softmax_that_works_in_the_middle_too_is_left_out_at_the_end_alone() -> None:
    inputs, softmax = keras.Input((8, 8, 1)), layers.Activation("softmax")
    x = layers.Rescaling(3.0)(softmax(dense()(layers.Flatten()(inputs))))
    teacher = teacher_of(keras.Model(inputs, softmax(x)), preprocessing=Preprocessing(scale=255))
    expected = 3 * softmax_of(linear(GREY / np.float32(255)), axis=1)
    np.testing.assert_allclose(logits_of(teacher), expected, atol=1e-5)


def operation() -> keras.Model:
    inputs = keras.Input((8, 8, 1))
    return keras.Model(inputs, ops.softmax(dense()(layers.Flatten()(inputs))))


@pytest.mark.parametrize(
    "build",
    [operation, lambda: net(keras.Sequential([dense("softmax")]))],
    ids=["operation", "nested"],
)
def test_a_softmax_is_found_behind_operations_and_in_nested_models(
    build: Callable[[], keras.Model], tmp_path: Path
) -> None:
    model = build()
    teacher = teacher_of(model, preprocessing=Preprocessing(scale=255))
    expected = predicted(model, GREY / np.float32(255))
    np.testing.assert_allclose(softmax_of(logits_of(teacher), axis=1), expected, atol=1e-6)
    assert teacher.notes == ("it ends in softmax: using the logits before the softmax",)
    assert teacher.model is not None
    loading.check_fit(teacher.model, "teacher", (8, 8, 1), 3)  # which knows a softmax by sight
    teacher.model.save(tmp_path / "teacher.keras")
    loaded = loading.load_model(tmp_path / "teacher.keras")
    np.testing.assert_array_equal(loading.logits(loaded, GREY), logits_of(teacher))


class Unkind(keras.Model):
    def __init__(self, units: int):
        super().__init__()
        self.units = layers.Dense(units)

    def call(self, x: Any) -> Any:
        return self.units(ops.reshape(x, (-1, 64)))


def test_keras_models_that_do_not_fit_are_refused() -> None:
    two = keras.Input((8, 8, 1)), keras.Input((8, 8, 1))
    joined = layers.Dense(3)(layers.Flatten()(layers.Add()(two)))
    one = layers.Flatten()(two[0])
    unkind = Unkind(3)
    unkind(np.zeros((1, 8, 8, 1), np.float32))
    for make in (teacher_of, student_of):
        for offender, model in [
            ("4 classes", net(layers.Dense(4))),
            ("2 inputs", keras.Model(two, joined)),
            ("2 outputs", keras.Model(two[0], [one, layers.Dense(3)(one)])),
            (
                r"\(None, 8, 8, 3\)",
                keras.Sequential([keras.Input((8, 8, 1)), layers.Dense(3)]),
            ),
            (
                r"\(None, 64\)",
                keras.Sequential([keras.Input((64,)), layers.Dense(3)]),
            ),
            (
                r"\(9, 7\)",
                net(layers.Dense(3), shape=(9, 7, 1)),
            ),
            (
                "3 channels",
                net(layers.Dense(3), shape=(8, 8, 3)),
            ),
            ("no weights", keras.Sequential([layers.Flatten(), layers.Dense(3)])),
            ("get_config", unkind),
        ]:
            refused(ModelError, offender, model, make=make)
    refused(
        ModelError,
        r"\(8, 8\)",
        net(dense()),
        preprocessing=Preprocessing((9, 9)),
    )
    infinite = net(dense())
    infinite.layers[-1].set_weights([WEIGHTS * np.nan, BIAS])
    refused(ModelError, "not finite", infinite)
