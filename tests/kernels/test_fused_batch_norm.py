"""The fused passes against PyTorch's separate ones, and what is fused at all."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from keras import layers

from tutelage.kernels import build, fused_batch_norm
from tutelage.models import zoo

RNG = np.random.default_rng(11)
pytestmark = pytest.mark.skipif(
    build.library("fused_batch_norm") is None, reason="no C compiler here"
)

# (ReLU before, lower and upper bound behind, pooled, gamma and beta)
CASES = {
    "alone": (False, -math.inf, math.inf, False, True),
    "ReLU before": (True, -math.inf, math.inf, False, True),
    "ReLU behind": (False, 0.0, math.inf, False, True),
    "ReLU6 behind": (False, 0.0, 6.0, False, True),
    "pooled": (False, -math.inf, math.inf, True, True),
    "ReLU before, pooled": (True, -math.inf, math.inf, True, True),
    "ReLU6 behind, pooled": (False, 0.0, 6.0, True, True),
    "ReLU before and behind, pooled": (True, 0.0, math.inf, True, True),
    "neither gamma nor beta": (True, -math.inf, math.inf, True, False),
}


def chain_of(relu: bool, low: float, high: float, pool: bool, affine: bool, channels: int):
    norm = layers.BatchNormalization(center=affine, scale=affine, momentum=0.8)
    norm.build((None, 4, 4, channels))
    for variable in norm.weights:
        value = RNG.normal(size=channels)  # gamma of both signs: a maximum may become a minimum
        variable.assign(np.abs(value) if "variance" in variable.path else 3 * value)
    source = layers.Conv2D(channels, 3) if relu else None
    return fused_batch_norm.Chain(norm, source, low, high, pool, ())


def reference(chain: fused_batch_norm.Chain, x: torch.Tensor, dz: torch.Tensor):
    """Output, gradients and new moving statistics from PyTorch's own functions in float64."""
    norm = chain.norm
    x = x.double().requires_grad_()
    affine = [v.value.detach().double().requires_grad_() for v in norm.trainable_variables]
    gamma = affine[0] if norm.scale else None
    beta = affine[-1] if norm.center else None
    y = F.relu(x) if chain.source else x
    flat = y.reshape(-1, y.shape[-1])
    moving = [
        norm.momentum * old.value.detach().double() + (1 - norm.momentum) * new.detach()
        for old, new in (
            (norm.moving_mean, flat.mean(0)),
            (norm.moving_variance, flat.var(0, correction=0)),
        )
    ]
    y = y.permute(0, 3, 1, 2)
    y = F.batch_norm(y, None, None, gamma, beta, training=True, eps=norm.epsilon)
    y = y.clamp(chain.low, chain.high)
    y = F.max_pool2d(y, 2) if chain.pool else y
    y = y.permute(0, 2, 3, 1)
    gradients = torch.autograd.grad((y * dz.double()).sum(), [x, *affine])
    return [y, *gradients, *moving]


def fused(chain: fused_batch_norm.Chain, x: torch.Tensor, dz: torch.Tensor):
    norm = chain.norm
    x = x.clone().requires_grad_()
    affine = [v.value for v in norm.trainable_variables]
    y = fused_batch_norm.normalize(chain, x * 1, training=True)  # a leaf can't be changed in place
    gradients = torch.autograd.grad((y.float() * dz).sum(), [x, *affine])
    return [y, *gradients, norm.moving_mean.value, norm.moving_variance.value]


