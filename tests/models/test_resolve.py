"""Teachers and students of every kind, against what NumPy and the models themselves say."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from math import comb
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
import torch
from keras import layers, ops
from onnx import TensorProto, helper, numpy_helper
from scipy.special import log_softmax
from scipy.special import softmax as softmax_of

from tutelage.errors import (
    KnowledgeError,
    MissingExtraError,
    ModelError,
    RecipeError,
    TutelageError,
)
from tutelage.models import loading, resolve, stored_logits
from tutelage.models.resolve import Preprocessing

GREY = np.random.default_rng(0).integers(0, 256, (300, 8, 8, 1), dtype=np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (20, 6, 8, 3), dtype=np.uint8)
CLASSES = ("cat", "dog", "emu")
SEEN = Preprocessing(scale=255, mean=(0.5,), std=(0.25,))
COLOURS = Preprocessing(scale=255, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
WEIGHTS = np.random.default_rng(2).normal(0, 0.3, (64, 3)).astype(np.float32)
BIAS = np.array([0.1, -0.2, 0.3], np.float32)


def seen(images: np.ndarray, entry: Preprocessing) -> np.ndarray:
    """What a model of such an entry sees, without a resize."""
    return ((images / entry.scale - np.array(entry.mean)) / np.array(entry.std)).astype(np.float32)


def linear(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1) @ WEIGHTS + BIAS


def dense(activation: str | None = None) -> layers.Dense:
    layer = layers.Dense(3, activation)
    layer.build((None, 64))
    layer.set_weights([WEIGHTS, BIAS])
    return layer


def net(*head: keras.Layer, shape: tuple[Any, ...] = (8, 8, 1), dtype: str = "float32") -> Any:
    return keras.Sequential([keras.Input(shape, dtype=dtype), layers.Flatten(), *head])


def conv_net(dtype: str = "float32") -> Any:
    """A Keras net with what a twin, a settling or a copy could get wrong."""
    inputs = keras.Input((None, None, 1), dtype=dtype)
    x = layers.Rescaling(1 / 255)(inputs) if dtype == "uint8" else inputs
    x = layers.Conv2D(4, 3, activation="relu")(x)
    x = layers.Dropout(0.5, seed=1)(layers.BatchNormalization()(x))
    x = layers.Add()([layers.Conv2D(4, 3, padding="same")(x), x])
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)), name="conv")


class Small(torch.nn.Module):
    def __init__(self, channels: int = 3):
        super().__init__()
        self.conv = torch.nn.Conv2d(channels, 4, 3)
        self.norm = torch.nn.BatchNorm2d(4)
        self.drop = torch.nn.Dropout(0.5)
        self.head = torch.nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.drop(self.norm(self.conv(x)).relu().mean((2, 3))))


def small(channels: int = 3) -> Small:
    torch.manual_seed(0)
    return Small(channels)


def flat(*head: torch.nn.Module, inputs: int = 64) -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(inputs, 3), *head)


def onnx_file(
    path: Path,
    shape: tuple[int | str, ...] = ("n", 1, 8, 8),
    *,
    kind: int = TensorProto.FLOAT,
    softmax: bool = False,
    outputs: tuple[str, ...] = ("logits",),
    inputs: tuple[str, ...] = ("image",),
    last: tuple[str, ...] = (),
) -> Path:
    """A file of [Cast], Flatten, Gemm and [Softmax], with the weights above."""
    nodes = [
        helper.make_node("Cast", ["image"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["cast"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w", "b"], ["linear"]),
        helper.make_node("Softmax" if softmax else "Identity", ["linear"], ["logits"]),
        helper.make_node("Identity", ["linear"], ["more"]),
        helper.make_node("Identity", ["cast"], ["maps"]),
    ]
    declared = {"maps": (shape[0], *shape[1:])}
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(name, kind, shape) for name in inputs],
        [
            helper.make_tensor_value_info(
                name, TensorProto.FLOAT, declared.get(name, (shape[0], 3))
            )
            for name in outputs
        ],
        [numpy_helper.from_array(WEIGHTS, "w"), numpy_helper.from_array(BIAS, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return path


def means_file(path: Path, shape: tuple[int | str, ...]) -> Path:
    """A file whose logits are the means of the channels, so that a wrong layout shows."""
    axes = numpy_helper.from_array(np.array([1, 2] if shape[3] in (1, 3) else [2, 3]), "axes")
    node = helper.make_node("ReduceMean", ["image", "axes"], ["logits"], keepdims=0)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "means",
        [value("image", TensorProto.FLOAT, shape)],
        [value("logits", TensorProto.FLOAT, (shape[0], "channels"))],
        [axes],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path)
    return path


def made(source: Any, images: np.ndarray = GREY, **given: Any) -> resolve.Teacher:
    return resolve.teacher(source, images=images, classes=CLASSES, **given)


def pupil(source: Any, images: np.ndarray = GREY, seed: int = 0, **given: Any) -> keras.Model:
    return resolve.student(source, images=images, classes=CLASSES, seed=seed, **given)[0]


def answers(teacher: resolve.Teacher, images: np.ndarray = GREY) -> np.ndarray:
    assert teacher.answer is not None
    given = teacher.answer(images, "float32")
    assert given.dtype == np.float32
    return given


def predicted(model: keras.Model, images: np.ndarray) -> np.ndarray:
    return np.asarray(model.predict(images, verbose=0))


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Write a module into the current folder and give its name."""
    monkeypatch.chdir(tmp_path)

    def write(source: str) -> str:
        name = f"made_{len(list(tmp_path.glob('*.py')))}_{tmp_path.name}".replace("-", "_")
        (tmp_path / f"{name}.py").write_text(source)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return name

    return write


