"""The command line as a user runs it."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from tutelage import cli, recipe
from tutelage._version import __version__

SMALL = [
    *("--epochs", "2"),
    *("--set", "schedule.teacher.batch_size=128"),
    *("--set", "schedule.student.batch_size=128"),
]


def command(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "tutelage", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, cwd=cwd, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, made in a process of its own."""
    home = tmp_path_factory.mktemp("home")
    done = command("run", "digits", *SMALL, "--out", "first", "--json", cwd=home)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((home / "first" / "results.json").read_text())
    assert "teacher 1/2" in done.stderr  # plain lines, as standard error is no terminal
    assert "\x1b" not in done.stderr
    return home / "first"


def refused(
    capsys: pytest.CaptureFixture[str], *arguments: object, names: str = "", status: int = 2
) -> str:
    """Run a command that is refused; its one line."""
    assert cli.main([str(a) for a in arguments]) == status
    out, err = capsys.readouterr()
    assert out == ""
    # A slow machine may say meanwhile that it is still working.
    lines = [line for line in err.splitlines() if "still working after" not in line]
    told = lines[-1]
    assert told.startswith("tutelage: ")
    assert len(lines) == 1, err
    assert names in told
    return told


def test_help_and_usage_errors_load_neither_keras_nor_torch() -> None:
    script = (
        "import sys; from tutelage.cli import main\n"
        "codes = [main(a) for a in (['--help'], ['run', '--help'], ['run'], ['rnu'], [],\n"
        "         ['run', 'digits', '--set', 'loss.alpha=3'], ['run', 'nothing.toml'],\n"
        "         ['distill', '--teacher', 't', '--data', 'digits', '--alpha', '3'],\n"
        "         ['models'], ['models', 'x'], ['losses', 'x'], ['init', '/none'])]\n"
        "heavy = [n for n in ('keras', 'torch', 'sklearn') if n in sys.modules]\n"
        "assert codes == [0, 0, 2, 2, 0, 2, 2, 2, 0, 2, 2, 2], codes\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "[default: runs/RECIPE-HASH" in done.stdout


@pytest.mark.parametrize("name", sorted(recipe.BUNDLED))
def test_help_lists_every_bundled_recipe(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "--help"]) == 0
    assert re.search(rf"RECIPE .*\b{name}\b", capsys.readouterr().out)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"tutelage {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["run"], "RECIPE"),
        (["rnu"], "rnu"),
        (["run", "digits", "--alhpa", "1"], "--alhpa"),
        (["run", "digits", "--alpha", "much"], "--alpha"),
        (["run", "digits", "--alpha", "1.5"], "loss.alpha"),
        (["run", "digits", "--alpha", "-0.1"], "loss.alpha"),
        (["run", "digits", "--temperature", "0"], "loss.temperature"),
        (["run", "digits", "--temperature", "nan"], "loss.temperature"),
        (["run", "digits", "--temperature", "inf"], "loss.temperature"),
        (["run", "digits", "--epochs", "0"], "schedule.teacher.epochs"),
        (["run", "digits", "--seed", "-1"], "seed"),
        (["run", "digits", "--set", "loss.alhpa=1"], "did you mean loss.alpha"),
        (["run", "digits", "--set", "alpha"], "section.key=value"),
        (["run", "digts"], "did you mean digits"),
        (["distill", "--teacher", "t", "--data", "d", "--recipe", "distil"], "mean distill?"),
        (["run", "digits", "--set", "student.model=studnt-300k"], "did you mean student-300k?"),
        (["run", "digits", "--set", "loss.name=fitnett"], "did you mean fitnet?"),
        (["run", "digits", "--data", "absent.zip"], "absent.zip"),
        (["run", "digits", "--teacher", "absent"], "no teacher at absent"),
        (["distill", "--data", "digits"], "--teacher"),
        (["distill", "--teacher", "a.keras"], "--data"),
        (["distill", "--teacher", "a.keras", "--data", "digits", "--alpha", "2"], "loss.alpha"),
        (["distill", "--teacher", "a.keras", "--data", "digits"], "no teacher at a.keras"),
        (["distill", "--teacher", "no.such:net", "--data", "digits"], "can't import no.such"),
        (
            ["distill", "--teacher", "json:nets", "--data", "digits"],
            "has no function or class nets",
        ),
        (["distill", "--teacher", "teachr-2m", "--data", "digits"], "did you mean teacher-2m?"),
        (
            ["distill", "--teacher", "t.keras", "--train-teacher", "--data", "digits"],
            "teacher.model",
        ),
        (["run", "digits", "--teacher", "teacher-2m"], "teacher.model"),
        (
            ["distill", "--teacher", "digits-teacher", "--student", "s.h5", "--data", "digits"],
            "s.h5 can't be a student",
        ),
        (
            ["distill", "--teacher", "digits-teacher", "--data", "digits", "--unlabeled", "none"],
            "none: expected a folder",
        ),
        (
            ["run", "digits", "--set", "loss.name=fitnet", "--temperature", "2"],
            "temperature is for kd",
        ),
        (
            ["run", "digits", "--set", "loss.name=rkd", "--set", "loss.teacher_layer=a"],
            "teacher_layer",
        ),
        (["distill", "--teacher", "t", "--unlabelled=x"], "--unlabeled"),
        (["run", "digits", "--labels", "1.5"], "data.labels"),
        (["run", "digits", "--labels", "0.5", "--set", "loss.alpha=0.5"], "loss.alpha"),
        (["knowledge"], "cache"),
        (["init", "absent"], "absent"),
        (["init", ".", "--out", "recipe.yaml"], "recipe.yaml"),
        (["init", ".", "--out", "none/recipe.toml"], "none"),
        (["init", "."], "found none of them"),
        (["models", "studnt-300k"], "did you mean student-300k?"),
        (["models", "k*"], "teacher-2m"),
        (["models", "--size", "32"], "--size"),
        (["models", "--size", "32,32,0"], "--size"),
        (["models", "--size", "32,4097"], "--size"),
        (["models", "--classes", "1"], "--classes"),
        (["losses", "fitnett"], "did you mean fitnet?"),
        (["losses", "student*"], "standardized-kd"),
        (["evaluate", "absent.keras", "--data", "digits"], "absent.keras"),
        (["predict", "absent.keras", "x.png"], "absent.keras"),
    ],
)
def test_mistake_is_one_line_that_names_it_and_leaves_nothing(
    arguments: list[str],
    names: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(capsys, *arguments, names=names)
    assert list(tmp_path.iterdir()) == []


def test_all_mistakes_are_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    told = refused(capsys, "run", "digits", "--alpha", 7, "--temperature", -1, "--set", "vews.x=1")
    assert all(name in told for name in ("loss.alpha", "loss.temperature", "vews.x"))


def test_distill_brings_ones_own_and_says_what_it_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "import keras, torch\n"
        "def student():\n"
        "    layers = [keras.layers.Flatten(), keras.layers.Dense(10, activation='softmax')]\n"
        "    return keras.Sequential([keras.Input((8, 8, 1)), *layers])\n"
        "def teacher():\n"
        "    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))\n"
    )
    line = ["distill", "--teacher", "mine:teacher", "--student", "mine:student", "--data", "digits"]
    line += ["--epochs", "1", "--set", "teacher.scale=16", "--set", "student.scale=16"]
    assert cli.main([*line, "--dry-run"]) == 0
    plan = capsys.readouterr().out
    assert 'file = "mine:teacher"' in plan
    assert "teacher: loaded from mine:teacher" in plan
    assert "student: 650 parameters" in plan
    assert not (tmp_path / "runs").exists()
    training = [*line, "--teacher", "mine:student", "--train-teacher", "--dry-run"]
    del training[1:3]
    assert cli.main(training) == 0
    plan = capsys.readouterr().out
    assert 'model = "mine:student"' in plan
    assert "teacher: 650 parameters" in plan
    assert cli.main(line) == 0
    shown = capsys.readouterr()
    assert "student: it ends in softmax" in shown.err
    assert "warning: the teacher is right on" in shown.err
    assert "teacher: taken from mine:teacher" in shown.err
    (folder,) = (tmp_path / "runs").iterdir()
    assert str(folder.relative_to(tmp_path)) in shown.out
    assert cli.main([*line, "--json"]) == 0  # done already
    assert set(json.loads(capsys.readouterr().out)["models"]) == {"teacher", "baseline", "student"}
    one, two = tmp_path / "one.keras", tmp_path / "two.keras"
    for path in (one, two):
        shutil.copyfile(folder / "student.keras", path)
    line = ["distill", "--teacher", one, "--teacher", two, "--data", "digits", "--epochs", "1"]
    assert cli.main([str(word) for word in line] + ["--student", "digits-student", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["recipe"]["teacher"]["file"]
    assert told == [str(one), str(two)]


def test_init_writes_a_recipe_that_runs_as_it_is(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for label, darkest in (("dark", 0), ("light", 150)):
        (tmp_path / "my images" / label).mkdir(parents=True)
        for number in range(12):
            pixels = random.integers(darkest, darkest + 100, (9, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "my images" / label / f"{number}.png")
    made = command("init", "my images", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert "24: train 24" in made.stdout
    assert "all 9x8" in made.stdout
    text = (tmp_path / "recipe.toml").read_text(encoding="utf-8")
    assert 'extends = "distill"' in text
    assert "each of 12 training images" in text
    done = command("run", "recipe.toml", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert results["data"]["train"] + results["data"]["validation"] == 19
    (folder,) = (tmp_path / "runs").iterdir()
    # What the run saves depends on no other file.
    saved = recipe.load(folder / "recipe.toml")
    assert "extends" not in (folder / "recipe.toml").read_text(encoding="utf-8")
    assert (saved.data.size, saved.schedule.student.batch_size) == ((9, 8), 16)
    again = command("init", "my images", cwd=tmp_path)
    assert again.returncode == 2
    assert again.stderr.startswith("tutelage: recipe.toml exists")
    assert (tmp_path / "recipe.toml").read_text(encoding="utf-8") == text


def test_models_are_listed_with_their_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models", "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == list(recipe.MODELS)
    assert cli.main(["models", "*student*", "--size", "8,8,1", "--classes", "10", "--json"]) == 0
    rows = {row["name"]: row["parameters"] for row in json.loads(capsys.readouterr().out)}
    assert rows == {"student-300k": 308_106, "digits-student": 1_254}
    assert cli.main(["models", "*2m", "--size", "4,4"]) == 0
    shown = capsys.readouterr().out
    assert "needs 8x8" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_losses_are_listed_with_their_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["losses", "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == list(recipe.LOSSES)
    assert cli.main(["losses", "?kd"]) == 0
    shown = capsys.readouterr().out
    assert "distance_weight = 25" in shown
    assert "2303.13005" in shown  # nkd
    assert "fitnet" not in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "digits", "--alpha", "2", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_data_that_can_not_be_used_is_named_and_leaves_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)

    def picture(path: Path, size: tuple[int, int] = (8, 8)) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)

    for i in range(10):
        picture(tmp_path / "one" / "train" / "cat" / f"{i}.png")
        for label in ("cat", "dog"):
            for name in ("broken", "mixed"):
                picture(tmp_path / name / "train" / label / f"{i}.png")
    (tmp_path / "broken" / "train" / "dog" / "3.png").write_bytes(b"no picture")
    picture(tmp_path / "mixed" / "train" / "dog" / "3.png", (9, 8))
    (tmp_path / "cut.zip").write_bytes(b"PK\x03\x04 and then nothing")
    before = sorted(tmp_path.rglob("*"))
    for source, names in {
        "one": "class",
        "broken": "3.png",
        "mixed": "data.size",
        "cut.zip": "cut.zip",
    }.items():
        refused(capsys, "run", "digits", "--data", source, names=names)
    assert sorted(tmp_path.rglob("*")) == before


def test_finished_run_prints_its_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "digits", *SMALL, "--out", str(folder)]) == 0
    out, err = capsys.readouterr()
    results = json.loads((folder / "results.json").read_text())
    (line,) = [line for line in out.splitlines() if "accuracy" in line]
    for figures in results["models"].values():
        assert f"{100 * figures['accuracy']:.2f} %" in line
    assert max(len(line) for line in out.splitlines() if line[0] in "│┃") <= 80
    assert results["verdict"] in out
    assert "already done" in err


def test_folder_of_another_recipe_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", "digits", *SMALL, "--seed", "1", "--out", str(folder)]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"tutelage: {folder} contains a run")


def test_dry_run_describes_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["run", "digits", "--alpha", "0.25", "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["recipe"]["loss"]["alpha"] == 0.25
    assert plan["models"]["teacher"]["parameters"] > plan["models"]["student"]["parameters"]
    assert plan["models"]["baseline"]["macs"] == plan["models"]["student"]["macs"]
    assert plan["seconds"] > 0
    assert cli.main(["run", "digits", "--labels", "0.5", "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["recipe"]["data"]["labels"], plan["recipe"]["loss"]["alpha"]) == (0.5, 1)
    assert plan["data"]["train"] == 611  # half of 1,437, less 15 % for validation
    assert cli.main(["run", "digits", "--dry-run"]) == 0
    assert "student:" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_seeds_are_run_and_compared_in_one_command(tmp_path: Path) -> None:
    short = ["--epochs", "1", *SMALL[2:]]
    line = ["run", "digits", *short, "--seed", "3", "--seeds", "2", "--out", tmp_path, "--json"]
    done = command(*line, "--tensorboard")
    assert done.returncode == 0, done.stderr
    (group,) = json.loads(done.stdout)["groups"]
    assert group["seeds"] == [3, 4]
    assert group["runs"] == [str(tmp_path / f"seed-{seed}") for seed in (3, 4)]
    assert all((Path(run) / "tensorboard" / "student").is_dir() for run in group["runs"])
    accuracies = [
        json.loads((Path(run) / "results.json").read_text())["models"]["student"]["accuracy"]
        for run in group["runs"]
    ]
    assert group["models"]["student"]["accuracy"]["mean"] == pytest.approx(np.mean(accuracies))
    again = command("compare", tmp_path, "--json")
    assert again.stdout == done.stdout
    told = command("compare", *group["runs"]).stdout
    assert group["verdict"] in told
    assert "student - baseline" in told
    assert "digits on digits, 2 seeds" in told


def test_compare_refuses_what_is_no_finished_run(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(capsys, "compare", tmp_path, names=f"{tmp_path} contains no run")
    half = tmp_path / "half"
    shutil.copytree(folder, half)
    (half / "results.json").unlink()
    refused(capsys, "compare", half, names="results.json is missing")
    refused(capsys, "compare", folder, half, names="results.json is missing")
    refused(capsys, "run", "digits", "--seeds", "0", names="--seeds")
    refused(capsys, "run", "digits", "--seed", 2**31 - 1, "--seeds", 2, names="expected 1 to 1")


def test_evaluate_gives_the_figures_of_the_run(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(folder / "student.keras"), "--teacher", str(folder / "teacher.keras")]
    assert cli.main(["evaluate", *files, "--data", "digits", "--json"]) == 0
    got = json.loads(capsys.readouterr().out)["models"]["student"]
    expected = json.loads((folder / "results.json").read_text())["models"]["student"]
    assert got == pytest.approx({name: expected[name] for name in got})
    assert set(expected) - set(got) == {"seconds"}
    assert cli.main(["evaluate", files[0], "--data", "digits"]) == 0
    assert f"{100 * expected['accuracy']:.2f} %" in capsys.readouterr().out


def test_a_folder_with_odd_names_is_trained_on_and_evaluated_whole(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label in (b"caf\xe9", b"red\x1b[31m"):
        for home in (b"pics", b"new"):
            at = os.path.join(os.fsencode(tmp_path), home, label)
            os.makedirs(at)
            for i in range(10 if home == b"pics" else 3):
                with open(os.path.join(at, b"%d.png" % i), "wb") as file:
                    Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(file)
    models = ["--set", "student.model=digits-student", "--set", "teacher.model=digits-teacher"]
    out = tmp_path / os.fsdecode(b"r\xe9")
    done = command("run", "digits", "--data", "pics", "--out", out, *SMALL, *models, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert r"caf\xe9" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    results = json.loads((out / "results.json").read_text())
    assert results["data"]["classes"] == [r"caf\xe9", r"red\x1b[31m"]
    assert any(r"caf\xe9" in note for note in results["data"]["notes"])
    assert "\x1b" not in (out / "report.md").read_text()
    # Data of its own run: the test images; other data without a test part: all of it.
    for data, count in (("pics", 4), ("new", 6)):
        shown = command("evaluate", out / "student.keras", "--data", data, cwd=tmp_path)
        assert shown.returncode == 0, shown.stderr
        assert f"on {count} images of {data}" in " ".join(shown.stdout.split())
    (tmp_path / "alone").mkdir()
    shutil.move(tmp_path / "new", tmp_path / "alone" / "test")
    shown = command("evaluate", out / "student.keras", "--data", "alone", cwd=tmp_path)
    assert "on 6 images of alone" in " ".join(shown.stdout.split())
    refused = command("run", "digits", "--data", "alone", cwd=tmp_path)
    assert refused.returncode == 2
    assert "training images" in refused.stderr


def test_evaluate_refuses_a_model_of_other_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layers = [keras.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.Dense(10)]
    keras.Sequential(layers).save(tmp_path / "other.keras")
    refused(capsys, "evaluate", tmp_path / "other.keras", "--data", "digits", names="(4, 4, 3)")
    (tmp_path / "broken.keras").write_bytes(b"no model")
    refused(capsys, "evaluate", tmp_path / "broken.keras", "--data", "digits", names="broken.keras")


def test_predict_names_the_classes_of_the_run(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "seven.png"
    Image.fromarray(np.full((40, 30, 3), 90, np.uint8)).save(picture)
    assert cli.main(["predict", str(folder / "teacher.keras"), str(picture), "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    chances = [c["probability"] for c in answer["classes"]]
    assert len(chances) == 3
    assert chances == sorted(chances, reverse=True)
    assert all(c["name"] in "0123456789" for c in answer["classes"])
    (tmp_path / "bad.png").write_text("no picture")
    bad = tmp_path / "bad.png"
    refused(capsys, "predict", folder / "teacher.keras", picture, bad, names="bad.png")


def test_the_cache_is_shown_and_cleared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))
    assert cli.main(["cache"]) == 0
    assert "cached: 0 entries, 0.00 MB" in capsys.readouterr().out
    assert cli.main(["run", "digits", *SMALL, "--out", str(tmp_path / "run")]) == 0
    assert "caching teacher logits 2/2" in capsys.readouterr().err
    (tmp_path / "cache" / "images").mkdir()
    (tmp_path / "cache" / "images" / f"{1:032x}.npz").write_bytes(bytes(1_000_000))
    (tmp_path / "cache" / "images" / "own.png").touch()
    assert cli.main(["cache", "--json"]) == 0
    entries = {entry["kind"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert (entries["logits"]["views"], entries["logits"]["origin"]["shape"]) == (2, [1221, 10])
    assert entries["images"]["bytes"] == 1_000_000
    assert cli.main(["cache"]) == 0
    shown = capsys.readouterr().out
    assert "2 views of 1,221 images, 10 classes, 0.05 MB" in shown
    assert f"images: {1:032x}.npz, 1.00 MB" in shown
    monkeypatch.setenv("TUTELAGE_CACHE_LIMIT", "much")
    refused(capsys, "run", "digits", "--out", tmp_path / "other", names="TUTELAGE_CACHE_LIMIT")
    monkeypatch.delenv("TUTELAGE_CACHE_LIMIT")
    assert cli.main(["cache", "--clear"]) == 0
    assert "deleted:" in capsys.readouterr().out
    assert cli.main(["cache", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert (tmp_path / "cache" / "images" / "own.png").exists()


def started(folder: Path, *options: str) -> subprocess.Popen[str]:
    """A run of many epochs, once it has finished some of its second stage."""
    line = [sys.executable, "-m", "tutelage", "run", "digits", "--out", str(folder), *options]
    # A shell that starts the tests in the background has them ignore the interrupt.
    process = subprocess.Popen(
        line,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stderr is not None
    for text in process.stderr:
        if text.startswith("baseline 2/"):
            return process
    raise AssertionError("the run ended before its second stage's second epoch")


def weights(path: Path) -> list[np.ndarray]:
    return keras.saving.load_model(path).get_weights()


def test_run_killed_by_the_system_goes_on_with_the_same_command(tmp_path: Path) -> None:
    options = ["--epochs", "4", "--set", "schedule.teacher.batch_size=128"]
    process = started(tmp_path / "killed", *options)
    process.kill()
    process.communicate()
    before = list(csv.DictReader((tmp_path / "killed" / "history.csv").read_text().splitlines()))
    assert len(before) >= 6
    resumed = command("run", "digits", "--out", tmp_path / "killed", *options)
    assert resumed.returncode == 0, resumed.stderr
    assert "teacher: already trained" in resumed.stderr
    done = len(before) - 4
    where = f"baseline: resuming after epoch {done} of 4"
    assert where in resumed.stderr or "baseline: already trained" in resumed.stderr
    after = list(csv.DictReader((tmp_path / "killed" / "history.csv").read_text().splitlines()))
    assert after[: len(before)] == before
    assert len(after) == 12
    whole = tmp_path / "elsewhere" / "whole"
    assert command("run", "digits", "--out", whole, *options).returncode == 0
    for stage in ("teacher", "baseline", "student"):
        pairs = zip(
            weights(tmp_path / "killed" / f"{stage}.keras"),
            weights(whole / f"{stage}.keras"),
            strict=True,
        )
        for ours, theirs in pairs:
            np.testing.assert_array_equal(ours, theirs)


def test_interrupt_ends_with_one_line_that_says_how_to_go_on(tmp_path: Path) -> None:
    process = started(tmp_path / "run", "--epochs", "50")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    told = err.splitlines()[-1]
    assert told.startswith("tutelage: interrupted at baseline")
    assert "the same command again" in told
    assert "Traceback" not in err


def test_folder_in_use_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    process = started(tmp_path / "run", "--epochs", "50")
    try:
        assert cli.main(["run", "digits", "--epochs", "50", "--out", str(tmp_path / "run")]) == 2
        assert "in use by another process" in capsys.readouterr().err
    finally:
        process.kill()
        process.communicate()


@pytest.mark.skipif(os.name != "posix", reason="needs a limit on file sizes, as on Unix")
def test_full_disk_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # no file may grow larger
    try:
        assert cli.main(["run", "digits", *SMALL, "--out", str(tmp_path / "run")]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    told = capsys.readouterr().err.splitlines()[-1]
    assert "can't write" in told
    assert not list((tmp_path / "run").glob(".*-*"))  # no half-written file is left
    assert cli.main(["run", "digits", *SMALL, "--out", str(tmp_path / "run")]) == 0


@pytest.mark.skipif(os.name != "posix", reason="needs permissions as on Unix")
def test_folder_that_can_not_be_made_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert cli.main(["run", "digits", "--out", str(tmp_path / "file" / "run")]) == 2
    assert "--out" in capsys.readouterr().err.splitlines()[-1]


def test_option_after_help_answers_at_once() -> None:
    started_at = time.monotonic()
    assert command("--help").returncode == 0
    assert time.monotonic() - started_at < 30  # a bound that only a hang passes


PEAK = """
import resource, sys
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
from tutelage.cli import main
import tutelage.experiment.runner
loaded = peak()
status = main(sys.argv[1:])
print(peak() - loaded, file=sys.stderr)
sys.exit(status)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the unit of ru_maxrss differs by system")
def test_a_run_on_larger_images_takes_at_most_2_gb(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for number in range(600):
        label = f"c{number % 4}"
        (tmp_path / "images" / label).mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        small.resize((100, 100)).save(tmp_path / "images" / label / f"{number}.jpg")
    line = ["run", "distill", "--data", tmp_path / "images", "--epochs", "1", "--out", "run"]
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *map(str, line)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
        env=os.environ | {"TUTELAGE_CACHE": str(tmp_path / "cache")},
    )
    assert done.returncode == 0, done.stderr
    assert "are processed in 5 parts" in done.stderr
    # Libraries take 0.56 GB with PyTorch's build for CPUs, 0.95 GB with that for CUDA.
    assert float(done.stderr.splitlines()[-1]) <= 1.4
