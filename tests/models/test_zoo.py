"""Models against their description, a count of flops, and a process without tutelage."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
import torch
from keras import layers, ops
from torch.utils.flop_counter import FlopCounterMode

from tutelage import recipe
from tutelage.errors import ModelError, RecipeError
from tutelage.models import zoo


def pictures(*shape: int) -> np.ndarray:
    """Noise whose neighboring pixels and channels are alike, as in photographs."""
    noise = np.random.default_rng(0).normal(size=shape)
    smooth = sum(np.roll(noise, step, axis) for axis in (1, 2) for step in range(4))
    return (110 + 20 * smooth + 10 * smooth.mean(-1, keepdims=True)).clip(0, 255).astype(np.uint8)


RGB_IMAGES, GREY = pictures(40, 32, 32, 3), pictures(40, 8, 8, 1)
NAMES = {"teacher-2m": RGB_IMAGES, "student-300k": RGB_IMAGES, "digits-teacher": GREY}
NAMES["digits-student"] = GREY
NAMES |= dict.fromkeys(("mlp-1200", "mlp-800", "mlp-300", "mlp-30"), GREY)


def built(name: str, **changed: object) -> keras.Model:
    return zoo.build(name, **({"images": NAMES[name], "classes": 10, "seed": 0} | changed))


def values(model: keras.Model) -> list[np.ndarray]:
    return [ops.convert_to_numpy(variable.value) for variable in model.variables]


def answers(model: keras.Model, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return ops.convert_to_numpy(model(images, training=False))


@pytest.fixture
def bfloat16_policy() -> Iterator[None]:
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy("float32")


def test_recipes_and_models_know_the_same_names() -> None:
    assert set(zoo.ARCHITECTURES) == set(recipe.MODELS) == set(NAMES)


def test_the_teacher_is_the_one_described() -> None:
    def told(layer: keras.Layer) -> tuple:
        kind = type(layer).__name__
        if isinstance(layer, layers.Conv2D):
            settings = layer.filters, layer.kernel_size, layer.padding, layer.strides
            return kind, *settings, layer.use_bias, layer.activation.__name__
        if isinstance(layer, layers.Dense):
            return kind, layer.units, layer.use_bias, layer.activation.__name__
        if isinstance(layer, layers.Dropout):
            return kind, layer.rate
        return kind, *(layer.pool_size if isinstance(layer, layers.MaxPooling2D) else ())

    expected: list[tuple] = [("InputLayer",), ("Rescaling",)]
    for filters, rate in [(64, 0.2), (128, 0.3), (256, 0.4)]:
        convolution = ("Conv2D", filters, (3, 3), "same", (1, 1), True, "relu")
        expected += 2 * [convolution, ("BatchNormalization",)]
        expected += [("MaxPooling2D", 2, 2), ("Dropout", rate)]
    expected += [("Flatten",), ("Dense", 256, True, "relu"), ("BatchNormalization",)]
    expected += [("Dropout", 0.3), ("Dense", 10, True, "linear")]
    teacher = built("teacher-2m")
    assert [told(layer) for layer in teacher.layers] == expected
    assert teacher.count_params() == 2_201_418


def test_students_are_small_and_of_the_teachers_family() -> None:
    student, teacher = built("student-300k"), built("teacher-2m")
    assert student.count_params() <= 330_000
    family = {type(layer) for layer in teacher.layers} | {layers.GlobalAveragePooling2D}
    assert {type(layer) for layer in student.layers} <= family
    assert built("digits-student").count_params() < built("digits-teacher").count_params() / 20


# Worked out by hand: 784 pixels, two hidden layers, ten classes.
PERCEPTRONS = {"mlp-1200": 2_395_210, "mlp-800": 1_276_810, "mlp-300": 328_810, "mlp-30": 24_790}


@pytest.mark.parametrize("name", PERCEPTRONS)
def test_fully_connected_nets_are_those_of_the_paper(name: str) -> None:
    model = built(name, images=pictures(40, 28, 28, 1))
    assert model.count_params() == PERCEPTRONS[name]
    units = int(name.removeprefix("mlp-"))
    hidden = [layer for layer in model.layers if isinstance(layer, layers.Dense)][:-1]
    assert [(layer.units, layer.activation.__name__) for layer in hidden] == 2 * [(units, "relu")]
    rates = [layer.rate for layer in model.layers if isinstance(layer, layers.Dropout)]
    assert rates == ([0.05, 0.3, 0.3] if name == "mlp-1200" else [])
    limits = [getattr(layer.kernel_constraint, "max_value", None) for layer in hidden]
    assert limits == 2 * [2.0 if name == "mlp-1200" else None]


@pytest.mark.parametrize("name", NAMES)
def test_a_model_is_stock_keras_from_raw_bytes_to_logits(name: str) -> None:
    model = built(name, classes=7)
    assert type(model) is keras.Model or type(model).__module__.startswith("keras.")
    assert {type(layer).__module__.split(".")[0] for layer in model.layers} == {"keras"}
    assert model.inputs[0].dtype == "uint8"
    given = answers(model, NAMES[name][:5])
    assert given.shape == (5, 7)
    assert given.dtype == np.float32
    assert (given < 0).any()  # no probabilities


def test_normalization_gives_each_channel_mean_0_and_spread_1() -> None:
    images = RGB_IMAGES.copy()
    images[..., 1] //= 3  # channels that differ
    model = built("student-300k", images=images)
    normalized = answers(keras.Model(model.input, model.layers[1].output), images)
    np.testing.assert_allclose(normalized.mean((0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(normalized.std((0, 1, 2)), 1, atol=1e-4)


def test_images_of_one_colour_can_be_learnt_from() -> None:
    model = built("digits-student", images=np.full((4, 8, 8, 1), 9, np.uint8))
    assert np.isfinite(answers(model, GREY)).all()


@pytest.mark.parametrize(("name", "count"), [("teacher-2m", 27), ("student-300k", 16)])
def test_the_first_convolution_decorrelates_patches(name: str, count: int) -> None:
    model = built(name)
    first = next(layer for layer in model.layers if isinstance(layer, layers.Conv2D))
    activated = answers(keras.Model(model.input, first.output), RGB_IMAGES)
    # What one sign of a filter stops at its ReLU, the other lets through.
    linear = activated[..., :count] - activated[..., count : 2 * count]
    inside = linear[:, 1:-1, 1:-1].reshape(-1, count)  # no padding in these patches
    np.testing.assert_allclose(inside.T @ inside / len(inside), np.eye(count), atol=0.1)
    normalized = answers(keras.Model(model.input, model.layers[1].output), RGB_IMAGES)
    neighbors = np.corrcoef(normalized[:, :, 1:, 0].ravel(), normalized[:, :, :-1, 0].ravel())
    assert neighbors[0, 1] > 0.3  # there was something to decorrelate


def test_later_convolutions_begin_by_passing_their_input_on() -> None:
    model = built("teacher-2m")
    _, second, third, *_ = (layer for layer in model.layers if isinstance(layer, layers.Conv2D))
    x = np.random.default_rng(0).random((2, 6, 6, 64), dtype=np.float32)  # no ReLU below 0
    np.testing.assert_allclose(answers(second, x), x, atol=1e-6)
    widened = answers(third, x)
    np.testing.assert_allclose(widened[..., :64], x, atol=1e-6)
    assert (widened[..., 64:] != 0).any()  # the rest is random


def test_weights_follow_from_images_and_seed_alone() -> None:
    keras.utils.set_random_seed(1)
    one = values(built("digits-teacher"))
    keras.utils.set_random_seed(2)
    for again, first in zip(values(built("digits-teacher")), one, strict=True):
        np.testing.assert_array_equal(again, first)
    for changed in ({"seed": 1}, {"images": GREY[:20]}):
        pairs = zip(values(built("digits-teacher", **changed)), one, strict=True)
        assert any((a != b).any() for a, b in pairs)


def test_no_two_layers_share_their_random_numbers() -> None:
    model = built("digits-teacher")
    seeds = [layer.seed for layer in model.layers if isinstance(layer, layers.Dropout)]
    kernels = (layer for layer in model.layers if isinstance(layer, layers.Conv2D | layers.Dense))
    seeds += [layer.kernel_initializer.seed for layer in kernels]
    assert len(seeds) == 3 + 6
    assert len(set(seeds)) == len(seeds)


def test_models_stay_float32_whatever_the_global_policy(
    bfloat16_policy: None, tmp_path: Path
) -> None:
    model = built("digits-teacher")
    assert {variable.dtype for variable in model.weights} == {"float32"}
    given = answers(model, GREY)
    model.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as file:
        assert b"bfloat16" not in file.read("config.json")
    keras.config.set_dtype_policy("float32")
    np.testing.assert_array_equal(answers(built("digits-teacher"), GREY), given)


def test_a_file_needs_nothing_of_tutelage(tmp_path: Path) -> None:
    for name, images in NAMES.items():
        model = built(name)
        model.save(tmp_path / f"{name}.keras")
        np.savez(tmp_path / f"{name}.npz", images=images[:8], logits=answers(model, images[:8]))
    script = """
