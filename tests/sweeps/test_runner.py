"""A whole sweep: its students, its files, going on after any end, and what it refuses."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import optuna
import pytest
import torch

from tutelage import cli, recipe
from tutelage.data.datasets import Part
from tutelage.errors import RecipeError, RunError
from tutelage.experiment.prepare import prepare
from tutelage.experiment.spec import Experiment
from tutelage.models import loading, stored_logits
from tutelage.progress import EpochLog, Progress
from tutelage.runs import findings
from tutelage.sweeps import runner, search_space

SMALL = {
    "schedule.teacher.epochs": 2,
    "schedule.student.epochs": 2,
    "schedule.teacher.batch_size": 128,
    "schedule.student.batch_size": 128,
    "loss.alpha": 0.5,
}
SETTINGS = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
OPTIONS = ["--alpha", "0:1:0.5", "--temperature", "2,4", "--seeds", "2", *SETTINGS]
STUDENTS = 2 * (1 + 2 * 2)

# The command line, but for less patience with those that give no sign of life. A file, as the
# processes that it starts read it too.
IMPATIENT = """
import sys
from tutelage.sweeps import trial_queue
trial_queue.HEARTBEAT, trial_queue.GRACE_PERIOD = 0.2, 2.0
if __name__ == "__main__":
    from tutelage.cli import main
    sys.exit(main())
