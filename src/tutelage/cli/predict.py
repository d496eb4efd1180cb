"""`tutelage evaluate` and `predict`: a model on a test set and on single images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from tutelage.cli.options import DataPath, Json
from tutelage.cli.output import show
from tutelage.formatting import printable


def evaluate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help=".keras or exported .onnx file.")],
    data: DataPath,
    teacher: Annotated[
        Path | None, typer.Option(help=".keras or .onnx file to compute agreement and KL with.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Evaluate a model on the test set of a data set."""
    from tutelage.cli.console import ConsoleProgress

    with ConsoleProgress() as progress:
        from tutelage.evaluation import evaluate as evaluation  # takes seconds

        figures = evaluation.evaluate(model, data, teacher, progress)
    if as_json:
        print(json.dumps(figures, indent=1))
    else:
        data_set = figures["data"]
        show(
            figures["models"], f"{model.name} on {data_set['test']:,} images of {data_set['name']}"
        )
        for note in figures["notes"]:
            print(f"Note: {printable(note)}")


def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help=".keras or exported .onnx file.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    top: Annotated[int, typer.Option(min=1, help="Number of classes to show.")] = 3,
    as_json: Json = False,
) -> None:
    """Classify images: print the most likely classes of each.

    The class names come from the model file, or from the run folder of an older one.
    """
    if model.suffix == ".onnx":  # needs neither Keras nor PyTorch
        from tutelage.models.onnx_model import predict as classify
    else:
        from tutelage.models.loading import predict as classify

    predictions = classify(model, images, top)
    if as_json:
        print(json.dumps(predictions, indent=1))
        return
    for one in predictions:
        classes = ", ".join(f"{c['name']} {100 * c['probability']:.1f} %" for c in one["classes"])
        print(printable(f"{one['image']}: {classes}"))
