"""What precision and the number of stored views do to a student's accuracy.

    python benchmarks/accuracy.py runs/cifar10           # an hour on 2 cores
    python benchmarks/accuracy.py runs/cifar10 --images 2000 --epochs 4 --seeds 1

RUN is a finished run: its teacher, its student's model, loss and schedule are used, but fewer of
its training images and epochs. Students of one seed begin alike, and see the same images in the
same order; they differ in the precision that teacher and student compute in, or in how many views
of an image they see. They are judged on validation images and on training images that they were
not shown; the test part is not touched. Writes `benchmarks/results/DATE-accuracy.json` after each.
"""

import argparse
import json
import os
import statistics
import tempfile
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
from tries import trained

from tutelage import environment, recipe
from tutelage.data.datasets import Part
from tutelage.evaluation import metrics
from tutelage.experiment.prepare import prepare
from tutelage.experiment.spec import Experiment
from tutelage.models import loading

HERE = Path(__file__).parent
JUDGED_ON = 10_000


def parts(experiment: Experiment, images: int) -> tuple[Part, Part]:
    """Images to learn from, and others to be judged on, the validation part among them."""
    order = np.random.default_rng(0).permutation(len(experiment.train))
    shown, rest = np.split(order, [images])
    rest = rest[: max(JUDGED_ON - len(experiment.validation), 0)]
    pixels, labels = experiment.train.images, experiment.train.labels
    judged = Part(
        np.concatenate([experiment.validation.images, pixels[rest]]),
        np.concatenate([experiment.validation.labels, labels[rest]]),
    )
    return Part(pixels[shown], labels[shown]), judged


def main() -> None:
    """Train all students, seed by seed, and print means and standard deviations."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--views", type=int, nargs="+", default=[1, 4, 8, 16], help="in float32")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder for the JSON")
    options = parser.parse_args()
    experiment = prepare(recipe.load(options.run / "recipe.toml"))
    if not experiment.recipe.schedule.student.batch_size <= options.images < len(experiment.train):
        parser.error(f"--images: expected a batch at least and fewer than {len(experiment.train)}")
    if (
        min(options.epochs, options.seeds, *options.views) < 1
        or max(options.views) > options.epochs
    ):
        parser.error("expected at least one epoch, seed and view, and no more views than epochs")
    train, judged = parts(experiment, options.images)
    most = max(options.views)
    ways = [("float32", views) for views in sorted(options.views)] + [("bfloat16", most)]
    figures: dict[str, list[dict[str, float]]] = {}
    target = options.out / f"{date.today()}-accuracy.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            os.environ["TUTELAGE_CACHE"] = folder  # answers of no use to anybody else
            for precision, distinct in ways:
                shorter = replace(
                    experiment.recipe,
                    seed=seed,
                    views=replace(experiment.recipe.views, distinct=distinct),
                    schedule=replace(
                        experiment.recipe.schedule,
                        student=replace(experiment.recipe.schedule.student, epochs=options.epochs),
                    ),
                )
                changed = replace(experiment, recipe=shorter, train=train, precision=precision)
                place = Path(tempfile.mkdtemp(dir=folder))
                model, rows = trained(changed, "student", options.run / "teacher.keras", place)
                score = metrics.score(loading.logits(model, judged.images), judged.labels)
                figure = {
                    "accuracy": score["accuracy"],
                    "nll": score["nll"],
                    "seconds an epoch": statistics.median(row["seconds"] for row in rows),
                }
                name = f"{precision}, {distinct} views"
                figures.setdefault(name, []).append(figure)
                print(f"seed {seed}, {name}: {figure['accuracy']:.2%}", flush=True)
                written = {
                    "images": options.images,
                    "epochs": options.epochs,
                    "judged on": len(judged),
                    "figures": figures,
                    "environment": environment.describe(),
                }
                target.write_text(json.dumps(written, indent=1) + "\n")
    for name, rows in figures.items():
        values = [100 * row["accuracy"] for row in rows]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"{name:24} {statistics.mean(values):6.2f} % (standard deviation {spread:.2f})")
    print(target)


if __name__ == "__main__":
    main()