import pathlib, sys
import keras, numpy as np
for file in sorted(pathlib.Path(sys.argv[1]).glob("*.keras")):
    model = keras.saving.load_model(file)
    assert model.input.dtype == "uint8"
    assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}
    stored = np.load(file.with_suffix(".npz"))
    got = keras.ops.convert_to_numpy(model(stored["images"]))
    print(file.stem, np.abs(got - stored["logits"]).max() < 1e-4)
assert not [name for name in sys.modules if name.startswith("tutelage")]
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "KERAS_BACKEND": "torch"},
    )
    assert done.stdout.split() == [word for name in sorted(NAMES) for word in (name, "True")]


def test_macs_of_the_teacher_are_those_worked_out_by_hand() -> None:
    places = [32 * 32, 16 * 16, 8 * 8]
    widths = [(3, 64, 64), (64, 128, 128), (128, 256, 256)]
    convolutions = sum(n * 9 * (a * b + b * c) for n, (a, b, c) in zip(places, widths, strict=True))
    expected = convolutions + 4 * 4 * 256 * 256 + 256 * 10
    assert zoo.macs(built("teacher-2m")) == expected == 153_815_552


OTHERS = {
    "strided": lambda: layers.Conv2D(6, 3, strides=2, padding="same"),
    "valid and dilated": lambda: layers.Conv2D(6, 3, dilation_rate=2),
    "of groups": lambda: layers.Conv2D(8, (3, 1), groups=4),
    "channels first": lambda: layers.Conv2D(5, 3, data_format="channels_first"),
    "depthwise": lambda: layers.DepthwiseConv2D(3, depth_multiplier=2),
    "separable": lambda: layers.SeparableConv2D(6, 3, depth_multiplier=2, strides=2),
    "dense at every place": lambda: layers.Dense(5),
    "nested": lambda: keras.Sequential([keras.Input((8, 8, 8)), layers.Conv2D(3, 2)]),
}