# What they answer.


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_a_keras_model_answers_raw_images_as_it_answers_what_it_is_made_for(dtype: str) -> None:
    model = conv_net(dtype)
    if dtype == "uint8":
        teacher, expected = made(model), predicted(model, GREY)
    else:
        teacher, expected = made(model, entry=SEEN), predicted(model, seen(GREY, SEEN))
    np.testing.assert_allclose(answers(teacher), expected, atol=1e-5)
    assert teacher.name == "conv"
    assert teacher.notes == ()
    assert teacher.model is not None
    assert teacher.model.name == "conv"
    # Nothing is put before what takes the images as they are.
    prefix = [layer for layer in teacher.model.layers if layer.name.startswith("entry")]
    assert len(prefix) == (dtype == "float32")
    loading.check_fit(teacher.model, "teacher", (8, 8, 1), 3)


def test_images_are_resized_bilinearly_and_then_seen_as_the_entry_says() -> None:
    model = net(layers.Dense(3), shape=(12, 16, 3))
    entry = Preprocessing((12, 16), COLOURS.scale, COLOURS.mean, COLOURS.std)
    teacher = made(model, COLOUR, entry=entry)
    channels_first = torch.tensor(seen(COLOUR, entry)).permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(channels_first, (12, 16), mode="bilinear")
    expected = predicted(model, resized.permute(0, 2, 3, 1).numpy())
    np.testing.assert_allclose(answers(teacher, COLOUR), expected, atol=1e-4)
    assert teacher.notes == ("images are resized for it from 6x8 to 12x16 pixels",)
    # The same for a model of another library.
    module = flat(inputs=12 * 16 * 3)
    teacher = made(module, COLOUR, entry=entry)
    np.testing.assert_allclose(
        answers(teacher, COLOUR), module(resized).detach().numpy(), atol=1e-4
    )
    assert teacher.notes == ("images are resized for it from 6x8 to 12x16 pixels",)


def test_a_model_of_uint8_images_gets_them_resized_as_uint8() -> None:
    model = net(layers.Dense(3), shape=(16, 16, 1), dtype="uint8")
    teacher = made(model, entry=Preprocessing((16, 16)))
    channels_first = torch.tensor(GREY, dtype=torch.float32).permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(channels_first, (16, 16), mode="bilinear")
    expected = predicted(model, resized.round().permute(0, 2, 3, 1).numpy().astype(np.uint8))
    # A half is rounded either way: one of 255 steps in few pixels.
    np.testing.assert_allclose(answers(teacher), expected, atol=0.02 * np.abs(expected).max())
    assert teacher.model is not None
    again = made(teacher.model)  # which takes raw images by itself now
    np.testing.assert_array_equal(answers(again), answers(teacher))


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
    teacher = made(build(), entry=Preprocessing(scale=16))
    expected = linear(GREY / np.float32(16))
    assert np.exp(log_softmax(expected, axis=1)).min() < 1e-12
    np.testing.assert_allclose(answers(teacher), expected, rtol=1e-5, atol=1e-4)
    assert teacher.notes == ("it ends in softmax: its logits are taken from before that",)


