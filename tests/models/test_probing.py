"""Probabilities in place of logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from scipy.special import log_softmax

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
    teacher_of,
)
from tutelage.models.preprocessing import Preprocessing


def test_other_models_probabilities_become_logarithms(tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "net.onnx", softmax=True)
    module = flat(torch.nn.Softmax(1))
    x = GREY / np.float32(255)
    expected = {
        "onnx": log_softmax(linear(x), axis=1),
        "torch": log_softmax(module[:2](torch.tensor(x)).detach().numpy(), axis=1),
    }
    for name, source in {"onnx": str(path), "torch": module}.items():
        teacher = teacher_of(source, preprocessing=Preprocessing(scale=255))
        np.testing.assert_allclose(logits_of(teacher), expected[name], atol=1e-5)
        assert teacher.notes == ("it returns probabilities: using their logarithms as logits",)


def test_sigmoids_are_no_probabilities_of_classes() -> None:
    model = net(dense("sigmoid"))
    teacher = teacher_of(model, preprocessing=SEEN)
    np.testing.assert_allclose(
        logits_of(teacher), predicted(model, preprocessed(GREY, SEEN)), atol=1e-6
    )
    assert teacher.notes == ()
    assert teacher_of(flat(torch.nn.Sigmoid()), preprocessing=SEEN).notes == ()
