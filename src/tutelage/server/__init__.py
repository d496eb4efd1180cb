"""Serve exported models on a web page and as a JSON API, without Keras or PyTorch."""

from __future__ import annotations

import gc
import ipaddress
import sys
from collections.abc import Sequence
from pathlib import Path

from tutelage.data import image_file
from tutelage.errors import extra

with extra("serve"):
    from tutelage.server.app import application
    from tutelage.server.http_server import bind, run
    from tutelage.server.middleware import LOCAL
    from tutelage.server.models import load
    from tutelage.server.uploads import Limits

__all__ = ["Limits", "application", "load", "serve"]


def serve(
    paths: Sequence[Path],
    host: str = "127.0.0.1",
    port: int = 8000,
    threads: int = 2,
    limits: Limits = Limits(),  # noqa: B008 (it is frozen)
) -> None:
    """Serve exported models until SIGINT or SIGTERM, from the main thread.

    Start and stop are reported on standard error.

    Args:
        paths: exported files, or run folders that contain them.
        host: a name or an address of this machine. On a loopback address, only requests to
            `localhost` and its aliases are accepted.
        port: the port; 0 picks a free one.
        threads: number of images classified at once, at least 1.
        limits: limits on image size and queue length.

    Raises:
        RunError: if a folder contains no exported file.
        RecipeError: if an argument is invalid, or the port is not available.
        ModelError: if a file can't be served, or not together with the others.
    """
    served = load(paths)
    with bind(host, port) as at:
        address, number = at.getsockname()[:2]
        local = ipaddress.ip_address(address.partition("%")[0]).is_loopback
        names = LOCAL | {_written(host.lower()), _written(address)}
        app = application(served, threads, limits, names if local else None)
        titles = ", ".join(model.title for model in served.models)

        def listening() -> None:
            _say(f"http://{_written(host)}:{number} ({titles}); press Ctrl-C to stop")
            if not local:
                _say("anyone who can reach this machine over the network can use it")
            gc.collect()
            gc.freeze()  # permanent objects are not scanned again

        with image_file.strict_pillow():
            run(app, at, listening, app.worker_pool.end, limits.seconds)
            app.worker_pool.close()
        _say(f"stopped; images classified: {app.worker_pool.classified}")


def _written(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _say(text: str) -> None:
    print(f"tutelage: {text}", file=sys.stderr, flush=True)
