"""Runs in MLflow: a real database, and a real server that is killed and comes back."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch

import tutelage
from tutelage import recipe
from tutelage.experiment import runner
from tutelage.experiment.prepare import prepare
from tutelage.experiment.spec import Experiment
from tutelage.progress import EpochLog, Progress
from tutelage.tracking.mlflow import MLflowTracker
from tutelage.tracking.trackers import FILE

SMALL = {
    "schedule.teacher.epochs": 2,
    "schedule.student.epochs": 3,
    "schedule.teacher.batch_size": 512,
    "schedule.student.batch_size": 512,
}
Rows = list[dict[str, Any]]


class Notes(Progress):
    """Keeps the notes, and calls something when an epoch of a stage has ended."""

    def __init__(self, at: tuple[str, int] = ("", 0), call: Callable[[], None] = lambda: None):
        self.told: list[str] = []
        self.at, self.call, self.name = at, call, ""

    def note(self, text: str) -> None:
        self.told.append(text)

    def stage(self, name: str, epochs: int, done: int, steps: int, unit: str = "epoch") -> None:
        self.name = name

    def epoch(self, row: EpochLog) -> None:
        if (self.name, row.get("epoch")) == self.at:
            self.call()

    @property
    def warnings(self) -> list[str]:
        return [text for text in self.told if text.startswith("warning: mlflow")]


def interrupt() -> None:
    raise KeyboardInterrupt


def tracked(**changed: object) -> Experiment:
    settings = {key.replace("__", "."): value for key, value in changed.items()}
    return prepare(recipe.load("digits", {**SMALL, "track": ["mlflow"], **settings}))


def steps(run_id: str, key: str) -> list[int]:
    return [metric.step for metric in mlflow.MlflowClient().get_metric_history(run_id, key)]


def run_id(folder: Path) -> str:
    return str(json.loads((folder / FILE).read_text())["mlflow"]["id"])


class Server:
    """MLflow's server, over a database, with the REST interface of `mlflow server`."""

    def __init__(self, folder: Path):
        with contextlib.closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url, self.folder = f"http://127.0.0.1:{self.port}", folder

    def start(self) -> None:
        # `mlflow server` also starts services that need packages besides mlflow-skinny.
        line = ["-m", "flask", "--app", "mlflow.server:app", "run", "--port", str(self.port)]
        store = f"sqlite:///{(self.folder / 'server.db').as_posix()}"
        places = {"_MLFLOW_SERVER_FILE_STORE": store, "_MLFLOW_SERVER_ARTIFACT_ROOT": "artifacts"}
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, *line],
                env={**os.environ, **places},
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )
        for _ in range(600):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{self.url}/health", timeout=20).close()
                return
            time.sleep(0.1)
        raise AssertionError((self.folder / "server.log").read_text())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    server = Server(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    server.start()
    yield server
    server.kill()


def test_a_server_that_dies_ends_no_run_and_lacks_nothing_when_it_is_back(
    server: Server, tmp_path: Path, history: Callable[[Path], Rows]
) -> None:
    progress = Notes(("teacher", 1), server.kill)
    results = runner.run(tracked(), tmp_path / "run", progress)
    assert (tmp_path / "run" / "results.json").exists()
    first, last = progress.warnings
    assert str(server.port) in first
    assert "incomplete" not in first
    assert "incomplete" in last
    assert "\n" not in first + last
    server.start()
    again = Notes()
    assert runner.run(tracked(), tmp_path / "run", again) == results
    assert again.warnings == []
    known = run_id(tmp_path / "run")
    (only,) = mlflow.MlflowClient().search_runs(["0"])
    assert (only.info.run_id, only.info.status) == (known, "FINISHED")
    assert only.data.metrics["student/test_nll"] == results["models"]["student"]["nll"]
    for stage, epochs in (("teacher", [1, 2]), ("baseline", [1, 2, 3]), ("student", [1, 2, 3])):
        for name in ("loss", "val_accuracy", "seconds"):
            assert steps(known, f"{stage}/{name}") == epochs


def test_a_server_that_comes_back_in_time_is_sent_what_it_missed(
    server: Server, tmp_path: Path
) -> None:
    class Outage(Notes):
        def epoch(self, row: EpochLog) -> None:
            if (self.name, row["epoch"]) == ("teacher", 1):
                server.kill()
            if (self.name, row["epoch"]) == ("student", 1):
                server.start()

    progress = Outage()
    runner.run(tracked(), tmp_path / "run", progress)
    (only,) = progress.warnings
    assert "incomplete" not in only
    assert steps(run_id(tmp_path / "run"), "baseline/loss") == [1, 2, 3]
    assert mlflow.MlflowClient().get_run(run_id(tmp_path / "run")).info.status == "FINISHED"


def test_standard_output_is_the_results_only(server: Server, tmp_path: Path) -> None:
    line = ["run", "digits", "--epochs", "1", "--set", "track=['mlflow']", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "tutelage", *line, "--out", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == (tmp_path / "run" / "results.json").read_text()
    assert f"{server.url}/#/experiments/0/runs/{run_id(tmp_path / 'run')}" in done.stderr


def test_without_a_server_a_run_is_trained_and_not_held_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    progress = Notes()
    began = time.monotonic()
    runner.run(tracked(), tmp_path / "run", progress)
    assert len(progress.warnings) == 2
    assert "incomplete" in progress.warnings[1]
    assert time.monotonic() - began < 60  # with MLflow's own retries each call takes four minutes
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ
    assert not (tmp_path / "run" / FILE).exists()


def test_a_run_begun_without_tracking_is_shown_whole(
    tmp_path: Path, history: Callable[[Path], Rows]
) -> None:
    untracked = replace(tracked(), recipe=recipe.load("digits", SMALL))
    with pytest.raises(KeyboardInterrupt):
        runner.run(untracked, tmp_path / "run", Notes(("baseline", 2), interrupt))
    assert not (tmp_path / "run" / FILE).exists()
    runner.run(tracked(), tmp_path / "run")
    known = run_id(tmp_path / "run")
    for row in history(tmp_path / "run"):
        values = mlflow.MlflowClient().get_metric_history(known, f"{row['stage']}/loss")
        assert [m.value for m in values if m.step == row["epoch"]] == [row["loss"]]


def test_a_finished_run_can_be_shown_afterwards(tmp_path: Path) -> None:
    results = runner.run(replace(tracked(), recipe=recipe.load("digits", SMALL)), tmp_path / "run")
    assert runner.run(tracked(), tmp_path / "run") == results
    known = run_id(tmp_path / "run")
    assert steps(known, "student/val_loss") == [1, 2, 3]
    assert mlflow.MlflowClient().get_run(known).data.tags["verdict"] == results["verdict"]
    (tmp_path / "run" / "results.json").unlink()  # it is measured again
    runner.run(tracked(), tmp_path / "run")
    assert run_id(tmp_path / "run") == known
    assert mlflow.MlflowClient().get_run(known).info.status == "FINISHED"
    assert steps(known, "student/test_accuracy") == [0]


def test_generations_of_the_student_are_stages_of_their_own(
    tmp_path: Path, history: Callable[[Path], Rows]
) -> None:
    folder = tmp_path / "run"
    shown: list[float] = []
    progress = Notes(("student-1", 3), lambda: shown.extend(r["loss"] for r in history(folder)))
    runner.run(tracked(loss__generations=2), folder, progress)
    for stage in ("student-1", "student"):
        assert steps(run_id(folder), f"{stage}/loss") == [1, 2, 3]
    assert len(shown) == 8  # of teacher, baseline and the running generation
    losses = [row["loss"] for row in history(folder)]
    values = mlflow.MlflowClient().get_metric_history(run_id(folder), "student/loss")
    assert [m.value for m in values] == losses[-3:]
    values = mlflow.MlflowClient().get_metric_history(run_id(folder), "student-1/loss")
    assert [m.value for m in values] == shown[-3:]


def test_a_run_whose_student_is_trained_anew_is_a_new_one(
    tmp_path: Path, history: Callable[[Path], Rows]
) -> None:
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    given = {"teacher": module, "student": "digits-student", "data": "digits", "recipe": "digits"}
    given |= {"settings": SMALL | {"teacher.scale": 16, "track": ["mlflow"]}}
    tutelage.distill(**given, out=tmp_path / "run")
    before = run_id(tmp_path / "run")
    module.register_forward_hook(lambda layer, inputs, outputs: 2 * outputs)
    tutelage.distill(**given, out=tmp_path / "run")
    after = run_id(tmp_path / "run")
    assert after != before
    client = mlflow.MlflowClient()
    losses = [row["loss"] for row in history(tmp_path / "run")]
    for stage, own in (("baseline", losses[:3]), ("student", losses[3:])):
        assert [m.value for m in client.get_metric_history(after, f"{stage}/loss")] == own
    assert steps(before, "student/loss") == [1, 2, 3]


def test_a_run_that_was_deleted_begins_anew(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        runner.run(tracked(), tmp_path / "run", Notes(("baseline", 2), interrupt))
    before = run_id(tmp_path / "run")
    mlflow.MlflowClient().delete_run(before)
    runner.run(tracked(), tmp_path / "run")
    after = run_id(tmp_path / "run")
    assert after != before
    assert steps(after, "teacher/loss") == [1, 2]
    assert steps(after, "baseline/loss") == [1, 2, 3]


def test_more_values_than_one_request_takes(tmp_path: Path) -> None:
    rows = [{"epoch": float(n), "loss": 1 / n, "seconds": 1.0} for n in range(1, 801)]
    tracker = MLflowTracker("long", {f"key{n}": n for n in range(150)})
    known = tracker.start(None)
    tracker.write({"teacher": rows[:1]})
    tracker.write({"teacher": rows})
    tracker.close()
    assert steps(known, "teacher/loss") == list(range(1, 801))
    run = mlflow.MlflowClient().get_run(known)
    assert (len(run.data.params), run.info.status) == (150, "FAILED")
    moved = MLflowTracker("long", {"key0": "elsewhere", "more": 1})
    assert moved.start(known) == known
    moved.close()
    assert mlflow.MlflowClient().get_run(known).data.params["key0"] == "0"
    assert mlflow.MlflowClient().get_run(known).data.params["more"] == "1"


def test_a_run_of_the_caller_goes_on_and_is_the_parent(tmp_path: Path) -> None:
    with mlflow.start_run() as own:
        runner.run(tracked(), tmp_path / "run")
        active = mlflow.active_run()
        assert active is not None
        assert active.info.run_id == own.info.run_id
        tags = mlflow.MlflowClient().get_run(run_id(tmp_path / "run")).data.tags
        assert tags["mlflow.parentRunId"] == own.info.run_id
