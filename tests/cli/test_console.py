"""What a person sees, at a terminal and in a file."""

from __future__ import annotations

import io
import re
import time

import pytest
from rich.console import Console

from tutelage.cli import console
from tutelage.cli.console import ConsoleProgress

FIGURES = {
    "accuracy": 0.9123,
    "precision": 0.9,
    "recall": 1.0,
    "f1": 0.95,
    "nll": 0.31416,
    "ece": 0.01234,
    "agreement": 0.5,
    "kl": 0.25,
    "parameters": 2_201_418,
    "macs": 153_815_552,
    "bytes": 8_840_000,
    "seconds": 725.4,
}
MODELS = dict.fromkeys(("teacher", "baseline", "student"), FIGURES)
LONG = "a note as long as a path that nobody would want broken in two " * 4


def row(epoch: int, accuracy: float = 0.5, seconds: float = 61.0) -> dict[str, float]:
    return {"epoch": epoch, "loss": 1.25, "val_accuracy": accuracy, "seconds": seconds}


def printed(models: dict, title: str = "pets on Pets", width: int = 80) -> str:
    file = io.StringIO()
    Console(file=file, width=width).print(console.table(models, title))
    return file.getvalue()


def plain() -> tuple[ConsoleProgress, io.StringIO]:
    file = io.StringIO()
    return ConsoleProgress(Console(file=file, width=80)), file


def terminal(width: int = 100) -> tuple[ConsoleProgress, io.StringIO]:
    file = io.StringIO()
    return ConsoleProgress(Console(file=file, force_terminal=True, width=width)), file


def shown(file: io.StringIO) -> str:
    """What was sent to a terminal, without its control sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue())


def times_left(file: io.StringIO) -> list[str]:
    """The last column of the epochs' lines."""
    return [line.split("  ")[-1] for line in file.getvalue().splitlines()[1:]]


def test_a_table_with_every_figure_fits_a_narrow_terminal() -> None:
    text = printed(MODELS)
    assert "pets on Pets" in text
    lines = {line.split("│")[1].strip(): line for line in text.splitlines() if "│" in line}
    told = ["91.23 %", "90.00 %", "100.00 %", "95.00 %", "0.3142", "1.23 %", "50.00 %", "0.2500"]
    told += ["2,201,418", "153.8 M", "8.84 MB", "12 min 05 s"]
    assert [line.count(cell) for line, cell in zip(lines.values(), told, strict=True)] == 12 * [3]
    assert max(map(len, text.splitlines())) <= 80


def test_a_row_that_no_model_has_a_figure_for_is_left_out() -> None:
    bare = {k: v for k, v in FIGURES.items() if k not in ("agreement", "kl", "seconds")}
    text = printed({"mine": bare})
    assert "accuracy" in text
    assert not re.search("agreement|KL|time", text)
    assert "agreement" in printed({"mine": bare, "other": FIGURES})


def test_names_are_shown_as_they_are() -> None:
    # Rich would take the one for a style and the other for the end of one.
    text = printed({"net[bold]": FIGURES, "net[/x]": FIGURES}, title="a [b] on c[/d]")
    for name in ("net[bold]", "net[/x]", "a [b] on c[/d]"):
        assert name in text


def test_a_long_name_is_folded_and_not_cut() -> None:
    name = "".join(f"model{i:02d}" for i in range(20))
    text = printed({name: FIGURES})
    assert max(map(len, text.splitlines())) <= 80
    assert name in re.sub(r"[^a-z0-9]", "", text)


def test_progress_is_plain_lines_where_there_is_no_terminal() -> None:
    progress, file = plain()
    progress.note(LONG)
    progress.stage("teacher", epochs=2, done=0, steps=10)
    progress.step(1, {"loss": 2.0})
    progress.epoch(row(1))
    progress.epoch(row(2, accuracy=0.875))
    note, begun, first, second = file.getvalue().splitlines()
    assert note == LONG
    assert begun == "teacher: 2 epochs"
    pattern = r"teacher 1/2  loss 1.2500  validation accuracy 50.00 %  1 min 01 s  1 min 01 s left"
    assert re.fullmatch(pattern, first)
    assert "validation accuracy 87.50 %" in second
    assert second.endswith("0 s left")
    assert "\x1b" not in file.getvalue()


def test_a_stage_gone_on_with_says_from_where() -> None:
    progress, file = plain()
    progress.stage("student", epochs=9, done=4, steps=10)
    progress.epoch(row(5))
    begun, epoch = file.getvalue().splitlines()
    assert begun == "student: resuming after epoch 4 of 9"
    assert epoch.startswith("student 5/9  ")


def test_a_stage_names_its_unit_in_the_plural() -> None:
    progress, file = plain()
    progress.stage("caching teacher logits", epochs=25, done=0, steps=10, unit="pass")
    assert file.getvalue() == "caching teacher logits: 25 passes\n"