@pytest.mark.parametrize("name", [*NAMES, *OTHERS])
def test_macs_are_half_the_flops_that_pytorch_counts(name: str) -> None:
    if name in NAMES:
        model, image = built(name), NAMES[name][:1]
    else:
        model = keras.Sequential([keras.Input((8, 8, 8)), OTHERS[name]()])
        image = np.zeros((1, 8, 8, 8), np.float32)
    with FlopCounterMode(display=False) as counted:
        answers(model, image)
    assert zoo.macs(model) == counted.get_total_flops() / 2


def test_operations_of_a_model_of_any_size_can_not_be_counted() -> None:
    model = keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(4, 3, name="first")])
    with pytest.raises(ModelError, match=r"^first"):
        zoo.macs(model)


@pytest.mark.parametrize(
    ("changed", "offender"),
    [
        ({"name": "teacher-3m"}, "teacher-3m"),
        ({"images": GREY.astype(np.float32)}, "float32"),
        ({"images": GREY[..., 0]}, r"\(40, 8, 8\)"),
        ({"images": GREY[:0]}, r"\(0, 8, 8, 1\)"),
        ({"classes": 1}, "1 and 0"),
        ({"seed": -1}, "10 and -1"),
    ],
)
def test_what_can_not_be_built_is_refused(changed: dict, offender: str) -> None:
    settings = {"name": "digits-student", "images": GREY, "classes": 10, "seed": 0}
    with pytest.raises(RecipeError, match=offender):
        zoo.build(**(settings | changed))


def test_images_too_small_for_so_many_poolings_are_refused() -> None:
    small = np.zeros((4, 7, 32, 3), np.uint8)
    with pytest.raises(ModelError, match="found 7x32"):
        zoo.build("student-300k", images=small, classes=10, seed=0)
    zoo.build("student-300k", images=np.zeros((4, 8, 8, 3), np.uint8), classes=10, seed=0)


def test_whitening_in_parts_is_that_of_all_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = values(built("student-300k"))
    monkeypatch.setattr(zoo, "_WHITENING_BYTES", 1)  # an image at a time
    for one, other in zip(values(built("student-300k")), whole, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
