"""A run with all trackers, killed and gone on with: each shows each epoch once, and its results."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import mlflow
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tutelage import recipe
from tutelage.errors import MissingExtraError, RunError
from tutelage.experiment import runner
from tutelage.experiment.prepare import prepare
from tutelage.progress import Progress
from tutelage.tracking.trackers import FILE, Trackers

STAGES = ("teacher", "baseline", "student")
LINE = ["run", "digits", "--epochs", "3", "--set", "schedule.teacher.batch_size=128"]
SETTINGS = {
    "schedule.teacher.epochs": 3,
    "schedule.student.epochs": 3,
    "schedule.teacher.batch_size": 128,
}
ALL = ["--tensorboard", "--set", 'track=["mlflow", "wandb"]']

Rows = list[dict[str, Any]]


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "tutelage", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, stores: Path) -> tuple[Path, list[str]]:
    """A tracked run that was killed in its second stage and gone on with; its ids in between."""
    folder = tmp_path_factory.mktemp("runs") / "killed"
    line = [sys.executable, "-m", "tutelage", *LINE, *ALL, "--out", str(folder)]
    process = subprocess.Popen(line, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert process.stderr is not None
    for text in process.stderr:
        if text.startswith("baseline 2/"):
            break
    process.kill()
    process.communicate()
    ids = [one["id"] for one in json.loads((folder / FILE).read_text()).values()]
    assert mlflow.MlflowClient().get_run(ids[0]).info.status == "RUNNING"
    done = command(*LINE, *ALL, "--out", folder, "--json")
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr.lower()
    assert json.loads(done.stdout) == json.loads((folder / "results.json").read_text())
    return folder, ids


def test_a_resumed_run_is_the_same_run_of_each_tracker(
    run: tuple[Path, list[str]], stores: Path
) -> None:
    folder, ids = run
    stored = json.loads((folder / FILE).read_text())
    assert stored == {
        name: {"id": run_id, "complete": True}
        for name, run_id in zip(("mlflow", "wandb"), ids, strict=True)
    }
    (only,) = mlflow.MlflowClient().search_runs(["0"])
    assert (only.info.run_id, only.info.status) == (ids[0], "FINISHED")
    assert only.info.run_name == "killed"
    files = list(stores.glob("wandb/offline-run-*/*.wandb"))
    assert [file.name for file in files] == 2 * [f"run-{ids[1]}.wandb"]


def test_mlflow_has_each_epoch_once_the_recipe_and_the_results(
    run: tuple[Path, list[str]], history: Callable[[Path], Rows]
) -> None:
    folder, (run_id, _) = run
    client = mlflow.MlflowClient()
    data = client.get_run(run_id).data
    expected: dict[str, list[tuple[int, float]]] = {}
    for row in history(folder):
        for name in row.keys() - {"stage", "epoch"}:
            values = expected.setdefault(f"{row['stage']}/{name}", [])
            values.append((int(row["epoch"]), row[name]))
    results = json.loads((folder / "results.json").read_text())
    for stage, figures in results["models"].items():
        for name in ("accuracy", "nll", "agreement"):
            expected[f"{stage}/test_{name}"] = [(0, figures[name])]
    for key, values in expected.items():
        assert [(m.step, m.value) for m in client.get_metric_history(run_id, key)] == values
    assert data.metrics["student/parameters"] == results["models"]["student"]["parameters"]
    assert {"verdict": results["verdict"], "conclusion": results["conclusion"]}.items() <= (
        data.tags.items()
    )
    assert data.params["loss.alpha"] == "0.9"
    assert data.params == {
        f"{section}.{key}" if inner is not None else section: str(value)
        for section, inner, key, value in leaves(results["recipe"])
    }


def leaves(tree: dict[str, Any]) -> list[tuple[str, str | None, str, Any]]:
    """Section, key and value of a recipe, independently of the package's own function."""
    found: list[tuple[str, str | None, str, Any]] = []
    for section, inner in tree.items():
        if not isinstance(inner, dict):
            found.append((section, None, "", inner))
            continue
        for key, value in inner.items():
            if isinstance(value, dict):
                found += [(section, key, f"{key}.{last}", v) for last, v in value.items()]
            else:
                found.append((section, key, key, value))
    return found


