"""`tutelage serve`: exported models as a page and a JSON interface."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def serve(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN_OR_FILE...",
            help="Exported files (.onnx), or folders of runs: all that they hold.",
        ),
    ],
    host: Annotated[
        str, typer.Option(help="Where to listen; 0.0.0.0: the whole network can use it.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: one that is free.")] = 8000,
    threads: Annotated[int, typer.Option(min=1, help="How many pictures to answer at once.")] = 2,
) -> None:
    """Answer pictures in the browser: what each exported model sees on them, side by side.

    There is a JSON interface too. It needs ONNX Runtime, not Keras or PyTorch: see
    docs/serving.md.
    """
    from tutelage import server

    server.serve(paths, host, port, threads)
