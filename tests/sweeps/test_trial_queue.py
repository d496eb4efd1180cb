"""Tickets: given out once each, by real databases, to processes that come and are killed."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest

from tutelage import recipe
from tutelage.errors import MissingExtraError, RunError
from tutelage.sweeps import search_space, trial_queue
from tutelage.sweeps.search_space import Plan, Setting, TrialSpec
from tutelage.sweeps.trial_queue import TrialQueue

DIGITS = recipe.load("digits")
GRID = search_space.plan(DIGITS, alpha="0.1:1:0.1", temperature="1,2,4", seeds=1)  # 31 students

# What a worker does, but for the training: it says whose turn it was and how it ended.
WORKER = """
import json, sys, time
from tutelage import recipe
from tutelage.sweeps import search_space, trial_queue
trial_queue.HEARTBEAT, trial_queue.GRACE_PERIOD, trial_queue._LOOK = 0.1, 1.0, 0.05
url, log, work = sys.argv[1], sys.argv[2], float(sys.argv[3])
digits = recipe.load("digits")
plan = search_space.plan(digits, alpha="0.1:1:0.1", temperature="1,2,4", seeds=1)
queue = trial_queue.TrialQueue(url, "shared", plan, digits)
print("ready", flush=True)
sys.stdin.readline()
while (trial := queue.take()) is not None:
    with queue.held(trial):
        time.sleep(work)
        trial.add({"trial": trial.number, "accuracy": trial.number / 100})
    won = queue.finish(trial)
    with open(log, "a") as file:
        file.write(json.dumps([trial.number, won]) + "\\n")
