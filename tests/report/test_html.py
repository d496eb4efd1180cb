"""The page that a person reads: its figures, its form, what it says of damage, in a browser too."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser

from tests.conftest import watched
from tutelage import cli, recipe
from tutelage.errors import RunError
from tutelage.experiment import runner
from tutelage.experiment.prepare import prepare
from tutelage.formatting import points, rows
from tutelage.report.html import write
from tutelage.runs import compare, run_reader

CLASSES = ["$x$ 'y'", "<script>", "a & b"]  # in the order of their names
SMALL = {
    "schedule.teacher.epochs": 4,
    "schedule.student.epochs": 1,
    "schedule.teacher.batch_size": 16,
    "schedule.student.batch_size": 16,
    "data.name": "folder",
}
VOID = {"meta", "img", "br", "hr", "link", "input"}


def pictures(home: Path) -> Path:
    """A folder of colored pictures of three classes whose names are not to be trusted."""
    random = np.random.default_rng(0)
    for part, count in (("train", 48), ("test", 20)):
        for number, name in enumerate(CLASSES):
            folder = home / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(0, 236, (8, 8, 3))
                pixels[..., number] += 20
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    return home


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs of two seeds."""
    home = tmp_path_factory.mktemp("page")
    data = str(pictures(home / "data"))
    for seed in (0, 1):
        told = recipe.load("digits", SMALL | {"data.path": data, "seed": seed})
        runner.run(prepare(told), home / "runs" / f"seed-{seed}")
    return home / "runs"


@pytest.fixture(scope="module")
def page(runs: Path) -> str:
    """The page of one run."""
    written = write([runs / "seed-0"])
    assert written.missing == ()
    assert written.path == runs / "seed-0" / "report.html"
    return written.path.read_text(encoding="utf-8")


