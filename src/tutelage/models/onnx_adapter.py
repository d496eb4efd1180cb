"""ONNX files as teachers: raw images in, logits out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from tutelage.errors import ModelError, extra
from tutelage.models import loading, onnx_model
from tutelage.models.preprocessing import Preprocessing, input_size, refuse_channels
from tutelage.models.probing import TeacherFunction, reason, teacher_function


def from_onnx(
    path: Path, images: np.ndarray, classes: int, preprocessing: Preprocessing
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
        import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # warnings concern the graph, not its use
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime's errors have no public base class
        raise ModelError(f"{path} can't be read as an ONNX model: {reason(error)}") from error
    counts = len(session.get_inputs()), len(session.get_outputs())
    if counts != (1, 1):
        raise ModelError(
            f"{path} has {counts[0]} inputs and {counts[1]} outputs: expected one of each"
        )
    (declared,) = session.get_inputs()
    dtype = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}.get(declared.type)
    shape, channels, notes = declared.shape or [], images.shape[3], list[str]()
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
