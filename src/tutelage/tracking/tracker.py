"""The interface of a tracker, which shows a run while it trains and afterwards."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.progress import EpochLog

Histories = Mapping[str, Sequence[EpochLog]]
# Figures of a model that don't come from the test images. An epoch has `seconds`, too.
_UNTESTED = {
    "parameters": "parameters",
    "macs": "macs",
    "bytes": "bytes",
    "seconds": "total_seconds",
}


class Tracker(ABC):
    """Shows one run. After an exception, each method may be called again with the same values."""

    def start(self, run_id: str | None) -> str | None:
        """Begin a run, or go on with an earlier one.

        Args:
            run_id: what `start` returned when the run was begun, if it was.

        Returns:
            The run's id; None if it has none.
        """
        return None

    @abstractmethod
    def write(self, histories: Histories) -> None:
        """Write the epochs that are not written yet.

        Args:
            histories: all epochs so far by stage, in the order of training.
        """

    def finish(self, results: Mapping[str, Any]) -> None:
        """Write the results and end the run as a finished one.

        Args:
            results: the contents of `results.json`.
        """
        self.close()

    @abstractmethod
    def close(self) -> None:
        """End the run as a failed one, unless it is finished."""


def final_metrics(results: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a run's models, on the test images and of their size.

    Args:
        results: the contents of `results.json`.

    Returns:
        `STAGE/test_accuracy` and so on, and `STAGE/parameters`, `STAGE/macs`, `STAGE/bytes` and
        `STAGE/total_seconds`.

    Example:

    >>> from tutelage.tracking.tracker import final_metrics
    >>> final_metrics({"models": {"student": {"accuracy": 0.5, "parameters": 2410}}})
    {'student/test_accuracy': 0.5, 'student/parameters': 2410}
    """
    return {
        f"{stage}/{_UNTESTED.get(name, f'test_{name}')}": value
        for stage, figures in results["models"].items()
        for name, value in figures.items()
    }
