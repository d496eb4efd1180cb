"""Runs in Weights & Biases, in processes of their own, as it watches a process' output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tutelage.tracking.trackers import FILE

LINE = ["run", "digits", "--epochs", "1", "--set", "track=['wandb']", "--json"]
Log = Callable[[Path], list[dict[str, Any]]]


def run(out: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "tutelage", *LINE, "--out", str(out)]
    done = subprocess.run(
        line, capture_output=True, text=True, check=True, env=os.environ | environment
    )
    assert done.stdout == (out / "results.json").read_text()
    return done


def test_without_a_server_a_run_is_trained(tmp_path: Path) -> None:
    done = run(
        tmp_path / "run",
        WANDB_MODE="online",
        WANDB_BASE_URL="http://127.0.0.1:9",
        WANDB_API_KEY=40 * "a",
        WANDB_INIT_TIMEOUT="1",
    )
    first, last = [line for line in done.stderr.splitlines() if line.startswith("warning:")]
    assert "wandb" in first
    assert "incomplete" in last
    assert not (tmp_path / "run" / FILE).exists()


def test_a_run_is_shown_when_wandb_is_no_longer_disabled(
    tmp_path: Path, stores: Path, logged: Log
) -> None:
    done = run(tmp_path / "run", WANDB_MODE="disabled")
    assert "warning:" not in done.stderr
    assert not (tmp_path / "run" / FILE).exists()
    run(tmp_path / "run")
    known = json.loads((tmp_path / "run" / FILE).read_text())["wandb"]["id"]
    (file,) = stores.glob(f"wandb/offline-*/run-{known}.wandb")
    assert sum(record["type"] == "history" for record in logged(file)) == 3


def test_a_run_of_the_caller_goes_on(tmp_path: Path, stores: Path, logged: Log) -> None:
    code = f"""
import tutelage, wandb
own = wandb.init(id="own")
settings = {{"schedule.teacher.epochs": 1, "schedule.student.epochs": 1, "track": ["wandb"]}}
tutelage.run("digits", settings=settings, out={str(tmp_path / "run")!r})
wandb.log({{"mine": 1}})
wandb.finish()
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    (file,) = stores.glob("wandb/offline-*/run-own.wandb")
    items = [record["history"]["item"] for record in logged(file) if record["type"] == "history"]
    assert [item["mine"] for item in items] == [1]
    known = json.loads((tmp_path / "run" / FILE).read_text())["wandb"]
    assert known["complete"]
    assert list(stores.glob(f"wandb/offline-*/run-{known['id']}.wandb"))
