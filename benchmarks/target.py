"""How long it takes from raw files to a good student, here and with stock Keras.

    python benchmarks/target.py runs/cifar10 benchmarks/results/DATE-throughput.json

RUN is a finished run of a recipe whose teacher and student reach the targets (89 and 86 % on the
test part): its time is the one it measured, the reading of the raw files is measured again. Stock
Keras' time is not run but reckoned: as many images as the run trained on, at the rate that the
throughput benchmark measured for its best backend, asking the teacher in every step. It is given
the same number of epochs, though it has no optimizer like the run's and would need more.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

from tutelage import environment

HERE = Path(__file__).parent
TARGETS = {"teacher": 0.89, "student": 0.86}
READ = """
import sys, time
from tutelage import recipe
from tutelage.experiment.prepare import prepare
read = recipe.load(sys.argv[1])
began = time.perf_counter()
prepare(read)
print(time.perf_counter() - began)
"""


def seconds_to_read(recipe: Path) -> float:
    """From the files to arrays in training and validation parts, with nothing cached."""
    with tempfile.TemporaryDirectory() as cache:
        variables = os.environ | {"TUTELAGE_CACHE": cache}
        line = [sys.executable, "-c", READ, str(recipe)]
        done = subprocess.run(line, env=variables, capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def best(figures: dict[str, list[float]]) -> tuple[str, float]:
    """Stock Keras' fastest way and its images a second."""
    rates = {n: statistics.median(v) for n, v in figures.items() if n.startswith("Keras on")}
    name = max(rates, key=lambda n: rates[n])
    return name, rates[name]


def main() -> None:
    """Reckon, write down, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("throughput", type=Path)
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder for the JSON")
    options = parser.parse_args()
    results = json.loads((options.run / "results.json").read_text())
    rates = json.loads(options.throughput.read_text())["figures"]
    reached = {stage: results["models"][stage]["accuracy"] for stage in TARGETS}
    for stage, target in TARGETS.items():
        if reached[stage] < target:
            parser.error(f"{stage}: expected at least {target:.0%}, found {reached[stage]:.2%}")
    images = results["data"]["train"]
    reading = seconds_to_read(options.run / "recipe.toml")
    ours = {stage: results["models"][stage]["seconds"] for stage in TARGETS}
    theirs, ways = {}, {}
    for stage, job in (("teacher", "teacher"), ("student", "distil")):
        ways[stage], rate = best(rates[job])
        theirs[stage] = images * results["recipe"]["schedule"][stage]["epochs"] / rate
    figures = {
        "accuracy": reached,
        "seconds to read": reading,
        "ours": ours | {"whole": reading + sum(ours.values())},
        "stock Keras": theirs | {"whole": reading + sum(theirs.values()), "ways": ways},
    }
    figures["times as fast"] = figures["stock Keras"]["whole"] / figures["ours"]["whole"]
    options.out.mkdir(parents=True, exist_ok=True)
    written = {"figures": figures, "run": results["environment"], "here": environment.describe()}
    target_file = options.out / f"{date.today()}-target.json"
    target_file.write_text(json.dumps(written, indent=1) + "\n")
    print(json.dumps(figures, indent=1))
    print(target_file)


if __name__ == "__main__":
    main()
