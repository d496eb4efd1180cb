"""Winograd's convolution against PyTorch's in float64, and where it is left alone."""

from __future__ import annotations

import math
import os
import platform
import subprocess
import sys

import keras
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from keras import layers

from tutelage.kernels import accelerate, build, winograd

RNG = np.random.default_rng(17)
pytestmark = pytest.mark.skipif(build.library("winograd") is None, reason="no C compiler here")

# images, height, width, channels, filters: whole tiles and tiles over the edge, more and fewer
# tiles than a block has, one block and several.
SHAPES = [
    (2, 32, 32, 32, 32),
    (33, 8, 8, 64, 32),
    (24, 7, 12, 32, 96),
    (16, 11, 15, 64, 64),
    (40, 8, 8, 128, 160),
]


def draw(*shape: int) -> torch.Tensor:
    return torch.tensor(RNG.normal(size=shape), dtype=torch.float32)


def both(x: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor | None, dy: torch.Tensor):
    """Output and gradients: ours, and PyTorch's in float64."""
    given = [t for t in (x, kernel, bias) if t is not None]
    ours = [t.clone().requires_grad_() for t in given]
    y = winograd.convolve(*ours, *[None] * (3 - len(ours)))
    assert y is not None
    theirs = [t.double().requires_grad_() for t in given]
    first, weight, *rest = theirs
    z = F.conv2d(first.permute(0, 3, 1, 2), weight.permute(3, 2, 0, 1), *rest, padding=1)
    z = z.permute(0, 2, 3, 1)
    return (
        [y.detach(), *torch.autograd.grad(y, ours, dy)],
        [z.detach(), *torch.autograd.grad(z, theirs, dy.double())],
    )


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_output_and_gradients_are_pytorchs(shape, biased):
    images, height, width, channels, filters = shape
    ours, theirs = both(
        draw(images, height, width, channels),
        draw(3, 3, channels, filters),
        draw(filters) if biased else None,
        draw(images, height, width, filters),
    )
    for got, want in zip(ours, theirs, strict=True):
        most = want.abs().max().item()
        torch.testing.assert_close(got.double(), want, rtol=0, atol=4e-5 * most)


def test_a_layout_that_is_not_contiguous_is_read_right():
    x, kernel = draw(4, 32, 16, 16).permute(0, 2, 3, 1), draw(64, 32, 3, 3).permute(2, 3, 1, 0)
    dy = draw(4, 64, 16, 16).permute(0, 2, 3, 1)
    x, dy = x.repeat(2, 1, 1, 1), dy.repeat(2, 1, 1, 1)
    for got, want in zip(*both(x, kernel, None, dy), strict=True):
        torch.testing.assert_close(got.double(), want, rtol=0, atol=4e-5 * want.abs().max().item())


def test_the_same_call_gives_the_same_bits_and_the_output_on_any_number_of_threads():
    x, kernel, bias, dy = draw(24, 16, 16, 32), draw(3, 3, 32, 64), draw(64), draw(24, 16, 16, 64)
    first, _ = both(x, kernel, bias, dy)
    again, _ = both(x, kernel, bias, dy)
    assert all(map(torch.equal, first, again))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads % 2 + 1)
        output, *_ = both(x, kernel, bias, dy)[0]
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(first[0], output)


def test_only_wanted_gradients_are_given():
    x, kernel, bias = draw(8, 16, 16, 32), draw(3, 3, 32, 32).requires_grad_(), draw(32)
    winograd.convolve(x, kernel, bias).sum().backward()
    assert kernel.grad is not None
    assert (x.grad, bias.grad) == (None, None)


def test_what_is_not_a_number_stays_visible():
    x, kernel = torch.zeros(8, 16, 16, 32), torch.zeros(3, 3, 32, 32)
    x[3, 5, 5, 7] = math.nan
    y = winograd.convolve(x, kernel, None)
    assert y[3, 4:7, 4:7].isnan().all()
    assert not y[[0, 1, 2, 4, 5, 6, 7]].isnan().any()


@pytest.mark.parametrize(
    ("x", "kernel"),
    [
        ((8, 16, 16, 24), (3, 3, 24, 32)),
        ((8, 16, 16, 32), (3, 3, 32, 40)),
        ((8, 16, 16, 32), (5, 5, 32, 32)),
        ((8, 16, 16, 32), (1, 1, 32, 32)),
        ((1, 16, 16, 32), (3, 3, 32, 32)),
        ((256, 3, 3, 32), (3, 3, 32, 32)),
    ],
    ids=["channels", "filters", "5x5", "1x1", "one image", "tiny images"],
)
def test_it_leaves_alone_what_it_does_not_speed_up(x, kernel):
    assert winograd.convolve(torch.zeros(x), torch.zeros(kernel), None) is None


def test_other_types_are_left_alone():
    x, kernel = torch.zeros(8, 16, 16, 32), torch.zeros(3, 3, 32, 32)
    assert winograd.convolve(x.bfloat16(), kernel, None) is None


@pytest.mark.parametrize(
    "layer",
    [
        layers.Conv2D(32, 3, padding="same"),
        layers.Conv2D(32, 3, padding="same", use_bias=False, activation="relu"),
        layers.Conv2D(32, 3),
        layers.Conv2D(32, 3, strides=2, padding="same"),
        layers.Conv2D(32, 3, dilation_rate=2, padding="same"),
        layers.Conv2D(64, 3, groups=2, padding="same"),
    ],
    ids=["same", "ReLU", "valid", "strides", "dilation", "groups"],
)
def test_a_fast_layer_uses_it_for_supported_settings(monkeypatch, layer):
    model = keras.Sequential([keras.Input((16, 16, 64)), layer])
    used, convolve = [], winograd.convolve
    monkeypatch.setattr(winograd, "convolve", lambda *a: used.append(1) or convolve(*a))
    x = draw(8, 16, 16, 64)
    with torch.no_grad():
        got, want = accelerate.accelerate(model)(x), model(x)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    plain = layer.padding == "same" and layer.strides == layer.dilation_rate == (1, 1)
    assert bool(used) == (plain and layer.groups == 1)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="these are options for x86 processors")
@pytest.mark.parametrize("options", ["-mno-avx512f", "-mno-avx512f -mno-avx"])
def test_narrower_processors_and_fewer_threads_than_asked_for_compute_the_same(tmp_path, options):
    environment = os.environ | {
        "CC": f"{os.environ.get('CC', 'cc')} {options}",
        "TUTELAGE_CACHE": str(tmp_path),
        "OMP_THREAD_LIMIT": "1",
    }
    test = f"{__file__}::test_output_and_gradients_are_pytorchs"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "passed" in done.stdout
    assert "skipped" not in done.stdout
