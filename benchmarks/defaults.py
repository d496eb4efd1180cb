"""How much a student gains over its baseline at several alphas, in situations that people have.

    python benchmarks/defaults.py --processes 2        # hours on two cores, minutes on a GPU

Each situation is a small training on part of the JPEG copy of CIFAR-10: a teacher, a baseline and
a student for each alpha, with several seeds. Alphas share teacher and baseline. The validation
accuracies of teacher and baseline, which a default may depend on, and the test accuracies of all
are written to `benchmarks/results/DATE-defaults.json`.
"""

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

import tutelage
from tutelage import environment
from tutelage.data import datasets
from tutelage.data.content import Part

HERE = Path(__file__).parent
TRAIN, TEST = 4000, 4000
EPOCHS = 16
# What differs from the recipe `distill` in each situation; `images` names a function below.
SITUATIONS: dict[str, dict[str, Any]] = {
    "usual": {},
    "few epochs": {"schedule.teacher.epochs": 4, "schedule.student.epochs": 4},
    "weak teacher": {"schedule.teacher.epochs": 2},
    "equal teacher": {"schedule.teacher.epochs": 3},
    "poor teacher": {"schedule.teacher.epochs": 1},
    "weak teacher, few epochs": {"schedule.teacher.epochs": 1, "schedule.student.epochs": 4},
    "unbalanced": {"images": "unbalanced"},
    "many classes": {"images": "rotated"},
    "tiny student": {"student.model": "defaults:tiny"},
    "large student": {"student.model": "defaults:teacher"},
    "few images": {"images": "few"},
}
COMMON: dict[str, Any] = {
    "teacher.model": "defaults:teacher",
    "student.model": "defaults:small",
    "schedule.teacher.epochs": EPOCHS,
    "schedule.student.epochs": EPOCHS,
    "schedule.teacher.cutout": 0,
    "views.distinct": 4,
    "data.validation": 0.15,
}


def network(filters: tuple[int, ...], classes: int) -> Any:
    """A plain convolutional network in Keras with normalization built in."""
    import keras
    from keras import layers

    inputs = keras.Input((32, 32, 3))
    x = layers.Rescaling(1 / 64, -2)(inputs)
    for number, count in enumerate(filters):
        x = layers.Conv2D(count, 3, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization(momentum=0.9)(x)
        x = layers.ReLU()(x)
        if number + 1 < len(filters):
            x = layers.MaxPooling2D(2)(x)
    return keras.Model(inputs, layers.Dense(classes)(layers.GlobalAveragePooling2D()(x)))


def teacher(classes: int) -> Any:
    """270 thousand parameters."""
    return network((48, 96, 192, 96), classes)


def small(classes: int) -> Any:
    """24 thousand parameters."""
    return network((16, 32, 64), classes)


def tiny(classes: int) -> Any:
    """2 thousand parameters."""
    return network((6, 12, 12), classes)


def balanced(train: Part, seed: int, count: int = TRAIN) -> Part:
    """The same number of images of each class."""
    random = np.random.default_rng(seed)
    each = [np.flatnonzero(train.labels == k) for k in range(10)]
    return train.take(np.concatenate([random.choice(x, count // 10, False) for x in each]))


def few(train: Part, seed: int) -> Part:
    """A tenth of the images."""
    return balanced(train, seed, TRAIN // 8)


def unbalanced(train: Part, seed: int) -> Part:
    """Class sizes fall to a twentieth."""
    chosen = balanced(train, seed, 2 * TRAIN)
    sizes = np.geomspace(2 * TRAIN // 10, 2 * TRAIN // 200, 10).astype(int)
    return chosen.take(
        np.concatenate([np.flatnonzero(chosen.labels == k)[:n] for k, n in enumerate(sizes)])
    )


def rotated(train: Part, seed: int) -> Part:
    """Forty classes: each class in each of four orientations."""
    chosen = balanced(train, seed)
    turns = np.arange(len(chosen)) % 4
    images = np.stack([np.rot90(x, t) for x, t in zip(chosen.images[:], turns, strict=True)])
    return Part(images, 4 * chosen.labels + turns)


def data(name: str, seed: int) -> datasets.Dataset:
    """The data of a situation."""
    whole = datasets.load("cifar10")
    choose = {"": balanced, "few": few, "unbalanced": unbalanced, "rotated": rotated}[name]
    test = (rotated if name == "rotated" else balanced)(whole.test, seed)
    classes = tuple(map(str, range(40))) if name == "rotated" else whole.classes
    train = choose(whole.train, seed)
    part = replace(whole, name="part", classes=classes, train=train, test=test)
    return replace(part, fingerprint="", folders=())


def rows(situation: str, seed: int, alphas: list[float]) -> Iterator[dict[str, Any]]:
    """Train in one situation with one seed; yields the accuracies with each alpha."""
    settings = COMMON | SITUATIONS[situation] | {"seed": seed}
    images = data(settings.pop("images", ""), seed)
    with tempfile.TemporaryDirectory() as folder:
        for alpha in alphas:
            outcome = tutelage.distill(
                teacher=settings["teacher.model"],
                student=settings["student.model"],
                train_teacher=True,
                data=images,
                settings=settings | {"loss.alpha": alpha},
                out=f"{folder}/{alpha}",
            )
            results = outcome.results
            row = {"situation": situation, "seed": seed, "alpha": alpha}
            for role in ("teacher", "baseline", "student"):
                row[role] = results["models"][role]["accuracy"]
                row[f"{role} validation"] = results["validation"][role]["accuracy"]
            yield row


def in_process(job: tuple[str, int], alphas: list[float]) -> list[dict[str, Any]]:
    """The rows of one situation and seed, from a process of its own."""
    situation, seed = job
    line = [sys.executable, __file__, "--situations", situation, "--seeds", str(seed), "--one"]
    line += ["--alphas", *map(str, alphas)]
    done = subprocess.run(line, stdout=subprocess.PIPE, text=True)
    found = [json.loads(text) for text in done.stdout.splitlines() if text.startswith("{")]
    print(f"{situation}, seed {seed}: {len(found)} of {len(alphas)} students", flush=True)
    return found


def main() -> None:
    """Run all situations, and write down what came of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--situations", nargs="+", choices=SITUATIONS, default=list(SITUATIONS))
    parser.add_argument("--alphas", nargs="+", type=float, default=[0.1, 0.3, 0.5, 0.7, 0.9])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--one", action="store_true", help="a process of its own")
    options = parser.parse_args()
    if options.one:
        os.chdir(HERE)  # networks are named by this module
        for row in rows(options.situations[0], options.seeds[0], options.alphas):
            print(json.dumps(row), flush=True)
        return
    target = options.out.resolve() / f"{date.today()}-defaults.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    jobs = [(situation, seed) for seed in options.seeds for situation in options.situations]
    gathered: list[dict[str, Any]] = []
    with ThreadPoolExecutor(options.processes) as pool:
        for found in pool.map(functools.partial(in_process, alphas=options.alphas), jobs):
            gathered += found
            written = {"rows": gathered, "settings": COMMON, "situations": SITUATIONS}
            target.write_text(json.dumps(written | {"environment": environment.describe()}) + "\n")
    print(target)


if __name__ == "__main__":
    main()
