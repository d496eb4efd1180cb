"""A small network on Imagenette, by this package and by timm's train.py: accuracy and speed.

    git clone https://github.com/huggingface/pytorch-image-models
    python benchmarks/photographs.py --data imagenette2-160/ --timm pytorch-image-models/

Both train the same convolutional network (seven 3x3 convolutions, 328,570 parameters) on the same
training images, from images of 160 to 128 pixels, with the same views (random resized crop, flip),
optimizer (AdamW), learning rates (cosine with a warm-up of one epoch), label smoothing, batches,
epochs and precision, and are tested on the same center crops after the last epoch. One seed after
the other, the parties in turn. Writes `benchmarks/results/DATE-photographs.json` and prints it.
Needs timm and torchvision beside the checkout of timm, whose `train.py` is no part of its package.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

HERE = Path(__file__).parent
FILTERS = ((20, 1), (40, 2), (40, 1), (80, 2), (80, 1), (128, 2), (128, 1))
SIZE, BATCH = 128, 128
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SETTINGS = {
    "data.size": [SIZE, SIZE],
    "data.resize": "crop",
    "data.crop_fraction": 0.875,
    "data.validation": 0.02,
    "views.crop": "random-resized",
    "views.crop_scale": [0.35, 1.0],
    "views.shift": 0,
    "views.distinct": 0,
    "student.model": "photographs:network",
    "schedule.student.optimizer": "adamw",
    "schedule.student.learning_rate_schedule": "cosine",
    "schedule.student.learning_rate": 0.004,
    "schedule.student.weight_decay": 0.05,
    "schedule.student.label_smoothing": 0.1,
    "schedule.student.batch_size": BATCH,
    "schedule.student.gradient_accumulation_steps": 1,
}


def network(classes: int):  # type: ignore[no-untyped-def]
    """The network in Keras."""
    import keras
    from keras import layers

    inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.Rescaling(
        [1 / (255 * s) for s in STD], [-m / s for m, s in zip(MEAN, STD, strict=True)]
    )(inputs)
    for filters, stride in ((20, 2), *FILTERS[1:]):
        x = layers.Conv2D(
            filters, 3, stride, "same", use_bias=False, kernel_initializer="he_normal"
        )(x)
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
        x = layers.ReLU()(x)
    outputs = layers.Dense(classes)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, outputs)


def registered() -> None:
    """The same network in PyTorch, by a name that timm knows."""
    from timm.models import register_model
    from torch import nn

    def photographs_network(pretrained: bool = False, **settings: object) -> nn.Module:
        stages: list[nn.Module] = []
        channels = 3
        for filters, stride in ((20, 2), *FILTERS[1:]):
            convolution = nn.Conv2d(channels, filters, 3, stride, 1, bias=False)
            nn.init.kaiming_normal_(convolution.weight)
            stages += [convolution, nn.BatchNorm2d(filters), nn.ReLU(inplace=True)]
            channels = filters
        count = int(settings.get("num_classes", 10))  # type: ignore[call-overload]
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, count)]
        nn.init.xavier_uniform_(head[2].weight)  # type: ignore[arg-type]
        nn.init.zeros_(head[2].bias)  # type: ignore[arg-type]
        made = nn.Sequential(*stages, *head)
        made.num_classes = count
        made.pretrained_cfg = made.default_cfg = {
            "input_size": (3, SIZE, SIZE),
            "crop_pct": 0.875,
            "interpolation": "bilinear",
            "mean": MEAN,
            "std": STD,
        }
        return made

    photographs_network.__module__ = "timm.models.photographs"
    sys.modules["timm.models.photographs"] = sys.modules[__name__]
    register_model(photographs_network)


def settings_of(data: Path, epochs: int, seed: int) -> dict[str, object]:
    """The settings of a training by this package."""
    return SETTINGS | {
        "data.path": str(data),
        "seed": seed,
        "schedule.student.epochs": epochs,
        "schedule.student.warmup": 1 / epochs,
    }


def trained(experiment, folder: Path):  # type: ignore[no-untyped-def]
    """The model of an experiment's baseline after its last epoch, and how fast it was trained."""
    from tutelage.experiment import stages
    from tutelage.progress import Progress

    waiting: list[float] = []

    class Watch(Progress):
        def epoch(self, row: dict[str, float]) -> None:
            if "waiting" in row:
                waiting.append(row["waiting"])

    stage, began = experiment.stage("baseline"), time.monotonic()
    model, history, _ = stages.train(
        stage, None, checkpoint=folder / "checkpoint.npz", progress=Watch()
    )
    steps = len(stage.train) // BATCH
    return model, {
        "images/s": BATCH * steps / statistics.median(row["seconds"] for row in history),
        "seconds": time.monotonic() - began,
        "share of waiting": statistics.median(waiting),
        "training accuracy": history[-1]["accuracy"],
    }


def ours(data: Path, epochs: int, seed: int, folder: Path) -> dict[str, float]:
    """Train by this package; the last epoch's weights, tested once."""
    import numpy as np

    from tutelage import recipe
    from tutelage.experiment.prepare import prepare
    from tutelage.models import loading

    sys.path.insert(0, str(HERE))
    experiment = prepare(recipe.load("distill", settings_of(data, epochs, seed)))
    model, figures = trained(experiment, folder)
    test = experiment.data.test
    correct = loading.logits(model, test.images).argmax(axis=1) == test.labels
    return {"accuracy": float(np.mean(correct))} | figures


