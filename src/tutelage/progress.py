"""Who hears how training goes."""

from __future__ import annotations

from collections.abc import Mapping

EpochLog = dict[str, float]


class Progress:
    """Hears how training goes; this one keeps it to itself."""

    def stage(self, name: str, epochs: int, done: int, steps: int, unit: str = "epoch") -> None:
        """A stage begins: its epochs, how many are already done, steps an epoch.

        The unit is what an epoch of it is called.
        """

    def step(self, step: int, logs: Mapping[str, float]) -> None:
        """A step of the current epoch has ended; steps count from 1."""

    def epoch(self, row: EpochLog) -> None:
        """An epoch has ended and is safe on disk."""

    def note(self, text: str) -> None:
        """Something a person should know."""