"""


def worker(url: str, log: Path, work: float) -> subprocess.Popen[str]:
    line = [sys.executable, "-c", WORKER, url, str(log), str(work)]
    return subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def together(crew: list[subprocess.Popen[str]]) -> None:
    """Let processes that have all begun go on in the same moment."""
    for one in crew:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    for one in crew:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()


def ended(process: subprocess.Popen[str]) -> int:
    """The exit code of a process that ends by itself, or is killed already."""
    process.communicate(timeout=120)
    return process.returncode


def entries(log: Path) -> list[tuple[int, bool]]:
    return [tuple(json.loads(line)) for line in log.read_text().splitlines()]


def trials(url: str) -> list[optuna.trial.FrozenTrial]:
    url = url.replace("postgresql://", "postgresql+psycopg2://")
    return optuna.load_study(study_name="shared", storage=url).get_trials()


def states(url: str) -> Counter[str]:
    return Counter(trial.state.name for trial in trials(url))


def test_processes_that_start_together_train_each_student_once(
    storage_url: str, tmp_path: Path
) -> None:
    log, first = tmp_path / "log", study(storage_url)
    for trial in [first.take() for _ in range(20)]:  # some have been given back
        assert trial is not None
        with contextlib.suppress(KeyboardInterrupt), first.held(trial):
            raise KeyboardInterrupt
    crew = [worker(storage_url, log, 0.0) for _ in range(3)]
    together(crew)
    assert [ended(one) for one in crew] == [0, 0, 0]
    done = entries(log)
    assert sorted(done) == [(number, True) for number in range(31)]
    numbered = [trial for trial in trials(storage_url) if trial.number < 31]
    assert all(trial.state.name == "COMPLETE" for trial in numbered)
    for trial in numbered:
        assert trial.value == trial.number / 100
        assert trial.user_attrs["students"] == [
            {"trial": trial.number, "accuracy": trial.number / 100}
        ]


def test_no_student_is_lost_or_done_twice_where_workers_are_killed_again_and_again(
    storage_url: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    log.touch()
    for enough in (2, 4):  # at first on a database without tables
        crew = [worker(storage_url, log, 0.6) for _ in range(2)]
        together(crew)
        while len(entries(log)) < enough:
            time.sleep(0.01)
        time.sleep(0.3)  # so that they are in the midst of the next
        for one in crew:
            one.send_signal(signal.SIGKILL)
        for one in crew:
            ended(one)
    left = states(storage_url)
    assert left["RUNNING"], "nobody was killed at work: the test shows nothing"
    assert sum(left.values()) < 31
    last = worker(storage_url, log, 0.0)
    together([last])
    assert ended(last) == 0
    assert states(storage_url) == {"COMPLETE": 31}
    # One that was killed between the end of its student and its line in the log has no line.
    won = Counter(number for number, first in entries(log) if first)
    assert set(won.values()) == {1}
    assert 31 - len(won) <= 4
    assert sorted(t.value for t in trials(storage_url)) == [n / 100 for n in range(31)]


def study(url: str, plan: Plan = GRID) -> TrialQueue:
    return TrialQueue(url, "shared", plan, DIGITS)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'study.db'}"


def test_tickets_are_the_plan_s_students_in_their_order(url: str) -> None:
    found, seen = study(url), []
    while (trial := found.take()) is not None:
        seen += trial.specs
        trial.add({"accuracy": 0.5})
        found.finish(trial)
    assert seen == GRID.specs(DIGITS)
    assert found.all_done()
    assert len(found.rows()) == 31
    assert study(url).take() is None


def test_a_ticket_whose_work_is_interrupted_goes_back_at_once(url: str) -> None:
    found = study(url)
    trial = found.take()
    assert trial is not None
    trial.add({"accuracy": 0.5})
    with pytest.raises(KeyboardInterrupt), found.held(trial):
        raise KeyboardInterrupt
    again = study(url).take()
    assert again is not None
    assert (again.number, again.rows) == (trial.number, [{"accuracy": 0.5}])


def test_a_worker_that_was_only_slow_can_not_finish_what_others_have_done(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_queue, "GRACE_PERIOD", 0.1)
    slow, quick = study(url), study(url)
    trial = slow.take()  # and gives no sign of life
    assert trial is not None
    seen = []
    while (other := quick.take()) is not None:
        seen.append(other.number)
        other.add({"accuracy": other.number / 100})
        assert quick.finish(other)
    assert sorted(seen) == list(range(31))
    trial.add({"accuracy": 1.0})
    assert not trial.falls_behind(1.0, 1)
    with slow.held(trial):
        pass
    assert not slow.finish(trial)
    assert quick.rows()[trial.number] == {"accuracy": trial.number / 100}


def test_signs_of_life_keep_a_ticket(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_queue, "GRACE_PERIOD", 0.5)
    monkeypatch.setattr(trial_queue, "HEARTBEAT", 0.05)
    busy, other = study(url), study(url)
    trial = busy.take()
    assert trial is not None
    with busy.held(trial):
        until = time.monotonic() + 1.5
        seen = []
        while time.monotonic() < until:
            if len(seen) < 30:
                taken = other.take()
                assert taken is not None
                seen.append(taken.number)
                taken.add({"accuracy": 0.5})
                other.finish(taken)
            else:
                assert not other._revived(other._trials())
                time.sleep(0.05)
    assert trial.number not in seen
    assert busy.finish(trial)


def drawn(url: str, search: search_space.Search, **axes: Any) -> list[list[TrialSpec]]:
    told = search_space.plan(DIGITS, search=search, trials=12, seeds=2, **axes)
    found, cells = TrialQueue(url, "shared", told, DIGITS), []
    while (trial := found.take()) is not None:
        cells.append(trial.specs)
        for cell in trial.specs:
            alpha = cell.setting.alpha if cell.setting else 0.0
            trial.add({"accuracy": 1 - abs(alpha - 0.6)})
        found.finish(trial)
    return cells


@pytest.mark.parametrize("search", ["random", "guided"])
def test_drawn_settings_have_each_seed_and_lie_where_they_may(
    tmp_path: Path, search: search_space.Search
) -> None:
    axes = {"alpha": "0.2:0.9", "temperature": "1:8", "method": "kd,dkd"}
    cells = drawn(f"sqlite:///{tmp_path / 'one.db'}", search, **axes)
    assert cells[:2] == [[TrialSpec(None, 0)], [TrialSpec(None, 1)]]
    settings = []
    for one, two in cells[2:]:
        assert (one.seed, two.seed) == (0, 1)
        assert one.setting == two.setting
        settings.append(one.setting)
        assert 0.2 <= one.setting.alpha <= 0.9
        assert 1 <= one.setting.temperature <= 8
    assert len(set(settings)) == 12
    assert {one.method for one in settings} == {"kd", "dkd"}
    # What is drawn hangs on the trial alone, not on who draws it or when.
    assert cells == drawn(f"sqlite:///{tmp_path / 'two.db'}", search, **axes)


def test_guided_search_goes_where_it_is_good(tmp_path: Path) -> None:
    found = {
        search: [
            abs(cells[0].setting.alpha - 0.6)
            for cells in drawn(f"sqlite:///{tmp_path / search}.db", search, alpha="0:1")[2:]
            if cells[0].setting
        ]
        for search in ("random", "guided")
    }
    # Until ten are known, the two baselines among them, both draw blindly, and alike.
    assert found["random"][:8] == found["guided"][:8]
    assert max(found["guided"][8:]) < 0.2


def test_choices_of_a_draw_are_those_given(url: str) -> None:
    cells = drawn(url, "random", alpha="0,0.5,0.9", temperature="4")
    settings = {one[0].setting for one in cells[2:]}
    assert settings == {Setting("kd", 0.5, 4.0), Setting("kd", 0.9, 4.0)}


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("mysql://somebody@somewhere/there", "expected sqlite:///FILE or postgresql://.* of mysql"),
        ("nonsense", "can't use it"),
        ("sqlite:////no/such/folder/study.db", "can't use sqlite:////no/such/folder/study.db"),
        ("postgresql://me:secret@127.0.0.1:1/none", r"can't use postgresql://me:\*\*\*@127.0.0.1"),
    ],
)
def test_databases_that_can_not_be_used_are_told_without_the_password(
    given: str, names: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_queue, "_OPENINGS", 1)
    with pytest.raises(RunError, match=names) as error:
        study(given)
    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_driver_is_told_with_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    with pytest.raises(MissingExtraError, match=r"\[postgres\]"):
        study("postgresql://somebody@somewhere/there")


def test_braces_in_a_path_are_no_template(tmp_path: Path) -> None:
    place = tmp_path / "{name}"
    place.mkdir()
    assert study(f"sqlite:///{place / 'study.db'}").take() is not None
    assert (place / "study.db").exists()


def test_pruning_stops_who_is_worse_than_the_median_of_the_seed_s_others(url: str) -> None:
    told = search_space.plan(DIGITS, alpha="0.1:1:0.1", seeds=2, prune=True)
    found, stopped = TrialQueue(url, "shared", told, DIGITS), []
    while (trial := found.take()) is not None:
        cell, pruned = trial.specs[0], False
        if cell.setting is not None:
            accuracy = 0.0 if cell.setting.alpha > 0.8 else cell.setting.alpha
            for step in range(100 * cell.seed, 100 * cell.seed + 3):
                # The second seed is worse throughout.
                if pruned := trial.falls_behind(accuracy - cell.seed, step):
                    stopped.append((cell.setting.alpha, step))
                    break
        trial.add({"accuracy": None if pruned else 0.5})
        found.finish(trial, pruned=pruned)
    assert stopped == [(0.9, 0), (1.0, 0), (0.9, 100), (1.0, 100)]
    assert states(url) == {"COMPLETE": 18, "PRUNED": 4}
