"""Learning rates, against those of PyTorch's schedulers."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler

from tutelage.recipe import Schedule
from tutelage.training import schedules
from tutelage.training.schedules import WarmupSchedule

STEPS, PEAK = 99, 2.0  # the rate is zero at steps 0 and 100 of 100


def built(**settings: Any) -> WarmupSchedule:
    return schedules.build(Schedule(epochs=1, learning_rate=PEAK, **settings), STEPS)


def rates(rate: WarmupSchedule) -> list[float]:
    return [float(rate(step)) for step in range(STEPS)]


def of_pytorch(make: Any, start: int) -> list[float]:
    """The rates of a scheduler from a step on."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    scheduler, found = make(optimizer), []
    for _ in range(start + STEPS):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found[start:]


@pytest.mark.parametrize("warmup", [0.0, 0.25, 0.75])
@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_a_decay_to_zero_is_that_of_pytorch(name: str, warmup: float) -> None:
    rise = round(100 * warmup)

    def make(optimizer: torch.optim.Optimizer) -> Any:
        if name == "cosine":
            fall: Any = lr_scheduler.CosineAnnealingLR(optimizer, 100 - rise)
        else:
            fall = lr_scheduler.LinearLR(optimizer, 1.0, 1e-12, 100 - rise)
        if not rise:
            return fall
        first = lr_scheduler.LinearLR(optimizer, 1e-12, 1.0, rise)
        return lr_scheduler.SequentialLR(optimizer, [first, fall], [rise])

    expected = of_pytorch(make, start=1)
    found = rates(built(learning_rate_schedule=name, warmup=warmup))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert max(found) == pytest.approx(PEAK, rel=0.05)


@pytest.mark.parametrize(
    ("milestones", "gamma"), [(None, None), ((0.3,), 0.5), ((0.11, 0.5, 0.9), 0.3)]
)
def test_the_steps_are_those_of_pytorch(
    milestones: tuple[float, ...] | None, gamma: float | None
) -> None:
    at = [round(STEPS * milestone) for milestone in milestones or (0.5, 0.75)]

    def make(optimizer: torch.optim.Optimizer) -> Any:
        return lr_scheduler.MultiStepLR(optimizer, at, gamma or 0.1)

    settings = {"learning_rate_schedule": "step", "milestones": milestones, "gamma": gamma}
    found = rates(built(warmup=0.0, **settings))
    np.testing.assert_allclose(found, of_pytorch(make, start=0), rtol=1e-5)
    warm = rates(built(warmup=0.1, **settings))
    np.testing.assert_allclose(warm[:10], [PEAK * step / 10 for step in range(1, 11)], rtol=1e-5)
    assert warm[10:] == found[10:]


@pytest.mark.parametrize("name", ["linear", "cosine", "step"])
def test_a_rate_follows_the_steps_of_accumulated_batches(name: str) -> None:
    whole = built(learning_rate_schedule=name)
    parts = schedules.build(
        Schedule(epochs=1, learning_rate=PEAK, learning_rate_schedule=name), STEPS, parts=3
    )
    steps = keras.ops.arange(3 * STEPS)
    assert [float(parts(step)) for step in steps] == [
        rate for rate in rates(whole) for _ in range(3)
    ]
    again = type(parts).from_config(parts.get_config())
    assert float(again(40)) == float(parts(40))


def test_linear_is_the_default() -> None:
    assert rates(built()) == rates(built(learning_rate_schedule="linear"))
