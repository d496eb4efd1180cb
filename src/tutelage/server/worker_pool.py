"""A thread pool that classifies images, behind a bounded queue."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from tutelage.server.metrics import Metrics
from tutelage.server.models import Served, png
from tutelage.server.uploads import Limits, busy, read


class WorkerPool:
    """Threads that decode images and run every model on them.

    Args:
        served: the models.
        threads: number of images classified at once, at least 1.
        limits: `waiting` limits the queue, `pixels` the size of an image.
        metrics: records each model's time.
    """

    def __init__(self, served: Served, threads: int, limits: Limits, metrics: Metrics):
        self._served, self._limits, self._metrics = served, limits, metrics
        self._room = threads + limits.waiting
        self._in_hand = 0
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="classify")
        self.classified = 0
        self.closing = False

    async def classify(self, data: bytes, top: int, preview: bool) -> dict[str, Any]:
        """Classify an image, as soon as a thread is free.

        Args:
            data: the image file's bytes.
            top: number of classes to return.
            preview: whether to add the image as the models see it.

        Returns:
            `models` and `picture`, ready for JSON.

        Raises:
            Refused: if the queue is full (503) or the image can't be read.
        """
        if self._in_hand >= self._room:
            raise busy()
        self._count(1)
        loop = asyncio.get_running_loop()
        future = self._pool.submit(self._work, data, top, preview)

        # Also after the client disconnects, as the thread continues.
        def done(_: Future[dict[str, Any]]) -> None:
            self._later(loop, lambda: self._count(-1))

        future.add_done_callback(done)
        result = await asyncio.wrap_future(future)
        self.classified += 1
        return result

    def _later(self, loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(call)

    def _count(self, more: int) -> None:
        self._in_hand += more
        self._metrics.in_hand.set(self._in_hand)

    def _work(self, data: bytes, top: int, preview: bool) -> dict[str, Any]:
        inputs = dict.fromkeys(model.exported.input for model in self._served.models)
        picture = read(data, inputs, self._limits.pixels)
        results = []
        for model in self._served.models:
            start = time.perf_counter()
            (probabilities,) = model.exported.probabilities(picture.seen[model.exported.input])
            seconds = time.perf_counter() - start
            self._metrics.model.labels(model.title).observe(seconds)
            best = np.argsort(-probabilities, kind="stable")[:top]
            results.append(
                {
                    "name": model.exported.name,
                    "precision": model.exported.precision,
                    "file": model.file,
                    "bytes": model.size,
                    "milliseconds": round(1000 * seconds, 3),
                    "classes": [
                        {
                            "name": str(model.exported.classes[i]),
                            "probability": float(probabilities[i]),
                        }
                        for i in best
                    ],
                }
            )
        details: dict[str, Any] = {"width": picture.width, "height": picture.height}
        if preview:
            details["seen"] = [
                {
                    "width": pixels.shape[2],
                    "height": pixels.shape[1],
                    "png": _inline(png(pixels[0])),
                }
                for pixels in picture.seen.values()
            ]
        return {"models": results, "picture": details}

    def end(self) -> None:
        """Report the server as shutting down; new requests are still handled."""
        self.closing = True

    def close(self) -> None:
        """Wait for running requests, then end the threads."""
        self._pool.shutdown(wait=True)


def _inline(file: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(file).decode('ascii')}"
