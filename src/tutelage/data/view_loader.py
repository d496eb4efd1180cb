"""Views of images, prepared ahead of the model that takes them."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import numpy as np

from tutelage.data.content import Images
from tutelage.data.image_files import ImageFiles
from tutelage.errors import TutelageError

# What a worker is asked for: a view's number, and indices of images.
Request = tuple[int, np.ndarray]
_AHEAD = 2  # batches that each worker prepares ahead
_MOST_WORKERS = 8
_FEW = 64  # images that are not worth starting workers
# Batches pass through shared memory where there is enough; containers often allow 64 MB, and
# exceeding that kills the process.
_SHARED_MEMORY = 2**30


def default_workers() -> int:
    """One worker process for each processor that this process may use, at most 8."""
    usable = getattr(os, "process_cpu_count", os.cpu_count)()
    if hasattr(os, "sched_getaffinity"):
        usable = len(os.sched_getaffinity(0))
    return min(_MOST_WORKERS, usable or 1)


class ViewLoader:
    """Computes batches in order, ahead of their use: in worker processes, or in one thread.

    A batch is a function of its request alone, so that the number of workers, and whether images
    are in memory or in files, change nothing.

    Args:
        compute: returns the batch of a request; for workers, it must be picklable where the
            platform starts processes anew (macOS, Windows).
        workers: the number of worker processes; 0: a thread of this process.

    Example:

    >>> import numpy as np
    >>> from tutelage.data.view_loader import ViewLoader
    >>> images = np.arange(6)
    >>> with ViewLoader(lambda view, index: images[index] + view, workers=0) as loader:
    ...     requests = [(10, np.array([2, 0])), (20, np.array([1]))]
    ...     [batch.tolist() for batch in loader.batches(requests)]
    [[12, 10], [21]]
    """

    def __init__(self, compute: Callable[[int, np.ndarray], np.ndarray], workers: int):
        self._compute, self._workers = compute, workers
        self._requests: list[Request] = []
        self._loader: Any = None
        self._thread = ThreadPoolExecutor(1, "views") if not workers else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def batches(self, requests: Iterable[Request]) -> Iterator[np.ndarray]:
        """The batch of each request, in order; one iteration at a time.

        Args:
            requests: view numbers, and indices of images of shape (n,).

        Yields:
            What `compute` returns.

        Raises:
            TutelageError: what `compute` raises.
        """
        if self._thread is not None:
            yield from self._in_thread(self._thread, iter(requests))
            return
        self._requests[:] = requests
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # more workers than processors are as asked for
            if self._loader is None:
                self._loader = _data_loader(self._compute, self._requests, self._workers)
            batches = iter(self._loader)
        for batch in batches:
            if isinstance(batch, TutelageError):
                raise batch
            yield batch if isinstance(batch, np.ndarray) else batch.numpy()

    def close(self) -> None:
        """Stop the workers."""
        self._loader = None
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)

    def _in_thread(
        self, thread: ThreadPoolExecutor, requests: Iterator[Request]
    ) -> Iterator[np.ndarray]:
        ahead = [thread.submit(self._compute, *one) for one in itertools.islice(requests, 1)]
        while ahead:
            batch = ahead.pop(0).result()
            ahead += [thread.submit(self._compute, *one) for one in itertools.islice(requests, 1)]
            yield batch


def in_batches(images: Images, size: int) -> Iterator[np.ndarray]:
    """Images without augmentation, in order.

    Args:
        images: in memory or in files; files are decoded ahead, in workers if there are many.
        size: images per batch, at least 1.

    Yields:
        uint8 of shape (n, height, width, channels).
    """
    starts = range(0, len(images), size)
    if not isinstance(images, ImageFiles):
        yield from (images[start : start + size] for start in starts)
        return
    workers = default_workers() if len(images) > _FEW else 0
    with ViewLoader(_Stored(images), workers) as loader:
        everything = np.arange(len(images))
        yield from loader.batches((0, everything[start : start + size]) for start in starts)


class _Stored:
    """Computes batches of images as they are."""

    def __init__(self, images: ImageFiles):
        self.images = images

    def __call__(self, _: int, index: np.ndarray) -> np.ndarray:
        return np.stack([self.images.image(number) for number in index.tolist()])


class _Worker:
    """The data set that PyTorch's DataLoader hands to its workers: requests in, batches out."""

    def __init__(self, compute: Callable[[int, np.ndarray], np.ndarray]):
        self.compute, self.shared = compute, _has_shared_memory()

    def __getitem__(self, request: Request) -> Any:
        try:
            batch = self.compute(*request)
        except TutelageError as error:  # PyTorch would put a traceback into its message
            return error
        if not self.shared:
            return batch
        import torch

        return torch.from_numpy(batch)


def _has_shared_memory() -> bool:
    try:
        return shutil.disk_usage("/dev/shm").free >= _SHARED_MEMORY
    except OSError:  # not on Linux, where PyTorch has other means
        return not sys.platform.startswith("linux")


def _data_loader(
    compute: Callable[[int, np.ndarray], np.ndarray], requests: list[Request], workers: int
) -> Any:
    from torch.utils.data import DataLoader

    return DataLoader(
        _Worker(compute),  # type: ignore[arg-type]
        batch_size=None,
        sampler=requests,
        num_workers=workers,
        # A process that runs JAX's threads can't be forked.
        multiprocessing_context="forkserver" if _forks() and "jax" in sys.modules else None,
        collate_fn=_as_is,
        worker_init_fn=_start,
        prefetch_factor=_AHEAD,
        persistent_workers=True,
    )


def _forks() -> bool:
    return multiprocessing.get_start_method() == "fork"


def _as_is(batch: Any) -> Any:
    return batch


def _start(_: int) -> None:
    # The main process decides when work ends; its own handlers would only set flags here.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    warnings.simplefilter("ignore")
    from PIL import Image

    warnings.simplefilter("error", Image.DecompressionBombWarning)