"""


def resolved(**changed: object) -> Experiment:
    overrides = {key.replace("__", "."): value for key, value in changed.items()}
    return prepare(recipe.load("digits", SMALL | overrides))


class Notes(Progress):
    """Keeps what it hears, and raises when a student is trained."""

    def __init__(self, dies_after: int = -1):
        self.told: list[str] = []
        self.trained: list[str] = []
        self.students, self.dies_after, self.name = 0, dies_after, ""

    def note(self, text: str) -> None:
        self.told.append(text)

    def stage(self, name: str, epochs: int, done: int, steps: int, unit: str = "epoch") -> None:
        self.name = name

    def epoch(self, row: EpochLog) -> None:
        self.trained.append(self.name)
        self.students += self.name == "sweep"
        if self.students == self.dies_after:
            raise KeyboardInterrupt


RUNNING: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def _nothing_is_left_running() -> Iterator[None]:
    yield
    for process in RUNNING:
        if process.poll() is None:
            process.kill()
            process.communicate()
    RUNNING.clear()


def started(*arguments: object, script: Path | None = None) -> subprocess.Popen[str]:
    line = [sys.executable, *(["-m", "tutelage"] if script is None else [script])]
    process = subprocess.Popen(
        [str(word) for word in (*line, *arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        # A shell that starts the tests in the background has them ignore the interrupt.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    RUNNING.append(process)
    return process


def command(*arguments: object) -> str:
    process = started(*arguments)
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out


def rows(folder: Path) -> list[dict[str, Any]]:
    """What is known of each student, but for the time it took."""
    told = json.loads((folder / "sweep.json").read_text())["trials"]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in told]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("sweeps") / "first"
    told = json.loads(command("sweep", "digits", *OPTIONS, "--out", folder, "--json"))
    assert told == json.loads((folder / "sweep.json").read_text())
    return folder, told


def test_folder_holds_what_a_sweep_is_said_to_leave(swept: tuple[Path, dict[str, Any]]) -> None:
    folder, told = swept
    assert {path.name for path in folder.iterdir() if path.name[0] != "."} == {
        *("run.json", "recipe.toml", "history.csv", "teacher.keras"),
        *("sweep.json", "trials.csv", "study.db", "trials", "best"),
    }
    assert not list(folder.glob(".student-*"))  # no checkpoint is left
    assert set(told) >= {"recipe", "plan", "trials", "found", "said", "best", "environment"}
    listed = list(csv.DictReader((folder / "trials.csv").read_text().splitlines()))
    assert [float(row["accuracy"]) for row in listed] == [r["accuracy"] for r in told["trials"]]
    assert [row["temperature"] for row in listed][:3] == ["", "2.0", "2.0"]
    cells = [json.loads(file.read_text()) for file in sorted((folder / "trials").iterdir())]
    assert [{key: cell[key] for key in told["trials"][0]} for cell in cells] == told["trials"]
    assert all(cell["environment"]["hardware"] for cell in cells)


def test_each_setting_has_each_seed_and_all_share_a_seed_s_baseline(
    swept: tuple[Path, dict[str, Any]],
) -> None:
    told = swept[1]["trials"]
    assert Counter(row["method"] for row in told) == {"baseline": 2, "kd": 8}
    expected = {(a, t, s) for a in (0.5, 1.0) for t in (2.0, 4.0) for s in (0, 1)}
    taught = [row for row in told if row["method"] == "kd"]
    assert {(row["alpha"], row["temperature"], row["seed"]) for row in taught} == expected
    assert len({row["accuracy"] for row in told}) > 4
    assert all(row["state"] == "complete" and row["seconds"] > 0 for row in told)


def test_students_are_those_that_runs_train(
    swept: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    # An ordinary run, with a teacher that is the sweep's own to the bit.
    command("run", "digits", *SETTINGS, "--out", tmp_path / "run")
    held_out = json.loads((tmp_path / "run" / "results.json").read_text())["validation"]
    first, second = swept[1]["trials"][:2]
    assert (second["alpha"], second["temperature"], second["seed"]) == (0.5, 2.0, 0)
    for row, stage in ((first, "baseline"), (second, "student")):
        assert (row["accuracy"], row["nll"]) == tuple(held_out[stage].values())


def test_best_is_trained_anew_on_all_but_the_test_part(
    swept: tuple[Path, dict[str, Any]],
) -> None:
    folder, told = swept
    results = json.loads((folder / "best" / "results.json").read_text())
    assert results == told["best"]
    assert results["data"]["train"] == len(resolved().data.train) == 1437
    assert results["data"]["validation_in_train"]
    best = told["found"]["best"]
    loss = results["recipe"]["loss"]
    assert (loss["alpha"], loss["temperature"]) == (best["alpha"], best["temperature"])
    report = (folder / "best" / "report.md").read_text()
    assert "after training on 1,437, including the 216 validation images" in report
    assert "which are training images of baseline and student here" in report
    teachers = [loading.load_model(place / "teacher.keras") for place in (folder, folder / "best")]
    for ours, theirs in zip(*(model.get_weights() for model in teachers), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert keras.saving.load_model(folder / "best" / "student.keras").count_params()
    assert results["verdict"] in told["said"][-1]
    assert told["said"][:-1] == findings.say(told["found"])


def test_finished_sweep_prints_its_answer_again(
    swept: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, told = swept
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert cli.main(["sweep", "digits", *OPTIONS, "--out", str(folder)]) == 0
    out, err = capsys.readouterr()
    assert "already done" in err
    for line in told["said"]:
        assert line in out
    (best,) = [line for line in out.splitlines() if "* " in line]
    assert f"* {100 * told['found']['best']['accuracy']:.2f}" in best
    drawn = [line for line in out.splitlines() if line[:1] in "│┃"]
    assert [line.split()[1] for line in drawn[:4]] == ["alpha", "0", "0.5", "1"]
    assert max(len(line) for line in drawn) <= 80
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_two_workers_train_the_very_students_of_one(
    swept: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    command("sweep", "digits", *OPTIONS, "--workers", 2, "--out", tmp_path / "two")
    assert rows(tmp_path / "two") == rows(swept[0])


def trials(url: str) -> list[optuna.trial.FrozenTrial]:
    url = url.replace("postgresql://", "postgresql+psycopg2://")
    (name,) = optuna.study.get_all_study_names(url)
    return optuna.load_study(study_name=name, storage=url).get_trials()


def until_done(url: str, count: int, crew: list[subprocess.Popen[str]]) -> None:
    """Wait until so many students are trained."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert all(one.poll() is None for one in crew), crew[0].communicate()
        try:
            if sum(t.state.name == "COMPLETE" for t in trials(url)) >= count:
                return
        except Exception:  # there are no tables yet, or no study
            pass
        time.sleep(0.1)
    raise AssertionError("nothing was trained")


def test_two_that_share_a_study_are_killed_and_go_on_without_loss_or_repetition(
    swept: tuple[Path, dict[str, Any]], storage_url: str, tmp_path: Path
) -> None:
    script = tmp_path / "impatient.py"
    script.write_text(IMPATIENT)
    line = ["sweep", "digits", *OPTIONS, "--storage", storage_url, "--out"]
    folders = [tmp_path / name / "sweep" for name in ("here", "there")]
    crew = [started(*line, folder, script=script) for folder in folders]
    until_done(storage_url, 3, crew)
    for one in crew:
        one.kill()
        one.communicate()
    before = {t.number: t.value for t in trials(storage_url) if t.state.name == "COMPLETE"}
    assert 3 <= len(before) < STUDENTS
    crew = [started(*line, folder, script=script) for folder in folders]
    for one in crew:
        _, err = one.communicate()
        assert one.returncode == 0, err
    after = [t for t in trials(storage_url) if t.number < STUDENTS]
    assert len(after) == STUDENTS
    assert {t.state.name for t in after} == {"COMPLETE"}
    assert before.items() <= {t.number: t.value for t in after}.items()
    for folder in folders:
        assert rows(folder) == rows(swept[0])
        # A process that is killed while it writes leaves a hidden file.
        assert len(list((folder / "trials").glob("[0-9]*.json"))) == STUDENTS


