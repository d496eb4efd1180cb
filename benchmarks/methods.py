"""Every distillation method on one pair: a table of accuracies and what they cost.

    python benchmarks/methods.py digits                        # some 25 minutes on 2 cores
    python benchmarks/methods.py cifar10 --like digits --seeds 1 \
        --set schedule.teacher.epochs=5 --set schedule.student.epochs=3
    python benchmarks/methods.py --table                       # puts them into docs/methods.md

Each method has as many tries, by validation accuracy over the tuning seeds; the best is trained
anew with each seed of the table and measured on the test part, once. All methods of a seed have one
teacher, and students that begin alike and see the same images in the same order. Writes a JSON file
for each cell, `benchmarks/results/methods/RECIPE/METHOD-SEED.json`, and one for a method's tries; a
cell that is there is not done again. Teachers are kept in `runs/methods`.
"""

import argparse
import json
import os
import re
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from tries import trained

from tutelage import environment, recipe
from tutelage.errors import TrainingError, TutelageError
from tutelage.evaluation import metrics
from tutelage.experiment import runner
from tutelage.experiment.prepare import prepare
from tutelage.experiment.spec import Experiment
from tutelage.models import loading

HERE = Path(__file__).parent
CELLS = HERE / "results" / "methods"
PAGE = HERE.parent / "docs" / "methods.md"
TUNING_SEED = 100
ON_LOGITS = [{"alpha": 0.9}, {"alpha": 0.5}]
WEIGHTS = [1.0, 0.1, 0.01, 10.0]  # times the usual


def _with(*settings: dict[str, Any]) -> list[dict[str, Any]]:
    return [way | setting for setting in settings for way in ON_LOGITS]


# As many tries of each, its authors' settings first. A loss on inner layers stands beside the hard
# loss with its usual weight, so alpha is a half and the weight is what is tried.
TRIES: dict[str, list[dict[str, Any]]] = {
    "kd": _with({"temperature": 4.0}, {"temperature": 2.0}),
    "standardized-kd": _with({"temperature": 2.0}, {"temperature": 4.0}),
    "dkd": _with({"beta": 8.0}, {"beta": 2.0}),
    "nkd": _with({}, {"gamma": 3.5, "temperature": 3.0}),
    "dist": _with({}, {"temperature": 4.0}),
    "fitnet": [{"alpha": 0.5, "weight": 100.0 * x} for x in WEIGHTS],
    "attention-transfer": [{"alpha": 0.5, "weight": 1000.0 * x} for x in WEIGHTS],
    "similarity-preserving": [{"alpha": 0.5, "weight": 3000.0 * x} for x in WEIGHTS],
    "rkd": [{"alpha": 0.5, "weight": x} for x in WEIGHTS],
    "reviewkd": [{"alpha": 0.5, "weight": 5.0 * x} for x in WEIGHTS],
}
BASELINE = "baseline"


def with_loss(standing: Experiment, settings: dict[str, Any], seed: int) -> Experiment:
    """The experiment of a seed, with another distillation loss."""
    loss = recipe.Loss(**settings) if settings else standing.recipe.loss
    return replace(standing, recipe=replace(standing.recipe, seed=seed, loss=loss))


class Bench:
    """A recipe's cells: those that are there, and how the others are made."""

    def __init__(self, standing: Experiment, work: Path, cells: Path) -> None:
        self.standing, self.cells = standing, cells / standing.recipe.name
        key = runner.default_folder(standing.recipe).name
        self.work = work / key
        self.cells.mkdir(parents=True, exist_ok=True)

    def teacher(self, seed: int) -> Path:
        """The teacher of a seed, trained where it isn't there."""
        place = self.work / f"seed-{seed}" / "teacher.keras"
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            trained(with_loss(self.standing, {}, seed), "teacher", place, place.parent)
        return place

    def student(self, settings: dict[str, Any], seed: int) -> tuple[Any, list[dict[str, Any]]]:
        """A student with these loss settings, or the baseline where there are none."""
        teacher, stage = self.teacher(seed), "student" if settings else BASELINE
        os.environ["TUTELAGE_CACHE"] = str(teacher.parent)  # its logits serve every method
        with tempfile.TemporaryDirectory() as place:
            return trained(with_loss(self.standing, settings, seed), stage, teacher, Path(place))

    def chosen(self, method: str, seeds: int, like: str | None) -> dict[str, Any]:
        """The best of a method's tries on the validation part, or on that of another recipe."""
        file = self.cells.parent / (like or self.cells.name) / f"{method}-tries.json"
        settings = [{"name": method} | way for way in TRIES[method]]
        if not file.exists():
            figures = []
            for way in settings:
                scores = []
                for seed in range(TUNING_SEED, TUNING_SEED + seeds):
                    try:
                        model, _ = self.student(way, seed)
                        scores.append(score(model, self.standing.validation, None))
                    except TrainingError:  # a try that comes to nothing is a try
                        scores.append({"accuracy": 0.0})
                    print(f"{method}: {way}, seed {seed}: {scores[-1]['accuracy']:.2%}", flush=True)
                figures.append({"settings": way, "validation": scores})
            write(file, {"method": method, "tries": figures})
        tries = json.loads(file.read_text())["tries"]
        best = max(tries, key=lambda one: mean(one["validation"], "accuracy"))
        return dict(best["settings"])

    def cell(self, method: str, settings: dict[str, Any], seed: int) -> None:
        """Train a method's student with a seed, and measure it on the test part, once."""
        file = self.cells / f"{method}-{seed}.json"
        if file.exists():
            return
        model, rows = self.student(settings, seed)
        answers = loading.logits(
            loading.load_model(self.teacher(seed)), self.standing.data.test.images
        )
        test = score(model, self.standing.data.test, answers)
        write(
            file,
            {
                "method": method,
                "seed": seed,
                "settings": settings,
                "recipe": recipe.to_dict(self.standing.recipe),
                "validation": score(model, self.standing.validation, None),
                "test": test,
                "teacher": metrics.score(answers, self.standing.data.test.labels)["accuracy"],
                "seconds an epoch": statistics.median(row["seconds"] for row in rows),
                "environment": environment.describe(),
            },
        )
        print(f"{method}, seed {seed}: {test['accuracy']:.2%}", flush=True)


