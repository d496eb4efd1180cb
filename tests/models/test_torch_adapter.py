"""PyTorch modules as teachers, against their own forward passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax

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
from tutelage.losses import KD
from tutelage.models.preprocessing import Preprocessing


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


class Ending(torch.nn.Module):
    """A linear layer and a function, as of a module of a user's own."""

    def __init__(self, end: Callable[[torch.Tensor], torch.Tensor]):
        super().__init__()
        self.body, self.end = flat(), end

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.end(self.body(x))


F = torch.nn.functional
ENDS = {
    "layer": (flat(torch.nn.Softmax(1)), "softmax"),
    "last axis": (flat(torch.nn.Softmax(-1)), "softmax"),
    "nested": (
        torch.nn.Sequential(flat(torch.nn.Softmax(1), torch.nn.Dropout()), torch.nn.Identity()),
        "softmax",
    ),
    "sigmoid": (torch.nn.Sequential(flat(torch.nn.Sigmoid())), "sigmoid"),
    "log-softmax": (flat(torch.nn.LogSoftmax(1)), "log_softmax"),
    "attribute": (Ending(torch.nn.Softmax(1)), "softmax"),
    "function": (Ending(lambda z: F.softmax(z, dim=1)), "softmax"),
    "torch.softmax": (Ending(lambda z: torch.softmax(input=z, dim=1)), "softmax"),
    "method": (Ending(lambda z: z.softmax(-1)), "softmax"),
    "method, sigmoid": (Ending(torch.Tensor.sigmoid), "sigmoid"),
    "special": (Ending(lambda z: torch.special.softmax(z, 1)), "softmax"),
    "expit": (Ending(torch.special.expit), "sigmoid"),
}


@pytest.mark.parametrize(("module", "name"), ENDS.values(), ids=ENDS)
def test_the_logits_before_a_modules_last_activation_are_used(
    module: torch.nn.Module, name: str
) -> None:
    body = next(part for part in module.modules() if isinstance(part, torch.nn.Linear))
    teacher = teacher_of(module, preprocessing=Preprocessing(scale=1))
    x = GREY.reshape(len(GREY), -1)
    expected = x @ body.weight.detach().numpy().T + body.bias.detach().numpy()
    assert softmax(expected.astype(np.float64), axis=1).min() < 1e-20
    np.testing.assert_allclose(logits_of(teacher), expected, rtol=1e-4, atol=1e-3)
    assert teacher.notes == (f"it ends in {name}: using the logits before the {name}",)
    # And the loss is that of the logits, not of probabilities clipped at 1e-7.
    p = softmax(expected.astype(np.float64) / 4, axis=1)
    loss = 16 * rel_entr(p, np.full_like(p, 1 / 3)).sum(axis=1).mean()
    found = KD(4.0).compute_loss(logits_of(teacher), np.zeros_like(expected), None, None)
    assert float(keras.ops.convert_to_numpy(found)) == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize(
    "end",
    [
        lambda z: 3 * F.softmax(z, dim=1) - 1,
        lambda z: F.softmax(z, dim=0) - 1,
        lambda z: z + 0 * F.softmax(z, dim=1),
        lambda z: F.softmax(z[..., None], dim=1)[..., 0] - 1,
    ],
)
def test_an_activation_before_the_end_is_kept(
    end: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    module = Ending(end)
    teacher = teacher_of(module, preprocessing=SEEN)
    # A batch, as a softmax over the images mixes them.
    found = teacher.logits(GREY[:250], "float32")
    x = torch.tensor(preprocessed(GREY[:250], SEEN)).permute(0, 3, 1, 2)
    np.testing.assert_allclose(found, module(x).detach().numpy(), atol=1e-5)
    assert teacher.notes == ()


def test_hooks_and_compiled_modules_give_what_they_return() -> None:
    hooked = flat(torch.nn.Softmax(1))
    hooked[2].register_forward_hook(lambda *call: 5 * call[2] - 2)
    teacher = teacher_of(hooked, preprocessing=SEEN)
    x = torch.tensor(preprocessed(GREY, SEEN))
    np.testing.assert_allclose(logits_of(teacher), hooked(x).detach().numpy(), atol=1e-5)
    module = flat(torch.nn.Softmax(1))
    compiled = torch.compile(module, backend="eager")
    teacher = teacher_of(compiled, preprocessing=SEEN)
    np.testing.assert_allclose(logits_of(teacher), module[:2](x).detach().numpy(), atol=1e-5)


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