def test_a_softmax_that_works_in_the_middle_too_is_left_out_at_the_end_alone() -> None:
    inputs, softmax = keras.Input((8, 8, 1)), layers.Activation("softmax")
    x = layers.Rescaling(3.0)(softmax(dense()(layers.Flatten()(inputs))))
    teacher = made(keras.Model(inputs, softmax(x)), entry=Preprocessing(scale=255))
    expected = 3 * softmax_of(linear(GREY / np.float32(255)), axis=1)
    np.testing.assert_allclose(answers(teacher), expected, atol=1e-5)


def operation() -> keras.Model:
    inputs = keras.Input((8, 8, 1))
    return keras.Model(inputs, ops.softmax(dense()(layers.Flatten()(inputs))))


@pytest.mark.parametrize(
    "build",
    [operation, lambda: net(keras.Sequential([dense("softmax")]))],
    ids=["operation", "nested"],
)
def test_other_probabilities_of_keras_become_logarithms(
    build: Callable[[], keras.Model], tmp_path: Path
) -> None:
    model = build()
    teacher = made(model, entry=Preprocessing(scale=255))
    expected = np.log(np.maximum(predicted(model, GREY / np.float32(255)), 1e-7))
    np.testing.assert_allclose(answers(teacher), expected, atol=1e-4)
    assert teacher.notes == ("it gives probabilities: their logarithms are taken as its logits",)
    assert teacher.model is not None
    loading.check_fit(teacher.model, "teacher", (8, 8, 1), 3)  # which knows a softmax by sight
    teacher.model.save(tmp_path / "teacher.keras")
    loaded = loading.load_model(tmp_path / "teacher.keras")
    np.testing.assert_array_equal(loading.logits(loaded, GREY), answers(teacher))


def test_other_models_probabilities_become_logarithms(tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "net.onnx", softmax=True)
    module = flat(torch.nn.Softmax(1))
    x = GREY / np.float32(255)
    expected = {
        "onnx": log_softmax(linear(x), axis=1),
        "torch": log_softmax(module[:2](torch.tensor(x)).detach().numpy(), axis=1),
    }
    for name, source in {"onnx": str(path), "torch": module}.items():
        teacher = made(source, entry=Preprocessing(scale=255))
        np.testing.assert_allclose(answers(teacher), expected[name], atol=1e-5)
        assert teacher.notes == (
            "it gives probabilities: their logarithms are taken as its logits",
        )


def test_sigmoids_are_no_probabilities_of_classes() -> None:
    model = net(dense("sigmoid"))
    teacher = made(model, entry=SEEN)
    np.testing.assert_allclose(answers(teacher), predicted(model, seen(GREY, SEEN)), atol=1e-6)
    assert teacher.notes == ()
    assert made(flat(torch.nn.Sigmoid()), entry=SEEN).notes == ()


def test_logits_that_sum_to_one_are_no_probabilities_if_some_are_negative() -> None:
    class Centred(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x - x.mean(1, keepdim=True) + 1 / 3

    module = flat(Centred())
    teacher = made(module, entry=SEEN)
    x = torch.tensor(seen(GREY, SEEN))
    np.testing.assert_allclose(answers(teacher), module(x).detach().numpy(), atol=1e-5)
    assert teacher.notes == ()


def test_a_torch_module_answers_as_its_own_forward_pass() -> None:
    module = small()
    teacher = made(module, COLOUR, entry=COLOURS)
    module.eval()
    x = torch.tensor(seen(COLOUR, COLOURS).transpose(0, 3, 1, 2).copy())
    np.testing.assert_allclose(answers(teacher, COLOUR), module(x).detach().numpy(), atol=1e-5)
    assert (teacher.name, teacher.model, teacher.stored) == ("Small", None, None)
    # A module of another precision gets its images in that.
    half = made(module.to(torch.bfloat16), COLOUR, entry=COLOURS)
    np.testing.assert_allclose(answers(half, COLOUR), answers(teacher, COLOUR), atol=0.05)


def test_torch_is_asked_in_the_precision_that_is_wanted() -> None:
    teacher = made(small(), COLOUR, entry=COLOURS)
    assert teacher.answer is not None
    low, high = (teacher.answer(COLOUR, which) for which in ("bfloat16", "float32"))
    assert low.dtype == np.float32
    assert 0 < np.abs(low - high).max() < 0.05


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        (("n", 1, 8, 8), TensorProto.FLOAT),
        (("n", 8, 8, 1), TensorProto.FLOAT),
        (("n", "c", "h", "w"), TensorProto.FLOAT),
        ((7, 1, 8, 8), TensorProto.FLOAT),
        ((1, 8, 8, 1), TensorProto.UINT8),
        (("n", 1, 8, 8), TensorProto.UINT8),
    ],
    ids=str,
)
def test_an_onnx_file_answers_as_numpy_does(
    tmp_path: Path, shape: tuple[int | str, ...], kind: int
) -> None:
    path = onnx_file(tmp_path / "net.onnx", shape, kind=kind)
    floating = kind == TensorProto.FLOAT
    teacher = made(path, entry=SEEN if floating else Preprocessing())
    expected = linear(seen(GREY, SEEN) if floating else GREY.astype(np.float32))
    np.testing.assert_allclose(answers(teacher), expected, rtol=1e-4, atol=1e-3)
    assert (teacher.name, teacher.model, teacher.notes) == (str(path), None, ())


