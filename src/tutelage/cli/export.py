"""`tutelage export` and `profile`: a model as a file for elsewhere, and what models cost."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Annotated, Literal

import typer

from tutelage.cli.options import Json
from tutelage.cli.output import show


def export(
    source: Annotated[
        Path, typer.Argument(metavar="RUN|MODEL", help="A run's folder (its student), or a .keras.")
    ],
    form: Annotated[
        Literal["onnx", "litert", "keras"],
        typer.Option("--format", help="Of the file; litert needs the package litert-torch."),
    ] = "onnx",
    int8: Annotated[
        bool, typer.Option("--int8", help="Compute in 8-bit integers: smaller and faster.")
    ] = False,
    data: Annotated[
        str | None,
        typer.Option(help="What to score on: a name or a path.  [default: the run's own data]"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The file.  [default: beside the model, by its name]"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a model as a file that runs without Keras, and score that file.

    An ONNX file takes raw uint8 images and has the classes' names inside. Its answers are compared
    with the Keras model's on test images; if they differ too much, no file is kept.
    """
    from tutelage.cli.console import ConsoleProgress
    from tutelage.exporters import exporter as exports

    with closing(ConsoleProgress()) as progress:
        told = exports.export(source, form=form, int8=int8, data=data, out=out, progress=progress)
    if as_json:
        print(json.dumps(told, indent=1))
        return
    size = {key: told[key] for key in ("parameters", "macs") if key in told}
    models = {which: size | told["models"][which] for which in ("keras", "exported")}
    models["keras"]["bytes"] = told["source_bytes"]
    models["exported"]["bytes"] = told["bytes"]
    show(models, f"{told['name']}, {told['precision']}, on {told['data']['name']}, test part")
    parity = told["parity"]
    print(
        f"On {parity['images']:,} test images logits differ by {parity['max_difference']:.2g} at "
        f"most; {parity['agreement']:.2%} have the same class."
    )
    print(f"File: {told['file']}")


def profile(
    models: Annotated[
        list[Path], typer.Argument(metavar="MODEL...", help=".keras files and exported .onnx ones.")
    ],
    threads: Annotated[
        int | None,
        typer.Option(help="That each may use.  [default: one or all cores, what is faster for it]"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Where the figures go.  [default: profile.json beside the first model, where "
            "tutelage report finds it]",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure what models cost: size, memory, time for one image and for many.

    All are measured in one run, in turn. A Keras model answers through model.predict.
    """
    from tutelage.cli.console import ConsoleProgress
    from tutelage.evaluation import profiling

    with closing(ConsoleProgress()) as progress:
        told = profiling.profile(models, threads=threads, progress=progress)
    out = out or models[0].with_name("profile.json")
    profiling.write(told, out)
    if as_json:
        print(json.dumps(told, indent=1))
        return
    from rich.console import Console

    from tutelage.cli.console import costs

    Console(highlight=False).print(costs(told["models"]))
    print(f"File: {out}")
