"""`tutelage evaluate`, `predict` and `knowledge`: what models and teachers answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from tutelage.cli.options import DataPath, Json
from tutelage.cli.output import show


def evaluate(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A .keras or exported .onnx file.")
    ],
    data: DataPath,
    teacher: Annotated[
        Path | None, typer.Option(help="A .keras or .onnx file to compare the answers with.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure a model on the test part of a data set."""
    from tutelage.evaluation import evaluate as evaluation

    figures = evaluation.evaluate(model, data, teacher)
    if as_json:
        print(json.dumps(figures, indent=1))
    else:
        show(figures["models"], f"{model.name} on {figures['data']['name']}")


def predict(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A .keras or exported .onnx file.")
    ],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Pictures.")],
    top: Annotated[int, typer.Option(min=1, help="How many classes to show.")] = 3,
    as_json: Json = False,
) -> None:
    """Say what is on a picture: the most likely classes.

    The names of the classes are those of the run the model lies in, or stand in an exported file.
    """
    if model.suffix == ".onnx":  # which needs neither Keras nor PyTorch
        from tutelage.models.onnx_model import predict as ask
    else:
        from tutelage.models.loading import predict as ask

    answers = ask(model, images, top)
    if as_json:
        print(json.dumps(answers, indent=1))
        return
    for answer in answers:
        told = ", ".join(f"{c['name']} {100 * c['probability']:.1f} %" for c in answer["classes"])
        print(f"{answer['image']}: {told}")


def knowledge(
    clear: Annotated[bool, typer.Option("--clear", help="Forget all of it.")] = False,
    as_json: Json = False,
) -> None:
    """Show what teachers' answers are kept on this machine, or forget them.

    A run asks its teacher once for each view and keeps the logits, so that another
    alpha or temperature need not ask again. What is forgotten can be asked again.
    """
    from tutelage.distillation import logit_cache as kept
    from tutelage.formatting import megabytes

    entries = list(kept.stored())
    if clear:
        kept.clear()
    if as_json:
        print(json.dumps(entries, indent=1))
        return
    for entry in entries:
        origin = entry["origin"]
        what = "damaged"
        if origin:
            images, *_, classes = origin["shape"]
            what = (
                f"teacher {origin['teacher'][:8]}, "
                f"{entry['views']} views of {images:,} images, {classes} classes"
            )
        print(f"{entry['folder']}: {what}, {megabytes(entry['bytes'])}")
    total = megabytes(sum(entry["bytes"] for entry in entries))
    print(f"{'forgotten' if clear else 'kept'}: {total} in {kept.home()}")