@pytest.mark.parametrize("channels_last", [False, True])
def test_an_onnx_file_of_colour_images_is_given_its_layout(
    tmp_path: Path, channels_last: bool
) -> None:
    shape = ("n", "h", "w", 3) if channels_last else ("n", 3, "h", "w")
    means_file(tmp_path / "means.onnx", shape)
    teacher = made(tmp_path / "means.onnx", COLOUR, entry=COLOURS)
    expected = seen(COLOUR, COLOURS).mean((1, 2))
    np.testing.assert_allclose(answers(teacher, COLOUR), expected, atol=1e-5)


def test_files_and_run_folders_are_found(tmp_path: Path) -> None:
    model = net(dense(), dtype="uint8")
    model.save(tmp_path / "teacher.keras")
    expected = predicted(model, GREY)
    for source in (tmp_path, str(tmp_path), tmp_path / "teacher.keras"):
        teacher = made(source)
        np.testing.assert_allclose(answers(teacher), expected, rtol=1e-5, atol=1e-3)
        assert teacher.name == str(source)
    (tmp_path / "results.json").write_text(json.dumps({"data": {"classes": CLASSES}}))
    np.testing.assert_array_equal(answers(made(tmp_path)), answers(teacher))
    np.testing.assert_array_equal(predicted(pupil(tmp_path / "teacher.keras"), GREY), expected)


FUNCTION = """
import keras, torch
def keras_model():
    return keras.Sequential([
        keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(3)
    ])
def module():
    import made_helper  # when it is called, not when this is imported
    torch.manual_seed(made_helper.SEED)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
"""


def test_functions_of_the_current_folder_are_called(
    code: Callable[[str], str], tmp_path: Path
) -> None:
    name = code(FUNCTION)
    (tmp_path / "made_helper.py").write_text("SEED = 0")
    path = list(sys.path)
    teacher = made(f"{name}:module", entry=SEEN)
    np.testing.assert_array_equal(answers(teacher), answers(made(flat(), entry=SEEN)))
    assert teacher.name == f"{name}:module"
    assert made(f"{name}:keras_model", entry=SEEN).model is not None
    one, same, other = (pupil(f"{name}:keras_model", seed=seed) for seed in (3, 3, 4))
    keras.utils.set_random_seed(3)
    expected = net(layers.Dense(3)).get_weights()
    for ours, again, others, weights in zip(
        *(m.get_weights() for m in (one, same, other)), expected, strict=True
    ):
        np.testing.assert_array_equal(ours, weights)
        np.testing.assert_array_equal(ours, again)
        assert weights.ndim == 1 or (ours != others).any()
    assert sys.path == path


def store(path: Path, logits: np.ndarray, **told: Any) -> Path:
    np.save(path, logits)
    manifest = {"images": stored_logits.order(GREY), "classes": CLASSES} | told
    path.with_suffix(".json").write_text(json.dumps(manifest))
    return path


def test_stored_logits_are_read_as_they_are(tmp_path: Path) -> None:
    logits = linear(GREY / np.float32(255))
    teacher = made(store(tmp_path / "logits.npy", logits.astype(np.float64)))
    assert teacher.stored is not None
    assert teacher.stored.dtype == np.float32
    np.testing.assert_array_equal(teacher.stored, logits)
    assert (teacher.model, teacher.answer, teacher.notes) == (None, None, ())
    chances = np.exp(log_softmax(logits, axis=1))
    teacher = made(store(tmp_path / "chances.npy", chances))
    assert teacher.stored is not None
    np.testing.assert_allclose(teacher.stored, np.log(chances), atol=1e-6)
    assert teacher.notes == ("it gives probabilities: their logarithms are taken as its logits",)