def theirs(data: Path, epochs: int, seed: int, folder: Path, timm: Path) -> dict[str, float]:
    """Train by timm's train.py on the same training images; the last epoch's accuracy."""
    import torch

    from tutelage import recipe
    from tutelage.experiment.prepare import prepare
    from tutelage.kernels import accelerate

    settings = SETTINGS | {"data.path": str(data), "student.model": "student-300k"}
    settings |= {"data.in_memory": False}
    images = prepare(recipe.load("distill", settings)).train.images
    links = folder / "data"
    for path in images.index.paths:
        source = Path(os.fsdecode(bytes(path)))
        place = links / "train" / source.parent.name
        place.mkdir(parents=True, exist_ok=True)
        (place / source.name).symlink_to(source)
    (links / "val").symlink_to(data / "val")
    rate, decay = (SETTINGS[f"schedule.student.{n}"] for n in ("learning_rate", "weight_decay"))
    line = [sys.executable, __file__, "--timm", str(timm), "--", str(timm / "train.py")]
    line += ["--data-dir", str(links), "--train-split", "train", "--val-split", "val"]
    line += ["--model", "photographs_network", "--num-classes", "10", "--img-size", str(SIZE)]
    line += ["--device", "cuda" if torch.cuda.is_available() else "cpu", "--channels-last"]
    if accelerate.hardware_precision() == "bfloat16":
        line += ["--amp", "--amp-dtype", "bfloat16"]
    line += ["--opt", "adamw", "--lr", str(rate), "--weight-decay", str(decay), "--batch-size"]
    line += [str(BATCH), "--sched", "cosine", "--sched-on-updates", "--min-lr", "0", "--workers"]
    line += [str(min(os.cpu_count() or 1, 8)), "--warmup-epochs", "1", "--warmup-prefix"]
    line += ["--scale", "0.35", "1.0", "--color-jitter", "0", "--crop-pct", "0.875", "--seed"]
    line += [str(seed), "--train-interpolation", "bilinear", "--interpolation", "bilinear"]
    line += ["--smoothing", str(SETTINGS["schedule.student.label_smoothing"])]
    line += ["--output", str(folder / "out"), "--experiment", "run", "--log-interval", "10000"]
    line += ["--checkpoint-hist", "1"]
    line += ["--epochs", str(epochs - 1)]  # those of the warm-up count in addition
    began = time.monotonic()
    done = subprocess.run(line, capture_output=True, text=True)
    seconds = time.monotonic() - began
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    with (folder / "out/run/summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == epochs, len(rows)
    spent = [float(text.split("=")[1]) for text in done.stdout.splitlines() if "epoch=" in text]
    return {
        "accuracy": float(rows[-1]["eval_top1"]) / 100,
        "images/s": BATCH * (len(images) // BATCH) / statistics.median(spent),
        "seconds": seconds,
    }


def run_timm(arguments: list[str]) -> None:
    """Run timm's train.py with the network, and print the seconds of each training epoch."""
    sys.path.insert(0, str(Path(arguments[0]).parent))
    library = None
    import torch

    if torch.version.cuda is None:  # torchvision is built for CUDA, without these operators
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import train

    registered()
    one_epoch = train.train_one_epoch

    def timed(*values: object, **settings: object) -> object:
        began = time.monotonic()
        result = one_epoch(*values, **settings)
        print(f"epoch={time.monotonic() - began}", flush=True)
        return result

    train.train_one_epoch = timed
    sys.argv = arguments
    train.main()
    del library


def write(folder: Path, name: str, epochs: int, figures: object) -> None:
    """Write figures to a file of today, with settings and environment, and print its path."""
    from tutelage import environment

    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{date.today()}-{name}.json"
    content = {
        "settings": SETTINGS | {"epochs": epochs},
        "figures": figures,
        "environment": environment.describe(),
    }
    target.write_text(json.dumps(content, indent=1) + "\n")
    print(target)


def main() -> None:
    """Train with each seed by each party, and write down what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--timm", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--one", help="party of a process of its own")
    parser.add_argument("rest", nargs="*")
    options = parser.parse_args()
    if options.rest:
        run_timm(options.rest)
        return
    data = options.data.resolve()
    if options.one:
        with tempfile.TemporaryDirectory() as folder:
            place, seed = Path(folder), options.seeds
            if options.one == "tutelage":
                print(json.dumps(ours(data, options.epochs, seed, place)))
            else:
                print(json.dumps(theirs(data, options.epochs, seed, place, options.timm)))
        return
    figures: dict[str, list[dict[str, float]]] = {"tutelage": [], "timm": []}
    for seed in range(options.seeds):
        for party, found in figures.items():
            line = [sys.executable, __file__, "--data", str(data), "--timm", str(options.timm)]
            line += ["--epochs", str(options.epochs), "--seeds", str(seed), "--one", party]
            done = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True)
            found.append(json.loads(done.stdout.splitlines()[-1]))
            print(party, seed, found[-1], flush=True)
    write(options.out, "photographs", options.epochs, figures)


if __name__ == "__main__":
    main()
