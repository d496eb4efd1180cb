"""Designs of a small network for photographs at about equal compute: accuracy and speed.

    python benchmarks/networks.py --data imagenette2-160/

Each has about 300,000 parameters and 55 million multiply-accumulates at 128x128 pixels, and is
trained alone on Imagenette with the settings of `photographs.py`, a process of its own for each
design and seed. Accuracy is on validation images, a tenth of the training images. Writes
`benchmarks/results/DATE-networks.json` and prints it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
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


def build(design: str, classes: int, seed: int):  # type: ignore[no-untyped-def]
    """A design's network in Keras."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(seed)
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


def one(data: Path, design: str, epochs: int, seed: int) -> dict[str, float]:
    """Train one design and judge it on the validation images."""
    import numpy as np

    from tutelage import recipe
    from tutelage.experiment.prepare import prepare
    from tutelage.models import loading, zoo

    settings = photographs.settings_of(data, epochs, seed) | {
        "data.validation": 0.1,
        "student.model": "student-300k",  # in whose place comes the design's
    }
    student = build(design, 10, seed)
    experiment = prepare(recipe.load("distill", settings), student=student)
    with tempfile.TemporaryDirectory() as folder:
        model, figures = photographs.trained(experiment, Path(folder))
    validation = experiment.validation
    correct = loading.logits(model, validation.images).argmax(axis=1) == validation.labels
    sizes = {"parameters": model.count_params(), "macs": zoo.macs(model)}
    return {"accuracy": float(np.mean(correct))} | figures | sizes


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
    figures: dict[str, list[dict[str, float]]] = {design: [] for design in options.designs}
    for seed in range(options.seeds):
        for design, found in figures.items():
            line = [sys.executable, __file__, "--data", str(data), "--designs", design]
            line += ["--epochs", str(options.epochs), "--one", str(seed)]
            done = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True)
            found.append(json.loads(done.stdout.splitlines()[-1]))
            print(design, seed, found[-1], flush=True)
    photographs.write(options.out, "networks", options.epochs, figures)


if __name__ == "__main__":
    main()
