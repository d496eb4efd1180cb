"""Muon against the author's iteration written out; optimizers by name against PyTorch's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from keras import ops

from tutelage.errors import RecipeError
from tutelage.recipe import Schedule
from tutelage.training import optimizers
from tutelage.training.optimizers import Muon, orthogonal
from tutelage.training.schedules import TriangularSchedule

RNG = np.random.default_rng(0)
RATE = TriangularSchedule(0.1, steps=4, warmup=0.5)
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


def schedule(optimizer: str, **settings: Any) -> Schedule:
    return Schedule(epochs=1, learning_rate=0.01, optimizer=optimizer, **settings)


def test_adamw_takes_the_steps_of_pytorch() -> None:
    rates = TriangularSchedule(0.01, steps=9, warmup=0.5)
    ours = keras.Variable(RNG.normal(size=(6, 4)).astype(np.float32), name="kernel")
    theirs = torch.nn.Parameter(torch.tensor(ops.convert_to_numpy(ours.value).copy()))
    optimizer = optimizers.build(schedule("adamw", weight_decay=0.3), rates)
    reference = torch.optim.AdamW([theirs], lr=0.0, weight_decay=0.3, eps=1e-7)
    for step in range(9):
        gradient = RNG.normal(size=(6, 4)).astype(np.float32)
        optimizer.apply([ops.convert_to_tensor(gradient)], [ours])
        theirs.grad = torch.tensor(gradient)
        reference.param_groups[0]["lr"] = float(rates(step))
        reference.step()
    expected = theirs.detach().numpy()
    np.testing.assert_allclose(ops.convert_to_numpy(ours.value), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("norm", [0.5, 100.0])
def test_the_norm_of_a_steps_gradient_is_clipped_as_by_pytorch(parts: int, norm: float) -> None:
    shapes = [(6, 4), (4,)]
    ours = [keras.Variable(np.ones(shape, np.float32)) for shape in shapes]
    theirs = [torch.nn.Parameter(torch.ones(shape)) for shape in shapes]
    settings = schedule("sgd", momentum=0.0, weight_decay=0.0, clip_norm=norm)
    optimizer = optimizers.build(settings, lambda: 0.1, parts)
    reference = torch.optim.SGD(theirs, lr=0.1)
    for _ in range(3):
        gradients = RNG.normal(size=(parts, 28)).astype(np.float32)
        for part in gradients:
            each = np.split(part, [24])
            pairs = zip(each, ours, strict=True)
            optimizer.apply([ops.convert_to_tensor(g.reshape(v.shape)) for g, v in pairs], ours)
        each = np.split(gradients.mean(axis=0), [24])
        for gradient, parameter in zip(each, theirs, strict=True):
            parameter.grad = torch.tensor(gradient.reshape(parameter.shape))
        torch.nn.utils.clip_grad_norm_(theirs, norm)
        reference.step()
    for one, other in zip(ours, theirs, strict=True):
        found = ops.convert_to_numpy(one.value)
        np.testing.assert_allclose(found, other.detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sgd", "SGD"),
        ("adamw", "AdamW"),
        ("lamb", "Lamb"),
        ("Adafactor", "Adafactor"),
        ("Lion", "Lion"),
        ("Muon", "Muon"),
    ],
)
def test_a_name_is_that_of_keras(name: str, kind: str) -> None:
    made = optimizers.build(schedule(name, weight_decay=0.2), RATE, parts=3)
    assert isinstance(made, getattr(keras.optimizers, kind))
    assert not isinstance(made, Muon)
    assert (made.weight_decay, made.gradient_accumulation_steps) == (0.2, 3)
    assert made.get_config()["learning_rate"]["config"] == RATE.get_config()


@pytest.mark.parametrize("name", ["muon", "adamw", "lamb", "Lion", "Adagrad"])
@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_only_kernels_decay(name: str, decay: float) -> None:
    names = ("kernel", "bias", "gamma", "beta")
    variables = [keras.Variable(np.ones((2, 2)), name=name) for name in names]
    made = optimizers.build(schedule(name, weight_decay=decay), lambda: 0.1)
    made.apply([ops.zeros((2, 2))] * 4, variables)
    kernel, *others = (ops.convert_to_numpy(v.value) for v in variables)
    np.testing.assert_allclose(kernel, 1 - 0.1 * decay)
    np.testing.assert_array_equal(others, 1)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("adam", "Adam"),
        ("Adamw", "adamw or AdamW"),
        ("sgdd", "sgd or SGD"),
        ("moun", "muon or Muon"),
        ("ADAFACTOR", "Adafactor"),
        ("lambs", "lamb or Lamb"),
    ],
)
def test_a_name_that_is_none_is_told_with_the_closest_ones(name: str, meant: str) -> None:
    with pytest.raises(RecipeError, match=f"found '{name}'; did you mean") as caught:
        optimizers.build(schedule(name), RATE)
    said = str(caught.value).rpartition("did you mean ")[2].removesuffix("?")
    assert sorted(said.split(" or ")) == sorted(meant.split(" or "))


@pytest.mark.parametrize("name", ["", "Optimizer", "MultiOptimizer", "schedules", "Rprop", "a:b:c"])
def test_what_is_no_optimizer_is_told_with_all_that_are(name: str) -> None:
    with pytest.raises(RecipeError, match=r"sgd, muon, adamw, lamb, .*Adadelta, Adafactor"):
        optimizers.build(schedule(name), RATE)


@pytest.mark.parametrize("name", ["Ftrl", "ScheduleFreeAdamW"])
def test_rates_by_layer_need_steps_proportional_to_the_rate(name: str) -> None:
    optimizers.build(schedule(name), RATE)
    with pytest.raises(RecipeError, match=f"layer_decay: .* found {name}"):
        optimizers.build(schedule(name, layer_decay=0.9), RATE)


OWN = """
import keras
class Slow(keras.optimizers.SGD):
    pass
