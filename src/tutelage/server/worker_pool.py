"""Threads that answer pictures, and the queue in front of them, which has an end."""

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
    """A few threads that decode pictures and ask every model.

    Args:
        served: the models.
        threads: that answer at once, at least 1.
        limits: `waiting` is how many more pictures are taken in, `pixels` how large each is.
        metrics: where each model's time is counted.
    """

    def __init__(self, served: Served, threads: int, limits: Limits, metrics: Metrics):
        self._served, self._limits, self._metrics = served, limits, metrics
        self._room = threads + limits.waiting
        self._in_hand = 0
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="answer")
        self.answered = 0
        self.closing = False

    async def answer(self, data: bytes, top: int, preview: bool) -> dict[str, Any]:
        """Answer a picture, when a thread is free for it.

        Args:
            data: the image file's bytes.
            top: how many classes to give.
            preview: whether to add the picture as the models see it.

        Returns:
            `models` and `picture`, ready for JSON.

        Raises:
            Refused: if the queue is full (503) or the picture can't be read.
        """
        if self._in_hand >= self._room:
            raise busy()
        self._count(1)
        loop = asyncio.get_running_loop()
        future = self._pool.submit(self._work, data, top, preview)

        # Also when whoever waits is gone: the thread is at work until it ends.
        def done(_: Future[dict[str, Any]]) -> None:
            self._later(loop, lambda: self._count(-1))

        future.add_done_callback(done)
        answer = await asyncio.wrap_future(future)
        self.answered += 1
        return answer

    def _later(self, loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(call)

    def _count(self, more: int) -> None:
        self._in_hand += more
        self._metrics.in_hand.set(self._in_hand)

    def _work(self, data: bytes, top: int, preview: bool) -> dict[str, Any]:
        shapes = dict.fromkeys(model.exported.shape for model in self._served.models)
        picture = read(data, shapes, self._limits.pixels)
        answers = []
        for model in self._served.models:
            start = time.perf_counter()
            (chances,) = model.exported.probabilities(picture.seen[model.exported.shape])
            seconds = time.perf_counter() - start
            self._metrics.model.labels(model.title).observe(seconds)
            best = np.argsort(-chances, kind="stable")[:top]
            answers.append(
                {
                    "name": model.exported.name,
                    "precision": model.exported.precision,
                    "file": model.file,
                    "bytes": model.size,
                    "milliseconds": round(1000 * seconds, 3),
                    "classes": [
                        {"name": self._served.classes[i], "probability": float(chances[i])}
                        for i in best
                    ],
                }
            )
        told: dict[str, Any] = {"width": picture.width, "height": picture.height}
        if preview:
            told["seen"] = [
                {"width": shape[1], "height": shape[0], "png": _inline(png(pixels[0]))}
                for shape, pixels in picture.seen.items()
            ]
        return {"models": answers, "picture": told}

    def end(self) -> None:
        """Say that the server is about to end; what still comes in is answered."""
        self.closing = True

    def close(self) -> None:
        """Wait for what the threads have in hand, and let them go."""
        self._pool.shutdown(wait=True)


def _inline(file: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(file).decode('ascii')}"
