"""How fast images are decoded and augmented, and how much memory a training of many takes.

    python benchmarks/streaming.py speed --data imagenette2-160.tar     # next to torchvision's
    python benchmarks/streaming.py memory --data imagenette2-160/       # 12,000 and 120,000 images

`speed` reads the training images once for each party and round: random resized crop to 128 pixels
and a flip, with the same number of workers, after a warm-up. `memory` runs a recipe of small
networks on links to the folder's images, in a process of its own for each number of images.
Writes `benchmarks/results/DATE-streaming-PART.json` and prints it. `speed` needs torchvision.
"""

import argparse
import functools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import torch

from tutelage import environment
from tutelage.data import datasets
from tutelage.data.augmented_views import AugmentedViews
from tutelage.data.image_files import ImageFiles
from tutelage.recipe import Views

HERE = Path(__file__).parent
SIZE, BATCH = 128, 128


@functools.cache
def transforms() -> object:
    """Torchvision's transforms v2, also beside a PyTorch for CPUs, which lacks its operators."""
    library = None
    if torch.version.cuda is None:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from torchvision.transforms import v2

    v2.library = library  # type: ignore[attr-defined]
    return v2


class Files(torch.utils.data.Dataset):
    """The same files, decoded and augmented by torchvision."""

    def __init__(self, images: ImageFiles):
        from PIL import Image

        v2 = transforms()
        self.images, self.open = images, Image.open
        self.change = v2.Compose(  # type: ignore[attr-defined]
            [
                v2.RandomResizedCrop(SIZE, scale=(0.35, 1.0), antialias=True),  # type: ignore[attr-defined]
                v2.RandomHorizontalFlip(),  # type: ignore[attr-defined]
                v2.PILToTensor(),  # type: ignore[attr-defined]
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> torch.Tensor:
        import io

        data, _ = self.images.index.read(number)
        changed: torch.Tensor = self.change(self.open(io.BytesIO(data)).convert("RGB"))
        return changed


def ours(images: ImageFiles, workers: int) -> Iterator[int]:
    """Batches of our views."""
    views = AugmentedViews(images, Views(crop="random-resized", shift=0), seed=0)
    order = views.order(0, 0)
    requests = [(0, order[i : i + BATCH]) for i in range(0, len(order) - BATCH + 1, BATCH)]
    with views.loader(workers) as loader:
        for batch in loader.batches(requests):
            yield len(batch)


def theirs(images: ImageFiles, workers: int) -> Iterator[int]:
    """Batches of torchvision's."""
    loader = torch.utils.data.DataLoader(
        Files(images), BATCH, shuffle=True, num_workers=workers, drop_last=True
    )
    for batch in loader:
        yield len(batch)


def speed(options: argparse.Namespace) -> dict[str, object]:
    """Images a second of each party, in turn."""
    data = datasets.load("folder", options.data, size=(SIZE, SIZE), originals=True, in_memory=False)
    images = data.train.images
    parties = {"tutelage": ours, "torchvision v2": theirs}
    rates: dict[str, list[float]] = {f"{n}, {w} workers": [] for w in (1, 2) for n in parties}
    for turn in range(options.rounds + 1):
        for workers in (1, 2):
            for name, party in parties.items():
                count, began = 0, 0.0
                for size in party(images, workers):
                    if not began:
                        began = time.monotonic()  # the first batch starts the workers
                    else:
                        count += size
                if turn:
                    rates[f"{name}, {workers} workers"].append(count / (time.monotonic() - began))
        print(
            {name: [round(rate) for rate in values] for name, values in rates.items()}, flush=True
        )
    return {
        name: {"images/s": round(statistics.median(v)), "least": min(v), "most": max(v)}
        for name, v in rates.items()
    }


def memory(options: argparse.Namespace) -> dict[str, object]:
    """Peak resident memory of a run, and seconds to its first step, by number of images."""
    sources = sorted(Path(options.data).resolve().rglob("*.JPEG"))
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in options.images:
            data = Path(folder) / str(count)
            for number in range(count):
                source = sources[number * 997 % len(sources)]
                place = data / ("test" if number % 10 == 0 else "train") / source.parent.name
                place.mkdir(parents=True, exist_ok=True)
                os.link(source, place / f"{number:07}.JPEG")
            line = [sys.executable, __file__, "one", "--data", str(data)]
            for start in ("first", "second"):
                out = ["--out", f"{folder}/{count}-{start}/run"]
                done = subprocess.run([*line, *out], capture_output=True, text=True, check=True)
                figures[f"{count} images, {start} start"] = json.loads(done.stdout.splitlines()[-1])
                print(count, start, done.stdout.splitlines()[-1], flush=True)
    return figures


def one(options: argparse.Namespace) -> dict[str, object]:
    """A run of one epoch of small networks, and what it took."""
    import tutelage
    from tutelage.progress import Progress

    began, first = time.monotonic(), []

    class Watch(Progress):
        name = ""

        def stage(self, name: str, *_: object) -> None:
            self.name = name

        def step(self, step: int, logs: object) -> None:
            if self.name == "teacher" and not first:
                first.append(time.monotonic() - began)

    settings = {
        "data.size": [32, 32],
        "teacher.model": "digits-student",
        "student.model": "digits-student",
        "views.distinct": 1,
        "schedule.teacher.epochs": 1,
        "schedule.student.epochs": 1,
        "data.in_memory": False,
    }
    tutelage.distill(
        teacher="digits-student",
        student="digits-student",
        data=options.data,
        settings=settings,
        out=options.out,
        progress=Watch(),
    )
    own, workers = (
        resource.getrusage(who).ru_maxrss // 1000
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return {
        "megabytes": own,
        "megabytes of a worker": workers,
        "seconds to the first step": round(first[0], 1),
        "seconds": round(time.monotonic() - began, 1),
    }


def main() -> None:
    """Measure one part and write it down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("speed", "memory", "one"))
    parser.add_argument("--data", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, nargs="+", default=[12_000, 120_000])
    parser.add_argument("--out", default=str(HERE / "results"))
    options = parser.parse_args()
    if options.part == "one":
        print(json.dumps(one(options)))
        return
    figures = (speed if options.part == "speed" else memory)(options)
    target = Path(options.out) / f"{date.today()}-streaming-{options.part}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    written = {"figures": figures, "environment": environment.describe()}
    target.write_text(json.dumps(written, indent=1) + "\n")
    print(target)


if __name__ == "__main__":
    main()
