"""What models cost is measured on the files themselves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tutelage.data import datasets
from tutelage.errors import ModelError, RecipeError
from tutelage.evaluation import profiling
from tutelage.exporters import exporter
from tutelage.models import zoo

DIGITS = datasets.load("digits")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small and a large model as Keras and ONNX files."""
    place = tmp_path_factory.mktemp("models")
    for name in ("digits-student", "digits-teacher"):
        model = zoo.build(name, images=DIGITS.train.images, classes=10, seed=0)
        model.save(place / f"{name}.keras")
        exporter.export(place / f"{name}.keras", data="digits")
    return place


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "tutelage", "profile", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True)


def test_every_file_has_its_figures_in_the_order_given(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiling, "_ROUNDS", 2)
    files = [
        folder / f"digits-{name}" for name in ("teacher.keras", "teacher.onnx", "student.onnx")
    ]
    threads = torch.get_num_threads()
    rows = profiling.profile(files)["models"]
    assert torch.get_num_threads() == threads
    assert [row["file"] for row in rows] == [str(file) for file in files]
    assert [row["parameters"] for row in rows] == [83_114, 83_114, 1_254]
    assert [row["macs"] for row in rows] == [1_510_016, 1_510_016, 25_424]
    assert [row["bytes"] for row in rows] == [file.stat().st_size for file in files]
    for row in rows:
        for times in (row["single"], row["batch"]):
            assert 0 < times["median"] <= times["p95"]
            assert times["threads"] >= 1
        batch = row["batch"]
        assert batch["images_per_second"] == pytest.approx(batch["images"] / batch["median"])
    # Keras brings PyTorch along; an exported file doesn't, whoever asks.
    keras_file, onnx_file, _ = (row["peak_memory"] for row in rows)
    assert 20e6 < onnx_file < 0.5 * keras_file


def test_times_are_those_of_calls(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock of the test's own: each look at it is a second later, and calls are counted."""
    calls: list[int] = []
    monkeypatch.setattr(profiling, "_ROUNDS", 3)
    opened = profiling.ModelFile(calls.append, {"name": "x"})
    monkeypatch.setattr(profiling, "open_model", lambda path, threads: opened)
    monkeypatch.setattr(profiling, "_peak_memory", lambda path: 7)
    ticks = iter(range(10_000))
    monkeypatch.setattr(profiling.time, "perf_counter", lambda: float(next(ticks)))
    (row,) = profiling.profile([folder / "digits-student.onnx"], threads=1)["models"]
    # A call takes a second, which is long: one of each burst counts, after one that doesn't.
    assert calls == [1, 1, 64, 64] * 3
    assert row["single"] == {"median": 1.0, "p95": 1.0, "calls": 3, "threads": 1}
    assert row["batch"]["images_per_second"] == 64


def test_models_take_turns(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(profiling, "_ROUNDS", 2)
    monkeypatch.setattr(
        profiling, "_burst", lambda model, images: [order.append(model.figures["name"]) or 1.0]
    )
    monkeypatch.setattr(profiling, "_peak_memory", lambda path: 7)
    files = [folder / f"digits-{name}.onnx" for name in ("teacher", "student")]
    profiling.profile(files, threads=1)
    names = ["digits-teacher"] * 2 + ["digits-student"] * 2
    assert order == names * 2


def test_the_command_writes_its_figures_and_shows_them(folder: Path, tmp_path: Path) -> None:
    files = [folder / "digits-teacher.onnx", folder / "digits-student.onnx"]
    done = command(*files, "--threads", 1, "--out", tmp_path / "p.json", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result == json.loads((tmp_path / "p.json").read_text())
    teacher, student = result["models"]
    assert teacher["single"]["median"] > student["single"]["median"]  # sixty times the work
    assert {row["single"]["threads"] for row in result["models"]} == {1}
    assert sorted(result["environment"]) == ["command", "commit", "date", "hardware", "versions"]
    shown = command(files[1], "--threads", 1, "--out", tmp_path / "p.json").stdout
    for words in ("1 image, ms", "peak memory", "25.4 K", "images/s"):
        assert words in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.keras"], "no model file missing.keras"),
        (["missing.onnx"], "no file missing.onnx"),
        (["picture.png"], "picture.png: expected a .keras or .onnx file"),
    ],
)
def test_mistakes_are_reported_in_one_line(arguments: list[str], message: str) -> None:
    done = command(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_no_model_and_no_thread_are_refused(folder: Path) -> None:
    with pytest.raises(RecipeError, match="one model"):
        profiling.profile([])
    with pytest.raises(RecipeError, match="one thread"):
        profiling.profile([folder / "digits-student.onnx"], threads=0)
    with pytest.raises(ModelError, match=r"\.keras or \.onnx"):
        profiling.open_model(Path("x.txt"), 1)


def test_opened_files_answer_images_of_their_own_shape(folder: Path) -> None:
    for suffix in ("keras", "onnx"):
        file = profiling.open_model(folder / f"digits-student.{suffix}", 1)
        assert file.figures["shape"] == [8, 8, 1]
        file.predict(3)
    assert np.prod(file.figures["shape"]) == 64
