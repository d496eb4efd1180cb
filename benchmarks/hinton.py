"""Section 3 of "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531), beside the paper.

    python benchmarks/hinton.py                      # all of it, some hours on 2 cores
    python benchmarks/hinton.py --only units-30-8    # one cell, with each seed
    python benchmarks/hinton.py --table              # puts them into docs/papers.md

A cell is the `mnist` recipe with other settings. A teacher is trained once, with seed 0, for all
cells that have the same settings for it, so that seeds differ in the student alone. As in the
paper, students learn from all 60,000 training images, for their settings have been chosen; only
where the bias of unseen classes is to be corrected are the validation images held out. Writes a
JSON file for each cell and seed, `benchmarks/results/hinton/CELL-SEED.json`; one that is there is
not made again. Models are kept in `runs/hinton`.
"""

import argparse
import json
import re
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tries import trained

from tutelage import environment, recipe
from tutelage.errors import TutelageError
from tutelage.evaluation import bias_correction
from tutelage.experiment.prepare import prepare
from tutelage.models import loading

HERE = Path(__file__).parent
CELLS = HERE / "results" / "hinton"
PAGE = HERE.parent / "docs" / "papers.md"
TEMPERATURES = (1.0, 2.5, 4.0, 8.0, 20.0)
THREE = 3


def _units(units: int) -> dict[str, dict[str, Any]]:
    model = {"student.model": f"mlp-{units}"}
    distilled = {f"units-{units}-{t:g}": model | {"loss.temperature": t} for t in TEMPERATURES}
    return {f"units-{units}-alone": model, **distilled}


# Not the paper's: the student sees what its teacher saw, new views in each epoch, and the teacher
# gives logits for each (arXiv 2106.05237).
SHIFTED = {"views.shift": 2, "views.distinct": 0}

# What each cell changes in the recipe.
SETTINGS: dict[str, dict[str, Any]] = {
    "main": {},
    "shifted": SHIFTED,
    "best": SHIFTED  # of so sure a teacher a student at twice this rate nearly diverges
    | {"data.validation": 0.005, "schedule.teacher.epochs": 200}
    | {"schedule.student.learning_rate": 0.01},
    "without-3": {"data.transfer": list("012456789")},
    "only-7-and-8": {"data.transfer": list("78")},
    **_units(300),
    **_units(30),
}


def stages(name: str) -> tuple[str, ...]:
    """What a cell trains: a student, a baseline, or both."""
    if name in ("main", "shifted"):
        return "baseline", "student"
    return ("baseline",) if name.endswith("alone") else ("student",)


def cell(name: str, seed: int, work: Path, overrides: dict[str, Any]) -> dict[str, Any]:
    """Train a cell's models with a seed, and count their errors on the test images."""
    settings = overrides | SETTINGS[name]
    experiment = prepare(recipe.load("mnist", settings))
    teacher = work / f"teacher-{experiment.keys()['teacher'][:8]}" / "teacher.keras"
    if not teacher.exists():
        teacher.parent.mkdir(parents=True, exist_ok=True)
        trained(experiment, "teacher", teacher, teacher.parent)
    experiment = replace(experiment, recipe=replace(experiment.recipe, seed=seed))
    unseen = list(experiment.stage("student").unseen)
    if not unseen:
        experiment = experiment.on_all_images()
    folder = work / f"{name}-{seed}"
    folder.mkdir(exist_ok=True)
    test, held_out = experiment.data.test, experiment.validation
    result: dict[str, Any] = {"cell": name, "seed": seed, "seconds": {}}
    answers = {"teacher": loading.logits(loading.load_model(teacher), test.images)}
    for stage in stages(name):
        model, rows = trained(experiment, stage, teacher, folder)
        answers[stage] = loading.logits(model, test.images)
        result["images"] = len(experiment.stage(stage).train)
        result["seconds"][stage] = sum(row["seconds"] for row in rows)
        if unseen:
            chosen_on = loading.logits(model, held_out.images)
            result["validation"] = errors(chosen_on, held_out.labels)
            offset = bias_correction.find(chosen_on, held_out.labels, unseen).offset
            result["corrected"] = corrected(test.labels, unseen, offset, answers[stage])
    result["errors"] = {stage: errors(logits, test.labels) for stage, logits in answers.items()}
    if "student" in answers:
        wrong = answers["student"].argmax(axis=1) != test.labels
        result["threes"] = int(wrong[test.labels == THREE].sum())
    return result | {
        "recipe": recipe.to_dict(experiment.recipe),
        "environment": environment.describe(),
    }


def corrected(
    labels: np.ndarray, unseen: list[int], offset: float, logits: np.ndarray
) -> dict[str, dict[str, Any]]:
    """The student's errors with the offset of the validation labels, and of the test labels."""
    best = bias_correction.find(logits, labels, unseen).offset
    figures: dict[str, dict[str, Any]] = {}
    for part, chosen in {"validation": offset, "test": best}.items():
        raised = bias_correction.add_offset(logits, unseen, chosen)
        threes = (raised.argmax(1) != labels)[labels == THREE]
        figures[part] = {
            "offset": chosen,
            "errors": errors(raised, labels),
            "threes": int(threes.sum()),
        }
    return figures


def errors(logits: np.ndarray, labels: np.ndarray) -> int:
    """How many images are misclassified."""
    return int((logits.argmax(axis=1) != labels).sum())