def test_time_left_follows_from_the_epochs_of_this_run(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    progress, file = plain()
    progress.stage("student", epochs=10, done=6, steps=10)
    now += 60
    progress.epoch(row(7, seconds=60))
    now += 100
    progress.epoch(row(8, seconds=100))
    # 60 s for each of 3 epochs; then 80 s, the mean so far, for each of 2.
    assert times_left(file) == [
        "3 min 00 s left",
        "2 min 40 s left",
    ]


def test_time_left_counts_what_was_trained_of_an_interrupted_epoch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    progress, file = plain()
    progress.stage("student", epochs=3, done=0, steps=10)
    now += 6
    progress.step(9, {"loss": 2.0})
    progress.step(10, {"loss": 2.0})
    progress.epoch(row(1, seconds=60))  # of them 54 in another process
    assert times_left(file) == ["2 min 00 s left"]


def test_a_terminal_has_a_bar_with_stage_epoch_loss_accuracy_and_time() -> None:
    progress, file = terminal()
    progress.stage("teacher", epochs=3, done=0, steps=10)
    progress.epoch(row(1, accuracy=0.875))
    progress.step(5, {"loss": 0.625})
    bar = progress.bar
    assert bar is not None
    bar.refresh()
    (task,) = bar.tasks
    assert (task.completed, task.total) == (15, 30)
    last = shown(file).splitlines()[-1]
    assert last.startswith("teacher 2/3 ")
    assert "loss 0.625  validation accuracy 87.50 %" in last
    assert re.search(r"\d:\d\d:\d\d|-:--:--", last)  # time left
    assert "━" in last
    progress.close()


def test_a_bar_begins_where_the_stage_goes_on() -> None:
    progress, _ = terminal()
    progress.stage("teacher", epochs=4, done=3, steps=10)
    assert progress.bar is not None
    assert progress.bar.tasks[0].completed == 30
    progress.close()


def test_a_bar_fits_a_narrow_terminal() -> None:
    progress, file = terminal(width=60)
    progress.stage("teacher", epochs=4, done=0, steps=10)
    progress.step(5, {"loss": 0.625})
    assert progress.bar is not None
    progress.bar.refresh()
    progress.close()
    assert max(len(part) for part in re.split("[\r\n]", shown(file))) <= 60


def test_a_bar_goes_when_its_stage_ends_or_another_begins() -> None:
    progress, _ = terminal()
    progress.stage("teacher", epochs=1, done=0, steps=10)
    first = progress.bar
    progress.stage("baseline", epochs=1, done=0, steps=10)
    assert first is not None
    assert first.finished is False
    assert not first.live.is_started
    assert progress.bar is not first
    second = progress.bar
    progress.epoch(row(1))
    assert progress.bar is None
    assert second is not None
    assert not second.live.is_started
    progress.close()  # once more does no harm


def test_a_silence_is_broken_with_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_SILENCE", 0.05)
    progress, file = plain()
    with progress:
        time.sleep(0.3)
        progress.stage("teacher", epochs=1, done=0, steps=10)
        progress.step(3, {"loss": 2.0})
        time.sleep(0.3)
        progress.epoch(row(1))
        time.sleep(0.3)
    lines = [line for line in file.getvalue().splitlines() if "still working" in line]
    places = [line.split("still working")[0] for line in lines]
    assert list(dict.fromkeys(places)) == ["", "teacher 1/1, step 3 of 10: "]
    assert places[0] == places[-1] == ""
    time.sleep(0.2)
    assert len(file.getvalue().splitlines()) == len(lines) + 2  # silent again at the end


@pytest.mark.parametrize(
    ("done", "steps", "left"),
    [
        (0, (1, 20), "2 min 40 s"),  # 2 s a step, 80 more
        (1, (1, 20), "1 min 00 s"),
        (0, (11, 20), "5 min 20 s"),  # 10 of the steps before the interruption
    ],
)
def test_a_broken_silence_tells_the_time_left(
    done: int, steps: tuple[int, ...], left: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_SILENCE", 0.05)
    progress, file = plain()
    with progress:
        progress.stage("teacher", epochs=2, done=done, steps=50)
        progress.began -= 40
        for step in steps:
            progress.step(step, {"loss": 2.0})
        time.sleep(0.3)
    assert file.getvalue().splitlines()[1].endswith(f"after 0 s, {left} left")


def test_a_broken_silence_after_a_resumed_epoch_counts_all_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(console, "_SILENCE", 0.05)
    progress, file = plain()
    with progress:
        progress.stage("teacher", epochs=3, done=0, steps=50)
        progress.step(41, {"loss": 2.0})
        progress.epoch(row(1, seconds=100))  # 2 s a step, most of them in another process
        progress.step(10, {"loss": 2.0})
        time.sleep(0.3)
    # 100 s for 60 steps, 90 more.
    assert file.getvalue().splitlines()[2].endswith("after 0 s, 2 min 30 s left")


def test_a_single_pass_counts_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_SILENCE", 0.05)
    progress, file = plain()
    with progress:
        progress.stage("reading images", epochs=1, done=0, steps=60_000, unit="pass")
        progress.step(12_000, {})
        time.sleep(0.3)
        progress.epoch({"epoch": 1, "seconds": 61.0})
    begun, *_, ended = file.getvalue().splitlines()
    assert re.fullmatch(
        r"reading images: 12,000 of 60,000: still working after 0 s, \d s left", begun
    )
    assert ended == "reading images: 60,000  1 min 01 s"
    progress, file = terminal()
    progress.stage("reading images", epochs=1, done=0, steps=60_000, unit="pass")
    progress.step(12_000, {})
    assert progress.bar is not None
    progress.bar.refresh()
    assert "reading images: 12,000 of 60,000" in shown(file)
    progress.close()


def test_a_pass_of_unknown_length_counts_its_steps() -> None:
    for progress, file in (plain(), terminal()):
        progress.stage("counting batches", epochs=1, done=0, steps=0, unit="pass")
        progress.step(1_234, {})
        assert progress.where() == "counting batches: 1,234"
        if progress.bar is not None:
            progress.bar.refresh()
        progress.epoch({"epoch": 1, "seconds": 61.0})
        assert "counting batches: 1,234  1 min 01 s" in shown(file)


def test_a_bar_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_SILENCE", 0.05)
    progress, file = terminal()
    with progress:
        progress.stage("teacher", epochs=1, done=0, steps=10)
        time.sleep(0.3)
        assert "still working" not in shown(file)
        progress.epoch(row(1))
        time.sleep(0.3)
    assert "still working" in shown(file)


def test_work_after_the_last_epoch_counts_in_the_time_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    progress, file = plain()
    progress.stage("student", epochs=2, done=0, steps=10)
    progress.then(0.5)
    now += 60
    progress.epoch(row(1, seconds=60))
    now += 60
    progress.epoch(row(2, seconds=60))
    assert times_left(file) == [
        "1 min 30 s left",
        "30 s left",
    ]


def test_notes_are_shown_as_they_are() -> None:
    progress, file = plain()
    progress.note("[bold]runs[/x] :smile: 17")
    assert file.getvalue() == "[bold]runs[/x] :smile: 17\n"


def test_an_interrupt_is_told_where_it_was() -> None:
    progress, _ = plain()
    assert progress.where() == "the start"
    progress.stage("teacher", epochs=2, done=0, steps=10)
    assert progress.where() == "teacher 1/2"
    progress.epoch(row(1))
    assert progress.where() == "teacher 2/2"
    progress.epoch(row(2))
    assert progress.where() == "teacher 2/2"


def found(**changed: object) -> dict:
    """A sweep's findings: a grid of two alphas and two temperatures, one point pruned."""
    settings = [
        {"method": "kd", "alpha": alpha, "temperature": degree, "accuracy": accuracy}
        for alpha, degree, accuracy in ((0.9, 4.0, 0.95), (0.5, 1.0, 0.94), (0.5, 4.0, 0.93))
    ]
    return {"settings": settings, "best": settings[0], "baseline": {"accuracy": 0.91}} | changed


def drawn(told: dict, search: str) -> list[list[str]]:
    file = io.StringIO()
    for one in console.settings(told, search, "pets"):
        Console(file=file, width=80).print(one)
    lines = [line for line in file.getvalue().splitlines() if line[:1] in "│┃"]
    return [[cell.strip() for cell in re.split("[│┃]", line)[1:-1]] for line in lines]


def test_a_grid_is_a_map_of_alpha_and_temperature_with_the_baseline_and_the_best() -> None:
    assert drawn(found(), "grid") == [
        ["alpha", "T = 1", "T = 4"],
        ["0", "91.00", "91.00"],
        ["0.5", "94.00", "93.00"],
        ["0.9", "", "* 95.00"],
    ]


def test_each_method_has_a_map_and_one_without_temperature_a_single_column() -> None:
    other = {"method": "rkd", "alpha": 0.5, "temperature": None, "accuracy": 0.9}
    told = found()
    lines = drawn(told | {"settings": [*told["settings"], other]}, "grid")
    assert lines[4:] == [["alpha", ""], ["0", "91.00"], ["0.5", "90.00"]]


def test_drawn_settings_are_listed_best_first() -> None:
    lines = drawn(found(), "random")
    assert lines[:2] == [["method", "alpha", "T", "accuracy"], ["kd", "0.9", "4", "* 95.00"]]
    assert len(lines) == 4
