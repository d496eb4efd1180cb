"""Probabilities in place of logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, logit, softmax

from tests.models.example_models import (
    GREY,
    SEEN,
    dense,
    flat,
    linear,
    logits_of,
    net,
    onnx_file,
    predicted,
    preprocessed,
    refused,
    teacher_of,
)
from tutelage.errors import ModelError
from tutelage.models.preprocessing import Preprocessing


class Other(torch.nn.Module):
    """What changes no probabilities, but hides what they came from."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.abs()


def test_other_models_probabilities_become_logarithms(tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "net.onnx", end=("Softmax", "Abs"))
    module = flat(torch.nn.Softmax(1), Other())
    x = GREY / np.float32(255)
    expected = {
        "onnx": log_softmax(linear(x), axis=1),
        "torch": log_softmax(module[:2](torch.tensor(x)).detach().numpy(), axis=1),
    }
    for name, source in {"onnx": str(path), "torch": module}.items():
        teacher = teacher_of(source, preprocessing=Preprocessing(scale=255))
        np.testing.assert_allclose(logits_of(teacher), expected[name], atol=1e-5)
        assert teacher.notes == ("it returns probabilities: using their logarithms as logits",)


def test_a_sigmoid_is_left_out_where_it_is_known_and_refused_where_it_is_seen() -> None:
    model = net(dense("sigmoid"))
    teacher = teacher_of(model, preprocessing=SEEN)
    expected = logit(predicted(model, preprocessed(GREY, SEEN)).astype(np.float64))
    np.testing.assert_allclose(logits_of(teacher), expected, atol=1e-3)
    assert teacher.notes == ("it ends in sigmoid: using the logits before the sigmoid",)
    module = flat(torch.nn.Sigmoid(), Other())
    refused(ModelError, "sigmoid", module, preprocessing=Preprocessing(scale=9))


@pytest.mark.parametrize("digits", [2, 3])
def test_rounded_probabilities_of_other_models_are_converted(digits: int) -> None:
    class Rounded(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.round(x, decimals=digits)

    exact = teacher_of(flat(torch.nn.Softmax(1)), preprocessing=Preprocessing(scale=255))
    rounded = flat(torch.nn.Softmax(1), Rounded())
    teacher = teacher_of(rounded, preprocessing=Preprocessing(scale=255))
    assert "probabilities" in teacher.notes[0]
    np.testing.assert_allclose(
        softmax(logits_of(teacher), axis=1),
        softmax(logits_of(exact), axis=1),
        atol=2 * 10.0**-digits,
    )
