"""`tutelage serve`: exported models on a web page and as a JSON API."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def serve(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN_OR_FILE...",
            help="Exported .onnx files, or run folders that contain them.",
        ),
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 allows the whole network.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 picks a free one.")] = 8000,
    threads: Annotated[int, typer.Option(min=1, help="Images to process at once.")] = 2,
) -> None:
    """Serve exported models on a web page, and as a JSON API.

    Upload an image to see the predictions of all models side by side. Needs ONNX Runtime, not
    Keras or PyTorch: see docs/serving.md.
    """
    from tutelage import server

    server.serve(paths, host, port, threads)
