"""Settings of one party of a recipe, tried on the validation part with several seeds.

    python benchmarks/tries.py --seeds 6 digits baseline schedule.student.learning_rate=0.02 \
        "schedule.student.learning_rate=0.1 schedule.student.weight_decay=0.02"

Each TRY is a list of settings as in `tutelage run --set`; the recipe as it stands is tried first.
The party is `teacher`, `baseline` or `student`; a seed's students learn from one teacher. All are
judged as a run saves them, on the validation part; the test part is not touched. Writes
`benchmarks/results/DATE-tries-RECIPE-PARTY.json` after each.
"""

import argparse
import json
import os
import statistics
import tempfile
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from tutelage import environment, recipe
from tutelage.errors import TutelageError
from tutelage.evaluation import metrics
from tutelage.experiment import stages
from tutelage.experiment.prepare import prepare
from tutelage.experiment.spec import Experiment
from tutelage.models import loading
from tutelage.progress import EpochLog, Progress
from tutelage.runs.run_folder import STAGES

HERE = Path(__file__).parent
AS_IT_STANDS = "as it stands"


def trained(
    experiment: Experiment, name: str, teacher: Path, folder: Path
) -> tuple[Any, list[EpochLog]]:
    """Train a stage as a run does, save it as `folder/NAME.keras`; its model and epochs."""
    stage, targets = experiment.stage(name), None
    if stage.targets is not None:
        targets, _ = stages.targets(stage, teacher, Progress())
    model, rows, _ = stages.train(stage, targets, checkpoint=folder / f"{name}.npz")
    model.save(folder / f"{name}.keras")
    return model, rows


def main() -> None:
    """Try all settings, seed by seed, and print means and standard deviations."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("party", choices=STAGES)
    parser.add_argument("tries", nargs="*", metavar="TRY", default=[])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder for the JSON")
    options = parser.parse_args()
    if options.seeds < 1:
        parser.error("--seeds: expected one at least")
    try:
        settings = {AS_IT_STANDS: {}} | {
            text: dict(recipe.parse_setting(word) for word in text.split())
            for text in options.tries
        }
        recipes = {text: recipe.load(options.recipe, values) for text, values in settings.items()}
        standing = prepare(recipes[AS_IT_STANDS])
    except TutelageError as error:
        parser.error(str(error))
    figures: dict[str, list[dict[str, float]]] = {text: [] for text in recipes}
    target = options.out / f"{date.today()}-tries-{Path(options.recipe).stem}-{options.party}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            os.environ["TUTELAGE_CACHE"] = name  # logits that no other run uses
            teacher = folder / "teachers" / "teacher.keras"
            if options.party == "student":
                teacher.parent.mkdir()
                experiment = replace(standing, recipe=replace(standing.recipe, seed=seed))
                trained(experiment, "teacher", teacher, teacher.parent)
            for text, tried in recipes.items():
                place = Path(tempfile.mkdtemp(dir=folder))
                experiment = replace(standing, recipe=replace(tried, seed=seed))
                model, _ = trained(experiment, options.party, teacher, place)
                held_out = loading.logits(model, experiment.validation.images)
                score = metrics.score(held_out, experiment.validation.labels)
                figure = {name: score[name] for name in ("accuracy", "nll")}
                figures[text].append(figure)
                print(f"seed {seed}, {text}: {figure['accuracy']:.2%}", flush=True)
                written = {
                    "recipe": recipe.to_dict(standing.recipe),
                    "party": options.party,
                    "seeds": options.seeds,
                    "figures": figures,
                    "environment": environment.describe(),
                }
                target.write_text(json.dumps(written, indent=1) + "\n")
    for text, rows in figures.items():
        values = [100 * row["accuracy"] for row in rows]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        nll = statistics.mean(row["nll"] for row in rows)
        print(f"{text}: {statistics.mean(values):.2f} ± {spread:.2f} %, NLL {nll:.3f}")
    print(target)


if __name__ == "__main__":
    main()