def test_doubt_is_what_the_binomial_distribution_says() -> None:
    labels = np.arange(100) % 4  # the commonest class's share is a quarter

    def tail(right: int) -> float:
        return sum(comb(100, k) * 0.25**k * 0.75 ** (100 - k) for k in range(right, 101))

    first = next(right for right in range(101) if tail(right) < 0.01)
    for right in (0, first - 1, first, 100):
        guesses = np.where(np.arange(100) < right, labels, (labels + 1) % 4)
        told = resolve.doubtful(np.eye(4)[guesses], labels)
        assert (told is None) == (right >= first)
        if told:
            assert f"right on {right}.0% of 100 images" in told
            assert "\n" not in told
    # Naming the commonest class is right more often than a quarter, and yet knows nothing.
    skewed = np.array([0] * 80 + [1] * 20)
    assert resolve.doubtful(np.eye(4)[np.zeros(100, int)], skewed) is not None


# The same again, and nothing else changed.


def test_a_source_answers_and_is_known_alike_each_time(
    tmp_path: Path, code: Callable[[str], str]
) -> None:
    path = onnx_file(tmp_path / "net.onnx")
    name = code(FUNCTION)
    conv_net().save(tmp_path / "conv.keras")
    known = set()
    for source in (conv_net(), tmp_path / "conv.keras", flat(), path):
        one, two, other = made(source), made(source), made(source, entry=SEEN)
        np.testing.assert_array_equal(answers(one), answers(two))
        assert one.digest == two.digest != other.digest
        known |= {one.digest, other.digest}
    assert len(known) == 8
    keras.utils.set_random_seed(0)
    one = made(f"{name}:keras_model")
    keras.utils.set_random_seed(0)
    assert made(f"{name}:keras_model").digest == one.digest  # its layers are named anew


def test_a_digest_follows_what_the_answers_depend_on(tmp_path: Path) -> None:
    def one() -> torch.nn.Module:
        class Local(Small):
            pass

        return Local()

    def other() -> torch.nn.Module:
        class Local(Small):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return 2 * super().forward(x)

        return Local()

    digests = []
    for build in (one, one, other):
        torch.manual_seed(0)
        digests.append(made(build(), COLOUR).digest)
    assert digests[0] == digests[1] != digests[2]
    module = small()
    before = made(module, COLOUR).digest
    module.norm.running_mean += 1
    assert made(module, COLOUR).digest != before
    # Weights that lie beside an ONNX file are a part of it.
    path = onnx_file(tmp_path / "net.onnx")
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    before = made(path)
    raw = np.fromfile(tmp_path / "w.bin", np.uint8)
    raw[:4] = np.frombuffer(np.float32(5).tobytes(), np.uint8)
    raw.tofile(tmp_path / "w.bin")
    after = made(path)
    assert (answers(before) != answers(after)).any()
    assert before.digest != after.digest
    (tmp_path / "other.bin").write_bytes(b"no part of it")
    assert made(path).digest == after.digest


def test_order_tells_images_their_order_and_their_shape_apart() -> None:
    same = np.asfortranarray(GREY)
    assert stored_logits.order(same) == stored_logits.order(GREY)
    changed = GREY.copy()
    changed[3, 2, 1] ^= 1
    for other in (GREY[::-1], changed, GREY[:-1], GREY.reshape(300, 4, 16, 1)):
        assert stored_logits.order(other) != stored_logits.order(GREY)


def test_a_torch_module_is_left_as_found() -> None:
    module = small()
    module.norm.eval()  # one part frozen by hand
    before = {name: value.clone() for name, value in module.state_dict().items()}
    answers(made(module, COLOUR), COLOUR)
    assert module.training
    assert module.drop.training
    assert not module.norm.training
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_a_student_is_a_copy_with_weights_state_and_what_is_frozen() -> None:
    model = conv_net()
    model.layers[1].trainable = False
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    labels = np.arange(len(GREY)) % 3
    model.fit(seen(GREY, SEEN), labels, verbose=0)
    before = [np.array(ops.convert_to_numpy(v)) for v in model.variables]
    one, two = (pupil(model, entry=SEEN) for _ in range(2))
    assert [v.shape for v in one.trainable_weights] == [v.shape for v in model.trainable_weights]
    np.testing.assert_allclose(predicted(one, GREY), predicted(model, seen(GREY, SEEN)), atol=1e-5)
    one.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    one.fit(GREY, labels, verbose=0)
    changed = [np.any(a != b) for a, b in zip(one.get_weights(), two.get_weights(), strict=True)]
    assert any(changed)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), value)
    # JAX gives arrays away in training: the model it came from works on.
    model.fit(seen(GREY, SEEN), labels, verbose=0)


