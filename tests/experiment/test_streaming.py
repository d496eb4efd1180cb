"""Runs on images that stay in their files: the weights of runs in memory, also after a kill."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import tutelage
from tests.data.example_data import encoded, written
from tutelage import cli, recipe
from tutelage.experiment.prepare import prepare
from tutelage.models import loading

SHORT: dict[str, Any] = {
    "data.size": [16, 16],
    "views.shift": 0,
    "views.distinct": 2,
    "teacher.model": "digits-teacher",
    "student.model": "digits-student",
    "schedule.teacher.epochs": 2,
    "schedule.student.epochs": 3,
    "schedule.teacher.batch_size": 16,
    "schedule.student.batch_size": 16,
}
AUGMENTED = {
    "views.crop": "random-resized",
    "views.policy": "randaugment",
    "views.mixup": 0.2,
    "views.cutmix": 1.0,
}


def photographs(folder: Path, count: int = 40) -> Path:
    """Two classes, of horizontal and of vertical stripes, in several sizes."""
    generator = np.random.default_rng(0)
    files = {}
    for part, number in (("train", count), ("test", 12)):
        for i in range(number):
            for label in ("across", "down"):
                pixels = generator.integers(0, 60, (24 + i % 3, 30, 3), dtype=np.uint8)
                stripes = pixels[::3] if label == "across" else pixels[:, ::3]
                stripes += 150
                files[f"{part}/{label}/{i:02}.jpg"] = encoded(pixels, "JPEG")
    return written(folder, files)


def weights(folder: Path) -> dict[str, list[np.ndarray]]:
    return {
        name: [v.numpy() for v in loading.load_model(folder / f"{name}.keras").variables]
        for name in ("teacher", "baseline", "student")
    }


def same(one: dict[str, list[np.ndarray]], other: dict[str, list[np.ndarray]]) -> bool:
    keras.tree.assert_same_structure(one, other)
    pairs = zip(keras.tree.flatten(one), keras.tree.flatten(other), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("views", [{}, AUGMENTED], ids=["plain", "augmented"])
def test_weights_depend_neither_on_where_images_are_nor_on_workers(
    tmp_path: Path, views: dict[str, Any]
) -> None:
    data, made, results = photographs(tmp_path / "data"), [], []
    for number, (in_memory, workers) in enumerate([(True, 0), (False, 0), (False, 1), (False, 2)]):
        settings = SHORT | views | {"data.in_memory": in_memory, "data.workers": workers}
        out = tmp_path / str(number) / "run"  # no neighbors, whose stages would be copied
        outcome = tutelage.run("distill", settings=settings | {"data.path": str(data)}, out=out)
        made.append(weights(out))
        results.append(outcome.results)
    assert all(same(made[0], other) for other in made[1:])
    for other in results[1:]:
        assert other["verdict"] == results[0]["verdict"]
        for name, figures in other["models"].items():
            expected = results[0]["models"][name]
            timed = {"seconds", "bytes"}
            assert {k: v for k, v in figures.items() if k not in timed} == {
                k: v for k, v in expected.items() if k not in timed
            }
    assert results[0]["models"]["teacher"]["accuracy"] > 0.7


def test_where_images_are_is_no_part_of_a_stages_key(tmp_path: Path) -> None:
    data = photographs(tmp_path / "data", count=20)
    keys = []
    for settings in ({"data.in_memory": True}, {"data.in_memory": False, "data.workers": 1}):
        loaded = recipe.load("distill", SHORT | settings | {"data.path": str(data)})
        keys.append(prepare(loaded).keys())
    assert keys[0] == keys[1]
    changed = [{"views.hue": 0.1}, {"data.resize": "crop"}]
    for settings in changed:
        loaded = recipe.load("distill", SHORT | settings | {"data.path": str(data)})
        assert prepare(loaded).keys() != keys[0]


def test_a_teacher_of_its_own_and_unlabeled_images_are_streamed(tmp_path: Path) -> None:
    data, pool = photographs(tmp_path / "data"), photographs(tmp_path / "pool", count=9)
    inputs = keras.Input((16, 16, 3))
    outputs = keras.layers.Dense(2)(keras.layers.Flatten()(inputs))
    keras.Model(inputs, outputs).save(tmp_path / "own.keras")
    made = []
    for number, in_memory in enumerate((True, False)):
        settings = SHORT | {"data.in_memory": in_memory, "teacher.scale": 255, "loss.alpha": 1.0}
        out = tmp_path / str(number) / "run"
        tutelage.distill(
            teacher=tmp_path / "own.keras",
            student="digits-student",
            data=data,
            unlabeled=pool,
            settings=settings,
            out=out,
        )
        made.append([v.numpy() for v in loading.load_model(out / "student.keras").variables])
    assert all(np.array_equal(a, b) for a, b in zip(*made, strict=True))


def test_the_command_leaves_damaged_images_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = photographs(tmp_path / "data", count=20)
    (data / "train/down/07.jpg").write_bytes(b"")
    flags = [f"--set={key}={json.dumps(value)}" for key, value in SHORT.items()]
    command = ["run", "distill", f"--data={data}", *flags, f"--out={tmp_path}/run"]
    assert cli.main(command) == 2
    assert "07.jpg" in capsys.readouterr().err
    assert cli.main([*command, "--skip-damaged"]) == 0
    shown = capsys.readouterr().err
    assert "damaged images skipped: 1 of 64" in shown
    assert "images/s" in shown
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["data"]["train"] + results["data"]["validation"] == 39
    assert any("damaged" in note for note in results["data"]["notes"])
    assert cli.main(["export", f"{tmp_path}/run"]) == 0


@pytest.mark.slow
def test_killed_runs_go_on_to_the_same_weights(tmp_path: Path) -> None:
    """Kill the process at random moments; its workers end too."""
    data = photographs(tmp_path / "data")
    settings = SHORT | AUGMENTED | {"data.in_memory": False, "data.workers": 2}
    flags = [f"--set={key}={json.dumps(value)}" for key, value in settings.items()]
    command = [sys.executable, "-m", "tutelage", "run", "distill", f"--data={data}", *flags]
    environment = os.environ | {"TUTELAGE_CACHE": str(tmp_path / "cache")}
    generator = random.Random(0)
    started = time.monotonic()
    subprocess.run([*command, f"--out={tmp_path}/a/run"], env=environment, check=True)
    whole = time.monotonic() - started
    kills = 0
    while kills < 20:
        folder = tmp_path / f"b{kills}" / "run"
        run = [*command, f"--out={folder}"]
        while True:
            with subprocess.Popen(run, env=environment) as process:
                try:
                    process.wait(generator.uniform(0.2 * whole, 1.1 * whole))
                    assert process.returncode == 0
                    break
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                    kills += 1
        assert same(weights(folder), weights(tmp_path / "a/run"))
