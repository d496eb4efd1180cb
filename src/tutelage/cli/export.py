"""`tutelage export` and `profile`: model files for deployment, their size and latency."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from tutelage.cli.options import Json
from tutelage.cli.output import show


def export(
    source: Annotated[
        Path, typer.Argument(metavar="RUN|MODEL", help="Run folder (its student) or .keras file.")
    ],
    form: Annotated[
        Literal["onnx", "litert", "keras"],
        typer.Option("--format", help="File format; litert needs the package litert-torch."),
    ] = "onnx",
    int8: Annotated[
        bool, typer.Option("--int8", help="Quantize to 8-bit integers: smaller and faster.")
    ] = False,
    data: Annotated[
        str | None,
        typer.Option(help="Data set to evaluate on, name or path.  [default: the run's data]"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Output file.  [default: next to the model]"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Export a model to a file that runs without Keras, and evaluate that file.

    An ONNX file takes raw uint8 images and contains the class names. Its logits are compared with
    the Keras model's on test images; if they differ too much, no file is written.
    """
    from tutelage.cli.console import ConsoleProgress
    from tutelage.exporters import exporter as exports

    with ConsoleProgress() as progress:
        result = exports.export(source, form=form, int8=int8, data=data, out=out, progress=progress)
    if as_json:
        print(json.dumps(result, indent=1))
        return
    size = {key: result[key] for key in ("parameters", "macs") if key in result}
    models = {which: size | result["models"][which] for which in ("keras", "exported")}
    models["keras"]["bytes"] = result["source_bytes"]
    models["exported"]["bytes"] = result["bytes"]
    show(models, f"{result['name']}, {result['precision']}, on {result['data']['name']}, test set")
    parity = result["parity"]
    print(
        f"Against Keras on {parity['images']:,} test images: largest logit difference "
        f"{parity['max_difference']:.2g}, same class for {parity['agreement']:.2%}."
    )
    print(f"File: {result['file']}")


def profile(
    models: Annotated[
        list[Path], typer.Argument(metavar="MODEL...", help=".keras and exported .onnx files.")
    ],
    threads: Annotated[
        int | None,
        typer.Option(help="Threads per model.  [default: one or all cores, whichever is faster]"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Output file.  [default: profile.json next to the first model, where "
            "tutelage report reads it]",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure model size, memory, and latency for one image and for a batch.

    Measures the models alternately in one process. Keras models run through model.predict.
    """
    from tutelage.cli.console import ConsoleProgress
    from tutelage.evaluation import profiling

    with ConsoleProgress() as progress:
        result = profiling.profile(models, threads=threads, progress=progress)
    out = out or models[0].with_name("profile.json")
    profiling.write(result, out)
    if as_json:
        print(json.dumps(result, indent=1))
        return
    from rich.console import Console

    from tutelage.cli.console import costs

    Console(highlight=False).print(costs(result["models"]))
    print(f"File: {out}")