def test_a_worker_that_is_killed_is_told_of_and_the_other_does_its_work(
    swept: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    script, folder = tmp_path / "impatient.py", tmp_path / "sweep"
    script.write_text(IMPATIENT)
    process = started("sweep", "digits", *OPTIONS, "--workers", 2, "--out", folder, script=script)
    until_done(f"sqlite:///{folder / 'study.db'}", 2, [process])
    line = ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(process.pid)]
    listed = subprocess.run(line, text=True, capture_output=True)
    workers = [one.split()[0] for one in listed.stdout.splitlines() if "spawn_main" in one]
    assert len(workers) == 2
    os.kill(int(workers[0]), signal.SIGKILL)
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert "a worker ended early (exit code -9); 1 are left" in err
    assert rows(folder) == rows(swept[0])


def test_interrupt_stops_all_workers_gives_back_and_says_how_to_go_on(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    process = started("sweep", "digits", *OPTIONS, "--workers", 2, "--out", folder)
    url = f"sqlite:///{folder / 'study.db'}"
    until_done(url, 2, [process])
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    last = err.splitlines()[-1]
    assert last.startswith("tutelage: interrupted at sweep ")
    assert "the same command again" in last
    assert "Traceback" not in err
    assert "RUNNING" not in {trial.state.name for trial in trials(url)}
    left = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True)
    assert left.stdout == b""


def test_sweep_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    plan, folder = search_space.plan(resolved().recipe, alpha="0.5,0.9"), tmp_path / "sweep"
    with pytest.raises(KeyboardInterrupt):
        runner.run(resolved(), plan, folder, progress=Notes(dies_after=2))
    before = rows(folder)
    assert len(before) == 2
    assert "found" not in json.loads((folder / "sweep.json").read_text())
    (folder / "trials" / "0001-kd-seed-0.json").unlink()
    notes = Notes()
    told = runner.run(resolved(), plan, folder, progress=notes)
    assert notes.students == 1
    assert "teacher: already trained" in notes.told
    assert rows(folder)[:2] == before
    assert len(list((folder / "trials").iterdir())) == len(told["trials"]) == 3


def test_nothing_is_measured_on_the_test_part_until_all_is_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes, measured = Notes(), []
    logits, small = loading.logits, resolved()

    def noted(model: keras.Model, images: np.ndarray, precision: str = "float32") -> np.ndarray:
        measured.append((len(images), any(text.startswith("best: ") for text in notes.told)))
        return logits(model, images, precision)

    monkeypatch.setattr(loading, "logits", noted)
    runner.run(small, search_space.plan(small.recipe), tmp_path / "sweep", progress=notes)
    test, held_out = len(small.data.test), len(small.validation)
    assert test != held_out
    assert measured.count((held_out, False))
    assert not measured.count((test, False))
    assert measured.count((test, True)) == 3


def test_teacher_of_a_run_beside_the_sweep_is_taken_and_asked_once(tmp_path: Path) -> None:
    small, first = resolved(loss__temperature=3.0), Notes()
    runner.run(small, search_space.plan(small.recipe), tmp_path / "one", progress=first)
    assert Counter(first.trained)["teacher"] == 2
    again, plan = Notes(), search_space.plan(small.recipe, alpha="0.2,0.4", temperature=1)
    runner.run(small, plan, tmp_path / "two", progress=again)
    assert "teacher" not in again.trained
    assert any("which has the same stage" in text for text in again.told)
    # Only what the best student is to see is new: the images' hash is another.
    assert Counter(again.trained)["caching teacher logits"] == 0