def made(learning_rate):
    return keras.optimizers.Adam(learning_rate, beta_1=0.8)
def decays(learning_rate):
    return keras.optimizers.Adam(learning_rate, weight_decay=0.25)
def clips(learning_rate):
    return keras.optimizers.Adam(learning_rate, clipvalue=0.1)
def clips_too(learning_rate):
    return keras.optimizers.Adam(learning_rate, global_clipnorm=0.1)
def fails(learning_rate):
    raise OSError("no")
def number(learning_rate):
    return 3
ONE = keras.optimizers.SGD(0.1)
ONE.build([])
def built(learning_rate):
    return ONE
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module in the current folder."""
    monkeypatch.chdir(tmp_path)
    name = f"own_{tmp_path.name.replace('-', '_')}"
    Path(f"{name}.py").write_text(OWN)
    return name


def test_an_optimizer_of_the_users_own_has_the_settings_of_the_schedule(own: str) -> None:
    settings = schedule(f"{own}:made", weight_decay=0.2, clip_norm=3)
    made = optimizers.build(settings, RATE, parts=2)
    assert made.global_clipnorm == 3
    assert (made.beta_1, made.weight_decay, made.gradient_accumulation_steps) == (0.8, 0.2, 2)
    assert float(made.learning_rate) == float(RATE(0))
    assert type(optimizers.build(schedule(f"{own}:Slow"), RATE)).__name__ == "Slow"
    same = optimizers.build(schedule(f"{own}:decays", weight_decay=0.25), RATE)
    assert same.weight_decay == 0.25


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("decays", "weight_decay: expected 0.25, as .*, found 0.005"),
        ("clips", "clip_norm: expected none, as .* sets clipvalue, found 0.5"),
        ("clips_too", "clip_norm: expected 0.1, as .*, found 0.5"),
        ("fails", "raised OSError: no"),
        ("number", "found 3"),
        ("built", "new Keras optimizer"),
        ("absent", "no function or class absent"),
    ],
)
def test_an_optimizer_of_the_users_own_that_can_not_be_used_is_refused(
    own: str, name: str, said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        optimizers.build(schedule(f"{own}:{name}", clip_norm=0.5), RATE)


def test_the_digest_of_an_optimizer_of_the_users_own_follows_its_code(own: str) -> None:
    assert optimizers.digest("adamw") is None
    before = [optimizers.digest(f"{own}:{name}") for name in ("made", "Slow")]
    assert before == [optimizers.digest(f"{own}:{name}") for name in ("made", "Slow")]
    assert before[0] != before[1]
    changed = f"{own}_changed"
    Path(f"{changed}.py").write_text(OWN.replace("0.8", "0.7").replace("    pass", "    a = 1"))
    after = [optimizers.digest(f"{changed}:{name}") for name in ("made", "Slow")]
    assert all(one != other for one, other in zip(before, after, strict=True))
