"""Models made elsewhere, fitted to a data set: raw images go in, logits come out."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
import torch

from tutelage.errors import ModelError, extra
from tutelage.models import loading
from tutelage.models.preprocessing import Preprocessing, input_size, prepared, refuse_channels
from tutelage.models.probing import (
    LEAST,
    TeacherFunction,
    log_of_probabilities,
    probe,
    reason,
)


def from_torch(
    module: torch.nn.Module, name: str, images: np.ndarray, classes: int, entry: Preprocessing
) -> tuple[TeacherFunction, list[str]]:
    """Let a PyTorch module of one NCHW input answer raw images, where its weights are.

    Args:
        module: asked in evaluation mode; left as found.
        name, images, classes, entry: as for `from_keras`.

    Returns:
        What gives the float32 logits of uint8 images in a precision, and notes for the user.

    Raises:
        ModelError: if it doesn't fit.

    Example:

    >>> import numpy as np
    >>> import torch
    >>> from tutelage.models import adapters
    >>> from tutelage.models.preprocessing import Preprocessing
    >>> module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    >>> images = np.zeros((4, 8, 8, 1), np.uint8)
    >>> entry = Preprocessing(scale=255)
    >>> answer, _ = adapters.from_torch(module, "mine", images, 3, entry)
    >>> answer(images, "float32").shape
    (4, 3)
    """
    notes: list[str] = []
    size = input_size(name, images.shape[1:], (None, None), entry, notes)

    def run(pixels: np.ndarray, precision: str) -> np.ndarray:
        tensors = itertools.chain(module.parameters(), module.buffers(), [torch.zeros(())])
        like = next(tensor for tensor in tensors if tensor.is_floating_point())
        x = torch.tensor(pixels).permute(0, 3, 1, 2).to(like.device, like.dtype)
        low = torch.autocast(like.device.type, torch.bfloat16, enabled=precision == "bfloat16")
        with _evaluating(module), torch.inference_mode(), low:
            outputs = module(x)
        if not isinstance(outputs, torch.Tensor):
            raise ModelError(
                f"{name} gives {type(outputs).__name__}: expected one tensor, of logits; "
                "wrap it in a module that gives that alone"
            )
        return outputs.float().cpu().numpy()

    return _answering(run, name, images, classes, entry, size, "float32", notes)


def from_onnx(
    path: Path, images: np.ndarray, classes: int, entry: Preprocessing
) -> tuple[TeacherFunction, list[str]]:
    """Let an `.onnx` file answer raw images, by ONNX Runtime on the processor.

    Args:
        path: a model of one input, float32 or uint8, NCHW or NHWC as its shape says, of free or
            fixed batch size. Where the shape leaves it open, it is NCHW.
        images, classes, entry: as for `from_keras`.

    Returns:
        As `from_torch`; a precision is not heeded.

    Raises:
        RecipeError: if `entry` scales images for a model of uint8 images.
        ModelError: if it can't be read, or doesn't fit.
        MissingExtraError: if there is no ONNX Runtime.
    """
    with extra("export"):
        import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # its warnings are about the graph, not for who uses it
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # of classes that ONNX Runtime keeps to itself
        raise ModelError(f"{path} can't be read as an ONNX model: {reason(error)}") from error
    counts = len(session.get_inputs()), len(session.get_outputs())
    if counts != (1, 1):
        raise ModelError(
            f"{path} has {counts[0]} inputs and {counts[1]} outputs: expected one of each"
        )
    (taken,) = session.get_inputs()
    dtype = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}.get(taken.type)
    shape, channels, notes = taken.shape or [], images.shape[3], list[str]()
    if dtype is None or len(shape) != 4:
        raise ModelError(
            f"{path} takes {taken.type} of shape {shape}: expected float32 or uint8 of four axes"
        )
    batch = shape[0] if isinstance(shape[0], int) else loading.BATCH
    last = shape[3] == channels != shape[1]
    refuse_channels(str(path), shape[3 if last else 1], channels)
    size = input_size(
        str(path), images.shape[1:], tuple(shape[1:3] if last else shape[2:]), entry, notes
    )

    def run(pixels: np.ndarray, _: str) -> np.ndarray:
        if not last:
            pixels = pixels.transpose(0, 3, 1, 2)
        parts = []
        for start in range(0, len(pixels), batch):
            part = pixels[start : start + batch]
            # A fixed batch is filled up, and what is too much is cut off again.
            full = np.resize(part, (batch, *part.shape[1:])) if batch == shape[0] else part
            (outputs,) = session.run(None, {taken.name: np.ascontiguousarray(full)})
            parts.append(np.asarray(outputs, np.float32)[: len(part)])
        return np.concatenate(parts)

    return _answering(run, str(path), images, classes, entry, size, dtype, notes)


def _answering(
    run: TeacherFunction,
    name: str,
    images: np.ndarray,
    classes: int,
    entry: Preprocessing,
    size: tuple[int, int],
    dtype: str,
    notes: list[str],
) -> tuple[TeacherFunction, list[str]]:
    """What shows a model, that `run` asks about NHWC pixels, raw images in batches."""
    front = keras.Model(*prepared(name, images.shape[1:], entry, size, dtype, set()))

    def ask(shown: np.ndarray, precision: str) -> np.ndarray:
        starts = range(0, len(shown), loading.BATCH)
        batches = (shown[start : start + loading.BATCH] for start in starts)
        return np.concatenate([run(front.predict_on_batch(b), precision) for b in batches])

    answers = probe(name, ask, images, classes)
    if log_of_probabilities(answers, notes) is answers:
        return ask, notes
    return lambda shown, precision: np.log(np.maximum(ask(shown, precision), LEAST)), notes


@contextmanager
def _evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode, and afterwards each part's own mode again."""
    found = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in found:
            part.training = training
