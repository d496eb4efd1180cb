"""The trackers of a run, none of which can end it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tutelage import recipe as recipes
from tutelage import storage
from tutelage.errors import RunError, reason
from tutelage.progress import Progress
from tutelage.recipe import Recipe
from tutelage.tracking.mlflow import MLflowTracker
from tutelage.tracking.tensorboard import EventLog
from tutelage.tracking.tracker import Histories, Tracker
from tutelage.tracking.wandb import WandbTracker

FILE = "tracking.json"  # in the run's folder: the run's ids at its trackers
_SHARE = 0.1  # of the time, at most, that is spent on a tracker that fails
_LATER = "the run goes on, and what is missing there is sent later"
_INCOMPLETE = "the tracking is incomplete, run the same command again to complete it"


class Trackers:
    """The trackers of one run.

    One that raises an exception doesn't end the run: a note says so, and it is tried again later
    with everything that it lacks.

    Args:
        names: any of `tensorboard`, `mlflow` and `wandb`.
        folder: the run's folder.
        recipe: the parameters that they show.
        progress: notified of failures.

    Raises:
        MissingExtraError: a tracker's package isn't installed.
        RunError: the ids in the folder are damaged.
    """

    def __init__(self, names: Sequence[str], folder: Path, recipe: Recipe, progress: Progress):
        settings = recipes.flat(recipes.to_dict(recipe))
        self._trackers = {name: _tracker(name, folder, settings) for name in names}
        self._path, self._progress = folder / FILE, progress
        self._started: set[str] = set()
        self._failed: set[str] = set()
        self._next_try: dict[str, float] = {}
        for name in names:
            self._known(name)  # damaged ones are refused before anything is trained

    @property
    def incomplete(self) -> bool:
        """Whether a tracker may lack something of a finished run."""
        return any(not self._known(name).get("complete") for name in self._trackers)

    def write(self, histories: Histories) -> None:
        """Write the new epochs; the first call starts the trackers.

        Args:
            histories: all epochs so far by stage, in the order of training.
        """
        for name in self._trackers:
            if time.monotonic() >= self._next_try.get(name, 0.0):
                self._try(name, partial(self._write, name, histories), _LATER)

    def finish(self, histories: Histories, results: Mapping[str, Any]) -> None:
        """Write what is missing and the results, and note what remains incomplete.

        Args:
            histories: all epochs by stage.
            results: the contents of `results.json`.
        """
        for name in self._trackers:
            self._failed.discard(name)  # to say how it ends
            self._try(name, partial(self._finish, name, histories, results), _INCOMPLETE)

    def close(self) -> None:
        """End what is started and not finished."""
        for name, tracker in self._trackers.items():
            self._try(name, tracker.close, _INCOMPLETE)

    def _write(self, name: str, histories: Histories) -> None:
        tracker = self._trackers[name]
        if name not in self._started:
            known = self._known(name).get("id")
            run_id = tracker.start(known)
            if run_id and run_id != known:
                self._record(name, run_id)
            self._started.add(name)
        tracker.write(histories)

    def _finish(self, name: str, histories: Histories, results: Mapping[str, Any]) -> None:
        if name not in self._started and self._known(name).get("complete"):
            return
        self._write(name, histories)
        self._trackers[name].finish(results)
        if run_id := self._known(name).get("id"):
            self._record(name, run_id, complete=True)

    def _try(self, name: str, action: Callable[[], None], consequence: str) -> None:
        """Note the first of several failures in a row."""
        began = time.monotonic()
        try:
            action()
            self._failed.discard(name)
        except Exception as error:
            now = time.monotonic()
            self._next_try[name] = now + (now - began) / _SHARE
            if name not in self._failed:
                self._progress.note(f"warning: {name}: {consequence}: {reason(error)}")
            self._failed.add(name)

    def _known(self, name: str) -> dict[str, Any]:
        """The run's `id` at a tracker, and `complete`: whether that has all of the finished run."""
        return self._stored().get(name, {})

    def _stored(self) -> dict[str, dict[str, Any]]:
        try:
            stored = json.loads(self._path.read_text(encoding="utf-8"))
            return {name: {"id": str(one["id"]), **one} for name, one in stored.items()}
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{self._path} is damaged: delete it to begin new runs") from error

    def _record(self, name: str, run_id: str, complete: bool = False) -> None:
        stored = self._stored() | {name: {"id": run_id, "complete": complete}}
        with storage.replacing(self._path) as temporary:
            temporary.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


def _tracker(name: str, folder: Path, settings: Mapping[str, Any]) -> Tracker:
    if name == "tensorboard":
        return EventLog(folder / "tensorboard")
    kind = MLflowTracker if name == "mlflow" else WandbTracker
    return kind(folder.resolve().name, settings)
