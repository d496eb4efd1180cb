"""Knowledge: a teacher's logits for each view of each training image, on disk."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tutelage import storage
from tutelage.data import augmentation
from tutelage.errors import KnowledgeError
from tutelage.progress import Progress

_CHUNK = 2000  # images shown to the teacher at once, at most
_CHUNK_BYTES = 64 * 2**20
_LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Origin:
    """What logits belong to; others are of no use to a student.

    Attributes:
        teacher: hash of the teacher's architecture and weights.
        images: hash of the training images, in their order.
        seed: of the views.
        flip: of the views.
        shift: of the views, in pixels.
        cutout: of the views, in pixels.
        precision: what the teacher was computed in.
        shape: (images, classes), or (images, teachers, classes).
    """

    teacher: str
    images: str
    seed: int
    flip: bool
    shift: int
    cutout: int
    precision: str
    shape: tuple[int, ...]

    def key(self) -> str:
        """The name of its folder."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


class LogitCache:
    """Raw logits in float16, an array of the origin's shape a view, memory-mapped.

    Views are numbered as the epochs that show them. Each is a file of its own, written
    whole, with its checksum beside it: writing that was interrupted goes on, and a torn
    file is found before a student learns from it. Any temperature, alpha or loss on
    logits can use them again, and a student trains without its teacher in memory.

    Args:
        folder: where they are, or will be.
        origin: what they belong to.

    Raises:
        KnowledgeError: if the folder's logits belong to something else; says what differs.

    Example:

    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from tutelage.distillation.logit_cache import LogitCache, Origin
    >>> views = {"seed": 0, "flip": True, "shift": 2, "cutout": 0}
    >>> origin = Origin("t", "i", **views, precision="float32", shape=(4, 3))
    >>> knowledge = LogitCache(pathlib.Path(tempfile.mkdtemp()), origin)
    >>> images = np.zeros((4, 8, 8, 1), np.uint8)
    >>> knowledge.ask(lambda views: np.full((len(views), 3), 0.5), images, count=2)
    >>> knowledge.logits(1, np.array([3, 0])).tolist()
    [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]]
    """

    def __init__(self, folder: Path, origin: Origin):
        self.folder, self.origin = folder, origin
        self._open: dict[int, np.ndarray] = {}
        manifest = folder / "manifest.json"
        if manifest.exists():
            _refuse_others(manifest, origin)

    def missing(self, count: int) -> list[int]:
        """Which of the first `count` views are not there whole."""
        return [number for number in range(count) if not self._holds(number)]

    def ask(
        self,
        teacher: Callable[[np.ndarray], np.ndarray],
        images: np.ndarray,
        count: int,
        progress: Progress | None = None,
    ) -> None:
        """Store the first `count` views' logits, asking the teacher for those that are missing.

        Args:
            teacher: gives the logits (n, classes) of uint8 images (n, height, width, channels).
            images: the training images that `origin` names.
            count: how many views.
            progress: notified of each view, as of an epoch.

        Raises:
            KnowledgeError: if a logit is not finite, or too large for float16.
            RunError: if the disk can't be written.
        """
        progress = progress or Progress()
        missing = self.missing(count)
        if not missing:
            return
        storage.make_folder(self.folder)
        with storage.replacing(self.folder / "manifest.json") as temporary:
            temporary.write_text(json.dumps(asdict(self.origin), indent=1) + "\n")
        size = max(1, min(_CHUNK, _CHUNK_BYTES // images[0].nbytes))
        chunks = list(range(0, len(images), size))
        progress.stage("caching teacher logits", count, count - len(missing), len(chunks), "pass")
        for done, number in enumerate(missing, start=count - len(missing) + 1):
            began = time.monotonic()
            logits = np.empty(self.origin.shape, np.float16)
            for step, start in enumerate(chunks, start=1):
                index = np.arange(start, min(start + size, len(images)))
                shown = augmentation.view(
                    images,
                    index,
                    seed=self.origin.seed,
                    epoch=number,
                    flip=self.origin.flip,
                    shift=self.origin.shift,
                    cutout=self.origin.cutout,
                )
                logits[index] = _fitting(teacher(shown))
                progress.step(step, {})
            seconds = time.monotonic() - began
            self._store(number, logits, seconds)
            progress.epoch({"epoch": done, "seconds": seconds})

    def logits(self, number: int, index: np.ndarray) -> np.ndarray:
        """The logits of a view of some images.

        Args:
            number: the view, counted as the epochs are, from 0.
            index: the images' numbers, integers of shape (n,).

        Returns:
            float32 of shape (n, classes).

        Raises:
            KnowledgeError: if the view is not there, or its file is torn.
        """
        if number not in self._open:
            if not self._holds(number):
                raise KnowledgeError(
                    f"{self._file(number)} is missing or torn: give the command that stored it "
                    "again, and it is made anew"
                )
            self._open[number] = np.load(self._file(number), mmap_mode="r")
        return np.asarray(self._open[number][index], dtype=np.float32)

    def seconds(self, count: int) -> float:
        """What the teacher took for the first `count` views, whichever run asked it."""
        return sum(self._note(number)["seconds"] for number in range(count))

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:05d}.npy"

    def _note(self, number: int) -> dict[str, Any]:
        note: dict[str, Any] = json.loads(self._file(number).with_suffix(".json").read_text())
        return note

    def _holds(self, number: int) -> bool:
        try:
            return bool(self._note(number)["sha256"] == storage.sha256(self._file(number)))
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def _store(self, number: int, logits: np.ndarray, seconds: float) -> None:
        path = self._file(number)
        with storage.replacing(path) as temporary:
            np.save(temporary, logits)
        # Last, for it says that the view is whole.
        with storage.replacing(path.with_suffix(".json")) as temporary:
            temporary.write_text(
                json.dumps({"sha256": storage.sha256(path), "seconds": round(seconds, 3)}) + "\n"
            )


class GivenLogits:
    """Logits that somebody else has stored, of images as they are: the same in every view.

    Args:
        logits: float32 of shape (images, classes).
    """

    def __init__(self, logits: np.ndarray):
        self._logits = logits

    def logits(self, number: int, index: np.ndarray) -> np.ndarray:
        """As `LogitCache.logits`, whatever the view's number."""
        return self._logits[index]


def home() -> Path:
    """Where knowledge is kept: a folder for each origin, named by its key."""
    return storage.cache_folder() / "knowledge"


def stored() -> Iterator[dict[str, Any]]:
    """What is kept on this machine.

    Yields:
        For each origin `folder`, `origin`, `views` (how many) and `bytes`.
    """
    for manifest in sorted(home().glob("*/manifest.json")):
        try:
            origin = json.loads(manifest.read_text())
        except (OSError, ValueError):
            origin = {}  # damaged: shown, so that it can be cleared
        files = list(manifest.parent.iterdir())
        yield {
            "folder": str(manifest.parent),
            "origin": origin,
            "views": sum(file.suffix == ".npy" for file in files),
            "bytes": sum(file.stat().st_size for file in files),
        }


def clear() -> None:
    """Forget all that is kept; it can be asked again of the teachers."""
    if home().exists():
        shutil.rmtree(home())


def _refuse_others(manifest: Path, origin: Origin) -> None:
    try:
        there = json.loads(manifest.read_text())
        there["shape"] = tuple(there["shape"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise KnowledgeError(
            f"{manifest} is damaged: delete it with `tutelage cache --clear`"
        ) from error
    wanted = asdict(origin)
    different = [
        f"{name} is {there.get(name)!r} there and {value!r} here"
        for name, value in wanted.items()
        if there.get(name) != value
    ]
    if different:
        raise KnowledgeError(
            f"{manifest.parent} holds the logits of something else: {'; '.join(different)}; "
            "choose another folder"
        )


def _fitting(logits: np.ndarray) -> np.ndarray:
    if not np.abs(logits).max() <= _LARGEST:  # not a number fails it too
        raise KnowledgeError(
            f"the teacher's logits are expected within +-{_LARGEST:g}, found one of "
            f"{logits.flat[np.abs(logits).argmax()]}; is it trained, and of these images?"
        )
    return logits
