"""A cache on disk of a teacher's logits for each view of each training image."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tutelage import storage
from tutelage.data.augmented_views import AugmentedViews
from tutelage.data.content import Images
from tutelage.distillation.answers import agree, sample
from tutelage.errors import LogitsError
from tutelage.progress import Progress
from tutelage.recipe import Views

_CHUNK = 2000  # images per call of the teacher, at most
_CHUNK_BYTES = 64 * 2**20
_LARGEST = float(np.finfo(np.float16).max)

TeacherOfViews = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Origin:
    """What stored logits were computed from; logits of another origin are refused.

    Attributes:
        teacher: hash of the teacher's architecture and weights.
        images: hash of the training images, in their order.
        seed: augmentation seed.
        flip: whether views are flipped at random.
        shift: largest random shift, in pixels.
        cutout: side of the square cut out, in pixels.
        precision: data type of the teacher's computation.
        shape: (images, classes), or (images, teachers, classes).
        exact: whether logits are stored as they are, in float32, for losses that may depend on a
            common offset or on the last digits.
        transforms: the other settings of the recipe's views.
    """

    teacher: str
    images: str
    seed: int
    flip: bool
    shift: int
    cutout: int
    precision: str
    shape: tuple[int, ...]
    exact: bool = False
    transforms: dict[str, Any] = field(default_factory=dict)

    def key(self) -> str:
        """The name of the origin's folder."""
        stored = "as they are" if self.exact else "less each row's maximum"
        text = json.dumps(self.tree() | {"stored": stored}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def tree(self) -> dict[str, Any]:
        """The attributes as plain values; those added since version 0.1 only if they are set."""
        added = ("exact", "transforms")
        return {name: value for name, value in asdict(self).items() if value or name not in added}


class LogitCache:
    """Logits in float16, one memory-mapped array of the origin's shape per view.

    They are stored less each row's maximum, which no softmax depends on: a common offset would
    take their digits. Then rounding changes a probability by at most 2e-4 at any temperature.
    Those of an exact origin are stored as they are, in float32.

    Views are numbered like the epochs that use them. Each is written atomically to its own
    file, with a checksum next to it: an interrupted write resumes, and a damaged file is
    detected before a student trains on it. The cache works for any temperature, alpha and
    loss on logits, and a student trains without its teacher in memory.

    Args:
        folder: folder of the logits; created if absent.
        origin: what the logits were computed from.

    Raises:
        LogitsError: if the folder's logits have another origin; the message says what differs.

    Example:

    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from tutelage.distillation.logit_cache import LogitCache, Origin
    >>> views = {"seed": 0, "flip": True, "shift": 2, "cutout": 0}
    >>> origin = Origin("t", "i", **views, precision="float32", shape=(4, 3))
    >>> cache = LogitCache(pathlib.Path(tempfile.mkdtemp()), origin)
    >>> images = np.zeros((4, 8, 8, 1), np.uint8)
    >>> cache.ask(lambda views: np.tile([0.5, 1.5, 0.0], (len(views), 1)), images, count=2)
    >>> cache.logits(1, np.array([3, 0])).tolist()
    [[-1.0, 0.0, -1.5], [-1.0, 0.0, -1.5]]
    """

    def __init__(self, folder: Path, origin: Origin):
        self.folder, self.origin = folder, origin
        self._open: dict[int, np.ndarray] = {}
        manifest = folder / "manifest.json"
        if manifest.exists():
            _refuse_others(manifest, origin)

    def missing(self, count: int) -> list[int]:
        """The views among the first `count` that are missing or damaged."""
        return [number for number in range(count) if not self._is_complete(number)]

    def ask(
        self,
        teacher: TeacherOfViews,
        images: Images,
        count: int,
        progress: Progress | None = None,
        workers: int | None = 0,
    ) -> None:
        """Store the logits of the first `count` views, computing those that are missing.

        Args:
            teacher: returns logits (n, classes) for uint8 images (n, height, width, channels).
            images: the training images that `origin` identifies.
            count: the number of views.
            progress: notified of each view as an epoch.
            workers: processes that prepare views ahead; 0: a thread; None: as many as
                `AugmentedViews.loader` chooses.

        Raises:
            LogitsError: if a logit is not finite, or too far below its row's maximum for float16.
            RunError: if the disk can't be written.
        """
        progress = progress or Progress()
        missing = self.missing(count)
        storage.mark_used(self.folder)
        if not missing:
            return
        storage.make_folder(self.folder)
        with storage.replacing(self.folder / "manifest.json") as temporary:
            temporary.write_text(json.dumps(self.origin.tree(), indent=1) + "\n")
        size = max(1, min(_CHUNK, _CHUNK_BYTES // math.prod(images.shape[1:])))
        chunks = [np.arange(i, min(i + size, len(images))) for i in range(0, len(images), size)]
        progress.stage("caching teacher logits", count, count - len(missing), len(chunks), "pass")
        with self._views(images).loader(workers) as loader:
            for done, number in enumerate(missing, start=count - len(missing) + 1):
                began = time.monotonic()
                kind = np.float32 if self.origin.exact else np.float16
                logits = np.empty(self.origin.shape, kind)
                batches = loader.batches((number, index) for index in chunks)
                for step, (index, views) in enumerate(zip(chunks, batches, strict=True), start=1):
                    answers = teacher(views)
                    logits[index] = finite(answers) if self.origin.exact else _rounded(answers)
                    progress.step(step, {})
                seconds = time.monotonic() - began
                self._store(number, logits, seconds)
                rate = len(images) / max(seconds, 1e-9)
                progress.epoch({"epoch": done, "seconds": seconds, "images_per_second": rate})
        storage.evict()

    def logits(self, number: int, index: np.ndarray) -> np.ndarray:
        """The logits of some images in one view.

        Args:
            number: the view, from 0, as epochs are numbered.
            index: indices of the images, integers of shape (n,).

        Returns:
            float32 of shape (n, classes), less each row's maximum unless the origin is exact.

        Raises:
            LogitsError: if the view is missing or its file is damaged.
        """
        if number not in self._open:
            if not self._is_complete(number):
                raise LogitsError(
                    f"{self._file(number)} is missing or damaged: run the command that stored it "
                    "again to recompute it"
                )
            storage.mark_used(self.folder)
            self._open[number] = np.load(self._file(number), mmap_mode="r")
        return np.asarray(self._open[number][index], dtype=np.float32)

    def seconds(self, count: int) -> float:
        """Seconds that the teacher took for the first `count` views, over all runs."""
        return sum(self._note(number)["seconds"] for number in range(count))

    def agrees(self, teacher: TeacherOfViews, images: Images) -> bool:
        """Whether a teacher gives the stored logits for a few images; True if none are stored."""
        index = sample(len(images))
        for file in sorted(self.folder.glob("[0-9]*.npy")):  # not those being written
            number = int(file.stem)
            if self._is_complete(number):
                stored = np.load(file, mmap_mode="r")[index]
                answers = teacher(self._views(images)(number, index))
                return agree(answers, stored, self.origin.precision)
        return True

    def _views(self, images: Images) -> AugmentedViews:
        origin = self.origin
        views = Views(flip=origin.flip, shift=origin.shift, **origin.transforms)
        return AugmentedViews(images, views, origin.seed, origin.cutout)

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:05d}.npy"

    def _note(self, number: int) -> dict[str, Any]:
        note: dict[str, Any] = json.loads(self._file(number).with_suffix(".json").read_text())
        return note

    def _is_complete(self, number: int) -> bool:
        try:
            return bool(self._note(number)["sha256"] == storage.sha256(self._file(number)))
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def _store(self, number: int, logits: np.ndarray, seconds: float) -> None:
        path = self._file(number)
        with storage.replacing(path) as temporary:
            np.save(temporary, logits)
        # Last: it marks the view as complete.
        with storage.replacing(path.with_suffix(".json")) as temporary:
            temporary.write_text(
                json.dumps({"sha256": storage.sha256(path), "seconds": round(seconds, 3)}) + "\n"
            )


class GivenLogits:
    """Logits given by the user for the images without augmentation: the same in every view.

    Args:
        logits: float32 of shape (images, classes).
    """

    def __init__(self, logits: np.ndarray):
        self._logits = logits

    def logits(self, number: int, index: np.ndarray) -> np.ndarray:
        """As `LogitCache.logits`; `number` is ignored."""
        return self._logits[index]


def home() -> Path:
    """The cache's folder, which contains one folder per origin, named by its key."""
    return storage.cache_folder() / "logits"


def find(origin: Origin, teacher: TeacherOfViews, images: Images, progress: Progress) -> LogitCache:
    """The cache of an origin whose logits are those that its teacher gives now.

    Args:
        origin: what the logits are computed from.
        teacher: as for `LogitCache.ask`; asked for a few images of a stored view.
        images: the training images that `origin` identifies.
        progress: notified if logits are stored, but others than the teacher gives.

    Returns:
        The first cache of the origin that agrees with the teacher, else an empty one. Logits of
        others stay, as another process may be training on them.
    """
    folder = home() / origin.key()
    cache = LogitCache(folder, origin)
    for number in itertools.count(1):
        if cache.agrees(teacher, images):
            break
        cache = LogitCache(folder.with_name(f"{folder.name}-{number}"), origin)
    if cache.folder != folder and not cache.folder.exists():
        progress.note("the teacher no longer gives the logits stored of it: computing them anew")
    return cache


def stored() -> Iterator[dict[str, Any]]:
    """List the logits stored on this machine.

    Yields:
        For each origin, `folder`, `origin`, `views` (their number) and `bytes`.
    """
    for manifest in sorted(home().glob("*/manifest.json")):
        try:
            origin = json.loads(manifest.read_text())
        except (OSError, ValueError):
            origin = {}  # damaged: listed so that it can be cleared
        files = list(manifest.parent.iterdir())
        yield {
            "folder": str(manifest.parent),
            "origin": origin,
            "views": sum(file.suffix == ".npy" for file in files),
            "bytes": sum(file.stat().st_size for file in files),
        }


def _refuse_others(manifest: Path, origin: Origin) -> None:
    try:
        found = json.loads(manifest.read_text())
        found["shape"] = tuple(found["shape"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LogitsError(
            f"{manifest} is damaged: delete it with `tutelage cache --clear`"
        ) from error
    wanted = origin.tree()
    different = [
        f"{name} is {found.get(name)!r} there and {wanted.get(name)!r} here"
        for name in {**wanted, **found}
        if found.get(name) != wanted.get(name)
    ]
    if different:
        raise LogitsError(
            f"{manifest.parent} contains logits of another origin: {'; '.join(different)}; "
            "choose another folder"
        )


def _rounded(logits: np.ndarray) -> np.ndarray:
    """Logits less each row's maximum, in float16."""
    below = np.full_like(logits, np.nan)
    if np.isfinite(logits).all():
        below = logits - logits.max(axis=-1, keepdims=True)
    if not below.min() >= -_LARGEST:  # NaN fails too
        raise LogitsError(
            f"the teacher's logits must be finite and within {_LARGEST:g} of each other, found "
            f"{logits.flat[np.abs(logits).argmax()]}; is it trained, and on such images?"
        )
    return below.astype(np.float16)


def finite(logits: np.ndarray) -> np.ndarray:
    """A teacher's logits, or LogitsError if one is not finite."""
    if not np.isfinite(logits).all():
        raise LogitsError("the teacher's logits must be finite; is it trained, and on such images?")
    return logits
