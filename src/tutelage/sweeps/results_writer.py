"""The results of a sweep, written as its students finish."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from tutelage import environment, storage
from tutelage.progress import Progress
from tutelage.runs import findings
from tutelage.sweeps.trial_queue import TrialQueue, TrialResult

COLUMNS = (
    "trial",
    "method",
    "alpha",
    "temperature",
    "seed",
    "state",
    "accuracy",
    "nll",
    "seconds",
)


class ResultsWriter:
    """Writes the results of a sweep as its students finish, and reports them.

    Args:
        queue: the sweep's trials.
        path: the sweep's folder.
        head: the first keys of `sweep.json` and of each student's file.
        precision: training precision.
        progress: notified of each student.

    Attributes:
        rows: the result of each student trained so far, by trial and seed.
    """

    def __init__(
        self,
        queue: TrialQueue,
        path: Path,
        head: dict[str, Any],
        precision: str,
        progress: Progress,
    ):
        self.rows: list[TrialResult] = []
        self._queue, self._path, self._head, self._progress = queue, path, head, progress
        self._written: set[tuple[int, int]] = set()
        self._environment = environment.describe() | {"precision": precision}

    def begin(self) -> None:
        """Write the existing results and report that training of the students starts."""
        storage.make_folder(self._path / "trials")
        self._write_new()
        count = self._queue.plan.students(self._queue.recipe)
        self._progress.stage("sweep", count, len(self.rows), 1, "student")

    def update(self) -> None:
        """Write and report what all processes have finished since the last call."""
        done = len(self.rows)
        for row in self._write_new():
            done += 1
            outcome = row["state"]
            if outcome == "complete":
                outcome = f"{100 * row['accuracy']:.2f} %"
            self._progress.note(f"{findings.name(row)}, seed {row['seed']}: {outcome}")
            self._progress.epoch({"epoch": done, "seconds": row["seconds"] or 0.0})

    def close(self, **results: Any) -> dict[str, Any]:
        """Write the results of the whole sweep."""
        return self._write(results)

    def _write_new(self) -> list[TrialResult]:
        self.rows = self._queue.rows()
        new = [row for row in self.rows if (row["trial"], row["seed"]) not in self._written]
        for row in new:
            name = f"{row['trial']:04d}-{row['method']}-seed-{row['seed']}.json"
            file = self._path / "trials" / name
            if not file.exists():
                _write_json(file, row | self._head | {"environment": self._environment})
            self._written.add((row["trial"], row["seed"]))
        if new:
            self._write({})
        return new

    def _write(self, results: dict[str, Any]) -> dict[str, Any]:
        text = io.StringIO()
        table = csv.DictWriter(text, COLUMNS, "", "ignore", lineterminator="\n")
        table.writeheader()
        table.writerows(self.rows)
        with storage.replacing(self._path / "trials.csv") as temporary:
            temporary.write_text(text.getvalue(), encoding="utf-8")
        tree = self._head | {"trials": self.rows} | results | {"environment": self._environment}
        _write_json(self._path / "sweep.json", tree)
        return tree


def _write_json(file: Path, tree: dict[str, Any]) -> None:
    with storage.replacing(file) as temporary:
        temporary.write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")
