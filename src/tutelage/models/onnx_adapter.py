"""ONNX files as teachers: raw images in, logits out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from tutelage.data.content import Images
from tutelage.distillation import output_kind
from tutelage.errors import ModelError, extra, reason
from tutelage.models import loading, onnx_model
from tutelage.models.preprocessing import Preprocessing, input_size, refuse_channels
from tutelage.models.probing import TeacherFunction, teacher_function

_WEIGHTS = "session.model_external_initializers_file_folder_path"
_ACTIVATIONS = {"Softmax": "softmax", "LogSoftmax": "log_softmax", "Sigmoid": "sigmoid"}
_KEEPS_KIND = {"Identity", "Cast", "QuantizeLinear", "DequantizeLinear"}


def from_onnx(
    path: Path, images: Images, classes: int, preprocessing: Preprocessing
) -> tuple[TeacherFunction, tuple[str, ...] | None, list[str]]:
    """Wrap an `.onnx` file to map raw images to logits with ONNX Runtime on the CPU.

    Args:
        path: a model with one float32 or uint8 input, NCHW or NHWC according to its shape, NCHW
            if that is ambiguous, with free or fixed batch size.
        images, classes, preprocessing: as in `keras_adapter.from_keras`.

    Returns:
        A function from uint8 images and a precision, which is ignored, to float32 logits; the
        class names, None unless `tutelage export` wrote the file; and notes for the user.

    Raises:
        RecipeError: if `preprocessing` scales images for a model that takes uint8.
        ModelError: if it can't be read, or doesn't match the data.
        MissingExtraError: if ONNX Runtime is not installed.
    """
    with extra("export"):
        import onnx
        import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # warnings concern the graph, not its use
    # Weights in files of their own are not read here, but found by ONNX Runtime.
    options.add_session_config_entry(_WEIGHTS, str(path.parent))
    notes = list[str]()
    try:
        model = onnx.load(path, load_external_data=False)
        activation = _end_before_activation(model.graph)
        session = onnxruntime.InferenceSession(
            model.SerializeToString() if activation else str(path),
            options,
            providers=["CPUExecutionProvider"],
        )
    except Exception as error:  # ONNX Runtime's errors have no public base class
        raise ModelError(f"{path} can't be read as an ONNX model: {reason(error)}") from error
    output_kind.note_activation(activation, notes)
    counts = len(session.get_inputs()), len(session.get_outputs())
    if counts != (1, 1):
        raise ModelError(
            f"{path} has {counts[0]} inputs and {counts[1]} outputs: expected one of each"
        )
    (declared,) = session.get_inputs()
    dtype = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}.get(declared.type)
    shape, channels = declared.shape or [], images.shape[3]
    if dtype is None or len(shape) != 4:
        raise ModelError(
            f"{path} takes {declared.type} of shape {shape}: expected float32 or uint8 of four axes"
        )
    batch = shape[0] if isinstance(shape[0], int) else loading.BATCH
    channels_last = shape[3] == channels != shape[1]
    refuse_channels(str(path), shape[3 if channels_last else 1], channels)
    size = input_size(
        str(path),
        images.shape[1:],
        tuple(shape[1:3] if channels_last else shape[2:]),
        preprocessing,
        notes,
    )

    def run(pixels: np.ndarray, _: str) -> np.ndarray:
        if not channels_last:
            pixels = pixels.transpose(0, 3, 1, 2)
        parts = []
        for start in range(0, len(pixels), batch):
            part = pixels[start : start + batch]
            # Pad to a fixed batch size and drop the surplus outputs.
            full = np.resize(part, (batch, *part.shape[1:])) if batch == shape[0] else part
            (outputs,) = session.run(None, {declared.name: np.ascontiguousarray(full)})
            parts.append(np.asarray(outputs, np.float32)[: len(part)])
        return np.concatenate(parts)

    logits, notes = teacher_function(
        run, str(path), images, classes, preprocessing, size, dtype, notes
    )
    return logits, onnx_model.class_names_of(session), notes


def _end_before_activation(graph: Any) -> str:
    """End a graph before the softmax or sigmoid that it ends in; returns its name, or `""`."""
    if len(graph.output) != 1:
        return ""
    (output,), name = graph.output, graph.output[0].name
    producers = {made: node for node in graph.node for made in node.output}
    while (node := producers.get(name)) is not None and node.domain in ("", "ai.onnx"):
        (name, *_) = node.input or [""]
        if node.op_type in _ACTIVATIONS:
            # Of outputs (batch, classes), both are the classes; others are refused.
            if any(each.name == "axis" and each.i not in (1, -1) for each in node.attribute):
                return ""
            output.name = name
            output.ClearField("type")  # may differ, and is inferred
            return _ACTIVATIONS[node.op_type]
        if node.op_type not in _KEEPS_KIND:
            return ""
    return ""
