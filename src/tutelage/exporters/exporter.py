"""Export of trained models, written only if the exported file's outputs match."""

from __future__ import annotations

import importlib.util
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from scipy.special import log_softmax

from tutelage import environment, storage
from tutelage import recipe as recipes
from tutelage._version import __version__
from tutelage.data import datasets
from tutelage.data.content import Images
from tutelage.data.datasets import Dataset, Part
from tutelage.errors import ModelError, RecipeError, extra
from tutelage.evaluation import evaluate, metrics
from tutelage.models import class_names, file_metadata, loading
from tutelage.models.onnx_model import ABOUT, CLASSES, ExportedModel
from tutelage.progress import Progress

with extra("export"):
    import onnx

    from tutelage.exporters import onnx_graph, onnx_operators, quantization

ModelFunction = Callable[[Images], np.ndarray]

SUFFIXES = {"onnx": ".onnx", "litert": ".tflite", "keras": ".keras"}
PARITY = 1e-4  # allowed difference of logits from Keras', plus 1e-5 of the largest
_PARITY_IMAGES = 1000
_CALIBRATION = 256  # validation images for calibration
_COMPARED = 1000  # other validation images, which select the calibration method
_LOSS = 0.003  # accuracy that 8 bits may cost, or two images if that is more
_HELD_OUT = 0.1