def test_a_teacher_that_answers_otherwise_begins_the_sweep_anew(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))

    def swept_by(module: torch.nn.Module, out: Path, notes: Notes) -> dict[str, Any]:
        changed = SMALL | {"schedule.student.epochs": 1}
        given = prepare(recipe.load("digits", changed), teacher=module)
        return runner.run(given, search_space.plan(given.recipe), out, progress=notes)

    first = swept_by(module, tmp_path / "sweep", Notes())
    hook = module.register_forward_hook(lambda layer, inputs, outputs: outputs.flip(1))
    notes = Notes()
    changed = swept_by(module, tmp_path / "sweep", notes)
    assert sum("answers otherwise" in text for text in notes.told) == 2  # and of its best
    assert Counter(notes.trained)["sweep"] == 2
    assert [row["nll"] for row in changed["trials"]] != [row["nll"] for row in first["trials"]]
    fresh = swept_by(module, tmp_path / "fresh" / "sweep", Notes())
    for one, other in zip(changed["trials"], fresh["trials"], strict=True):
        assert one["nll"] == other["nll"]
    hook.remove()
    back = Notes()
    assert swept_by(module, tmp_path / "sweep", back)["trials"] == first["trials"]


def test_methods_on_logits_and_on_layers_share_a_sweep(tmp_path: Path) -> None:
    small = resolved(schedule__student__epochs=1)
    plan = search_space.plan(small.recipe, method="kd,fitnet,dkd")
    told = runner.run(small, plan, tmp_path / "sweep")
    assert [row["method"] for row in told["trials"]] == ["baseline", "kd", "fitnet", "dkd"]
    assert [row["temperature"] for row in told["trials"]] == [None, 2.0, None, None]
    assert len({row["nll"] for row in told["trials"]}) == 4


def test_stored_logits_teach_a_sweep_and_its_best_on_all_images(tmp_path: Path) -> None:
    data = resolved().data
    logits = 4 * np.eye(10, dtype=np.float32)[data.train.labels]
    np.save(tmp_path / "logits.npy", logits)
    told = {"images": stored_logits.image_hash(data.train.images), "classes": list(data.classes)}
    (tmp_path / "logits.json").write_text(json.dumps(told))
    plain = {"views__flip": False, "views__shift": 0, "schedule__student__epochs": 1}
    small = resolved(teacher__file=str(tmp_path / "logits.npy"), **plain)
    np.testing.assert_array_equal(small.on_all_images().given_logits(), logits)
    found = runner.run(small, search_space.plan(small.recipe), tmp_path / "sweeps" / "one")
    assert sorted(found["best"]["models"]) == ["baseline", "student"]
    assert found["best"]["data"]["train"] == len(logits)


def test_drawn_settings_are_trained_with_each_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["sweep", "digits", *SETTINGS, "--search", "guided", "--trials", "2", "--seeds", "2"]
    line += ["--alpha", "0:1", "--temperature", "1:8", "--out", str(tmp_path / "sweep")]
    assert cli.main(line) == 0
    told = json.loads((tmp_path / "sweep" / "sweep.json").read_text())["trials"]
    assert [(row["trial"], row["seed"]) for row in told] == [
        *((0, 0), (1, 1)),
        *((2, 0), (2, 1)),
        *((3, 0), (3, 1)),
    ]
    assert len({(row["alpha"], row["temperature"]) for row in told}) == 3
    out = capsys.readouterr().out
    assert "the best of 2 settings" in " ".join(out.split())
    assert "Best setting on the validation images: kd, alpha" in out


def test_pruned_students_are_not_ranked_nor_trained_with_another_seed(tmp_path: Path) -> None:
    small = resolved(schedule__student__epochs=3)
    plan = search_space.plan(small.recipe, alpha="0.1:0.9:0.1", seeds=2, prune=True)
    told = runner.run(small, plan, tmp_path / "sweep")
    states = {(row["alpha"], row["seed"]): row["state"] for row in told["trials"]}
    stopped = {alpha for (alpha, _), state in states.items() if state == "pruned"}
    first = {alpha for (alpha, seed), state in states.items() if state == "pruned" and not seed}
    assert first
    assert not stopped & {0.1, 0.2, 0.3, 0.4, 0.5}  # by which the others are judged
    assert all(states[alpha, 1] == "pruned" for alpha in first)
    assert {row["accuracy"] for row in told["trials"] if row["state"] == "pruned"} == {None}
    ranked = {one["alpha"] for one in told["found"]["settings"]}
    assert ranked == {alpha for alpha, _ in states if alpha} - stopped
    assert told["found"]["dropped"] == len(stopped)


