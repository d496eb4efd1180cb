"""How time and memory grow with images, classes, stored views and the students of a sweep.

    python benchmarks/growth.py                          # a few minutes

Each figure is of a process of its own: small students on noise of 32x32 pixels, one after another
at different alphas, all with the same stored logits. Writes
`benchmarks/results/DATE-growth.json` and prints it.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np

from tutelage import environment, losses
from tutelage.data.datasets import Part
from tutelage.distillation import logit_cache
from tutelage.models import zoo
from tutelage.recipe import Schedule, Views
from tutelage.training import trainer

HERE = Path(__file__).parent
BASE = {"images": 4000, "classes": 10, "views": 2, "students": 1}
GROWN = {
    "images": [2000, 4000, 8000, 16000],
    "classes": [10, 100, 1000],
    "views": [1, 4, 16, 64],
    "students": [1, 2, 4, 8],
}


def one(images: int, classes: int, views: int, students: int) -> dict[str, float]:
    """Store the views of a teacher that costs nothing, train students, and say what it took."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (images, 32, 32, 3), np.uint8)
    train = Part(pixels, np.arange(images) % classes)
    few = Part(pixels[:250], train.labels[:250])
    schedule = Schedule(epochs=2, batch_size=128, learning_rate=0.01)
    settings = Views(distinct=views)
    origin = logit_cache.Origin(
        teacher="t",
        images="i",
        seed=0,
        flip=settings.flip,
        shift=settings.shift,
        cutout=0,
        precision="float32",
        shape=(images, classes),
    )
    epochs = []
    with tempfile.TemporaryDirectory() as folder:
        held = logit_cache.LogitCache(Path(folder) / "knowledge", origin)
        began = time.perf_counter()
        held.ask(lambda shown: random.normal(size=(len(shown), classes)), pixels, views)
        stored = time.perf_counter() - began
        for number in range(students):
            model = zoo.build("student-300k", images=pixels, classes=classes, seed=0)
            rows = trainer.fit(
                model,
                train,
                few,
                schedule=schedule,
                views=settings,
                seed=0,
                precision="float32",
                checkpoint=Path(folder) / f"checkpoint-{number}.npz",
                key=f"growth-{number}",
                targets=trainer.DistillationTargets(
                    held, [losses.KD()], [1.0], alpha=1 - number / students
                ),
            )
            epochs.append(rows[-1]["seconds"])
        whole = time.perf_counter() - began
        size = sum(file.stat().st_size for file in held.folder.iterdir())
    return {
        "seconds to store": round(stored, 2),
        "seconds an epoch": round(statistics.median(epochs), 2),
        "seconds in all": round(whole, 2),
        "megabytes on disk": round(size / 1e6, 2),
        "megabytes of memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000,
    }


def main() -> None:
    """Grow one thing at a time and write down what it takes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grow", nargs="+", choices=GROWN, default=list(GROWN))
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder for the JSON")
    parser.add_argument("--one", type=json.loads, help="measure this alone, and print it as JSON")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(**options.one)))
        return
    figures = []
    for grown in options.grow:
        for value in GROWN[grown]:
            size = BASE | {grown: value}
            line = [sys.executable, __file__, "--one", json.dumps(size)]
            done = subprocess.run(line, capture_output=True, text=True, check=True)
            figures.append({"grown": grown, **size, **json.loads(done.stdout.splitlines()[-1])})
            print(figures[-1], flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    target = options.out / f"{date.today()}-growth.json"
    written = {"figures": figures, "environment": environment.describe()}
    target.write_text(json.dumps(written, indent=1) + "\n")
    print(target)


if __name__ == "__main__":
    main()