def export(
    source: Path,
    *,
    form: str = "onnx",
    int8: bool = False,
    data: str | None = None,
    out: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Export a model to a file that runs without Keras, and evaluate that file.

    Its logits are compared with the Keras model's on up to 1,000 test images, and its metrics are
    computed on all. An ONNX file takes batches of raw uint8 images and contains its classes,
    shape and metrics. For 8 bits, three calibration methods are tried on validation images, and
    the one that changes the outputs least on other validation images is used.

    Args:
        source: a run folder, for its student, or a `.keras` file.
        form: `onnx`, `litert` (needs the package litert-torch) or `keras`.
        int8: whether to quantize to 8-bit integers; ONNX only.
        data: the data to evaluate on, a name or a path; default: that of the model's run.
        out: the file; default: next to the model, `student.onnx`, `student-int8.onnx` and so on.
        progress: notified of each step.

    Returns:
        `file`, `name`, `format`, `precision`, `shape`, `parameters`, `macs` (if known),
        `bytes`, `source_bytes` (the model file's), `parity` (`images`, `max_difference`,
        `agreement`), `models` (metrics of `keras` and `exported`), `calibration` (for int8),
        `data` and `environment`, ready for JSON.

    Raises:
        RecipeError: if an argument is invalid, or the backend is not PyTorch.
        ModelError: if the model can't be exported or has other classes than the data, or the
            file's outputs differ too much; then no file is written.
        DataError: if the data can't be found or read.

    Example:

    >>> import pathlib, tempfile
    >>> from tutelage.data import datasets
    >>> from tutelage.exporters import exporter
    >>> from tutelage.models import zoo
    >>> images = datasets.load("digits").train.images
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "student.keras"
    >>> zoo.build("digits-student", images=images, classes=10, seed=0).save(file)
    >>> result = exporter.export(file, data="digits")
    >>> pathlib.Path(result["file"]).name, result["parity"]["agreement"]
    ('student.onnx', 1.0)
    """
    progress = progress or Progress()
    _check(form, int8)
    file = source / "student.keras" if source.is_dir() else source
    notes = list[str]()
    model = loading.load_logits_model(file, notes)
    for note in notes:
        progress.note(f"{file}: {note}")
    dataset, held_out = _data(file, data)
    test = dataset.test
    loading.check_fit(model, file, test.images.shape[1:], len(dataset.classes))
    target = out or file.with_name(file.stem + ("-int8" if int8 else "") + SUFFIXES[form])
    if target.suffix != SUFFIXES[form]:
        raise RecipeError(f"out: expected a name that ends in {SUFFIXES[form]}, found {target}")
    if target.resolve() == file.resolve():
        raise RecipeError(f"out: expected a file other than the model itself, {file}")
    own, notes = file_metadata.classes(file), list[str]()
    index = class_names.order(file, own, dataset.classes, notes)
    classes = own or dataset.classes  # of the outputs, which keep the model's order
    for note in notes:
        progress.note(f"{file}: {note} to score them; the exported file keeps the model's")
    if model.inputs[0].dtype != "uint8":
        progress.note(
            f"{file} takes {model.inputs[0].dtype} images: it gets the raw pixels, 0 to 255, "
            "and so will the exported file"
        )
    progress.note(f"running {file} on {len(test):,} test images of {dataset.name}")
    wanted = loading.logits(model, test.images)
    results: dict[str, Any] = {
        "name": file.stem,
        "format": form,
        "precision": "int8" if int8 else "float32",
        "shape": list(test.images.shape[1:]),
        **evaluate.size_figures(model),
    }
    shape = test.images.shape[1:]
    if resized := file_metadata.geometry(file, (shape[0], shape[1])):
        results["images"] = resized.settings()
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / target.name
        if form == "onnx":
            graph = onnx_graph.convert(model)
            if int8:
                progress.note(f"calibrating with {min(_CALIBRATION, len(held_out))} images")
                graph, results["calibration"] = _quantized(graph, held_out)
            _describe(graph, classes, results)
            onnx.save(graph, made)
        elif form == "litert":
            _litert(model, made)
        else:
            model.save(made)
            file_metadata.write(made, classes, resized)
        outputs = _opened(made, form)(test.images)
        if not np.isfinite(outputs).all():
            raise ModelError(f"{target}: its logits are not finite; no file is written")
        results["parity"] = _parity(wanted, outputs)
        ours, theirs = (x if index is None else x[:, index] for x in (wanted, outputs))
        results["models"] = {
            "keras": metrics.score(ours, test.labels),
            "exported": metrics.score(theirs, test.labels, ours),
        }
        _refuse(target, results, wanted, len(test))
        results["data"] = {
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "test": len(test),
        }
        if form == "onnx":
            _describe(graph, classes, results)
            onnx.save(graph, made)
        with storage.replacing(target) as temporary:
            temporary.write_bytes(made.read_bytes())
    results |= {"file": str(target), "bytes": target.stat().st_size}
    results["source_bytes"] = file.stat().st_size
    return results | {"environment": environment.describe()}


def _check(form: str, int8: bool) -> None:
    if form not in SUFFIXES:
        raise RecipeError(f"format: expected one of {', '.join(SUFFIXES)}, found {form!r}")
    if int8 and form != "onnx":
        raise RecipeError(f"int8: expected only with the format onnx, found {form}; omit one")
    if keras.backend.backend() != "torch":
        raise RecipeError(
            f"export: expected the PyTorch backend, found {keras.backend.backend()}; unset "
            "KERAS_BACKEND: .keras files work with every backend"
        )
    if form == "litert" and importlib.util.find_spec("litert_torch") is None:
        raise RecipeError(
            "format litert: its converter is not installed; "
            "pip install litert-torch 'torch==2.13.0', or choose onnx"
        )


def _data(file: Path, data: str | None) -> tuple[Dataset, Part]:
    """The data to evaluate a model on, and the part held out from its training, if known."""
    recipe_file = file.parent / "recipe.toml"
    if data is not None:
        dataset = evaluate.named_data(data, file)
        return dataset, dataset.split(_HELD_OUT, seed=0)[1]
    if recipe_file.is_file():
        named = recipes.load(recipe_file).data
        dataset = datasets.from_recipe(named)
        return dataset, dataset.split(named.validation, named.split_seed)[1]
    raise RecipeError(
        f"data: {file} is not in a run folder, so its training data is unknown; give it with --data"
    )


def _quantized(graph: onnx.ModelProto, held_out: Part) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """Quantize a graph with the method that changes its outputs least."""
    calibration = held_out.images[:_CALIBRATION]
    others = held_out.images[_CALIBRATION : _CALIBRATION + _COMPARED]
    others = others if len(others) else calibration
    wanted = log_softmax(onnx_graph.run(graph, others).astype(np.float64), axis=1)
    made, changes = {}, {}
    for method in quantization.METHODS:
        made[method] = quantization.int8(graph, calibration, method)
        output = log_softmax(onnx_graph.run(made[method], others).astype(np.float64), axis=1)
        changes[method] = float(np.mean(np.sum(np.exp(wanted) * (wanted - output), axis=1)))
    best = min(changes, key=lambda method: changes[method])
    return made[best], {"method": best, "images": len(calibration), "kl": changes}


def _describe(graph: onnx.ModelProto, classes: tuple[str, ...], results: dict[str, Any]) -> None:
    """Write a graph's metadata, with the metrics known so far."""
    kept = ("name", "precision", "shape", "images", "parameters", "macs", "data", "parity")
    about = {key: results[key] for key in (*kept, "calibration") if key in results}
    about["version"] = __version__
    about["figures"] = results.get("models", {}).get("exported", {})
    del graph.metadata_props[:]
    onnx.helper.set_model_props(
        graph, {CLASSES: json.dumps(list(classes)), ABOUT: json.dumps(about)}
    )


def _litert(model: keras.Model, target: Path) -> None:
    inference = onnx_graph.inference(model)
    try:
        with onnx_operators.without_random_numbers(inference):
            inference.export(target, format="litert", verbose=False)
    except Exception as error:  # the converter raises many types
        reason = onnx_graph.reason(error)
        raise ModelError(f"{model.name} can't be written as LiteRT: {reason}") from error


def _opened(file: Path, form: str) -> ModelFunction:
    """The exported file as a function, opened as users will open it."""
    if form == "onnx":
        opened = ExportedModel(file)
        return lambda images: loading.in_batches(opened.logits, images)
    if form == "keras":
        model = loading.load_model(file)
        return lambda images: loading.logits(model, images)
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(file))
    (source,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(images: np.ndarray) -> np.ndarray:
        interpreter.resize_tensor_input(source["index"], images.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(source["index"], images.astype(source["dtype"]))
        interpreter.invoke()
        return np.array(interpreter.get_tensor(output["index"]))

    return lambda images: loading.in_batches(run, images)


def _parity(wanted: np.ndarray, outputs: np.ndarray) -> dict[str, Any]:
    wanted, outputs = wanted[:_PARITY_IMAGES], outputs[:_PARITY_IMAGES]
    return {
        "images": len(wanted),
        "max_difference": float(np.abs(wanted - outputs).max()),
        "agreement": float(np.mean(wanted.argmax(axis=1) == outputs.argmax(axis=1))),
    }


def _refuse(target: Path, results: dict[str, Any], wanted: np.ndarray, images: int) -> None:
    """Raise if a file's outputs differ too much."""
    if results["precision"] == "float32":
        most = PARITY + PARITY / 10 * float(np.abs(wanted).max())
        if (found := results["parity"]["max_difference"]) > most:
            raise ModelError(
                f"{target}: expected logits within {most:.2g} of the Keras model's, found a "
                f"difference of {found:.2g}; no file is written"
            )
        return
    before, after = (results["models"][which]["accuracy"] for which in ("keras", "exported"))
    if before - after > max(_LOSS, 2.5 / images):
        raise ModelError(
            f"{target}: 8 bits reduce the accuracy from {before:.2%} to {after:.2%}, by more than "
            f"{100 * max(_LOSS, 2 / images):.2g} points; no file is written: export without "
            "--int8, or train with weight decay, which keeps values in a narrower range"
        )
