"""How many images a second each party trains: tutelage, stock Keras on three backends, PyTorch.

    python benchmarks/throughput.py                      # all jobs and parties, about two hours
    python benchmarks/throughput.py --jobs teacher --repeats 3

Each figure is of a process of its own; the parties take turns, so that a noisy machine is noisy to
all. Every process keeps the memory that it frees (glibc's `MALLOC_MMAP_MAX_`), which is worth up to
a fifth to all of them. Peers get environments of their own under `benchmarks/.envs`, made on first
use. Jobs named after an application train that model of Keras at 64x64 pixels; PyTorch by hand has
none of them. Writes `benchmarks/results/DATE-throughput.json`, with the jobs in its name where they
are chosen, and prints medians and ranges.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import venv
from datetime import date
from pathlib import Path
from typing import Any

from parties import APPLICATIONS

from tutelage import environment
from tutelage.data import datasets
from tutelage.models import zoo

HERE = Path(__file__).parent
PEERS = {
    "jax": ["keras==3.15.1", "jax==0.10.2", "h5py", "numpy==2.4.6"],
    "tensorflow": ["keras==3.15.1", "tensorflow-cpu==2.21.0"],
}
# (name, party of parties.py, environment: ours or a peer's, Keras' backend)
PARTIES = [
    ("tutelage", "tutelage", "", "torch"),
    ("Keras on PyTorch, float32", "stock-float32", "", "torch"),
    ("Keras on PyTorch, bfloat16", "stock-bfloat16", "", "torch"),
    ("Keras on JAX, float32", "stock-float32", "jax", "jax"),
    ("Keras on JAX, bfloat16", "stock-bfloat16", "jax", "jax"),
    ("Keras on TensorFlow, float32", "stock-float32", "tensorflow", "tensorflow"),
    ("Keras on TensorFlow, bfloat16", "stock-bfloat16", "tensorflow", "tensorflow"),
    ("PyTorch, float32", "plain-float32", "", "torch"),
    ("PyTorch, bfloat16", "plain-bfloat16", "", "torch"),
    ("PyTorch compiled, float32", "plain-float32-compiled", "", "torch"),
    ("PyTorch compiled, bfloat16", "plain-bfloat16-compiled", "", "torch"),
]
JOBS = ("teacher", "student", "distil", *APPLICATIONS)
KEEP_FREED_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}
SILENT = {"TF_CPP_MIN_LOG_LEVEL": "3"}


def interpreter(peer: str) -> Path:
    """The Python of a peer's environment, made if absent."""
    if not peer:
        return Path(sys.executable)
    folder = HERE / ".envs" / peer
    python = folder / "bin" / "python"
    stamp = folder / ".installed"
    if not stamp.exists():
        print(f"installing {', '.join(PEERS[peer])}", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PEERS[peer]], check=True)
        stamp.touch()
    return python


def measure(party: str, peer: str, backend: str, job: str, options: argparse.Namespace) -> Any:
    """Images a second of one process, or why there is no figure."""
    line = [interpreter(peer), HERE / "parties.py", party, job, options.folder]
    line += ["--batch", options.batch, "--images", options.images]
    done = subprocess.run(
        [str(word) for word in line],
        env=os.environ | {"KERAS_BACKEND": backend} | KEEP_FREED_MEMORY | SILENT,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    if done.returncode:
        return done.stderr.strip().splitlines()[-1]
    return json.loads(done.stdout.splitlines()[-1])["images_per_second"]


def main() -> None:
    """Run all that is asked for, in turns, and write it down after each turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--images", type=int, default=1280)
    parser.add_argument("--only", nargs="+", default=[""], help="parties whose names hold a text")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder for the JSON")
    options = parser.parse_args()
    if options.batch < 1 or options.images < options.batch or options.repeats < 1:
        parser.error("expected at least one repeat, and at least as many images as a batch")
    parties = [party for party in PARTIES if any(text in party[0] for text in options.only)]
    options.folder = Path(tempfile.mkdtemp())
    images = datasets.stand_in("cifar10").train.images[:5000]
    for name, model in (("teacher", "teacher-2m"), ("student", "student-300k")):
        built = zoo.build(model, images=images, classes=10, seed=0)
        built.save(options.folder / f"{name}.keras")
    import keras  # not before tutelage, which chooses the backend

    for name, size in APPLICATIONS.items():
        if name in options.jobs:
            application = getattr(keras.applications, name)(
                weights=None, input_shape=(size, size, 3), classes=10, classifier_activation=None
            )
            application.save(options.folder / f"{name}.keras")
    figures: dict[str, dict[str, list[float]]] = {job: {} for job in options.jobs}
    failures: dict[str, str] = {}
    chosen = "" if options.jobs == list(JOBS) else "-" + "-".join(options.jobs)
    target = options.out / f"{date.today()}-throughput{chosen}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(options.repeats):
        for job in options.jobs:
            for name, party, peer, backend in parties:
                if job in APPLICATIONS and party.startswith("plain"):
                    continue
                # Ours is measured with the teacher's answers stored, and with the teacher itself.
                runs = [(name, job)]
                if job == "distil" and party == "tutelage":
                    runs = [(f"{name}, stored", job), (f"{name}, online", "distil-online")]
                for shown, work in runs:
                    if f"{job}: {shown}" in failures:
                        continue
                    figure = measure(party, peer, backend, work, options)
                    if isinstance(figure, str):
                        failures[f"{job}: {shown}"] = figure
                    else:
                        figures[job].setdefault(shown, []).append(round(figure, 1))
        written = {
            "unit": "images a second, training",
            "batch": options.batch,
            "images": options.images,
            "figures": figures,
            "failures": failures,
            "environment": environment.describe(),
        }
        target.write_text(json.dumps(written, indent=1) + "\n")
    for job, byname in figures.items():
        print(f"\n{job}: images a second, median (range)")
        for name, values in sorted(byname.items(), key=lambda i: -statistics.median(i[1])):
            middle = statistics.median(values)
            print(f"  {name:32} {middle:8.1f}  ({min(values):.1f} to {max(values):.1f})")
    for name, reason in failures.items():
        print(f"no figure for {name}: {reason}")
    print(target)


if __name__ == "__main__":
    main()
