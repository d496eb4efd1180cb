"""A sweep's ledger: what is known of it, on disk and for those who watch."""

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
    "ticket",
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
    """What is known of a sweep: on disk, and told to those who watch.

    Args:
        tickets: the sweep's.
        path: its folder.
        head: what stands at the head of `sweep.json` and of each cell's file.
        precision: what training computes in.
        progress: hears of each student.

    Attributes:
        rows: of each student trained so far, by ticket and seed.
    """

    def __init__(
        self,
        tickets: TrialQueue,
        path: Path,
        head: dict[str, Any],
        precision: str,
        progress: Progress,
    ):
        self.rows: list[TrialResult] = []
        self._tickets, self._path, self._head, self._progress = tickets, path, head, progress
        self._written: set[tuple[int, int]] = set()
        self._environment = environment.describe() | {"precision": precision}

    def begin(self) -> None:
        """Write down what is known already, and that the students' training begins."""
        storage.make_folder(self._path / "cells")
        self._write_new()
        count = self._tickets.plan.students(self._tickets.recipe)
        self._progress.stage("sweep", count, len(self.rows), 1, "student")

    def look(self) -> None:
        """Write down and tell what anybody has finished since the last look."""
        done = len(self.rows)
        for row in self._write_new():
            done += 1
            came = row["state"]
            if came == "complete":
                came = f"{100 * row['accuracy']:.2f} %"
            self._progress.note(f"{findings.name(row)}, seed {row['seed']}: {came}")
            self._progress.epoch({"epoch": done, "seconds": row["seconds"] or 0.0})

    def close(self, **found: Any) -> dict[str, Any]:
        """Write down what the sweep came to."""
        return self._write(found)

    def _write_new(self) -> list[TrialResult]:
        self.rows = self._tickets.rows()
        new = [row for row in self.rows if (row["ticket"], row["seed"]) not in self._written]
        for row in new:
            name = f"{row['ticket']:04d}-{row['method']}-seed-{row['seed']}.json"
            file = self._path / "cells" / name
            if not file.exists():
                _write_json(file, row | self._head | {"environment": self._environment})
            self._written.add((row["ticket"], row["seed"]))
        if new:
            self._write({})
        return new

    def _write(self, found: dict[str, Any]) -> dict[str, Any]:
        text = io.StringIO()
        table = csv.DictWriter(text, COLUMNS, "", "ignore", lineterminator="\n")
        table.writeheader()
        table.writerows(self.rows)
        with storage.replacing(self._path / "trials.csv") as temporary:
            temporary.write_text(text.getvalue(), encoding="utf-8")
        told = self._head | {"trials": self.rows} | found | {"environment": self._environment}
        _write_json(self._path / "sweep.json", told)
        return told


def _write_json(file: Path, told: dict[str, Any]) -> None:
    with storage.replacing(file) as temporary:
        temporary.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
