"""The outermost layer: who may ask, what every answer's head says, and what is counted."""

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
    """Stands before an ASGI application: refuses strangers, adds headers, counts.

    Args:
        app: that answers what is let through; it sees HEAD as GET.
        hosts: the names that a request may call this server by, with whatever port, or None for
            any. A page of another site can make a browser ask a local server by a name that it
            owns (DNS rebinding); it can't make it say `localhost` then.
        crew: that answers the pictures behind `app`, for whoever starts and ends the server.
        metrics: where requests are counted.
    """

    def __init__(
        self, app: Application, hosts: frozenset[str] | None, crew: WorkerPool, metrics: Metrics
    ):
        self._app, self._hosts, self._metrics = app, hosts, metrics
        self.crew = crew

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        # HEAD is GET without the body, which the server leaves out.
        inner = dict(scope)
        inner["method"] = "GET" if scope["method"] == "HEAD" else scope["method"]
        refusal = self._refusal(scope)
        try:
            if refusal:
                await _say(answer, *refusal)
            else:
                await self._app(inner, receive, answer)
        except Exception:  # the application has answered with status 500 already
            log.exception("a request could not be answered")
        finally:
            path = getattr(inner.get("route"), "path", "other")
            self._metrics.requests.labels(path, str(status)).inc()
            self._metrics.seconds.labels(path).observe(time.perf_counter() - start)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "").lower()
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
        if self._hosts is not None and name not in self._hosts:
            known = ", ".join(sorted(self._hosts))
            return 400, f"expected a request to {known}, found one to {host[:80]!r}"
        if scope["method"] in _READS:
            return None
        # A browser says where a request comes from, and a page can't make it say otherwise.
        site, origin = headers.get(b"sec-fetch-site"), headers.get(b"origin")
        if site is not None:
            own = site in ("same-origin", "none")
        else:
            own = origin is None or origin.lower() in (f"http://{host}", f"https://{host}")
        return None if own else (403, "expected a request of this page, found one of another site")


async def _say(send: Send, status: int, text: str) -> None:
    body = json.dumps({"error": text}).encode("ascii")
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode("ascii")),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