@keras.saving.register_keras_serializable("test_sources")
class OwnClass(keras.Model):
    def __init__(self, units: int = 3, **kwargs: Any):
        super().__init__(**kwargs)
        self.units, self.flatten, self.dense = units, layers.Flatten(), layers.Dense(units)

    def call(self, x: Any) -> Any:
        return self.dense(self.flatten(x))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"units": self.units}


def test_a_saved_student_takes_raw_images_by_itself(tmp_path: Path) -> None:
    own = OwnClass()
    own(np.zeros((1, 8, 8, 1), np.float32))
    for model in (net(dense("softmax")), conv_net(), own):
        student = pupil(model, entry=SEEN)
        student.save(tmp_path / "student.keras")
        loaded = loading.load_model(tmp_path / "student.keras")
        loading.check_fit(loaded, "student", (8, 8, 1), 3)
        np.testing.assert_array_equal(loading.logits(loaded, GREY), loading.logits(student, GREY))
        # And fits as it is, under the names it has.
        assert pupil(tmp_path / "student.keras").count_params() == student.count_params()
    np.testing.assert_allclose(predicted(loaded, GREY), predicted(own, seen(GREY, SEEN)), atol=1e-5)


def test_a_model_that_was_fitted_before_can_be_fitted_again() -> None:
    first = pupil(net(dense(), dtype="uint8"), entry=Preprocessing((8, 8)))
    second = pupil(first, GREY.repeat(2, axis=1), entry=Preprocessing((8, 8)))
    third = pupil(second, GREY.repeat(4, axis=1), entry=Preprocessing((16, 8)))
    assert third.input_shape == (None, 32, 8, 1)
    assert len({layer.name for layer in third.layers}) == len(third.layers)


# What is refused.


def refused(
    kind: type[TutelageError],
    told: str,
    source: Any,
    images: np.ndarray = GREY,
    ask: Callable[..., Any] = made,
    **given: Any,
) -> None:
    with pytest.raises(kind, match=told) as caught:
        ask(source, images, **given)
    assert "\n" not in str(caught.value)


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
    for ask in (made, pupil):
        for told, model in [
            ("tells 4 classes apart, but there are 3", net(layers.Dense(4))),
            ("has 2 inputs: expected one", keras.Model(two, joined)),
            ("gives 2 outputs: expected one", keras.Model(two[0], [one, layers.Dense(3)(one)])),
            (
                r"gives output of shape \(None, 8, 8, 3\): expected logits",
                keras.Sequential([keras.Input((8, 8, 1)), layers.Dense(3)]),
            ),
            (
                r"takes input of shape \(None, 64\): expected \(batch, height",
                keras.Sequential([keras.Input((64,)), layers.Dense(3)]),
            ),
            (
                r"takes images of 9x7 pixels, but these are 8x8: set size to \(9, 7\)",
                net(layers.Dense(3), shape=(9, 7, 1)),
            ),
            (
                r"takes images of 3 channels, but these have 1 \(grey",
                net(layers.Dense(3), shape=(8, 8, 3)),
            ),
            ("has no weights yet", keras.Sequential([layers.Flatten(), layers.Dense(3)])),
            ("can't be copied .* needs a get_config", unkind),
        ]:
            refused(ModelError, told, model, ask=ask)
    refused(
        ModelError,
        r"takes images of 8x8 pixels, but size is 9x9: set size to \(8, 8\)",
        net(dense()),
        entry=Preprocessing((9, 9)),
    )
    infinite = net(dense())
    infinite.layers[-1].set_weights([WEIGHTS * np.nan, BIAS])
    refused(ModelError, "logits that are not finite", infinite)


