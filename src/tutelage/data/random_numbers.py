"""Global random numbers that a loader has for itself."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

# What a module's `get` returns and its `set` takes.
_State = tuple[Any, ...]


class RandomNumbers:
    """The global random numbers of Python, NumPy and PyTorch (on the CPU), seeded anew.

    Code that draws from them inside `used` gets the same numbers whatever else draws from them
    between two uses, and changes nothing for others.

    Args:
        *entropy: integers of at least 0; the same ones give the same numbers.

    Example:

    >>> import random
    >>> from tutelage.data.random_numbers import RandomNumbers
    >>> def three(numbers):
    ...     drawn = []
    ...     for _ in range(3):
    ...         with numbers.used():
    ...             drawn.append(random.random())
    ...         random.random()
    ...     return drawn
    >>> three(RandomNumbers(0, 1)) == three(RandomNumbers(0, 1)) != three(RandomNumbers(0, 2))
    True
    """

    def __init__(self, *entropy: int):
        python, numpy, torch = np.random.SeedSequence(entropy).generate_state(3).tolist()
        self._state: _State = (
            random.Random(python).getstate(),
            np.random.RandomState(numpy).get_state(),
            # A loader that draws from PyTorch has imported it.
            sys.modules["torch"].Generator().manual_seed(torch).get_state()
            if "torch" in sys.modules
            else None,
        )

    @contextmanager
    def used(self) -> Iterator[None]:
        """In this block, the global random numbers are these; they go on where they ended."""
        others = _get()
        _set(self._state)
        try:
            yield
        finally:
            self._state = _get()
            _set(others)


def _get() -> _State:
    torch = sys.modules.get("torch")
    return random.getstate(), np.random.get_state(), torch.get_rng_state() if torch else None


def _set(state: _State) -> None:
    python, numpy, torch = state
    random.setstate(python)
    np.random.set_state(numpy)
    if torch is not None:
        sys.modules["torch"].set_rng_state(torch)
