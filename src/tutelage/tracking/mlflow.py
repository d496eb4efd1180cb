"""A run in MLflow."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any

from tutelage.errors import extra
from tutelage.tracking.tracker import Histories, Tracker, final_metrics

_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"


@contextmanager
def _calling() -> Iterator[None]:
    """Keep standard output for the results, and don't hold up the training for long.

    MLflow's own retries take minutes; `Trackers` tries again anyway.
    """
    chosen = _RETRIES in os.environ
    os.environ.setdefault(_RETRIES, "2")
    try:
        with redirect_stdout(sys.stderr):  # it prints the run's address
            yield
    finally:
        if not chosen:
            del os.environ[_RETRIES]


class MLflowTracker(Tracker):
    """Shows a run as one run of MLflow, with metrics `STAGE/NAME` whose steps are epochs.

    Server, experiment and so on are those of MLflow's environment variables. An active run of the
    caller becomes its parent.

    Args:
        name: the name of a new run.
        settings: its parameters, by dotted key.

    Raises:
        MissingExtraError: MLflow, or what its local database needs, isn't installed.
    """

    def __init__(self, name: str, settings: Mapping[str, Any]):
        with extra("mlflow"):
            import mlflow

            if mlflow.get_tracking_uri().startswith("sqlite:"):  # mlflow-skinny doesn't bring them
                import alembic  # noqa: F401
                import sqlalchemy  # noqa: F401
        self._mlflow, self._name, self._settings = mlflow, name, settings
        self._run: Any = None
        self._ended = False
        self._steps: dict[str, set[int]] = {}  # by metric: those that the server has

    @_calling()
    def start(self, run_id: str | None) -> str:
        """Begin a run, or go on with an earlier one that was not deleted."""
        if self._run is None:
            self._client = self._mlflow.MlflowClient()
            nested = self._mlflow.active_run() is not None
            known = run_id if run_id and self._exists(run_id) else None
            name = None if known else self._name
            self._run = self._mlflow.start_run(known, run_name=name, nested=nested)
        params = self._run.data.params  # MLflow refuses a different value
        new = {key: value for key, value in self._settings.items() if key not in params}
        entities = self._mlflow.entities
        self._client.log_batch(
            self._run.info.run_id, params=[entities.Param(key, str(new[key])) for key in new]
        )
        return str(self._run.info.run_id)

    @_calling()
    def write(self, histories: Histories) -> None:
        """Write the epochs that are not written yet."""
        self._log(
            (f"{stage}/{name}", value, int(row["epoch"]))
            for stage, rows in histories.items()
            for row in rows
            for name, value in row.items()
            if name != "epoch"
        )

    @_calling()
    def finish(self, results: Mapping[str, Any]) -> None:
        """Write the models' figures, and the verdict as tags, and end the run as a finished one."""
        self._log((key, value, 0) for key, value in final_metrics(results).items())
        for name in ("verdict", "conclusion"):
            if name in results:  # version 0.1.0 had no conclusion
                self._client.set_tag(self._run.info.run_id, name, results[name])
        self._end("FINISHED")

    @_calling()
    def close(self) -> None:
        """End the run as a failed one, unless it is finished."""
        if self._run is not None and not self._ended:
            self._end("FAILED")

    def _exists(self, run_id: str) -> bool:
        try:
            run = self._client.get_run(run_id)
        except self._mlflow.MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False  # on another server
        return bool(run.info.lifecycle_stage == "active")

    def _log(self, values: Iterable[tuple[str, float, int]]) -> None:
        """Log the values whose metrics don't have their step yet; a metric can't be rewritten."""
        run_id, now = self._run.info.run_id, int(1000 * time.time())
        steps, self._steps = self._steps, {}  # after an error the server is asked again
        new = []
        for key, value, step in values:
            if key not in steps:
                steps[key] = {m.step for m in self._client.get_metric_history(run_id, key)}
            if step not in steps[key]:
                steps[key].add(step)
                new.append(self._mlflow.entities.Metric(key, value, now, step))
        self._client.log_batch(run_id, metrics=new)
        self._steps = steps

    def _end(self, status: str) -> None:
        self._ended = True  # even if the server doesn't hear of it: it is no longer active here
        self._mlflow.end_run(status)