def test_the_last_file_of_wandb_has_each_epoch_once_the_recipe_and_the_results(
    run: tuple[Path, list[str]],
    stores: Path,
    history: Callable[[Path], Rows],
    logged: Callable[[Path], list[dict[str, Any]]],
) -> None:
    folder, _ = run
    *_, last = sorted(stores.glob("wandb/offline-run-*/*.wandb"), key=os.path.getmtime)
    records = logged(last)
    items = [record["history"]["item"] for record in records if record["type"] == "history"]
    shown = [{k: v for k, v in item.items() if k[0] != "_"} for item in items]
    assert shown == [
        {f"{row['stage']}/{name}": value for name, value in row.items() if name != "stage"}
        for row in history(folder)
    ]
    (started,) = [record["run"] for record in records if record["type"] == "run"]
    config = started["config"]["update"]
    assert (started["display_name"], config["loss.alpha"]) == ("killed", 0.9)
    assert config["schedule.student.epochs"] == 3
    summary: dict[str, Any] = {}
    for record in records:
        if record["type"] == "summary":
            summary |= record["summary"]["update"]
    results = json.loads((folder / "results.json").read_text())
    assert summary["verdict"] == results["verdict"]
    for stage in STAGES:
        assert summary[f"{stage}/test_accuracy"] == results["models"][stage]["accuracy"]
    metrics = [record["metric"] for record in records if record["type"] == "metric"]
    for stage in STAGES:
        (over,) = [m for m in metrics if m.get("glob_name") == f"{stage}/*"]
        assert over["step_metric"] == f"{stage}/epoch"
    assert [record["exit"].get("exit_code", 0) for record in records if "exit" in record] == [0]


def test_tensorboard_has_each_epoch_once(
    run: tuple[Path, list[str]], history: Callable[[Path], Rows]
) -> None:
    for stage in STAGES:
        accumulator = EventAccumulator(str(run[0] / "tensorboard" / stage))
        accumulator.Reload()
        steps = [event.step for event in accumulator.Tensors("val_accuracy")]
        assert steps == [row["epoch"] for row in history(run[0]) if row["stage"] == stage]


def test_a_tracked_run_is_the_run_that_is_not_tracked(
    run: tuple[Path, list[str]], tmp_path: Path
) -> None:
    runner.run(prepare(recipe.load("digits", SETTINGS)), tmp_path / "untracked")
    assert not (tmp_path / "untracked" / FILE).exists()
    tracked, untracked = (
        {name: json.loads((folder / f"{name}.json").read_text()) for name in ("run", "results")}
        for folder in (run[0], tmp_path / "untracked")
    )
    assert tracked["run"]["key"] == untracked["run"]["key"]
    assert tracked["results"]["recipe"] == untracked["results"]["recipe"]
    for stage in STAGES:
        ours, theirs = (
            keras.saving.load_model(folder / f"{stage}.keras").get_weights()
            for folder in (run[0], tmp_path / "untracked")
        )
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one, other)
    plain, named = recipe.load("digits"), recipe.load("digits", {"track": ["wandb"]})
    assert runner.default_folder(plain) == runner.default_folder(named)


def test_a_finished_and_complete_run_is_left_alone(
    run: tuple[Path, list[str]], stores: Path
) -> None:
    before = sorted(stores.rglob("*.wandb"))
    job = prepare(recipe.load("digits", SETTINGS | {"track": ["mlflow", "wandb"]}))
    results = runner.run(job, run[0])
    assert results == json.loads((run[0] / "results.json").read_text())
    assert sorted(stores.rglob("*.wandb")) == before


@pytest.mark.skipif(os.name != "posix", reason="needs SIGINT for one process")
def test_an_interrupted_run_is_a_failed_one_until_it_goes_on(
    tmp_path: Path, stores: Path, logged: Callable[[Path], list[dict[str, Any]]]
) -> None:
    line = [sys.executable, "-m", "tutelage", "run", "digits", "--epochs", "50", *ALL]
    process = subprocess.Popen(
        [*line, "--out", str(tmp_path / "run")],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stderr is not None
    for text in process.stderr:
        if text.startswith("teacher 2/"):
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command again" in err.splitlines()[-1]
    stored = json.loads((tmp_path / "run" / FILE).read_text())
    assert not any(one["complete"] for one in stored.values())
    assert mlflow.MlflowClient().get_run(stored["mlflow"]["id"]).info.status == "FAILED"
    (file,) = stores.glob(f"wandb/offline-*/run-{stored['wandb']['id']}.wandb")
    assert [r["exit"]["exit_code"] for r in logged(file) if r["type"] == "exit"] == [1]


@pytest.mark.parametrize(
    ("name", "module"),
    [("tensorboard", "tensorboard.summary"), ("mlflow", "alembic"), ("wandb", "wandb.sdk")],
)
def test_a_missing_package_is_told_before_anything_is_trained(
    name: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    job = prepare(recipe.load("digits", {"track": [name]}))
    with pytest.raises(MissingExtraError, match=rf"\[{name}\]"):
        runner.run(job, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", ["{", "[]", '{"mlflow": {}}', '{"mlflow": 1}'])
def test_damaged_ids_are_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(content)
    with pytest.raises(RunError, match=FILE):
        Trackers(["mlflow"], tmp_path, recipe.load("digits"), Progress())
