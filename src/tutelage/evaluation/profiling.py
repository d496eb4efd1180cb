"""What models cost: size, multiplications, memory, and how long they take to answer."""

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

BATCH = 64  # images at once, where throughput counts
_BURST = 11  # calls in a row, of which the first is not counted: others were at work before
_ROUNDS = 20
_LONG = 0.5  # seconds that a burst may take, if it has two calls

# Run in a process of its own, so that nothing else counts; what it loads is what the file needs.
# Its resource usage would begin with its parent's; this begins with the program.
_ALONE = {
    ".keras": "from tutelage.evaluation import profiling; "
    "profiling.open_model(sys.argv[1], 1).ask(count)",
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
class Opened:
    """A model file, ready to answer.

    Attributes:
        ask: answers so many images, without colours that matter.
        figures: `name`, `format`, `precision`, `shape`, and where known `parameters`, `macs` and
            the test `accuracy` that an exported file tells.
    """

    ask: Callable[[int], None]
    figures: dict[str, Any]


def opened(path: str | os.PathLike[str], threads: int) -> Opened:
    """Open a model file.

    Args:
        path: a `.keras` file, which answers through `model.predict`, or a file of
            `tutelage export` in ONNX.
        threads: that it may use; of a Keras model PyTorch is told.

    Returns:
        The model.

    Raises:
        ModelError: if it is none of these.
    """
    path = Path(path)
    if path.suffix == ".onnx":
        file = ExportedModel(path, threads)
        figures = {"name": file.name, "format": "onnx", "precision": file.precision}
        figures |= file.size_figures
        if "accuracy" in file.about["figures"]:
            figures["accuracy"] = file.about["figures"]["accuracy"]
        shape = file.shape

        def ask(count: int) -> None:
            file.logits(_images(count, shape))

    elif path.suffix == ".keras":
        model = loading.load_model(path)
        shape = model.input_shape[1:]
        figures = {"name": path.stem, "format": "keras", "precision": "float32"}
        figures |= evaluate.size_figures(model)

        def ask(count: int) -> None:
            torch.set_num_threads(threads)
            model.predict(_images(count, shape), batch_size=count, verbose=0)

    else:
        raise ModelError(f"{path}: expected a .keras or .onnx file")
    return Opened(ask, figures | {"shape": list(shape)})


def profile(
    paths: Sequence[Path], *, threads: int | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Measure models beside each other: all in one run, a burst of calls of each in turn.

    Args:
        paths: the files, at least one.
        threads: that each may use; default: one, and all cores, whichever is faster for it.
        progress: hears how it goes.

    Returns:
        `models`, for each file its `file`, `name`, `format`, `precision`, `parameters`, `macs`,
        `accuracy` (where the file tells), `bytes`, `peak_memory` in bytes (of a process that
        opens it alone and answers one image and a batch), and two times of answering, `single`
        (one image) and `batch` (64): each `median`, `p95` in seconds and `threads`, the batch's
        also `images_per_second`; and `environment`. Ready for JSON.

    Raises:
        RecipeError: if there is no file, or `threads` is below 1.
        ModelError: if a file can't be opened.
    """
    if not paths or (threads is not None and threads < 1):
        raise RecipeError(
            f"expected at least one model, and at least one thread, found {len(paths)} "
            f"and {threads}"
        )
    progress = progress or Progress()
    counts = sorted({threads} if threads else {1, os.cpu_count() or 1})
    models = [(path, count, opened(path, count)) for path in paths for count in counts]
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
                key=lambda found: float(found["median"]),
            )
        row["batch"] |= {"images": BATCH, "images_per_second": BATCH / row["batch"]["median"]}
        rows.append(row)
    return {"models": rows, "environment": environment.describe()}


def write(told: dict[str, Any], file: Path) -> None:
    """Keep what `profile` found as `profile.json`."""
    file.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def _burst(model: Opened, images: int) -> list[float]:
    """Seconds of calls in a row, the first left out; fewer calls of what takes long."""
    model.ask(images)
    found: list[float] = []
    while len(found) < _BURST - 1 and (sum(found) < _LONG or not found):
        began = time.perf_counter()
        model.ask(images)
        found.append(time.perf_counter() - began)
    return found


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
