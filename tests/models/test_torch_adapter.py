"""PyTorch modules as teachers, against their own forward passes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tests.models.example_models import (
    COLORS,
    GREY,
    RGB_IMAGES,
    SEEN,
    flat,
    logits_of,
    preprocessed,
    refused,
    small,
    teacher_of,
)
from tutelage.errors import (
    ModelError,
)


def test_logits_that_sum_to_one_are_no_probabilities_if_some_are_negative() -> None:
    class Centred(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x - x.mean(1, keepdim=True) + 1 / 3

    module = flat(Centred())
    teacher = teacher_of(module, preprocessing=SEEN)
    x = torch.tensor(preprocessed(GREY, SEEN))
    np.testing.assert_allclose(logits_of(teacher), module(x).detach().numpy(), atol=1e-5)
    assert teacher.notes == ()


def test_a_torch_module_answers_as_its_own_forward_pass() -> None:
    module = small()
    teacher = teacher_of(module, RGB_IMAGES, preprocessing=COLORS)
    module.eval()
    x = torch.tensor(preprocessed(RGB_IMAGES, COLORS).transpose(0, 3, 1, 2).copy())
    np.testing.assert_allclose(
        logits_of(teacher, RGB_IMAGES), module(x).detach().numpy(), atol=1e-5
    )
    assert (teacher.name, teacher.model, teacher.stored) == ("Small", None, None)
    # A module of another precision gets its images in that.
    half = teacher_of(module.to(torch.bfloat16), RGB_IMAGES, preprocessing=COLORS)
    np.testing.assert_allclose(
        logits_of(half, RGB_IMAGES), logits_of(teacher, RGB_IMAGES), atol=0.05
    )


def test_torch_computes_in_the_wanted_precision() -> None:
    teacher = teacher_of(small(), RGB_IMAGES, preprocessing=COLORS)
    assert teacher.logits is not None
    low, high = (teacher.logits(RGB_IMAGES, which) for which in ("bfloat16", "float32"))
    assert low.dtype == np.float32
    assert 0 < np.abs(low - high).max() < 0.05


def test_a_torch_module_is_left_as_found() -> None:
    module = small()
    module.norm.eval()  # one part frozen by hand
    before = {name: value.clone() for name, value in module.state_dict().items()}
    logits_of(teacher_of(module, RGB_IMAGES), RGB_IMAGES)
    assert module.training
    assert module.drop.training
    assert not module.norm.training
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_torch_modules_that_do_not_fit_are_refused() -> None:
    class Pair(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return x, x

    cases = [
        ("64 classes", torch.nn.Flatten()),
        (r"\(64, 1, 8, 8\)", torch.nn.Identity()),
        ("returns tuple", Pair()),
        (r"\(8, 8, 1\): RuntimeError", small()),
        ("set size", flat(inputs=99)),
    ]
    for offender, module in cases:
        refused(ModelError, offender, module)
    infinite = flat()
    infinite[1].weight.data[0, 0] = torch.inf
    refused(ModelError, "not finite", infinite)
    # Also after a failure it is as it was.
    assert infinite.training
