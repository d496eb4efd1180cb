"""One party of a benchmark, in a process and an environment of its own.

    python benchmarks/parties.py PARTY JOB FOLDER --batch 128 --images 1280

PARTY is one of `PARTIES`, JOB is `distil` or the name of a stock model in FOLDER, such as `teacher`
for `teacher.keras`. Prints one line of JSON: images a second of a training epoch after one that
warms up. All do the same work: uint8 images, the same models, stochastic gradient descent with
Nesterov's momentum, in `distil` with the teacher's answers at temperature 4.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

RATE, MOMENTUM, ALPHA, TEMPERATURE = 0.01, 0.9, 0.9, 4.0
# What stands in for "the user's own model", and its images' height and width in pixels.
APPLICATIONS = {"MobileNetV2": 64, "ResNet50V2": 64}
Epoch = Callable[[], Any]


def data(count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Square noise in color, of ten classes: what is timed does not depend on what it shows."""
    random = np.random.default_rng(0)
    return random.integers(0, 256, (count, size, size, 3), np.uint8), random.integers(0, 10, count)


def trained(job: str) -> str:
    """The name of the model that a job trains."""
    return "student" if job.startswith("distil") else job


def ours(job: str, folder: Path, images: np.ndarray, labels: np.ndarray, batch: int) -> Epoch:
    """Through fast layers, in the precision that tutelage chooses."""
    import keras

    from tutelage import Distiller, losses
    from tutelage.kernels import accelerate

    precision = accelerate.hardware_precision()
    model = keras.saving.load_model(folder / f"{trained(job)}.keras")
    trainee = accelerate.accelerate(model, precision)
    x: Any = images
    if job == "distil":
        logits = np.random.default_rng(1).normal(size=(len(images), 10)).astype("float32")
        x = {"images": images, "teacher_logits": logits}
        trainee = Distiller(
            student=trainee,
            teacher=None,
            distillation_losses=losses.KD(temperature=TEMPERATURE),
            alpha=ALPHA,
        )
    elif job == "distil-online":
        teacher = keras.saving.load_model(folder / "teacher.keras")
        trainee = Distiller(
            student=trainee,
            teacher=accelerate.accelerate(teacher, precision),
            distillation_losses=losses.KD(temperature=TEMPERATURE),
            alpha=ALPHA,
        )
    trainee.compile(keras.optimizers.SGD(RATE, MOMENTUM, nesterov=True), losses.CrossEntropy())
    return lambda: trainee.fit(x, labels, batch_size=batch, shuffle=False, verbose=0)


def stock(policy: str) -> Callable[..., Epoch]:
    """Keras as it comes, on the backend that the environment names."""

    def party(job: str, folder: Path, images: np.ndarray, labels: np.ndarray, batch: int) -> Epoch:
        import keras

        def load(name: str) -> Any:
            def again(layer: Any) -> Any:
                return type(layer).from_config(layer.get_config() | {"dtype": policy})

            model = keras.saving.load_model(folder / f"{name}.keras")
            copy = keras.models.clone_model(model, clone_function=again)
            copy.set_weights(model.get_weights())
            return copy

        trainee = load(trained(job))
        if job == "distil":
            trainee = keras.distillation.Distiller(
                teacher=load("teacher"),
                student=trainee,
                # At its default the loss is no softmax KL.
                distillation_losses=keras.distillation.LogitsDistillation(
                    temperature=TEMPERATURE, loss=keras.losses.KLDivergence()
                ),
                student_loss_weight=1 - ALPHA,
            )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        trainee.compile(keras.optimizers.SGD(RATE, MOMENTUM, nesterov=True), loss)
        return lambda: trainee.fit(images, labels, batch_size=batch, shuffle=False, verbose=0)

    return party


def plain(precision: str, compiled: bool) -> Callable[..., Epoch]:
    """PyTorch written by hand, channels last, on a GPU if any; of this project's own two models."""

    def party(job: str, folder: Path, images: np.ndarray, labels: np.ndarray, batch: int) -> Epoch:
        import torch
        import torch.nn.functional as F
        from torch import nn

        from tutelage.models.zoo import ARCHITECTURES  # the sizes alone, so that they are ours

        device = "cuda" if torch.cuda.is_available() else "cpu"

        def net(name: str) -> nn.Module:
            sizes = ARCHITECTURES[name]
            layers: list[nn.Module] = []
            channels = 3
            for block, rate in zip(sizes.filters, sizes.dropout, strict=True):
                for width in block:
                    layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
                    layers += [nn.BatchNorm2d(width)]
                    channels = width
                layers += [nn.MaxPool2d(2)] + ([nn.Dropout(rate)] if rate else [])
            if units := sizes.dense:
                layers += [nn.Flatten(), nn.Linear(channels * 16, units), nn.ReLU(inplace=True)]
                layers += [nn.BatchNorm1d(units), nn.Dropout(sizes.dense_dropout)]
                layers += [nn.Linear(units, 10)]
            else:
                layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)]
            return nn.Sequential(*layers).to(device, memory_format=torch.channels_last)

        teacher = net("teacher-2m")
        model = teacher if job == "teacher" else net("student-300k")
        optimizer = torch.optim.SGD(model.parameters(), RATE, MOMENTUM, nesterov=True)
        dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        teacher_ready = teacher.eval() if job == "distil" else None
        run = torch.compile(model) if compiled else model
        shown, targets = torch.from_numpy(images), torch.from_numpy(labels)

        def step(x: Any, y: Any) -> None:
            x, y = x.to(device), y.to(device)
            x = x.to(torch.float32).div(255).permute(0, 3, 1, 2)
            with torch.autocast(device, dtype, enabled=dtype != torch.float32):
                logits = run(x).float()
                if teacher_ready is not None:
                    with torch.no_grad():
                        soft = teacher_ready(x).float()
            loss = F.cross_entropy(logits, y)
            if teacher_ready is not None:
                log_teacher = F.log_softmax(soft / TEMPERATURE, 1)
                log_student = F.log_softmax(logits / TEMPERATURE, 1)
                divergence = F.kl_div(
                    log_student, log_teacher, reduction="batchmean", log_target=True
                )
                loss = ALPHA * TEMPERATURE**2 * divergence + (1 - ALPHA) * loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        def epoch() -> None:
            for start in range(0, len(shown), batch):
                step(shown[start : start + batch], targets[start : start + batch])
            if device == "cuda":
                torch.cuda.synchronize()

        return epoch

    return party


PARTIES: dict[str, Callable[..., Epoch]] = {
    "tutelage": ours,
    "stock-float32": stock("float32"),
    "stock-bfloat16": stock("mixed_bfloat16"),
    "plain-float32": plain("float32", compiled=False),
    "plain-bfloat16": plain("bfloat16", compiled=False),
    "plain-float32-compiled": plain("float32", compiled=True),
    "plain-bfloat16-compiled": plain("bfloat16", compiled=True),
}


def main() -> None:
    """Time one party and print its figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("party", choices=PARTIES)
    jobs = ["teacher", "student", "distil", "distil-online", *APPLICATIONS]
    parser.add_argument("job", choices=jobs)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--images", type=int, default=1280)
    options = parser.parse_args()
    images, labels = data(options.images, APPLICATIONS.get(options.job, 32))
    epoch = PARTIES[options.party](options.job, options.folder, images, labels, options.batch)
    epoch()
    began = time.perf_counter()
    epoch()
    seconds = time.perf_counter() - began
    figure = {
        "images_per_second": options.images / seconds,
        "backend": os.environ.get("KERAS_BACKEND", ""),
    }
    print(json.dumps(figure))


if __name__ == "__main__":
    main()
