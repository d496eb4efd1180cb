"""The benchmarks run as their heads say, on very little work."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tutelage import recipe
from tutelage.data import datasets
from tutelage.evaluation import bias_correction, metrics
from tutelage.experiment.prepare import prepare
from tutelage.models import loading, zoo

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, BENCHMARKS / script, *arguments]
    return subprocess.run([str(word) for word in line], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("job", "only", "names"),
    [
        ("distil", "tutelage", {"tutelage, stored", "tutelage, online"}),
        ("distil", "PyTorch, float32", {"Keras on PyTorch, float32", "PyTorch, float32"}),
        ("MobileNetV2", "PyTorch, float32", {"Keras on PyTorch, float32"}),
    ],
)
def test_throughput_measures_its_parties_and_writes_what_it_prints(
    tmp_path: Path, job: str, only: str, names: set[str]
) -> None:
    work = ["--jobs", job, "--repeats", 1, "--images", 32, "--batch", 16]
    done = run("throughput.py", *work, "--only", only, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.iterdir()
    written = json.loads(file.read_text())
    assert written["failures"] == {}
    assert set(written["figures"][job]) == names
    for (figure,) in written["figures"][job].values():
        assert figure > 0
        assert f"{figure:.1f}" in done.stdout


def test_throughput_refuses_fewer_images_than_a_batch(tmp_path: Path) -> None:
    done = run("throughput.py", "--images", 8, "--batch", 16, "--out", tmp_path / "none")
    assert done.returncode == 2
    assert "at least as many images as a batch" in done.stderr
    assert not (tmp_path / "none").exists()


def test_growth_says_what_one_size_takes(tmp_path: Path) -> None:
    size = {"images": 256, "classes": 10, "views": 2, "students": 2}
    done = run("growth.py", "--one", json.dumps(size))
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    # Each view takes two bytes a logit, and a few more for what it is.
    assert figures["megabytes on disk"] == pytest.approx(256 * 10 * 2 * 2 / 1e6, abs=0.01)
    assert figures["seconds in all"] > figures["seconds an epoch"] > 0


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "digits"
    line = [sys.executable, "-m", "tutelage", "run", "digits", "--out", str(folder)]
    subprocess.run(line, check=True, capture_output=True)
    return folder


def test_accuracy_trains_students_that_differ_in_one_thing(digits: Path, tmp_path: Path) -> None:
    work = ["--images", 400, "--epochs", 3, "--seeds", 1, "--views", 1, 3]
    done = run("accuracy.py", digits, *work, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.iterdir()
    written = json.loads(file.read_text())
    assert set(written["figures"]) == {"float32, 1 views", "float32, 3 views", "bfloat16, 3 views"}
    # 216 validation images and the training images that no student was shown.
    assert written["judged on"] == 216 + 1221 - 400
    losses = {row["nll"] for (row,) in written["figures"].values()}
    assert len(losses) == 3  # no two are the same student
    for (row,) in written["figures"].values():
        assert row["accuracy"] > 0.3  # of ten classes


@pytest.mark.parametrize("wrong", [["--images", 1221], ["--views", 4], ["--seeds", 0]])
def test_accuracy_refuses_what_can_not_be_compared(
    digits: Path, tmp_path: Path, wrong: list[object]
) -> None:
    work = ["--images", 400, "--epochs", 3, "--seeds", 1, "--views", 1, 3]
    done = run("accuracy.py", digits, *work, *wrong, "--out", tmp_path / "none")
    assert done.returncode == 2
    assert "expected" in done.stderr
    assert not (tmp_path / "none").exists()


def test_tries_train_what_a_run_trains_and_judge_it_on_the_validation_part(
    digits: Path, tmp_path: Path
) -> None:
    short = "schedule.student.epochs=2 schedule.student.learning_rate=0.02"
    done = run("tries.py", "--seeds", 1, "--out", tmp_path, "digits", "baseline", short)
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.iterdir()
    figures = json.loads(file.read_text())["figures"]
    assert set(figures) == {"as it stands", short}
    job = prepare(recipe.load("digits"))
    logits = loading.logits(loading.load_model(digits / "baseline.keras"), job.validation.images)
    score = metrics.score(logits, job.validation.labels)
    (same,) = figures["as it stands"]
    assert same == {"accuracy": score["accuracy"], "nll": score["nll"]}
    assert figures[short][0]["nll"] > same["nll"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds", 0, "digits", "baseline"], "one at least"),
        (["digits", "baseline", "loss.alhpa=1"], "alpha"),
        (["digits", "pupil"], "teacher"),
    ],
)
def test_tries_refuse_what_can_not_be_tried(
    tmp_path: Path, words: list[object], message: str
) -> None:
    done = run("tries.py", "--out", tmp_path / "none", *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "none").exists()


def test_target_adds_up_a_run_and_reckons_the_stock_way(digits: Path, tmp_path: Path) -> None:
    rates = {
        "teacher": {
            "Keras on PyTorch": [90.0, 110.0, 100.0],
            "Keras on JAX": [50.0],
            "ours": [999],
        },
        "distil": {"Keras on PyTorch": [200.0], "Keras on JAX": [400.0]},
    }
    measured = tmp_path / "throughput.json"
    measured.write_text(json.dumps({"figures": rates}))
    done = run("target.py", digits, measured, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    (file,) = (tmp_path / "out").iterdir()
    figures = json.loads(file.read_text())["figures"]
    results = json.loads((digits / "results.json").read_text())
    images = results["data"]["train"]
    epochs = {s: results["recipe"]["schedule"][s]["epochs"] for s in ("teacher", "student")}
    stock = figures["stock Keras"]
    assert stock["ways"] == {"teacher": "Keras on PyTorch", "student": "Keras on JAX"}
    assert stock["teacher"] == pytest.approx(images * epochs["teacher"] / 100)
    assert stock["student"] == pytest.approx(images * epochs["student"] / 400)
    assert figures["ours"]["student"] == results["models"]["student"]["seconds"]
    assert 0 < figures["seconds to read"] < figures["ours"]["whole"]
    assert figures["times as fast"] == pytest.approx(stock["whole"] / figures["ours"]["whole"])


def test_target_refuses_a_run_that_falls_short(tmp_path: Path) -> None:
    short = {"models": {"teacher": {"accuracy": 0.9}, "student": {"accuracy": 0.859}}}
    (tmp_path / "results.json").write_text(json.dumps(short))
    (tmp_path / "rates.json").write_text(json.dumps({"figures": {}}))
    done = run("target.py", tmp_path, tmp_path / "rates.json", "--out", tmp_path / "none")
    assert done.returncode == 2
    assert "student: expected at least 86%, found 85.90%" in done.stderr
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(("job", "name"), [("teacher", "teacher-2m"), ("student", "student-300k")])
def test_pytorch_by_hand_trains_as_many_parameters(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, job: str, name: str
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    parties = importlib.import_module("parties")
    trained: list[int] = []

    class Noted(torch.optim.SGD):
        def __init__(self, parameters: Any, *args: Any, **kwargs: Any):
            parameters = list(parameters)
            trained.append(sum(p.numel() for p in parameters))
            super().__init__(parameters, *args, **kwargs)

    monkeypatch.setattr(torch.optim, "SGD", Noted)
    images = np.zeros((8, 32, 32, 3), np.uint8)
    parties.plain("float32", False)(job, tmp_path, images, np.zeros(8, np.int64), 8)
    model = zoo.build(name, images=images, classes=10, seed=0)
    assert trained == [sum(int(np.prod(v.shape)) for v in model.trainable_variables)]


def test_hinton_makes_its_cells_once_with_one_teacher(tmp_path: Path) -> None:
    short = ["data.name=digits", "schedule.teacher.epochs=1", "schedule.student.epochs=1"]
    line = [word for setting in short for word in ("--set", setting)]
    line += ["--seeds", 1, "--work", tmp_path / "work", "--out", tmp_path / "cells"]
    line += ["--only", "main", "shifted", "only-7-and-8", "units-30-alone", "units-30-4"]
    done = run("hinton.py", *line)
    assert done.returncode == 0, done.stderr
    cells = {file.stem: json.loads(file.read_text()) for file in (tmp_path / "cells").iterdir()}
    names = {"main-0", "shifted-0", "only-7-and-8-0", "units-30-alone-0", "units-30-4-0"}
    assert set(cells) == names
    assert len(list((tmp_path / "work").glob("teacher-*"))) == 1
    assert len({cell["errors"]["teacher"] for cell in cells.values()}) == 1
    assert list(cells["units-30-alone-0"]["errors"]) == ["teacher", "baseline"]
    both = [tmp_path / "work" / "main-0" / f"{stage}.keras" for stage in ("baseline", "student")]
    test = datasets.load("digits").test
    alone, taught = [loading.logits(loading.load_model(file), test.images) for file in both]
    assert np.abs(alone - taught).max() > 0.1  # not one model twice
    labels = test.labels
    for name, cell in cells.items():
        for stage in set(cell["errors"]) - {"teacher"}:
            model = loading.load_model(tmp_path / "work" / name / f"{stage}.keras")
            answers = loading.logits(model, test.images)
            assert cell["errors"][stage] == (answers.argmax(1) != labels).sum()
        if name == "only-7-and-8-0":
            for figures in cell["corrected"].values():
                moved = bias_correction.add_offset(
                    answers, [0, 1, 2, 3, 4, 5, 6, 9], figures["offset"]
                )
                wrong = moved.argmax(1) != labels
                assert (figures["errors"], figures["threes"]) == (
                    wrong.sum(),
                    wrong[labels == 3].sum(),
                )
            # Nothing is better on the test labels than what was chosen on them.
            assert cell["corrected"]["test"]["errors"] <= cell["corrected"]["validation"]["errors"]
    assert f"| 2x800 distilled | 74 | {cells['main-0']['errors']['student']} | 1 |" in done.stdout
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "cells").iterdir()}
    assert run("hinton.py", *line).returncode == 0
    assert before == {file: file.stat().st_mtime_ns for file in (tmp_path / "cells").iterdir()}


def test_hinton_puts_means_and_spreads_of_its_cells_into_a_page(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    hinton = importlib.import_module("hinton")
    page = "before\n<!-- table: {} -->\nold\n<!-- end -->\nafter\n"
    rows = {"results": hinton.page(page.format("results"), tmp_path).splitlines()}
    assert rows["results"][2:4] == [
        "| test errors | paper | ours | seeds |",
        "|---|---:|---:|---:|",
    ]
    assert rows["results"][4:] == ["<!-- end -->", "after"]  # no cell, no row

    def write(name: str, seed: int, student: int, **more: Any) -> None:
        errors = {"teacher": 60, "baseline": 140 + seed, "student": student}
        errors = {"teacher": 60, "baseline": student} if name.endswith("alone") else errors
        cell = {"cell": name, "seed": seed, "errors": errors, "threes": 12 + seed} | more
        (tmp_path / f"{name}-{seed}.json").write_text(json.dumps(cell))

    for seed, student in enumerate([70, 72, 77]):
        write("main", seed, student)
    write("shifted", 0, 69)
    write("best", 0, 61)
    write("units-30-4", 0, 250)
    write("units-30-20", 0, 270)
    write("units-30-alone", 0, 290)
    chosen = {"validation": {"errors": 1500, "threes": 9}, "test": {"errors": 1320, "threes": 8}}
    write("only-7-and-8", 0, 4730, corrected=chosen)
    write("without-3", 0, 200, corrected=chosen)
    for table in ("results", "units"):
        rows[table] = hinton.page(page.format(table), tmp_path).splitlines()[4:-2]
    assert rows["results"] == [
        "| teacher, 2x1200 | 67 | 60 | 1 |",
        "| 2x800 alone | 146 | 141.0 ± 1.0 | 3 |",
        "| 2x800 distilled | 74 | 73.0 ± 3.6 | 3 |",
        "| 2x800 alone, on shifted views |  | 140 | 1 |",
        "| 2x800 distilled, on shifted views |  | 69 | 1 |",
        "| another teacher, 2x1200 | 67 | 60 | 1 |",
        "| 2x800 distilled from it, on shifted views |  | 61 | 1 |",
        "| no 3 in the transfer set | 206 (133) | 200 (12 of the 1,010 threes) | 1 |",
        "| the same, bias chosen on validation labels |  | 1500 (9 of the 1,010 threes) | 1 |",
        "| the same, on test labels | 109 (14) | 1320 (8 of the 1,010 threes) | 1 |",
        "| only 7s and 8s in the transfer set | 47.3 % | 47.3 % | 1 |",
        "| the same, bias chosen on validation labels |  | 15 % | 1 |",
        "| the same, on test labels | 13.2 % | 13.2 % | 1 |",
    ]
    assert rows["units"] == ["| 2x30 |  |  | 250 |  | 270 | 290 | 1 |"]


def test_methods_makes_its_cells_once_and_a_table_of_them(tmp_path: Path) -> None:
    short = ["--set", "schedule.teacher.epochs=1", "--set", "schedule.student.epochs=1"]
    line = ["digits", *short, "--tuning-seeds", 1, "--seeds", 1, "--work", tmp_path / "work"]
    line += ["--methods", "baseline", "fitnet", "--out", tmp_path / "cells"]
    done = run("methods.py", *line)
    assert done.returncode == 0, done.stderr
    cells = tmp_path / "cells" / "digits"
    names = ["baseline-0.json", "fitnet-0.json", "fitnet-tries.json"]
    assert sorted(file.name for file in cells.iterdir()) == names
    tries = json.loads((cells / "fitnet-tries.json").read_text())["tries"]
    best = max(tries, key=lambda one: one["validation"][0]["accuracy"])
    cell = json.loads((cells / "fitnet-0.json").read_text())
    assert cell["settings"] == best["settings"]
    assert f"| {100 * cell['test']['accuracy']:.2f} % |" in done.stdout
    assert [line.split("|")[1].strip() for line in done.stdout.splitlines()[-2:]].count("fitnet")
    before = {file: file.stat().st_mtime_ns for file in cells.iterdir()}
    assert run("methods.py", *line).returncode == 0
    assert before == {file: file.stat().st_mtime_ns for file in cells.iterdir()}
