"""Runs read back, whole, half-finished and damaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tutelage import recipe
from tutelage.errors import RunError
from tutelage.experiment import runner
from tutelage.experiment.prepare import prepare
from tutelage.runs import compare, run_reader

SMALL = {
    "schedule.teacher.epochs": 1,
    "schedule.student.epochs": 1,
    "schedule.teacher.batch_size": 512,
    "schedule.student.batch_size": 512,
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two seeds' runs."""
    home = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        told = recipe.load("digits", SMALL | {"seed": seed})
        runner.run(prepare(told), home / f"seed-{seed}")
    return home


def test_a_whole_run_is_read_as_it_was_written(runs: Path) -> None:
    folder = runs / "seed-1"
    record = run_reader.read(folder)
    assert record.missing == ()
    assert record.settings == recipe.to_dict(recipe.load(folder / "recipe.toml"))
    assert record.results == json.loads((folder / "results.json").read_text())
    assert [row["stage"] for row in record.history] == ["teacher", "baseline", "student"]
    assert all(row["epoch"] == 1 and 0 <= row["val_accuracy"] <= 1 for row in record.history)
    for stage, logits in record.logits.items():
        right = (logits.argmax(axis=1) == record.labels).mean()
        assert right == pytest.approx(record.results["models"][stage]["accuracy"])


def test_runs_are_found_by_their_folder_or_the_folder_above(runs: Path) -> None:
    both = [runs / "seed-0", runs / "seed-1"]
    assert run_reader.find([runs]) == both
    assert run_reader.find([runs / "seed-1", runs]) == [both[1], both[0]]
    with pytest.raises(RunError, match="no run"):
        run_reader.find([runs, runs / "nowhere"])
    with pytest.raises(RunError, match="no run"):
        run_reader.read(runs)


@pytest.mark.parametrize(
    "name", ["recipe.toml", "results.json", "history.csv", "predictions.npz", "pictures.npz"]
)
def test_what_is_damaged_or_gone_is_said_and_the_rest_read(
    runs: Path, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(runs / "seed-0", folder)
    whole = run_reader.read(folder)
    damage = {"recipe.toml": "seed = ", "history.csv": "stage,epoch\nteacher,one\n"}
    content = (folder / name).read_bytes()
    torn = damage[name].encode() if name in damage else content[: len(content) // 2]
    (folder / name).write_bytes(torn)
    damaged = run_reader.read(folder)
    assert damaged.missing == (f"{name} is damaged",)
    (folder / name).unlink()
    gone = run_reader.read(folder)
    assert gone.missing == (f"{name} is missing",)
    parts = {"recipe.toml": "settings", "results.json": "results", "history.csv": "history"}
    for record in (damaged, gone):
        for own, part in parts.items():
            expected = type(getattr(whole, part))() if own == name else getattr(whole, part)
            assert getattr(record, part) == expected
        assert bool(record.logits) == (name != "predictions.npz")
        assert bool(record.pictures) == (name != "pictures.npz")


def test_predictions_that_do_not_belong_together_are_damaged(runs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(runs / "seed-0", folder)
    with np.load(folder / "predictions.npz") as stored:
        parts = dict(stored)
    np.savez(folder / "predictions.npz", **(parts | {"student": parts["student"][:-1]}))
    assert run_reader.read(folder).missing == ("predictions.npz is damaged",)


COST = {"name": "student", "format": "onnx", "precision": "int8", "bytes": 9, "accuracy": 0.5}
TIMES = {"median": 0.002, "threads": 1}


@pytest.mark.parametrize(
    ("row", "whole"),
    [
        (COST | {"single": TIMES}, True),
        ({"single": TIMES}, False),
        (COST, False),
        (COST | {"single": TIMES | {"median": 0}}, False),
        (COST | {"single": TIMES, "name": 7}, False),
        (COST | {"single": TIMES, "accuracy": 50}, False),
    ],
)
def test_what_models_cost_is_read_where_it_was_measured(
    runs: Path, tmp_path: Path, row: dict[str, object], whole: bool
) -> None:
    folder = shutil.copytree(runs / "seed-0", tmp_path / "run")
    assert (run_reader.read(folder).costs, run_reader.read(folder).missing) == ([], ())
    (folder / "profile.json").write_text(json.dumps({"models": [row]}))
    record = run_reader.read(folder)
    assert record.costs == ([row] if whole else [])
    assert record.missing == (() if whole else ("profile.json is damaged",))


def test_an_unfinished_run_is_not_compared(runs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(runs / "seed-0", folder)
    (folder / "results.json").unlink()
    with pytest.raises(RunError, match="results"):
        compare.compare([run_reader.read(folder)])
