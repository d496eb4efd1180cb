"""Middleware: refuses requests of other sites, adds headers and counts requests."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from tutelage.server.metrics import Metrics
from tutelage.server.worker_pool import WorkerPool

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

LOCAL = frozenset({"localhost", "127.0.0.1", "[::1]"})
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = tuple(
    (name.encode("ascii"), value.encode("ascii"))
    for name, value in {
        "content-security-policy": POLICY,
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-embedder-policy": "require-corp",
        "cross-origin-resource-policy": "same-origin",
        "permissions-policy": "camera=(), geolocation=(), microphone=()",
        "cache-control": "no-store",
    }.items()
)
_READS = ("GET", "HEAD", "OPTIONS")

log = logging.getLogger(__name__)


class RequestGuard:
    """Wraps an ASGI application: refuses other sites' requests, adds headers, counts.

    Args:
        app: handles accepted requests; receives HEAD as GET.
        worker_pool: classifies images for `app`; ended by the code that runs the server.
        metrics: counts requests.
    """

    def __init__(self, app: Application, worker_pool: WorkerPool, metrics: Metrics):
        self._app, self._metrics = app, metrics
        self.worker_pool = worker_pool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        status = 0

        async def respond(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        # HEAD is GET without a body; the server omits it.
        inner = dict(scope)
        inner["method"] = "GET" if scope["method"] == "HEAD" else scope["method"]
        try:
            if _from_another_site(scope):
                await _refuse(respond, "expected a request of this page, found another site's")
            else:
                await self._app(inner, receive, respond)
        except Exception:  # the application has responded with status 500 already
            log.exception("a request failed")
        finally:
            path = getattr(inner.get("route"), "path", "other")
            self._metrics.requests.labels(path, str(status)).inc()
            self._metrics.seconds.labels(path).observe(time.perf_counter() - start)


def _from_another_site(scope: Scope) -> bool:
    """Whether a request that could change something comes from a page of another site.

    Browsers send the origin of a request, and pages can't forge it.
    """
    if scope["method"] in _READS:
        return False
    headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
    site, origin = headers.get(b"sec-fetch-site"), headers.get(b"origin")
    if site is not None:
        return site not in ("same-origin", "none")
    host = headers.get(b"host", "").lower()
    return origin is not None and origin.lower() not in (f"http://{host}", f"https://{host}")


async def _refuse(send: Send, reason: str) -> None:
    body = json.dumps({"error": reason}).encode("ascii")
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode("ascii")),
    ]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})