def write(file: Path, result: dict[str, Any]) -> None:
    """A JSON file, for git."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(result, indent=1) + "\n")


def read(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The cells of a folder by name, in the order of `SETTINGS`, each by its seeds."""
    cells_read = [json.loads(file.read_text()) for file in sorted(folder.glob("*-[0-9].json"))]
    return {
        name: cells for name in SETTINGS if (cells := [c for c in cells_read if c["cell"] == name])
    }


def results_table(cells: dict[str, list[dict[str, Any]]]) -> str:
    """The section's figures: test errors of 10,000, the paper's and ours."""

    def counts(name: str, *keys: str) -> list[float]:
        values = []
        for one in cells.get(name, []):
            for key in keys:
                one = one[key]
            values.append(one)
        return values

    def teacher(name: str) -> str:
        return spread(counts(name, "errors", "teacher")[:1])

    def baseline(name: str) -> str:
        return spread(counts(name, "errors", "baseline"))

    def student(name: str) -> str:
        return spread(counts(name, "errors", "student"))

    def threes(name: str, *keys: str) -> str:
        return f" ({spread(counts(name, *keys, 'threes'))} of the 1,010 threes)"

    def both(name: str, *keys: str) -> str:
        return spread(counts(name, *keys, "errors")) + threes(name, *keys)

    def percent(name: str, *keys: str) -> str:
        return f"{spread([count / 100 for count in counts(name, *keys)])} %"

    bias = "corrected", "validation"
    cheating = "corrected", "test"
    rows = [
        ("teacher, 2x1200", "67", "main", teacher),
        ("2x800 alone", "146", "main", baseline),
        ("2x800 distilled", "74", "main", student),
        ("2x800 alone, on shifted views", "", "shifted", baseline),
        ("2x800 distilled, on shifted views", "", "shifted", student),
        ("another teacher, 2x1200", "67", "best", teacher),
        ("2x800 distilled from it, on shifted views", "", "best", student),
        (
            "no 3 in the transfer set",
            "206 (133)",
            "without-3",
            lambda n: student(n) + threes(n),
        ),
        ("the same, bias chosen on validation labels", "", "without-3", lambda n: both(n, *bias)),
        ("the same, on test labels", "109 (14)", "without-3", lambda n: both(n, *cheating)),
        (
            "only 7s and 8s in the transfer set",
            "47.3 %",
            "only-7-and-8",
            lambda n: percent(n, "errors", "student"),
        ),
        (
            "the same, bias chosen on validation labels",
            "",
            "only-7-and-8",
            lambda n: percent(n, *bias, "errors"),
        ),
        (
            "the same, on test labels",
            "13.2 %",
            "only-7-and-8",
            lambda n: percent(n, *cheating, "errors"),
        ),
    ]
    lines = ["| test errors | paper | ours | seeds |", "|---|---:|---:|---:|"]
    for label, paper, name, ours in rows:
        if name in cells:
            seeds = 1 if ours is teacher else len(cells[name])
            lines.append(f"| {label} | {paper} | {ours(name)} | {seeds} |")
    return "\n".join(lines)


def units_table(cells: dict[str, list[dict[str, Any]]]) -> str:
    """Errors by hidden units and temperature, and those of the same net alone."""
    temperatures = [f"T = {t:g}" for t in TEMPERATURES]
    lines = [
        "| units | " + " | ".join([*temperatures, "alone", "seeds"]) + " |",
        "|---|" + "---:|" * (len(temperatures) + 2),
    ]
    for units in (300, 30):
        alone = [one["errors"]["baseline"] for one in cells.get(f"units-{units}-alone", [])]
        row, seeds = [], [len(alone)]
        for t in TEMPERATURES:
            students = cells.get(f"units-{units}-{t:g}", [])
            row.append(spread([one["errors"]["student"] for one in students]))
            seeds.append(len(students))
        if any(seeds):
            lines.append(f"| 2x{units} | {' | '.join(row)} | {spread(alone)} | {max(seeds)} |")
    return "\n".join(lines)


def page(text: str, folder: Path) -> str:
    """A page with the tables of a folder's cells between their comments."""
    tables = {"results": results_table, "units": units_table}

    def filled(match: re.Match[str]) -> str:
        return f"{match[1]}\n{tables[match[2]](read(folder))}\n{match[3]}"

    return re.sub(r"(<!-- table: (\w+) -->)\n.*?(<!-- end -->)", filled, text, flags=re.DOTALL)


def spread(values: list[float]) -> str:
    """Mean and standard deviation, whole numbers as such."""
    if len(values) < 2:
        return "".join(f"{value:g}" for value in values)
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"


def main() -> None:
    """Make the cells that are missing, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="seed; others in other processes")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--work", type=Path, default=Path("runs/hinton"))
    parser.add_argument("--out", type=Path, default=CELLS, help="folder for the cells")
    parser.add_argument("--table", action="store_true", help="write the tables, train nothing")
    options = parser.parse_args()
    if options.table:
        PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), options.out), encoding="utf-8")
        return
    if options.seeds < 1 or options.first < 0:
        parser.error("expected at least one seed, the first of them not below 0")
    try:
        overrides = dict(recipe.parse_setting(text) for text in options.set)
        recipe.load("mnist", overrides)
    except TutelageError as error:
        parser.error(str(error))
    for name in options.only:
        for seed in range(options.first, options.first + options.seeds):
            file = options.out / f"{name}-{seed}.json"
            if not file.exists():
                write(file, cell(name, seed, options.work, overrides))
    cells = read(options.out)
    print(results_table(cells), units_table(cells), sep="\n\n")


if __name__ == "__main__":
    main()