@pytest.mark.parametrize("shape", [(3, 4, 6, 5), (5, 8, 8, 32), (2, 2, 2, 70)])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_pass_is_what_pytorch_does_layer_by_layer(case, shape):
    chain = chain_of(*case, channels=shape[-1])
    x = torch.tensor(2 + RNG.normal(size=shape), dtype=torch.float32)
    part = 2 if chain.pool else 1
    out = (shape[0], shape[1] // part, shape[2] // part, shape[3])
    dz = torch.tensor(RNG.normal(size=out), dtype=torch.float32)
    expected = reference(chain, x, dz)
    for got, want in zip(fused(chain, x, dz), expected, strict=True):
        torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_bfloat16_rounds_only_what_it_stores(case):
    chain = chain_of(*case, channels=24)
    x = torch.tensor(2 + RNG.normal(size=(4, 6, 6, 24))).bfloat16()
    part = 2 if chain.pool else 1
    dz = torch.tensor(RNG.normal(size=(4, 6 // part, 6 // part, 24))).bfloat16().float()
    expected = reference(chain, x, dz)
    y, dx, *others = fused(chain, x, dz)
    assert (y.dtype, dx.dtype) == (torch.bfloat16, torch.bfloat16)
    torch.testing.assert_close(y.double(), expected[0], rtol=5e-3, atol=1e-3)
    torch.testing.assert_close(dx.double(), expected[1], rtol=5e-3, atol=5e-3)
    for got, want in zip(others, expected[2:], strict=True):
        torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_moving_statistics_serve_where_nothing_is_trained(case, dtype):
    chain = chain_of(*case, channels=12)
    norm = chain.norm
    x = torch.tensor(RNG.normal(size=(3, 4, 6, 12))).to(dtype)
    y = F.relu(x.double()) if chain.source else x.double()
    statistics = [norm.moving_mean.value.double(), norm.moving_variance.value.double()]
    affine = [v.value.detach().double() for v in norm.trainable_variables] or [None, None]
    y = F.batch_norm(y.permute(0, 3, 1, 2), *statistics, *affine, eps=norm.epsilon)
    y = y.clamp(chain.low, chain.high)
    y = (F.max_pool2d(y, 2) if chain.pool else y).permute(0, 2, 3, 1)
    assert fused_batch_norm.normalize(chain, x, training=False) is None  # it has no gradients
    with torch.no_grad():
        got = fused_batch_norm.normalize(chain, x, training=False)
    rtol, atol = (5e-3, 1e-3) if dtype is torch.bfloat16 else (1e-5, 1e-5)
    torch.testing.assert_close(got.double(), y, rtol=rtol, atol=atol)


def test_a_mean_far_from_zero_costs_no_digits():
    chain = chain_of(False, -math.inf, math.inf, False, False, channels=8)
    x = torch.tensor(1e4 + RNG.normal(size=(8, 16, 16, 8)), dtype=torch.float32)
    dz = torch.ones(8, 16, 16, 8)
    torch.testing.assert_close(
        fused(chain, x, dz)[0].double(), reference(chain, x, dz)[0], rtol=0, atol=2e-2
    )


def test_the_same_pass_gives_the_same_bits():
    case = CASES["ReLU before, pooled"]
    x = torch.tensor(RNG.normal(size=(9, 8, 8, 40)), dtype=torch.float32)
    dz = torch.tensor(RNG.normal(size=(9, 4, 4, 40)), dtype=torch.float32)
    chain = chain_of(*case, channels=40)
    start = [v.numpy().copy() for v in chain.norm.weights]
    first = [t.detach().clone() for t in fused(chain, x, dz)]
    chain.norm.set_weights(start)
    assert all(torch.equal(a, b) for a, b in zip(first, fused(chain, x, dz), strict=True))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_is_not_a_number_stays_visible(case):
    chain = chain_of(*case, channels=3)
    x = torch.zeros(1, 2, 2, 3)
    x[0, 1, 1, 2] = math.nan
    y = fused_batch_norm.normalize(chain, x, training=True)
    assert y[..., 2].isnan().any()
    assert not y[..., :2].isnan().any()


def test_the_teacher_is_fused_wherever_it_normalizes_feature_maps():
    images = RNG.integers(0, 256, (8, 32, 32, 3), np.uint8)
    model = zoo.build("teacher-2m", images=images, classes=10, seed=0)
    chains = set(fused_batch_norm.chains(model).values())
    assert len(chains) == 6
    assert sum(chain.pool for chain in chains) == 3
    assert all(chain.source is not None for chain in chains)


def test_a_chain_inside_a_nested_model_is_found():
    inner = keras.Sequential([keras.Input((8, 8, 3)), layers.BatchNormalization(), layers.ReLU(6)])
    model = keras.Sequential([keras.Input((8, 8, 3)), inner, layers.Flatten()])
    (chain,) = set(fused_batch_norm.chains(model).values())
    assert (chain.low, chain.high, chain.source) == (0, 6, None)


def conv() -> layers.Layer:
    return layers.Conv2D(4, 3, padding="same", activation="relu")


def between() -> keras.Model:
    """Another layer reads the convolution, and another the normalization."""
    inputs = keras.Input((8, 8, 3))
    convolved = conv()(inputs)
    normalized = layers.BatchNormalization()(convolved)
    joined = layers.Add()([convolved, normalized, layers.ReLU()(normalized)])
    return keras.Model(inputs, joined)


def shared() -> keras.Model:
    """One convolution and one ReLU that stand in two places."""
    inputs = keras.Input((8, 8, 4))
    twice, relu = conv(), layers.ReLU()
    first = relu(layers.BatchNormalization()(twice(inputs)))
    return keras.Model(inputs, relu(layers.BatchNormalization()(twice(first))))


def shown() -> keras.Model:
    """What a chain would hide is an output of the model."""
    inputs = keras.Input((8, 8, 3))
    normalized = layers.BatchNormalization()(conv()(inputs))
    return keras.Model(inputs, [normalized, layers.ReLU()(normalized)])


@pytest.mark.parametrize("build", [between, shared, shown])
def test_a_neighbour_with_other_duties_is_left_out(build):
    for chain in set(fused_batch_norm.chains(build()).values()):
        assert (chain.behind, chain.low, chain.pool) == ((), -math.inf, False)
        assert chain.source is None or build is shown


@pytest.mark.parametrize(
    "layer",
    [
        layers.ReLU(negative_slope=0.1),
        layers.ReLU(threshold=1.0),
        layers.Activation("tanh"),
        layers.MaxPooling2D(3),
        layers.MaxPooling2D(2, strides=1),
        layers.ReLU(activity_regularizer="l2"),
        layers.ReLU(dtype="mixed_bfloat16"),
    ],
    ids=lambda layer: layer.name,
)
def test_a_neighbour_that_does_something_else_is_left_out(layer):
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.BatchNormalization(), layer])
    (chain,) = set(fused_batch_norm.chains(model).values())
    assert chain.behind == ()


@pytest.mark.parametrize("size", [7, None])
def test_pooling_of_an_odd_or_unknown_size_is_left_out(size):
    model = keras.Sequential(
        [keras.Input((size, 8, 3)), layers.BatchNormalization(), layers.MaxPooling2D(2)]
    )
    (chain,) = set(fused_batch_norm.chains(model).values())
    assert not chain.pool


def test_borders_of_zeros_are_left_to_the_convolutions_behind_them():
    model = keras.applications.ResNet50V2(weights=None, input_shape=(32, 32, 3))
    borders = fused_batch_norm.borders(model)
    zeros = [layer for layer in borders if type(layer) is layers.ZeroPadding2D]
    # One before the first convolution and one in each of 16 blocks, not those before a pooling.
    assert len(zeros) == 17
    assert len(borders) == 2 * len(zeros)
    assert borders[model.get_layer("conv1_pad")] == [3, 3, 3, 3]


def seen_twice() -> keras.Model:
    inputs = keras.Input((8, 8, 3))
    bordered = layers.ZeroPadding2D(1)(inputs)
    return keras.Model(inputs, [layers.Conv2D(4, 3)(bordered), layers.Conv2D(4, 3)(bordered)])


def in_two_places() -> keras.Model:
    inputs = keras.Input((8, 8, 3))
    border = layers.ZeroPadding2D(1)
    return keras.Model(inputs, layers.Conv2D(3, 3)(border(layers.Conv2D(3, 3)(border(inputs)))))


def padded_again() -> keras.Model:
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, layers.Conv2D(4, 3, padding="same")(layers.ZeroPadding2D()(inputs)))


@pytest.mark.parametrize("build", [seen_twice, in_two_places, padded_again])
def test_a_border_with_other_duties_stays_a_layer(build):
    assert fused_batch_norm.borders(build()) == {}