class Reader(HTMLParser):
    """Reads a page as a browser would, and takes exception to what is not well formed."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        assert len(given) == len(attrs), f"{tag} has an attribute twice"
        self.tags.append((tag, given))
        if tag not in VOID:
            self.open.append(tag)
        self.ids += [value or "" for key, value in attrs if key == "id"]
        self.links += [value or "" for key, value in attrs if key in ("href", "src", "xlink:href")]
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if "td" in self.open or "th" in self.open:
            self.tables[-1][-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_the_page_s_figures_are_those_of_the_results(runs: Path, page: str) -> None:
    results = json.loads((runs / "seed-0" / "results.json").read_text())
    read = Reader(page)
    table = {row[0]: row[1:] for row in read.tables[0]}
    assert table.pop("") == list(results["models"])
    for model, told in zip(results["models"], rows(results["models"]), strict=True):
        column = [*results["models"]].index(model)
        shown = [row[column] for row in table.values()]
        assert shown == [cell for cell in told[1:] if cell]
    assert table["accuracy"][2] == f"{100 * results['models']['student']['accuracy']:.2f} %"
    assert results["verdict"] in read.text
    assert results["environment"]["command"] in read.text


def test_the_numbers_beside_charts_are_those_of_the_predictions(runs: Path, page: str) -> None:
    record = run_reader.read(runs / "seed-0")
    tables = Reader(page).tables
    matrices = [t for t in tables if t[0] == ["true class", *CLASSES]]
    assert len(matrices) == 4
    counts = {}
    for stage, table in zip(("teacher", "baseline", "student"), matrices, strict=False):
        given = record.logits[stage].argmax(axis=1)
        counts[stage] = [
            [int(((record.labels == i) & (given == j)).sum()) for j in range(3)] for i in range(3)
        ]
        assert [row[1:] for row in table[1:]] == [[str(n) for n in r] for r in counts[stage]]
    change = np.array(counts["student"]) - np.array(counts["baseline"])
    assert [[int(n) for n in row[1:]] for row in matrices[3][1:]] == change.tolist()
    (agreement,) = [t for t in tables if t[0] == ["class", "baseline", "student"]]
    same = record.logits["student"].argmax(1) == record.logits["teacher"].argmax(1)
    for i, row in enumerate(agreement[1:]):
        assert row[2] == f"{100 * same[record.labels == i].mean():.2f} %"


def test_pictures_are_those_that_the_teacher_alone_is_right_on(runs: Path, page: str) -> None:
    record = run_reader.read(runs / "seed-0")
    answers = {stage: z.argmax(axis=1) for stage, z in record.logits.items()}
    alone = (answers["teacher"] == record.labels) & (answers["student"] != record.labels)
    assert alone.any()
    shown = [given["alt"] for tag, given in Reader(page).tags if tag == "img"]
    telling = record.pictures["telling"]
    expected = [f"Test image: {CLASSES[label]}" for label in record.labels[telling]]
    assert len(set(expected)) == len(expected) > 0
    assert len(shown) == min(int(alone.sum()), 24) + len(telling)
    assert shown[-len(telling) :] == expected


def test_the_page_is_well_formed_and_needs_nothing_beside_it(page: str) -> None:
    read = Reader(page)
    assert len(read.ids) == len(set(read.ids))
    for link in read.links:
        assert link.startswith("data:image/png;base64,") or link[1:] in read.ids, link
    for used in re.findall(r"url\(([^)]*)\)", page):
        assert used[1:] in read.ids
    tags = {tag for tag, _ in read.tags}
    assert not tags & {"script", "iframe", "link", "object", "form"}
    assert not any(key.startswith("on") or key == "style" for _, g in read.tags for key in g)
    drawn = [given for tag, given in read.tags if tag == "svg" and "aria-hidden" not in given]
    assert len(drawn) == 14
    assert all(given["role"] == "img" and given["aria-label"] for given in drawn)
    assert "https://" not in page


def test_names_from_outside_are_shown_and_never_run(page: str) -> None:
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    for name in CLASSES:
        assert name in Reader(page).text


def test_the_same_runs_give_the_same_bytes(runs: Path, page: str, tmp_path: Path) -> None:
    written = write([runs / "seed-0"], tmp_path / "again.html")
    assert written.path.read_text(encoding="utf-8") == page
    first = {path.name: path.read_bytes() for path in (runs / "seed-0/report-figures").iterdir()}
    again = {path.name: path.read_bytes() for path in written.figures.iterdir()}
    assert first == again
    assert {name.partition(".")[2] for name in again} == {"png", "svg"}
    assert len(again) == 28


def test_seeds_are_told_with_their_spread_by_the_command_as_a_user_runs_it(
    runs: Path, tmp_path: Path
) -> None:
    line = [sys.executable, "-m", "tutelage", "report", str(runs / "seed-0"), str(runs / "seed-1")]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "Report: report.html, charts: report-figures\n"
    assert (tmp_path / "report.html").stat().st_size < 1_000_000
    read = Reader((tmp_path / "report.html").read_text(encoding="utf-8"))
    models = [
        json.loads((runs / f"seed-{seed}" / "results.json").read_text())["models"]
        for seed in (0, 1)
    ]
    values = [100 * figures["student"]["accuracy"] for figures in models]
    told = f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f} %"
    assert read.tables[0][1][3] == told
    assert "over 2 seeds the student is" in read.text
    assert "Predictions of 2 seeds are pooled" in read.text


def test_times_are_shown_beside_the_accuracy_where_they_were_measured(
    runs: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(runs / "seed-0", tmp_path / "run")
    assert "tutelage profile" in write([folder]).path.read_text(encoding="utf-8")
    times = {"single": {"median": 0.0123, "threads": 1}, "bytes": 1_234_000}
    rows = [
        {"name": "student", "format": "onnx", "precision": "int8", "accuracy": 0.75} | times,
        {"name": "teacher", "format": "keras", "precision": "float32"} | times,
    ]
    (folder / "profile.json").write_text(json.dumps({"models": rows}))
    text = write([folder]).path.read_text(encoding="utf-8")
    (table,) = [table for table in Reader(text).tables if "ms for one image" in table[0]]
    models = json.loads((folder / "results.json").read_text())["models"]
    assert table[1:] == [
        ["student, onnx int8", "12.3", "1", "1.23 MB", "75.00 %"],
        [
            "teacher, keras float32",
            "12.3",
            "1",
            "1.23 MB",
            f"{models['teacher']['accuracy']:.2%}".replace("%", " %"),
        ],
    ]
    assert "tutelage profile" not in text


def test_recipes_are_shown_beside_each_other(runs: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        shutil.copytree(runs / f"seed-{seed}", tmp_path / "runs" / f"a-{seed}")
        other = shutil.copytree(runs / f"seed-{seed}", tmp_path / "runs" / f"b-{seed}")
        text = (other / "recipe.toml").read_text()
        assert "\nalpha = 0.9" in text
        (other / "recipe.toml").write_text(text.replace("\nalpha = 0.9", "\nalpha = 0.25"))
    written = write([tmp_path / "runs"], tmp_path / "page.html")
    read = Reader(written.path.read_text(encoding="utf-8"))
    told = compare.compare([run_reader.read(f) for f in run_reader.find([tmp_path / "runs"])])
    table = {row[0]: row[1:] for row in read.tables[0]}
    assert [*table] == ["recipe", "loss.alpha=0.9", "loss.alpha=0.25"]
    for group in told["groups"]:
        mean = group["models"]["student"]["accuracy"]["mean"]
        assert table[group["name"]][0] == "2"
        assert table[group["name"]][3].startswith(f"{100 * mean:.2f} ± ")
        assert points(group["worth"], told["test"]) == table[group["name"]][4]
    assert table["loss.alpha=0.25"][5] == points(told["groups"][1]["against"], told["test"])
    assert {"recipe-1-results", "recipe-2-results"} <= set(read.ids)
    assert len(read.ids) == len(set(read.ids))


@pytest.mark.parametrize(
    "name", ["recipe.toml", "results.json", "history.csv", "predictions.npz", "pictures.npz"]
)
def test_damage_is_said_and_the_rest_is_shown(runs: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "run"
    shutil.copytree(runs / "seed-0", folder)
    content = (folder / name).read_bytes()
    cut = content[: len(content) * 2 // 3] + (b"\n" if name == "history.csv" else b"")
    (folder / name).write_bytes(cut + b"teacher,one\n" if name == "history.csv" else cut)
    written = write([folder])
    assert written.missing == (f"{folder}: {name} is damaged",)
    read = Reader(written.path.read_text(encoding="utf-8"))
    assert f"{name} is damaged" in read.text
    titles = {
        "results.json": "with one seed",
        "history.csv": "Accuracy during training",
        "predictions.npz": "Confusion matrix of the student",
    }
    for file, expected in titles.items():
        assert bool(re.search(expected, read.text)) == (file != name), expected
    images = [given for tag, given in read.tags if tag == "img"]
    assert bool(images) == (name != "pictures.npz")


def test_a_half_finished_run_shows_its_epochs(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "half"
    folder.mkdir()
    for name in ("run.json", "recipe.toml", "history.csv"):
        shutil.copy(runs / "seed-0" / name, folder)
    assert cli.main(["report", str(folder)]) == 0
    out, err = capsys.readouterr()
    assert out == f"Report: {folder / 'report.html'}, charts: {folder / 'report-figures'}\n"
    assert err.count("\n") == 1
    assert f"{folder}: results.json is missing" in err
    read = Reader((folder / "report.html").read_text(encoding="utf-8"))
    assert "half (unfinished)" in read.text
    assert "Accuracy during training" in read.text
    (folder / "recipe.toml").unlink()
    (folder / "history.csv").unlink()
    assert cli.main(["report", str(folder)]) == 2
    assert "nothing to show" in capsys.readouterr().err


def test_what_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "no run" in capsys.readouterr().err
    (tmp_path / "file").touch()
    folder = sweep(tmp_path / "sweep", [trial("kd", 0.5, 2.0)])
    with pytest.raises(RunError, match="report"):
        write([folder], tmp_path / "file" / "report.html")


def trial(
    method: str, alpha: float, temperature: float | None, seed: int = 0, accuracy: float = 0.9
) -> dict[str, Any]:
    return {
        "method": method,
        "alpha": alpha,
        "temperature": temperature,
        "seed": seed,
        "accuracy": accuracy,
        "nll": 0.3,
        "state": "complete",
    }


def sweep(folder: Path, trials: list[dict[str, Any]]) -> Path:
    folder.mkdir()
    (folder / "sweep.json").write_text(json.dumps({"trials": trials, "said": ["kd <b>won</b>"]}))
    return folder


def test_a_sweep_s_map_has_the_means_over_seeds(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    places = [(a, t, s) for a in (0.1, 0.5, 0.9) for t in (1.0, 4.0) for s in range(3)]
    trials = [trial("kd", a, t, s, random.uniform(0.8, 0.9)) for a, t, s in places]
    trials += [trial("baseline", 0.0, None, s, 0.85) for s in range(3)]
    trials += [trial("kd", 0.7, 1.0) | {"state": "pruned", "accuracy": None}]
    written = write([sweep(tmp_path / "sweep", trials)])
    assert written.path == tmp_path / "sweep" / "report.html"
    read = Reader(written.path.read_text(encoding="utf-8"))
    assert "kd <b>won</b>" in read.text
    assert "baseline: 85.00 %, NLL 0.3000 (3 seeds)." in read.text
    accuracies: dict[tuple[float, float], list[float]] = {}
    for one in trials[: len(places)]:
        accuracies.setdefault((one["alpha"], one["temperature"]), []).append(one["accuracy"])
    means = {place: 100 * np.mean(of) for place, of in accuracies.items()}
    drawing = (written.figures / "sweep-1-kd.svg").read_text(encoding="utf-8")
    numbers = re.findall(r">(\d\d\.\d\d)</text>", drawing)
    assert numbers == [f"{means[a, t]:.2f}" for a in (0.1, 0.5, 0.9) for t in (1.0, 4.0)]
    best = max(means, key=lambda place: means[place])
    assert (
        f"Best: alpha {best[0]:g}, temperature {best[1]:g}, with {means[best]:.2f} %" in read.text
    )
    assert [row[:2] for row in read.tables[0][1:2]] == [[f"{best[0]:g}", f"{best[1]:g}"]]


def test_a_guided_sweep_is_shown_as_points(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    trials = [trial("../kd", a, 8 * a + 1, 0, a) for a in random.uniform(0, 1, 20)]
    written = write([sweep(tmp_path / "sweep", trials)])
    assert "The star marks the best." in written.path.read_text(encoding="utf-8")
    assert [p.name for p in written.figures.glob("*.svg")] == ["sweep-1--kd.svg"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_a_browser_shows_it_all_without_a_word(
    browser: Browser, runs: Path, page: str, width: int, scheme: Any, faint: Any
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    tab, said, asked = watched(context)
    address = (runs / "seed-0" / "report.html").as_uri()
    tab.goto(address)
    for fold in tab.locator("summary").all():
        fold.click()  # what is folded may be the widest
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [address]
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    boxes = tab.evaluate(
        "[...document.querySelectorAll('figure > svg, img')].map(e => e.getBoundingClientRect())"
        ".map(b => [b.width, b.height, b.right])"
    )
    assert len(boxes) > 14
    assert all(w > 90 and h > 90 and right <= width for w, h, right in boxes)
    assert faint(tab) == []
    ground = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == (scheme == "light")
    context.close()


def test_the_keyboard_reaches_contents_tables_and_numbers(browser: Browser, runs: Path) -> None:
    tab = browser.new_page(viewport={"width": 360, "height": 800})
    tab.goto((runs / "seed-0" / "report.html").as_uri())
    reached = []
    for _ in range(14):
        tab.keyboard.press("Tab")
        reached.append(tab.evaluate("document.activeElement.textContent.trim().split('\\n')[0]"))
    titles = tab.locator("nav a").all_inner_texts()
    assert reached[0] == "Skip to the report"
    assert reached[1 : len(titles) + 1] == titles
    assert tab.evaluate("document.activeElement.tagName") in ("DIV", "SUMMARY")
    tab.close()