def score(model: Any, part: Any, teacher: Any) -> dict[str, float]:
    """A model's figures on a part of the data."""
    figures = metrics.score(loading.logits(model, part.images), part.labels, teacher)
    kept = ("accuracy", "nll", "ece", "agreement")
    return {name: round(figures[name], 6) for name in kept if name in figures}


def mean(rows: list[dict[str, float]], name: str) -> float:
    """Of a figure in several rows."""
    return statistics.mean(row[name] for row in rows)


def write(file: Path, result: dict[str, Any]) -> None:
    """A JSON file, for git."""
    file.write_text(json.dumps(result, indent=1) + "\n")


def table(folder: Path) -> str:
    """The Markdown table of a folder's cells, the best method first."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for file in sorted(folder.glob("*-[0-9]*.json")):
        cell = json.loads(file.read_text())
        runs.setdefault(cell["method"], []).append(cell)
    lines = [
        "| method | settings | seeds | accuracy | NLL | agreement | time per epoch |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    if not runs:
        return "\n".join(lines)
    # Of a cell made while the machine was busy with others, the time was set to null by hand.
    pace = {c["seed"]: c["seconds an epoch"] for c in runs.get(BASELINE, [])}
    order = sorted(runs, key=lambda name: -mean([c["test"] for c in runs[name]], "accuracy"))
    for name in order:
        cells = runs[name]
        settings = ", ".join(f"{k} {v:g}" for k, v in cells[0]["settings"].items() if k != "name")
        accuracy = spread([100 * c["test"]["accuracy"] for c in cells])
        agreement = 100 * mean([c["test"] for c in cells], "agreement")
        timed = [c for c in cells if c["seconds an epoch"] and pace.get(c["seed"])]
        ratios = [c["seconds an epoch"] / pace[c["seed"]] for c in timed]
        cost = f"{statistics.median(ratios):.2f}" if ratios else ""
        lines.append(
            f"| {name} | {settings} | {len(cells)} | {accuracy} % | "
            f"{mean([c['test'] for c in cells], 'nll'):.3f} | {agreement:.2f} % | {cost} |"
        )
    return "\n".join(lines)


def page(text: str, cells: Path) -> str:
    """A page with the table of each folder's cells between its two comments."""

    def filled(match: re.Match[str]) -> str:
        return f"{match[1]}\n{table(cells / match[2])}\n{match[3]}"

    return re.sub(r"(<!-- table: (\w+) -->)\n.*?(<!-- end -->)", filled, text, flags=re.DOTALL)


def spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    text = f"{statistics.mean(values):.2f}"
    return f"{text} ± {statistics.stdev(values):.2f}" if len(values) > 1 else text


def main() -> None:
    """Make the cells that are missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", nargs="?", default="digits")
    parser.add_argument("--methods", nargs="+", choices=[BASELINE, *TRIES], default=None)
    parser.add_argument("--tuning-seeds", type=int, default=3)
    parser.add_argument("--like", metavar="RECIPE", help="settings as chosen there, without tries")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="seed; others in other processes")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--work", type=Path, default=Path("runs/methods"))
    parser.add_argument("--out", type=Path, default=CELLS, help="folder for the cells")
    parser.add_argument("--table", action="store_true", help="write the tables, train nothing")
    options = parser.parse_args()
    if options.table:
        PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), options.out), encoding="utf-8")
        return
    if min(options.tuning_seeds, options.seeds) < 1 or options.first < 0:
        parser.error("expected at least one seed, the first of them not below 0")
    try:
        overrides = dict(recipe.parse_setting(text) for text in options.set)
        standing = prepare(recipe.load(options.recipe, overrides))
    except TutelageError as error:
        parser.error(str(error))
    bench = Bench(standing, options.work, options.out)
    for method in options.methods or [BASELINE, *TRIES]:
        settings = {}
        if method != BASELINE:
            settings = bench.chosen(method, options.tuning_seeds, options.like)
        for seed in range(options.first, options.first + options.seeds):
            bench.cell(method, settings, seed)
    print(table(bench.cells))


if __name__ == "__main__":
    main()
