"""Global random numbers that a loader has for itself."""

from __future__ import annotations

import random

import numpy as np
import torch

from tutelage.data.random_numbers import RandomNumbers


def draw() -> list[float]:
    return [random.random(), float(np.random.rand()), float(torch.rand(()))]


def test_draws_do_not_depend_on_others_between_them() -> None:
    drawn = []
    for others in (0, 3):
        numbers = RandomNumbers(5, 1)
        for _ in range(3):
            with numbers.used():
                drawn.append(draw())
            for _ in range(others):
                draw()
    assert drawn[:3] == drawn[3:]
    assert len({tuple(one) for one in drawn}) == 3


def test_others_do_not_notice() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    expected = draw(), draw()
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    first = draw()
    numbers = RandomNumbers(1)
    with numbers.used():
        draw()
    try:
        with numbers.used():
            draw()
            raise KeyError
    except KeyError:
        pass
    assert (first, draw()) == expected


def test_other_entropy_gives_other_numbers() -> None:
    drawn = set()
    for entropy in ((0, 0), (0, 1), (1, 0)):
        with RandomNumbers(*entropy).used():
            drawn |= set(draw())
    assert len(drawn) == 9