def test_settings_that_come_to_nothing_are_told_and_end_no_sweep(tmp_path: Path) -> None:
    small = resolved(schedule__student__learning_rate=1e30, schedule__student__warmup=0.0)
    with pytest.raises(RunError, match="pruned"):
        runner.run(small, search_space.plan(small.recipe), tmp_path / "sweep")
    told = rows(tmp_path / "sweep")
    assert [row["state"] for row in told] == ["failed", "failed"]
    assert all("the loss is" in row["reason"] for row in told)


def test_a_loss_of_ones_own_is_a_method_whose_code_belongs_to_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"own_{tmp_path.name}"
    code = "from tutelage.losses import KD\nclass Half(KD):\n    pass\n"
    (tmp_path / f"{name}.py").write_text(code)
    small = resolved(schedule__student__epochs=1, schedule__teacher__epochs=1)
    plan = search_space.plan(small.recipe, method=f"kd,{name}:Half")
    told = runner.run(small, plan, "sweep")
    assert {row["method"] for row in told["trials"]} == {"baseline", "kd", f"{name}:Half"}
    assert runner.run(small, plan, "sweep") == told
    (tmp_path / f"{name}.py").write_text(f"{code}# changed\n")
    with pytest.raises(RunError, match="other code"):
        runner.run(small, plan, "sweep")
    # A sweep without it has the key that it had before there were such losses.
    plain = search_space.plan(small.recipe, method="kd,dkd")
    assert runner._full_key(small, plain) == runner._key(small.keys(), plain)


def test_data_in_memory_can_not_be_shared_by_workers(tmp_path: Path) -> None:
    small = resolved()
    part = Part(small.data.train.images[:400], small.data.train.labels[:400])
    data = type(small.data)("mine", small.data.classes, part, part, "sha256:mine", "memory")
    mine = prepare(small.recipe, data=data)
    with pytest.raises(RunError, match="workers: expected"):
        runner.run(mine, search_space.plan(small.recipe), tmp_path / "sweep", workers=2)


def test_losses_that_do_not_fit_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    small = resolved(loss__alpha=1.0)
    pool = np.zeros((40, 8, 8, 1), np.uint8)
    pooled = prepare(small.recipe, unlabeled=pool)
    plan = search_space.plan(small.recipe, alpha="0.5,1")
    with pytest.raises(RecipeError, match=r"loss\.alpha: "):
        runner.run(pooled, plan, tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()


def test_a_job_on_all_images_is_another_for_all_but_the_teacher() -> None:
    small = resolved()
    whole = small.on_all_images()
    assert len(whole.train) == len(small.train) + len(small.validation)
    one, other = small.keys(), whole.keys()
    assert {stage for stage in one if one[stage] != other[stage]} == {"baseline", "student"}


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--alpha", "0:2:1"], "alpha: expected numbers from 0 to 1"),
        (["--alpha", "0:1:0.3"], "alpha: expected a step"),
        (["--alpha", "much"], "alpha: expected a number, a list"),
        (["--temperature", "0"], "temperature"),
        (["--method", "kdd"], "did you mean kd"),
        (["--seeds", "0"], "seeds"),
        (["--seeds", "many"], "--seeds"),
        (["--search", "best"], "--search"),
        (["--search", "random"], "trials"),
        (["--trials", "3"], "trials"),
        (["--prune", "--set", "schedule.student.epochs=1"], "prune"),
        (["--workers", "0"], "workers: expected 1 to"),
        (["--workers", "1000"], "workers: expected 1 to"),
        (["--set", "loss.alhpa=1"], "did you mean loss.alpha"),
        (["--data", "absent.zip"], "absent.zip"),
        (["--teacher", "absent"], "no teacher at absent"),
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
    assert cli.main(["sweep", "digits", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (told,) = err.splitlines()[-1:]
    assert told.startswith("tutelage: ")
    assert names in told
    assert list(tmp_path.iterdir()) == []


def test_folder_of_another_sweep_or_run_is_refused_and_left(
    swept: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = swept
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    for other in (["--alpha", "0.5"], ["--alpha", "0:1:0.5", "--seeds", "3"]):
        line = ["sweep", "digits", *SETTINGS, "--temperature", "2,4", *other]
        assert cli.main([*line, "--out", str(folder)]) == 2
        assert "--out" in capsys.readouterr().err
    assert cli.main(["run", "digits", *SETTINGS, "--out", str(folder)]) == 2
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_database_that_is_not_there_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    url = "postgresql://me:secret@127.0.0.1:1/none"
    assert cli.main(["sweep", "digits", *SETTINGS, "--storage", url]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("tutelage: storage: can't use postgresql://me:***@127.0.0.1:1/none")
