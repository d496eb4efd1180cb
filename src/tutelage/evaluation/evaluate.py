"""Evaluation of model files on a data set's test images."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tutelage import recipe as recipes
from tutelage.data import datasets, geometry
from tutelage.data.geometry import Geometry
from tutelage.distillation import output_kind
from tutelage.errors import ModelError
from tutelage.evaluation import metrics
from tutelage.models import class_names, file_metadata, loading, onnx_model, zoo
from tutelage.progress import Progress


def size_figures(model: keras.Model) -> dict[str, Any]:
    """A model's `parameters`, and multiply-accumulates per image (`macs`) if known."""
    figures = {"parameters": model.count_params()}
    with contextlib.suppress(ModelError):
        figures["macs"] = zoo.macs(model)
    return figures


def evaluate(
    path: Path, data: str, teacher: Path | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Evaluate a model file on a data set's test images.

    Of a folder without a test part, all images are used, unless it is the data of the model's own
    run: then its test images.
    If a file's class names are in another order than the data's, its logits are reordered.

    Args:
        path: a `.keras` file, or an `.onnx` file of `tutelage export`.
        data: the name or path of a data set.
        teacher: a model file to compare the logits with.
        progress: notified of each image while many are decoded.

    Returns:
        `models` (metrics by file stem), `data`, and `notes` on the files, one line each; ready
        for JSON.

    Raises:
        ModelError: if a file is not a model, doesn't match the data, or has other classes.
        DataError: if the data can't be found or read.
    """
    notes = list[str]()
    model = _load(path, notes)
    teacher_model = None if teacher is None else (_load(teacher, notes), teacher)
    dataset = named_data(data, path, whole=True, progress=progress)
    notes += dataset.notes
    test = dataset.test
    logits = _logits(model, path, dataset, notes)
    teacher_logits = None if teacher_model is None else _logits(*teacher_model, dataset, notes)
    score = metrics.score(logits, test.labels, teacher_logits)
    size = (
        model.size_figures if isinstance(model, onnx_model.ExportedModel) else size_figures(model)
    )
    return {
        "models": {path.stem: score | size | {"bytes": path.stat().st_size}},
        "data": {
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "classes": list(dataset.classes),
            "test": len(test),
        },
        "notes": notes,
    }


def _load(path: Path, notes: list[str]) -> keras.Model | onnx_model.ExportedModel:
    if path.suffix == ".onnx":
        return onnx_model.ExportedModel(path, threads=os.cpu_count() or 1)
    noticed = list[str]()
    model = loading.load_logits_model(path, noticed)
    notes += [f"{path}: {note}" for note in noticed]
    return model


def _logits(
    model: keras.Model | onnx_model.ExportedModel,
    path: Path,
    dataset: datasets.Dataset,
    notes: list[str],
) -> np.ndarray:
    """Compute the logits of the test images, with the classes in the order of the data."""
    images = dataset.test.images
    shape, classes, noticed = images.shape[1:], dataset.classes, list[str]()
    own: tuple[str, ...] | None
    if isinstance(model, onnx_model.ExportedModel):
        loading.refuse_unfit(path, model.shape, len(model.classes), shape, len(classes))
        own, outputs = model.classes, loading.in_batches(model.logits, images)
    else:
        loading.check_fit(model, path, shape, len(classes))
        own, outputs = file_metadata.classes(path), loading.logits(model, images)
        bound = output_kind.lowest_probability(str(path), outputs, noticed)
        outputs = outputs if bound is None else output_kind.log_of(outputs, bound)
    index = class_names.order(path, own, classes, noticed)
    notes += [f"{path}: {note}" for note in noticed]
    return outputs if index is None else outputs[:, index]


def named_data(
    data: str, path: Path, whole: bool = False, progress: Progress | None = None
) -> datasets.Dataset:
    """Load a data set by name or path, resized as in the run of a model file.

    Args:
        data: one of `datasets.NAMES`, or a path.
        path: the model file.
        whole: whether to use all images of a folder without a test part for testing, unless the
            model was trained on it.
        progress: notified of each image while many are decoded.

    Returns:
        The data set.

    Raises:
        DataError: if it can't be found or read.
    """
    is_name = data in datasets.NAMES and data != "folder"
    if is_name:
        return datasets.load(data, size=_size(path), progress=progress)
    dataset = datasets.load("folder", data, size=_size(path), whole=whole, progress=progress)
    if whole and not len(dataset.train) and dataset.fingerprint == _trained_on(path):
        return datasets.load("folder", data, size=_size(path))
    return dataset


def _trained_on(path: Path) -> str | None:
    """The fingerprint of the data of the run that a model file belongs to."""
    try:
        results = json.loads((path.parent / "results.json").read_text(encoding="utf-8"))
        return str(results["data"]["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not in a finished run's folder


def _size(path: Path) -> Geometry | None:
    """The image size of the run that a model file belongs to, if it resizes images."""
    recipe = path.parent / "recipe.toml"
    if recipe.is_file():
        return geometry.from_recipe(recipes.load(recipe).data)
    if path.suffix == ".onnx":
        model = onnx_model.ExportedModel(path)
        return file_metadata.geometry_of(model.about, model.geometry.size)
    shape = getattr(loading.load_model(path), "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4 or None in shape[1:]:
        return None
    return file_metadata.geometry(path, shape[1:3])
