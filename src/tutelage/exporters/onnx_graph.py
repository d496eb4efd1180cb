"""The ONNX graph of a Keras model."""

from __future__ import annotations

import ctypes
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
import onnx
import onnxruntime
from keras import ops

from tutelage.errors import ModelError
from tutelage.exporters import fold_batch_norm, onnx_operators
from tutelage.models import loading

_PROBES, _TOLERANCE = 4, 1e-3  # random images, and the allowed difference of an untrained model's


def obstacle(model: keras.Model) -> str | None:
    """Find out whether a model can be exported to ONNX, by exporting it.

    Args:
        model: a model from images of a fixed size to logits, trained or not.

    Returns:
        Why it can't, in one sentence; None if it can, or the backend has no exporter.

    Example:

    >>> import keras
    >>> from tutelage.exporters import onnx_graph
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.RandomFlip()])
    >>> model.add(keras.layers.Flatten())
    >>> onnx_graph.obstacle(model) is None
    True
    """
    if keras.backend.backend() != "torch":
        return None
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (_PROBES, *model.input_shape[1:]), np.uint8)
    try:
        outputs = run(convert(model), images)
    except ModelError as error:
        return str(error)
    wanted = loading.logits(model, images)
    if np.allclose(outputs, wanted, _TOLERANCE, _TOLERANCE, equal_nan=True):
        return None
    return f"{model.name} written as ONNX gives other outputs for the same images"


def convert(model: keras.Model) -> onnx.ModelProto:
    """A model's folded ONNX graph of raw images, with a free batch size.

    Raises:
        ModelError: if the model can't be written as ONNX.
    """
    made = inference(model)
    with tempfile.TemporaryDirectory() as name:
        raw, plain = Path(name) / "raw.onnx", Path(name) / "plain.onnx"
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # Removes transposes and folds constants, with standard operators only.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(plain)
        try:
            with (
                warnings.catch_warnings(),
                _quiet(),
                onnx_operators.without_random_numbers(made),
            ):
                warnings.simplefilter("ignore")  # on values traced as constants
                made.export(raw, "onnx", verbose=False, opset_version=onnx_operators.OPSET)
            onnxruntime.InferenceSession(raw, options, providers=["CPUExecutionProvider"])
            graph = fold_batch_norm.fold(onnx.load(plain))
            run(graph, np.zeros((2, *made.input_shape[1:]), np.uint8))  # traced with one
            return graph
        except Exception as error:  # custom layers can raise anything
            raise ModelError(f"{model.name} can't be written as ONNX: {reason(error)}") from error


def inference(model: keras.Model) -> keras.Model:
    """The same layers, in inference mode and from uint8 images."""
    images = keras.Input(model.input_shape[1:], dtype="uint8", name="images")
    x = ops.cast(images, model.inputs[0].dtype)
    # Unless told so, an exported layer takes its default, which for augmentation is training.
    made = keras.Model(images, model(x, training=False))
    made(np.zeros((1, *images.shape[1:]), np.uint8))  # Keras exports only called models
    return made


@contextmanager
def _quiet() -> Iterator[None]:
    """Discard what PyTorch prints to the process's standard output when an export fails."""
    sys.stdout.flush()
    output = os.dup(1)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        # C's own buffer, which would otherwise be written to the real output later.
        ctypes.CDLL(None if os.name == "posix" else "ucrtbase").fflush(None)
        os.dup2(output, 1)
        os.close(output)


def reason(error: Exception) -> str:
    """An error's message on one line, without the graph and requests for bug reports."""
    message = " ".join(str(error).split())
    return re.split(r"\.? (?:Please|\[Caused by|\(in list node)", message)[0][:200]


def run(graph: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    """A graph's outputs for uint8 images, a batch at a time."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    return loading.in_batches(lambda part: session.run(None, {name: part})[0], images)
