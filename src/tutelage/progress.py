"""The interface through which long work reports its progress."""

from __future__ import annotations

from collections.abc import Mapping

EpochLog = dict[str, float]


class Progress:
    """Receives progress reports; this base class ignores them."""

    def stage(self, name: str, epochs: int, done: int, steps: int, unit: str = "epoch") -> None:
        """A stage starts: number of epochs, epochs already done, steps per epoch.

        `unit` names an epoch of the stage: `epoch`, `pass`, `round`. The number of steps is 0 in a
        pass over a loader that does not tell its length.
        """

    def then(self, epochs: float) -> None:
        """Work that takes about as long as so many epochs follows the stage's last one."""

    def step(self, step: int, logs: Mapping[str, float]) -> None:
        """A step of the current epoch has ended; steps count from 1."""

    def epoch(self, row: EpochLog) -> None:
        """An epoch has ended and is saved on disk.

        Beside the row of its figures, `images_per_second` and `waiting`, the share of the time
        in which the model waited for images, where they are known.
        """

    def note(self, text: str) -> None:
        """A message for the user."""
