"""Muon: against the author's iteration written out, then on a model."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from tutelage.training.optimizers import Muon, orthogonal

RNG = np.random.default_rng(0)
SHAPES = [(3, 3, 3, 64), (3, 3, 64, 64), (3, 3, 32, 64), (256, 10), (10, 256), (1, 5)]


def iterated(kernel: np.ndarray) -> np.ndarray:
    """The author's Newton-Schulz iteration on the kernel itself, in float64."""
    x = kernel.reshape(-1, kernel.shape[-1]).astype(np.float64)
    inputs, outputs = x.shape
    x = x / (np.linalg.norm(x) + 1e-7)
    for _ in range(5):
        inner = x @ x.T
        x = 3.4445 * x + (-4.7750 * inner + 2.0315 * inner @ inner) @ x
    return x.reshape(kernel.shape) * max(1, outputs / inputs) ** 0.5


def apply(kernel: np.ndarray) -> np.ndarray:
    return ops.convert_to_numpy(orthogonal(ops.convert_to_tensor(kernel)))


@pytest.mark.parametrize("shape", SHAPES)
def test_orthogonal_is_the_authors_iteration(shape: tuple[int, ...]) -> None:
    kernel = RNG.normal(size=shape).astype(np.float32)
    np.testing.assert_allclose(apply(kernel), iterated(kernel), atol=2e-4)


def test_orthogonal_of_a_kernel_of_low_rank_is_the_authors_iteration() -> None:
    thin = RNG.normal(size=(256, 3)) @ RNG.normal(size=(3, 64))
    kernel = (thin + 1e-5 * RNG.normal(size=thin.shape)).astype(np.float32)
    # The weakest directions are rounding, which the small matrix squares.
    assert np.linalg.norm(apply(kernel) - iterated(kernel)) < 5e-3 * np.linalg.norm(
        iterated(kernel)
    )


def test_singular_values_come_near_one() -> None:
    kernel = RNG.normal(size=(200, 40)).astype(np.float32)
    values = np.linalg.svd(apply(kernel), compute_uv=False)
    assert 0.6 < values.min() <= values.max() < 1.3


def test_a_step_is_the_formula() -> None:
    weights = [RNG.normal(size=(6, 4)), RNG.normal(size=4)]
    gradients = [[RNG.normal(size=w.shape) for w in weights] for _ in range(3)]
    variables = [keras.Variable(w.astype(np.float32)) for w in weights]
    optimizer = Muon(learning_rate=0.1, momentum=0.8, weight_decay=0.5)
    optimizer.build(variables)
    momenta = [np.zeros_like(w) for w in weights]
    for step in gradients:
        optimizer.apply([ops.convert_to_tensor(g.astype(np.float32)) for g in step], variables)
        for i, gradient in enumerate(step):
            momenta[i] = 0.8 * momenta[i] + gradient
            direction = gradient + 0.8 * momenta[i]
            if direction.ndim > 1:
                direction = iterated(direction)
            weights[i] = weights[i] - 0.1 * (0.5 * weights[i] + direction)
    for variable, expected in zip(variables, weights, strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(variable.value), expected, atol=1e-4)


def test_what_is_excluded_does_not_decay() -> None:
    kernel, bias = keras.Variable(np.ones((2, 2))), keras.Variable(np.ones(2), name="bias")
    optimizer = Muon(learning_rate=0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    zeros = [ops.zeros((2, 2)), ops.zeros(2)]
    optimizer.apply(zeros, [kernel, bias])
    np.testing.assert_allclose(ops.convert_to_numpy(kernel.value), 0.95)
    np.testing.assert_allclose(ops.convert_to_numpy(bias.value), 1.0)


def test_a_kernel_without_a_gradient_does_not_move() -> None:
    assert not apply(np.zeros((4, 3), np.float32)).any()


def test_configuration_comes_back() -> None:
    optimizer = Muon(learning_rate=0.25, momentum=0.7, weight_decay=0.1)
    again = Muon.from_config(optimizer.get_config())
    assert again.get_config() == optimizer.get_config()
    assert (again.momentum, again.weight_decay) == (0.7, 0.1)


@pytest.mark.parametrize("momentum", [-0.1, 1.0, float("nan")])
def test_momentum_outside_its_range_is_refused(momentum: float) -> None:
    with pytest.raises(ValueError, match="momentum"):
        Muon(momentum=momentum)
