"""Event files: read back by TensorBoard itself."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

from tutelage import recipe
from tutelage.errors import MissingExtraError
from tutelage.experiment import runner
from tutelage.experiment.prepare import prepare
from tutelage.tracking.tensorboard import EventLog

SMALL = {
    "schedule.teacher.epochs": 1,
    "schedule.student.epochs": 2,
    "schedule.teacher.batch_size": 512,
    "schedule.student.batch_size": 512,
}


def seen(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard sees in a folder: step and value of each of its scalars."""
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return {
        tag: [(e.step, float(tensor_util.make_ndarray(e.tensor_proto))) for e in events]
        for tag in accumulator.Tags()["tensors"]
        for events in [accumulator.Tensors(tag)]
    }


def test_a_run_is_seen_as_its_history_has_it(tmp_path: Path) -> None:
    job = prepare(recipe.load("digits", SMALL))
    runner.run(job, tmp_path / "run", tensorboard=True)
    text = (tmp_path / "run" / "history.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    for stage in ("teacher", "baseline", "student"):
        own = [row for row in rows if row["stage"] == stage]
        found = seen(tmp_path / "run" / "tensorboard" / stage)
        assert set(found) == {k for k, v in own[0].items() if v} - {"stage", "epoch"}
        for name, values in found.items():
            expected = [(int(row["epoch"]), pytest.approx(float(row[name]))) for row in own]
            assert values == expected


def test_a_finished_run_can_be_seen_afterwards(tmp_path: Path) -> None:
    job = prepare(recipe.load("digits", SMALL))
    runner.run(job, tmp_path / "run")
    assert not (tmp_path / "run" / "tensorboard").exists()
    before = (tmp_path / "run" / "history.csv").read_bytes()
    runner.run(job, tmp_path / "run", tensorboard=True)
    assert len(seen(tmp_path / "run" / "tensorboard" / "student")["loss"]) == 2
    assert (tmp_path / "run" / "history.csv").read_bytes() == before


def test_what_goes_on_shows_each_epoch_once(tmp_path: Path) -> None:
    rows = [{"epoch": 1.0, "loss": 0.5}, {"epoch": 2.0, "loss": 0.25}, {"epoch": 3.0, "loss": 0.1}]
    first = EventLog(tmp_path)
    first.write({"student": rows[:1]})
    first.write({"student": rows[:2]})
    assert seen(tmp_path / "student") == {"loss": [(1, 0.5), (2, 0.25)]}
    first.close()
    later = EventLog(tmp_path)
    later.write({"student": rows, "teacher": []})
    later.close()
    assert seen(tmp_path / "student") == {"loss": [(1, 0.5), (2, 0.25), (3, pytest.approx(0.1))]}
    assert not (tmp_path / "teacher").exists()


def test_without_tensorboard_one_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.summary", None)
    with pytest.raises(MissingExtraError, match=r"\[tensorboard\]"):
        EventLog(tmp_path)
    job = prepare(recipe.load("digits", SMALL))
    with pytest.raises(MissingExtraError):
        runner.run(job, tmp_path / "run", tensorboard=True)
    assert not (tmp_path / "run").exists()
