"""What the tests of trackers share: stores of their own, and a way to read each of them."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module", autouse=True)
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of what MLflow and W&B store; nothing is sent anywhere."""
    folder = tmp_path_factory.mktemp("stores")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("MLFLOW_", "WANDB_"))]:
            patch.delenv(name)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{(folder / 'mlflow.db').as_posix()}")
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_DIR", str(folder))
        patch.setenv("WANDB_ERROR_REPORTING", "false")
        yield folder


@pytest.fixture(scope="session")
def history() -> Callable[[Path], Rows]:
    """Reads a run's `history.csv`: the epochs without empty values, numbers as such."""

    def read(folder: Path) -> Rows:
        rows = csv.DictReader((folder / "history.csv").read_text(encoding="utf-8").splitlines())
        return [
            {
                name: value if name == "stage" else float(value)
                for name, value in row.items()
                if value
            }
            for row in rows
        ]

    return read


@pytest.fixture(scope="session")
def logged() -> Callable[[Path], list[dict[str, Any]]]:
    """Reads a file of W&B with its own inspector."""

    def read(file: Path) -> list[dict[str, Any]]:
        line = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
        done = subprocess.run(line, capture_output=True, text=True, check=True)
        return [json.loads(record) for record in done.stdout.splitlines()]

    return read
