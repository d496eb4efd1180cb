"""The HTTP server, with clean shutdown and timeouts for clients."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from tutelage.errors import RecipeError
from tutelage.server.middleware import HEADERS, Application

# Seconds without a request after which a connection is closed.
_IDLE = 20


def bind(host: str, port: int) -> socket.socket:
    """Bind a port.

    Args:
        host: a name or an address of this machine.
        port: the port; 0 picks a free one.

    Returns:
        The socket, which the caller must close.

    Raises:
        RecipeError: if the host is unknown or the port is not available.
    """
    if not 0 <= port <= 65535:
        raise RecipeError(f"port: expected a number from 0 to 65535, found {port}")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        family, kind, protocol, _, address = found[0]
        # Explicitly TCP, as asyncio would otherwise delay small responses (Nagle).
        at = socket.socket(family, kind, protocol)
        try:
            if os.name == "posix":  # elsewhere two servers could share a port
                at.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            at.bind(address)
            at.listen()
        except OSError:
            at.close()
            raise
        return at
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RecipeError(
            f"can't listen on {host} at port {port} ({reason}): stop what uses it, or choose "
            "another with --port or --host"
        ) from error


class _Protocol(H11Protocol):
    """HTTP/1.1 that closes idle connections, including those without any request."""

    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def on_response_complete(self) -> None:
        self._wait()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._stop_waiting()
        self._patience = self.loop.call_later(_IDLE, self._give_up, self.cycle)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()

    def _give_up(self, last: Any) -> None:
        if self.cycle is last:  # no request has begun since
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            # The body is malformed: no more responses can be sent on this connection.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        else:
            body = json.dumps({"error": "expected an HTTP/1.1 request, found something else"})
            head = [b"%s: %s" % header for header in HEADERS]
            head += [b"content-type: application/json", b"connection: close"]
            head.append(b"content-length: %d" % len(body))
            lines = [b"HTTP/1.1 400 Bad Request", *head, b"", body.encode("ascii")]
            self.transport.write(b"\r\n".join(lines))
        self.transport.close()


class _Server(uvicorn.Server):
    """Reports when it listens, and shuts down cleanly on a signal."""

    def __init__(
        self, config: uvicorn.Config, listening: Callable[[], None], ending: Callable[[], None]
    ):
        super().__init__(config)
        self._listening, self._ending = listening, ending

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._listening()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._ending()
        super().handle_exit(sig, frame)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own method raises the signal again at the end, which kills the process.
        signals = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def run(
    app: Application,
    at: socket.socket,
    listening: Callable[[], None],
    ending: Callable[[], None],
    patience: float,
) -> None:
    """Serve an application until SIGINT or SIGTERM; running requests are finished.

    Args:
        app: an ASGI application.
        at: the socket, which is closed at the end.
        listening: called once requests are answered.
        ending: called on the signal.
        patience: seconds that running requests may still take.
    """
    config = uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_IDLE,
        timeout_graceful_shutdown=int(patience) + 1,
    )
    _Server(config, listening, ending).run([at])
