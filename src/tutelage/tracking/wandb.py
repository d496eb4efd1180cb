"""A run in Weights & Biases."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tutelage.errors import extra
from tutelage.tracking.tracker import Histories, Tracker, final_metrics

_PATIENCE = 60.0  # seconds for the last upload, which W&B doesn't limit


@contextmanager
def _output_to_stderr() -> Iterator[None]:
    """Let processes that start in this block print to standard error only."""
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


class WandbTracker(Tracker):
    """Shows a run as one run of Weights & Biases, with metrics `STAGE/NAME` over `STAGE/epoch`.

    Mode, project and so on are those of W&B's environment variables.

    Args:
        name: the run's name.
        settings: its configuration, by dotted key.

    Raises:
        MissingExtraError: W&B isn't installed.
    """

    def __init__(self, name: str, settings: Mapping[str, Any]):
        with extra("wandb"):
            import wandb.sdk  # `wandb` alone may be the folder of offline runs
        self._wandb, self._name, self._settings = wandb, name, settings
        self._run: Any = None
        self._stages: set[str] = set()
        self._done = 0  # number of epochs that W&B has, of all stages together

    def start(self, run_id: str | None) -> str | None:
        """Begin a run, or go on with an earlier one."""
        with _output_to_stderr():
            self._wandb.setup()  # starts W&B's process, which otherwise prints among the results
        limit = {} if "WANDB_FINISH_TIMEOUT" in os.environ else {"finish_timeout": _PATIENCE}
        self._run = self._wandb.init(
            id=run_id,
            name=self._name,
            resume="allow",
            config=dict(self._settings),
            allow_val_change=True,
            reinit="create_new",  # leaves the caller's own run alone
            settings={**limit, "finish_timeout_raises": True},
        )
        # Zero offline, even if the run was begun earlier: each file then has all epochs, and the
        # last one that is synchronized replaces the others.
        self._done = self._run.starting_step
        return None if self._run.disabled else str(self._run.id)

    def write(self, histories: Histories) -> None:
        """Write the epochs that are not written yet, one W&B step each."""
        for stage in histories.keys() - self._stages:
            self._run.define_metric(f"{stage}/epoch", hidden=True)
            self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/epoch")
            self._stages.add(stage)
        epochs = [(stage, row) for stage, rows in histories.items() for row in rows]
        for step, (stage, row) in enumerate(epochs):
            if step >= self._done:
                values = {f"{stage}/{name}": value for name, value in row.items()}
                self._run.log(values, step=step, commit=True)
                self._done = step + 1

    def finish(self, results: Mapping[str, Any]) -> None:
        """Write the models' figures and the verdict to the summary, and end the run."""
        said = {name: results[name] for name in ("verdict", "conclusion") if name in results}
        self._run.summary.update(final_metrics(results) | said)
        self._end(0)

    def close(self) -> None:
        """End the run as a failed one, unless it is finished."""
        if self._run is not None:
            self._end(1)

    def _end(self, exit_code: int) -> None:
        run, self._run = self._run, None
        run.finish(exit_code=exit_code)
