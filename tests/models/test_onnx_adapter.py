"""ONNX files as teachers, against NumPy."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from scipy.special import softmax

from tests.models.example_models import (
    COLORS,
    GREY,
    RGB_IMAGES,
    SEEN,
    linear,
    logits_of,
    means_file,
    onnx_file,
    preprocessed,
    refused,
    teacher_of,
)
from tutelage.errors import (
    MissingExtraError,
    ModelError,
    RecipeError,
)
from tutelage.models.preprocessing import Preprocessing


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
    teacher = teacher_of(path, preprocessing=SEEN if floating else Preprocessing())
    expected = linear(preprocessed(GREY, SEEN) if floating else GREY.astype(np.float32))
    np.testing.assert_allclose(logits_of(teacher), expected, rtol=1e-4, atol=1e-3)
    assert (teacher.name, teacher.model, teacher.notes) == (str(path), None, ())


@pytest.mark.parametrize("channels_last", [False, True])
def test_an_onnx_file_of_colour_images_is_given_its_layout(
    tmp_path: Path, channels_last: bool
) -> None:
    shape = ("n", "h", "w", 3) if channels_last else ("n", 3, "h", "w")
    means_file(tmp_path / "means.onnx", shape)
    teacher = teacher_of(tmp_path / "means.onnx", RGB_IMAGES, preprocessing=COLORS)
    expected = preprocessed(RGB_IMAGES, COLORS).mean((1, 2))
    np.testing.assert_allclose(logits_of(teacher, RGB_IMAGES), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("end", "name"),
    [
        (["Softmax"], "softmax"),
        (["LogSoftmax"], "log_softmax"),
        (["Sigmoid"], "sigmoid"),
        (["Identity", "Softmax", "Identity"], "softmax"),
    ],
)
@pytest.mark.parametrize("external", [False, True])
def test_the_logits_before_a_files_last_activation_are_used(
    tmp_path: Path, end: list[str], name: str, external: bool
) -> None:
    path = onnx_file(tmp_path / "net.onnx", end=end)
    if external:
        onnx.save(
            onnx.load(path), path, save_as_external_data=True, location="data", size_threshold=0
        )
    teacher = teacher_of(path, preprocessing=Preprocessing(scale=8))
    expected = linear(GREY / np.float32(8))
    assert softmax(expected.astype(np.float64), axis=1).min() < 1e-20
    np.testing.assert_allclose(logits_of(teacher), expected, rtol=1e-4, atol=1e-3)
    assert teacher.notes == (f"it ends in {name}: using the logits before the {name}",)


def test_a_half_precision_files_logits_are_used(tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "net.onnx", end=["Softmax"])
    model = onnx.load(path)
    for node in model.graph.node:
        if node.op_type == "Softmax":
            node.input[0] = "half"
        if node.output[0] == "logits":
            node.op_type = "Cast"
            node.attribute.append(helper.make_attribute("to", TensorProto.FLOAT))
    cast = helper.make_node("Cast", ["linear"], ["half"], to=TensorProto.FLOAT16)
    model.graph.node.insert(3, cast)
    onnx.save(model, path)
    teacher = teacher_of(path, preprocessing=Preprocessing(scale=8))
    np.testing.assert_allclose(
        logits_of(teacher), linear(GREY / np.float32(8)), rtol=2e-3, atol=0.05
    )


@pytest.mark.parametrize("end", [["Softmax", "Log", "Neg"], ["Softmax", "Neg"]])
def test_an_operator_behind_the_activation_keeps_it(tmp_path: Path, end: list[str]) -> None:
    path = onnx_file(tmp_path / "net.onnx", end=end)
    teacher = teacher_of(path, preprocessing=SEEN)
    p = softmax(linear(preprocessed(GREY, SEEN)), axis=1)
    expected = -np.log(p) if "Log" in end else -p
    np.testing.assert_allclose(logits_of(teacher), expected, rtol=1e-4, atol=1e-4)
    assert teacher.notes == ()


def test_onnx_files_that_do_not_fit_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.onnx"
    for offender, shape, settings in [
        ("output", ("n", 1, 8, 8), {"outputs": ("maps",)}),
        ("2 outputs", ("n", 1, 8, 8), {"outputs": ("logits", "more")}),
        ("2 inputs", ("n", 1, 8, 8), {"inputs": ("image", "mask")}),
        (r"'n', 64", ("n", 64), {}),
        (r"tensor\(double\)", ("n", 1, 8, 8), {"kind": TensorProto.DOUBLE}),
    ]:
        refused(ModelError, offender, onnx_file(path, shape, **settings))
    for offender, shape in [
        ("3 channels", ("n", 3, 8, 8)),
        ("3 channels", (5, 3, 8, "w")),
        (r"\(9, 8\)", ("n", 1, 9, 8)),
        (r"\(8, 9\)", ("n", 8, 9, 1)),
    ]:
        refused(ModelError, offender, means_file(path, shape))
    free = onnx_file(path, ("n", 1, "h", "w"))
    refused(ModelError, "set size", free, preprocessing=Preprocessing((9, 9)))
    raw = onnx_file(path, kind=TensorProto.UINT8)
    refused(RecipeError, "uint8 pixels", raw, preprocessing=Preprocessing(scale=255))
    path.write_bytes(path.read_bytes()[:100])
    refused(ModelError, r"net\.onnx", path)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    refused(MissingExtraError, r"tutelage\[export\]", path)
