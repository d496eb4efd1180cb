"""Computes a teacher's logits of the views of images, and writes them to their files."""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import filelock
import numpy as np

from tutelage.data.content import Images
from tutelage.distillation import top_logits, view_file
from tutelage.distillation.answers import finite
from tutelage.distillation.origin import Origin
from tutelage.distillation.view_file import ViewFile
from tutelage.errors import RunError
from tutelage.formatting import megabytes
from tutelage.progress import Progress

_CHUNK = 2000  # images of a step, at most
_CHUNK_BYTES = 64 * 2**20

TeacherOfViews = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class LogitWriter:
    """Computes and stores the views of an origin that are missing.

    Args:
        folder: the folder of the views' files, which exists; no other process writes to it.
        origin: what the logits are computed from.
        missing: numbers of the views that are missing, ascending.
        count: the number of views, with those that are complete.
        progress: notified of each view as an epoch.
    """

    folder: Path
    origin: Origin
    missing: list[int]
    count: int
    progress: Progress

    def announce(self, about: str) -> None:
        """Note what will be computed and stored.

        Args:
            about: what to say of the choice of classes, or "".

        Raises:
            RunError: if the disk has too little room for it.
        """
        images, *teachers, classes = self.origin.shape
        kept = self.origin.kept
        rows = sum(images - len(self._file(number).recorded()) for number in self.missing)
        needed = rows * self.origin.bytes(1) // images
        free = shutil.disk_usage(self.folder).free
        which = f"the {kept:,} largest of {classes:,} classes" if kept else f"{classes:,} classes"
        of = f" of {teachers[0]} teachers" if teachers else ""
        self.progress.note(
            f"teacher logits: {self.count} views of {images:,} images, {which}{of}"
            f"{f' ({about})' if about else ''}: {megabytes(self.origin.bytes(self.count))} in all, "
            f"{megabytes(needed)} to be computed; the disk has {megabytes(free)} free"
        )
        if needed > free:
            raise RunError(
                f"the teacher's logits take {megabytes(needed)} more in {self.folder}, whose disk "
                f"has {megabytes(free)} free: make room, set TUTELAGE_CACHE to a folder on another "
                "disk, or lower views.distinct or loss.stored_classes"
            )

    def write(
        self, teacher: TeacherOfViews, images: Images, workers: int | None, batch: int | None
    ) -> None:
        """Compute the missing views, as far as they are not recorded in their files.

        Args:
            teacher: as for `LogitCache.ask`, like the others.
            images: likewise.
            workers: likewise.
            batch: likewise.

        Raises:
            LogitsError: if a logit can't be stored.
            RunError: if the disk can't be written.
        """
        questions, progress = _Questions(teacher, batch), self.progress
        size = max(1, min(_CHUNK, _CHUNK_BYTES // math.prod(images.shape[1:])))
        first, steps = self.count - len(self.missing), math.ceil(len(images) / size)
        progress.stage("caching teacher logits", self.count, first, steps, "view")
        with self.origin.views(images).loader(workers) as loader:
            for done, number in enumerate(self.missing, start=first + 1):
                with self._file(number) as file:
                    if known := len(file.recorded()):
                        progress.note(
                            f"view {number + 1}: the logits of {known:,} of {len(images):,} images "
                            "are stored already"
                        )
                    spans = [
                        (max(start, chunk), min(stop, chunk + size))
                        for start, stop in file.missing()
                        for chunk in range(start // size * size, stop, size)
                    ]
                    batches = loader.batches((number, np.arange(*span)) for span in spans)
                    for (start, stop), views in zip(spans, batches, strict=True):
                        for place, answers in questions.ask(views):
                            file.write(start + place, self._rows(answers))
                        progress.step(math.ceil(stop / size), {})
                    seconds = file.finish()
                rate = len(images) / max(seconds, 1e-9)
                progress.epoch({"epoch": done, "seconds": seconds, "images_per_second": rate})

    def _rows(self, answers: np.ndarray) -> np.ndarray:
        """A teacher's answers as they are stored."""
        if self.origin.kept:
            return top_logits.pack(answers, self.origin.kept)
        return finite(answers) if self.origin.exact else top_logits.below_maximum(answers)

    def _file(self, number: int) -> ViewFile:
        return ViewFile(view_file.path_of(self.folder, number), *self.origin.array())


@contextlib.contextmanager
def alone(folder: Path, progress: Progress) -> Iterator[None]:
    """Write to a folder as its only process, after those that do so now.

    Args:
        folder: the folder, which exists.
        progress: notified if another process writes to it.

    Raises:
        RunError: if the folder can't be written.
    """
    lock = filelock.FileLock(folder / ".lock")
    try:
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            progress.note("another process is storing these teacher logits: waiting for it")
            lock.acquire()
    except OSError as error:
        reason = error.strerror or error
        raise RunError(f"can't write {folder}: {reason}: choose another TUTELAGE_CACHE") from error
    try:
        yield
    finally:
        lock.release()  # keep its file: another process may have it open


class _Questions:
    """Asks a teacher for about as many answers at a time as it gives between two records.

    It is asked for whole batches of its own, as an answer's last digits may depend on the others of
    its batch: so they don't depend on how fast the teacher is, or where it was interrupted.

    Args:
        teacher: as for `LogitCache.ask`.
        batch: as for `LogitCache.ask`.
    """

    def __init__(self, teacher: TeacherOfViews, batch: int | None):
        self._teacher, self._batch, self._rate = teacher, batch, 0.0

    def ask(self, views: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """The place of the first of some images, and the answers to them, until all are asked."""
        start = 0
        while start < len(views):
            count = len(views)
            if self._batch is not None:
                soon = int(self._rate * view_file.SAVE_SECONDS) // self._batch
                count = max(1, soon) * self._batch
            began = time.monotonic()
            answers = self._teacher(views[start : start + count])
            self._rate = len(answers) / max(time.monotonic() - began, 1e-9)
            yield start, answers
            start += count
