"""Size, operations, memory and latency of model files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tutelage import environment
from tutelage.errors import ModelError, RecipeError
from tutelage.evaluation import evaluate
from tutelage.models import loading
from tutelage.models.onnx_model import ExportedModel
from tutelage.progress import Progress

BATCH = 64  # images per call, to measure throughput
_BURST = 11  # consecutive calls; the first, after another model, is not counted
_ROUNDS = 20
_LONG = 0.5  # seconds after which a burst of at least two calls ends

# Run in a new process that loads only what the file needs. Its peak memory is read from VmHWM,
# because resource usage would start from the parent's.
_ALONE = {
    ".keras": "from tutelage.evaluation import profiling; "
    "profiling.open_model(sys.argv[1], 1).predict(count)",
    ".onnx": "from tutelage.models.onnx_model import ExportedModel; import numpy as np; "
    "file = ExportedModel(sys.argv[1]); file.logits(np.zeros((count, *file.shape), np.uint8))",
}
_PEAK = """
import pathlib, re, resource, sys
count = int(sys.argv[2])
{ask}
status = pathlib.Path("/proc/self/status")
if status.exists():
    print(re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1])
else:
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(used // 1024 if sys.platform == "darwin" else used)
"""


@dataclass(frozen=True)
class ModelFile:
    """A model file, ready to predict.

    Attributes:
        predict: computes the logits of a number of gray images.
        figures: `name`, `format`, `precision`, `shape`, and if known `parameters`, `macs` and the
            test `accuracy` in an exported file's metadata.
    """

    predict: Callable[[int], None]
    figures: dict[str, Any]


def open_model(path: str | os.PathLike[str], threads: int) -> ModelFile:
    """Open a model file.

    Args:
        path: a `.keras` file, run by `model.predict`, or an `.onnx` file of
            `tutelage export`.
        threads: number of threads; for a Keras model, PyTorch's.

    Returns:
        The model.

    Raises:
        ModelError: if it is neither.
    """
    path = Path(path)
    if path.suffix == ".onnx":
        file = ExportedModel(path, threads)
        figures = {"name": file.name, "format": "onnx", "precision": file.precision}
        figures |= file.size_figures
        if "accuracy" in file.about["figures"]:
            figures["accuracy"] = file.about["figures"]["accuracy"]
        shape = file.shape

        def predict(count: int) -> None:
            file.logits(_images(count, shape))

    elif path.suffix == ".keras":
        model = loading.load_model(path)
        shape = model.input_shape[1:]
        figures = {"name": path.stem, "format": "keras", "precision": "float32"}
        figures |= evaluate.size_figures(model)

        def predict(count: int) -> None:
            torch.set_num_threads(threads)
            model.predict(_images(count, shape), batch_size=count, verbose=0)

    else:
        raise ModelError(f"{path}: expected a .keras or .onnx file")
    return ModelFile(predict, figures | {"shape": list(shape)})


def profile(
    paths: Sequence[Path], *, threads: int | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Measure models in one run, in alternating bursts of calls.

    Args:
        paths: the files, at least one.
        threads: threads per model; default: the faster of one and all cores.
        progress: notified after each round.

    Returns:
        `models`, for each file `file`, `name`, `format`, `precision`, `parameters`, `macs`,
        `accuracy` (if the file has it), `bytes`, `peak_memory` in bytes (of a process that
        loads only this file and computes a batch), and two latencies, `single` (one image)
        and `batch` (64): each `median`, `p95` in seconds and `threads`, the batch's
        also `images_per_second`; and `environment`. Ready for JSON.

    Raises:
        RecipeError: if there are no files, or `threads` is below 1.
        ModelError: if a file can't be opened.
    """
    if not paths or (threads is not None and threads < 1):
        raise RecipeError(
            f"expected at least one model, and at least one thread, found {len(paths)} "
            f"and {threads}"
        )
    progress = progress or Progress()
    counts = sorted({threads} if threads else {1, os.cpu_count() or 1})
    models = [(path, count, open_model(path, count)) for path in paths for count in counts]
    times: dict[tuple[Path, int, int], list[float]] = {}
    progress.stage("profile", _ROUNDS, 0, 1, "round")
    before = torch.get_num_threads()
    try:
        for number in range(_ROUNDS):
            began = time.monotonic()
            for path, count, model in models:
                for images in (1, BATCH):
                    times.setdefault((path, count, images), []).extend(_burst(model, images))
            progress.epoch({"epoch": number + 1, "seconds": time.monotonic() - began})
    finally:
        torch.set_num_threads(before)
    rows = []
    for path in paths:
        figures = next(model.figures for name, _, model in models if name == path)
        row = {"file": str(path), **figures, "bytes": path.stat().st_size}
        row["peak_memory"] = _peak_memory(path)
        for label, images in (("single", 1), ("batch", BATCH)):
            row[label] = min(
                (_summary(times[path, count, images], count) for count in counts),
                key=lambda times: float(times["median"]),
            )
        row["batch"] |= {"images": BATCH, "images_per_second": BATCH / row["batch"]["median"]}
        rows.append(row)
    return {"models": rows, "environment": environment.describe()}


def write(result: dict[str, Any], file: Path) -> None:
    """Write the result of `profile` as JSON."""
    file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _burst(model: ModelFile, images: int) -> list[float]:
    """Seconds of consecutive calls, without the first; fewer calls if they are slow."""
    model.predict(images)
    seconds: list[float] = []
    while len(seconds) < _BURST - 1 and (sum(seconds) < _LONG or not seconds):
        began = time.perf_counter()
        model.predict(images)
        seconds.append(time.perf_counter() - began)
    return seconds


def _summary(seconds: list[float], threads: int) -> dict[str, Any]:
    return {
        "median": float(np.median(seconds)),
        "p95": float(np.percentile(seconds, 95)),
        "calls": len(seconds),
        "threads": threads,
    }


def _peak_memory(path: Path) -> int:
    program = _PEAK.format(ask=_ALONE[path.suffix])
    line = [sys.executable, "-c", program, str(path), str(BATCH)]
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode:
        raise ModelError(f"{path} can't be opened alone: {done.stderr.splitlines()[-1]}")
    return int(done.stdout) * 1024


def _images(count: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.full((count, *shape), 128, np.uint8)
