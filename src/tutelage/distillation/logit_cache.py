"""A cache on disk of a teacher's logits for each view of each training image."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tutelage import storage
from tutelage.data.content import Images
from tutelage.distillation import logit_writer, top_logits, view_file
from tutelage.distillation.answers import agree, sample
from tutelage.distillation.logit_writer import LogitWriter, TeacherOfViews
from tutelage.distillation.origin import Origin
from tutelage.distillation.view_file import ViewFile
from tutelage.errors import LogitsError
from tutelage.progress import Progress


class LogitCache:
    """Logits in float16, one memory-mapped array per view.

    They are stored less each row's maximum, which no softmax depends on: a common offset would
    take their digits. Then rounding changes a probability by at most 2e-4 at any temperature.
    Those of an exact origin are stored as they are, in float32. Of an origin that keeps the largest
    ones, the other classes share a logit that gives them their mass at a temperature.

    Views are numbered like the epochs that use them. Each has its own file, as in `ViewFile`, with
    a checksum next to it: an interrupted write resumes, and a damaged file is detected before a
    student trains on it. Of several processes that store the same logits, one computes them, and
    the others wait. The cache works for any temperature, alpha and loss on logits (one that keeps
    the largest, for those that take a softmax of all classes), and a student trains without its
    teacher in memory.

    Args:
        folder: folder of the logits; created if absent.
        origin: what the logits were computed from.
        temperature: T, at which the softmax of logits is the teacher's if not all are kept.

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

    def __init__(self, folder: Path, origin: Origin, temperature: float = 1.0):
        self.folder, self.origin, self.temperature = folder, origin, temperature
        self._open: dict[int, np.ndarray] = {}
        manifest = folder / "manifest.json"
        if manifest.exists():
            _refuse_others(manifest, origin)

    def at(self, temperature: float) -> LogitCache:
        """The same logits, for softmaxes at another temperature."""
        return LogitCache(self.folder, self.origin, temperature) if self.origin.kept else self

    def missing(self, count: int) -> list[int]:
        """The views among the first `count` that are missing or damaged."""
        return [n for n in range(count) if not view_file.is_complete(self._file(n))]

    def ask(
        self,
        teacher: TeacherOfViews,
        images: Images,
        count: int,
        progress: Progress | None = None,
        workers: int | None = 0,
        *,
        batch: int | None = None,
        about: str = "",
    ) -> None:
        """Store the logits of the first `count` views, computing those that are missing.

        What is computed, and how much room it takes, is noted before.

        Args:
            teacher: returns logits (n, classes) for uint8 images (n, height, width, channels).
            images: the training images that `origin` identifies.
            count: the number of views.
            progress: notified of each view as an epoch.
            workers: processes that prepare views ahead; 0: a thread; None: as many as
                `AugmentedViews.loader` chooses.
            batch: images that the teacher computes at once: a slow one is asked for a few times as
                many at a time, so that an interruption costs less; None: not known.
            about: what to note of the choice of classes.

        Raises:
            LogitsError: if a logit is not finite, or too far below its row's maximum for float16.
            RunError: if the disk can't be written, or has too little room.
        """
        progress = progress or Progress()
        missing = self.missing(count)
        storage.mark_used(self.folder)
        if not missing:
            return
        storage.make_folder(self.folder)
        with logit_writer.alone(self.folder, progress):
            # Another process may have stored some meanwhile.
            missing = [n for n in missing if not view_file.is_complete(self._file(n))]
            if missing:
                writer = LogitWriter(self.folder, self.origin, missing, count, progress)
                writer.announce(about)
                with storage.replacing(self.folder / "manifest.json") as temporary:
                    temporary.write_text(json.dumps(self.origin.tree(), indent=1) + "\n")
                writer.write(teacher, images, workers, batch)
        storage.evict()

    def logits(self, number: int, index: np.ndarray) -> np.ndarray:
        """The logits of some images in one view.

        Args:
            number: the view, from 0, as epochs are numbered.
            index: indices of the images, integers of shape (n,).

        Returns:
            float32 of shape (n, classes), less each row's maximum unless the origin is exact. The
            classes whose logits were not kept have one in common.

        Raises:
            LogitsError: if the view is missing or its file is damaged.
        """
        if number not in self._open:
            if not view_file.is_complete(self._file(number)):
                raise LogitsError(
                    f"{self._file(number)} is missing or damaged: run the command that stored it "
                    "again to recompute it"
                )
            storage.mark_used(self.folder)
            self._open[number] = np.load(self._file(number), mmap_mode="r")
        rows = self._open[number][index]
        if self.origin.kept:
            return top_logits.unpack(rows, self.origin.shape[-1], self.temperature)
        return np.asarray(rows, dtype=np.float32)

    def seconds(self, count: int) -> float:
        """Seconds that the teacher took for the first `count` views, over all runs."""
        return sum(float(view_file.note(self._file(n))["seconds"]) for n in range(count))

    def agrees(self, teacher: TeacherOfViews, images: Images) -> bool:
        """Whether a teacher gives the stored logits for a few images; True if none are stored."""
        for number, index, stored in self._some(sample(len(images))):
            answers = teacher(self.origin.views(images)(number, index))
            if self.origin.kept and answers.shape == (*stored.shape, self.origin.shape[-1]):
                answers = top_logits.pack_classes(answers, stored["classes"])
                answers, stored = (
                    np.concatenate([rows["logits"], rows["rest"]], axis=-1)
                    for rows in (answers, stored)
                )
            return agree(answers, stored, self.origin.precision)
        return True

    def _some(self, index: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Views with images' indices and stored logits: complete views, then parts of views."""
        for path in sorted(self.folder.glob("[0-9]*.npy")):
            if view_file.is_complete(path):
                yield int(path.stem), index, np.load(path, mmap_mode="r")[index]
        for path in sorted(self.folder.glob("[0-9]*.part")):
            part = ViewFile(path.with_suffix(".npy"), *self.origin.array())
            if len(known := part.recorded()):
                few = known[sample(len(known))]
                try:
                    rows = part.rows(few)
                except FileNotFoundError:  # another process has completed it meanwhile
                    continue
                yield int(path.stem), few, rows

    def _file(self, number: int) -> Path:
        return view_file.path_of(self.folder, number)


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
        For each origin, `folder`, `origin`, `views` (the number of complete ones), `parts` (that of
        views that are stored in part) and `bytes`.
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
            "views": sum(file.match("[0-9]*.npy") for file in files),
            "parts": sum(file.match("[0-9]*.part") for file in files),
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
