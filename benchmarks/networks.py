"""Designs of a small network for photographs at about equal compute: accuracy and speed.

    python benchmarks/networks.py --data imagenette2-160/

Each has about 300,000 parameters and 55 million multiply-accumulates at 128x128 pixels, and is
trained alone on Imagenette with the settings of `photographs.py`, a process of its own for each
design and seed. Accuracy is on validation images, a tenth of the training images. Writes
`benchmarks/results/DATE-networks.json` and prints it.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path

import photographs

HERE = Path(__file__).parent
# Filters of the stem, then (kind, filters, blocks, stride of the first, expansion) of each stage.
Stages = tuple[tuple[str, int, int, int, int], ...]
DESIGNS: dict[str, tuple[int, Stages]] = {
    "plain": (
        20,
        (("plain", 40, 2, 2, 1), ("plain", 80, 2, 2, 1), ("plain", 128, 2, 2, 1)),
    ),
    "residual-wide": (
        24,
        (("basic", 36, 1, 2, 1), ("basic", 72, 1, 2, 1), ("basic", 128, 1, 2, 1)),
    ),
    "residual-deep": (
        16,
        (("basic", 24, 2, 2, 1), ("basic", 48, 2, 2, 1), ("basic", 88, 2, 2, 1)),
    ),
    "bottleneck": (
        24,
        (("bottleneck", 48, 1, 2, 2), ("bottleneck", 96, 2, 2, 2), ("bottleneck", 160, 4, 2, 2)),
    ),
    "inverted": (
        16,
        (
            ("inverted", 16, 1, 1, 1),
            ("inverted", 28, 2, 2, 4),
            ("inverted", 48, 3, 2, 4),
            ("inverted", 96, 3, 2, 4),
            ("inverted", 128, 1, 1, 4),
        ),
    ),
    "fused-inverted": (
        16,
        (
            ("fused", 24, 2, 2, 3),
            ("fused", 40, 1, 2, 3),
            ("inverted", 40, 2, 1, 4),
            ("inverted", 88, 4, 2, 4),
        ),
    ),
}


def build(design: str, classes: int):  # type: ignore[no-untyped-def]
    """A design's network in Keras."""
    import keras
    from keras import layers

    stem, stages = DESIGNS[design]

    def convolution(x, filters, size=3, stride=1, relu=True):  # type: ignore[no-untyped-def]
        settings = {"use_bias": False, "kernel_initializer": "he_normal"}
        x = layers.Conv2D(filters, size, stride, "same", **settings)(x)
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
        return layers.ReLU()(x) if relu else x

    def depthwise(x, stride):  # type: ignore[no-untyped-def]
        x = layers.DepthwiseConv2D(
            3, stride, "same", use_bias=False, depthwise_initializer="he_normal"
        )(x)
        return layers.ReLU()(layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x))

    def block(x, kind, filters, stride, expansion):  # type: ignore[no-untyped-def]
        before, same = x.shape[-1], stride == 1 and x.shape[-1] == filters
        if kind == "plain":
            return convolution(x, filters, 3, stride)
        if kind in ("inverted", "fused"):
            y = x
            if kind == "fused":
                y = convolution(y, before * expansion, 3, stride)
            else:
                y = convolution(y, before * expansion, 1) if expansion > 1 else y
                y = depthwise(y, stride)
            y = convolution(y, filters, 1, relu=False)
            return layers.Add()([x, y]) if same else y
        if kind == "basic":
            y = convolution(convolution(x, filters, 3, stride), filters, relu=False)
        else:
            inner = filters // expansion
            y = convolution(convolution(x, inner, 1), inner, 3, stride)
            y = convolution(y, filters, 1, relu=False)
        if not same:
            x = convolution(x, filters, 1, stride, relu=False)
        return layers.ReLU()(layers.Add()([x, y]))

    inputs = keras.Input((photographs.SIZE, photographs.SIZE, 3))
    std, mean = photographs.STD, photographs.MEAN
    scale, offset = [1 / (255 * s) for s in std], [-m / s for m, s in zip(mean, std, strict=True)]
    x = convolution(layers.Rescaling(scale, offset)(inputs), stem, 3, 2)
    for kind, filters, blocks, stride, expansion in stages:
        for number in range(blocks):
            x = block(x, kind, filters, 1 if number else stride, expansion)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(classes)(x), name=design.replace("-", "_"))


def __getattr__(name: str) -> Callable[[int], object]:
    """`networks:DESIGN`, with `_` for `-`, as a recipe names a network."""
    if (design := name.replace("_", "-")) in DESIGNS:
        return partial(_of_classes, design)
    raise AttributeError(name)


def _of_classes(design: str, /, classes: int) -> object:
    return build(design, classes)


def one(data: Path, design: str, epochs: int, seed: int) -> dict[str, float]:
    """Train one design and judge it on the validation images."""
    import numpy as np

    from tutelage import recipe
    from tutelage.experiment import stages
    from tutelage.experiment.prepare import prepare
    from tutelage.models import loading, zoo

    sys.path.insert(0, str(HERE))
    settings = photographs.SETTINGS | {
        "data.path": str(data),
        "data.validation": 0.1,
        "seed": seed,
        "student.model": f"networks:{design.replace('-', '_')}",
        "schedule.student.epochs": epochs,
        "schedule.student.warmup": 1 / epochs,
    }
    experiment = prepare(recipe.load("distill", settings))
    stage, validation = experiment.stage("baseline"), experiment.validation
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        model, history, _ = stages.train(stage, None, checkpoint=Path(folder) / "checkpoint.npz")
    correct = loading.logits(model, validation.images).argmax(axis=1) == validation.labels
    steps = len(stage.train) // photographs.BATCH
    return {
        "accuracy": float(np.mean(correct)),
        "training accuracy": history[-1]["accuracy"],
        "images/s": photographs.BATCH * steps / statistics.median(r["seconds"] for r in history),
        "seconds": time.monotonic() - began,
        "parameters": model.count_params(),
        "macs": zoo.macs(model),
    }


def main() -> None:
    """Train each design with each seed, and write down what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--designs", nargs="+", default=list(DESIGNS), choices=list(DESIGNS))
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--one", type=int, metavar="SEED", help="a process of its own")
    options = parser.parse_args()
    data = options.data.resolve()
    if options.one is not None:
        print(json.dumps(one(data, options.designs[0], options.epochs, options.one)))
        return
    from tutelage import environment

    figures: dict[str, list[dict[str, float]]] = {design: [] for design in options.designs}
    for seed in range(options.seeds):
        for design, found in figures.items():
            line = [sys.executable, __file__, "--data", str(data), "--designs", design]
            line += ["--epochs", str(options.epochs), "--one", str(seed)]
            done = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True)
            found.append(json.loads(done.stdout.splitlines()[-1]))
            print(design, seed, found[-1], flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    target = options.out / f"{date.today()}-networks.json"
    written = {
        "settings": photographs.SETTINGS | {"epochs": options.epochs},
        "figures": figures,
        "environment": environment.describe(),
    }
    target.write_text(json.dumps(written, indent=1) + "\n")
    print(target)


if __name__ == "__main__":
    main()