def test_torch_modules_that_do_not_fit_are_refused() -> None:
    class Pair(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return x, x

    cases = [
        ("tells 64 classes apart, but there are 3", torch.nn.Flatten()),
        (r"gives output of shape \(64, 1, 8, 8\)", torch.nn.Identity()),
        ("Pair gives tuple: expected one tensor", Pair()),
        (r"can't answer images of shape \(8, 8, 1\): RuntimeError: .* channels", small()),
        ("can't answer images .* set size to what it takes", flat(inputs=99)),
    ]
    for told, module in cases:
        refused(ModelError, told, module)
    infinite = flat()
    infinite[1].weight.data[0, 0] = torch.inf
    refused(ModelError, "logits that are not finite", infinite)
    # Also after a failure it is as it was.
    assert infinite.training


def test_onnx_files_that_do_not_fit_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.onnx"
    for told, shape, given in [
        ("tells 64 classes apart|gives output of shape", ("n", 1, 8, 8), {"outputs": ("maps",)}),
        ("has 1 inputs and 2 outputs", ("n", 1, 8, 8), {"outputs": ("logits", "more")}),
        ("has 2 inputs and 1 outputs", ("n", 1, 8, 8), {"inputs": ("image", "mask")}),
        (r"takes tensor\(float\) of shape \['n', 64\]", ("n", 64), {}),
        (r"takes tensor\(double\)", ("n", 1, 8, 8), {"kind": TensorProto.DOUBLE}),
    ]:
        refused(ModelError, told, onnx_file(path, shape, **given))
    for told, shape in [
        ("takes images of 3 channels, but these have 1", ("n", 3, 8, 8)),
        ("takes images of 3 channels, but these have 1", (5, 3, 8, "w")),
        (r"takes images of 9x8 pixels, .* set size to \(9, 8\)", ("n", 1, 9, 8)),
        (r"takes images of 8x9 pixels, .* set size to \(8, 9\)", ("n", 8, 9, 1)),
    ]:
        refused(ModelError, told, means_file(path, shape))
    free = onnx_file(path, ("n", 1, "h", "w"))
    refused(
        ModelError, "can't answer images of shape .* set size to", free, entry=Preprocessing((9, 9))
    )
    raw = onnx_file(path, kind=TensorProto.UINT8)
    refused(
        RecipeError, "takes pixels as they are: give no scale", raw, entry=Preprocessing(scale=255)
    )
    path.write_bytes(path.read_bytes()[:100])
    refused(ModelError, r"net\.onnx can't be read as an ONNX model", path)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    refused(MissingExtraError, r"onnxruntime.*tutelage\[export\]", path)


def test_stored_logits_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path, good = tmp_path / "logits.npy", linear(GREY / np.float32(255))
    expected = json.dumps({"images": stored_logits.order(GREY), "classes": list(CLASSES)})
    for told in ({"images": "of others"}, {"classes": ["dog", "cat", "emu"]}, {"more": 1}):
        with pytest.raises(KnowledgeError, match=r"logits\.json") as caught:
            made(store(path, good, **told))
        assert expected in str(caught.value)
    path.with_suffix(".json").unlink()
    with pytest.raises(KnowledgeError, match="found FileNotFoundError") as caught:
        made(path)
    path.with_suffix(".json").write_text(
        str(caught.value).split("expected ")[1].split(", found")[0]
    )
    made(path)  # what the message shows is what is wanted
    for told, logits in [
        (r"of shape \(300, 3\).* found float32 of shape \(299, 3\)", good[1:]),
        (r"found int64 of shape \(300, 3\)", np.zeros((300, 3), np.int64)),
        (r"found float32 of shape \(300, 4\)", np.zeros((300, 4), np.float32)),
        ("not finite", np.full((300, 3), np.nan)),
        ("can't be read as a .npy array: ValueError: .*allow_pickle", np.full((300, 3), None)),
    ]:
        refused(KnowledgeError, told, store(path, logits))
    store(path, good)
    path.write_bytes(path.read_bytes()[:200])
    refused(KnowledgeError, r"logits\.npy can't be read as a \.npy array", path)
    refused(RecipeError, "give no size or scale", store(path, good), entry=SEEN)


def test_paths_that_lead_nowhere_or_to_something_else_are_refused(tmp_path: Path) -> None:
    expected = "expected a .keras, .onnx or .npy file, a run folder, or package.module:function"
    (tmp_path / "model.pt").write_text("")
    (tmp_path / "torn.keras").write_text("torn")
    refused(ModelError, f"no teacher at .*none.onnx: {expected}", tmp_path / "none.onnx")
    refused(ModelError, f"no teacher at {tmp_path}: expected", tmp_path)
    refused(ModelError, "no teacher at my-package:f: expected", "my-package:f")
    refused(RecipeError, "is of no known kind: .* by a function", tmp_path / "model.pt")
    refused(ModelError, r"torn\.keras can't be read as a \.keras", tmp_path / "torn.keras")
    refused(RecipeError, f"expected a model, {expected[9:]}, found int", 3)
    refused(RecipeError, "expected a model.* found Dense", layers.Dense(3))
    refused(ModelError, "no model file .*none.keras", tmp_path / "none.keras", ask=pupil)


def test_a_teacher_of_other_classes_is_refused(tmp_path: Path) -> None:
    net(dense(), dtype="uint8").save(tmp_path / "teacher.keras")
    results = tmp_path / "results.json"
    for there, told in [
        (["cat", "emu", "dog"], "class 1 is 'emu' there and 'dog' here: names and order"),
        (["cat", "dog", "emu", "yak"], "4 classes, .* has 3; class 3 is 'yak' there and None here"),
    ]:
        results.write_text(json.dumps({"data": {"classes": there}}))
        refused(ModelError, told, tmp_path)
        refused(ModelError, told, tmp_path / "teacher.keras")
    for unreadable in ("[]", "torn", '{"data": null}'):
        results.write_text(unreadable)
        made(tmp_path)


def test_functions_that_give_no_model_are_refused(code: Callable[[str], str]) -> None:
    torn = code("def f(:")
    name = code(
        "def broken():\n    raise OSError('no\\nweights')\ndef number():\n    return 3\n"
        "def needy(x):\n    return x\nVALUE = 1\n"
        "def module():\n    import torch\n    return torch.nn.Linear(64, 3)"
    )
    refused(RecipeError, "can't import no_such_module: ModuleNotFoundError", "no_such_module:f")
    refused(RecipeError, f"can't import {torn}: SyntaxError", f"{torn}:f")
    refused(RecipeError, f"{name} has no function absent", f"{name}:absent")
    refused(RecipeError, f"{name} has no function VALUE", f"{name}:VALUE")
    refused(ModelError, f"{name}:broken raised OSError: no weights", f"{name}:broken")
    refused(ModelError, f"{name}:needy raised TypeError", f"{name}:needy")
    refused(ModelError, f"{name}:number returned int: expected a Keras", f"{name}:number")
    refused(RecipeError, "is a PyTorch module: expected a .keras", f"{name}:module", ask=pupil)


def test_a_student_that_can_not_be_trained_is_refused(tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "net.onnx")
    refused(RecipeError, "net.onnx can't be a student: .* a student is trained", path, ask=pupil)
    refused(RecipeError, "Sequential is a PyTorch module: expected", flat(), ask=pupil)
    frozen = net(dense())
    frozen.trainable = False
    refused(ModelError, "has no trainable weights", frozen, ask=pupil)
    for seed in (-1, 2**32):
        refused(RecipeError, "seed: expected an integer from 0", net(dense()), ask=pupil, seed=seed)


def test_arguments_that_mean_nothing_are_refused() -> None:
    refused(RecipeError, "images: expected uint8", net(dense()), GREY / 255)
    refused(RecipeError, "images: expected uint8", net(dense()), GREY[..., 0])
    refused(RecipeError, "images: expected uint8", net(dense()), GREY[:0])
    with pytest.raises(RecipeError, match="2 names"):
        resolve.teacher(net(dense()), images=GREY, classes=("cat",))
    for told, entry in [
        (r"size: expected \(height, width\)", Preprocessing(size=(0, 8))),
        (r"size: expected \(height, width\)", Preprocessing(size=(8,))),  # type: ignore[arg-type]
        ("scale: expected a number above 0", Preprocessing(scale=0)),
        ("scale: expected a number above 0", Preprocessing(scale=float("nan"))),
        ("mean: expected a finite number for each of 1 channels", Preprocessing(mean=(0.1, 0.2))),
        ("mean: expected a finite number", Preprocessing(mean=(float("inf"),))),
        ("std: expected numbers above 0", Preprocessing(std=(0.0,))),
    ]:
        refused(RecipeError, told, net(dense()), entry=entry)
    raw = net(dense(), dtype="uint8")
    refused(RecipeError, "takes pixels as they are: give no scale", raw, entry=SEEN)
    for answer, label in [((4, 3), (5,)), ((4,), (4,)), ((0, 3), (0,))]:
        with pytest.raises(RecipeError, match="shape"):
            resolve.doubtful(np.zeros(answer), np.zeros(label, int))
