"""Models made elsewhere, fitted to a data set: raw images go in, logits come out."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import torch
from keras import layers, ops

from tutelage import private_api
from tutelage.errors import ModelError, RecipeError, TutelageError, extra
from tutelage.models import loading

TeacherFunction = Callable[[np.ndarray, str], np.ndarray]

_PROBES = 64  # images shown to a model to see whether it answers, and what
_LEAST = 1e-7  # what a lower probability counts as: its logarithm must be finite


@dataclass(frozen=True)
class Preprocessing:
    """How a model takes its images: resized to `size`, then (pixel / scale - mean) / std.

    Attributes:
        size: (height, width) in pixels; None: the images' own.
        scale: what pixels, of 0 to 255, are divided by.
        mean: a value a channel; () for none.
        std: a value a channel; () for none.
    """

    size: tuple[int, int] | None = None
    scale: float = 1.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def check(self, channels: int) -> None:
        """Refuse values that images of so many channels can't be taken by, with RecipeError."""
        if self.size is not None and (
            len(self.size) != 2 or not all(isinstance(n, int) and n > 0 for n in self.size)
        ):
            raise RecipeError(f"size: expected (height, width) in pixels, found {self.size}")
        if not 0 < self.scale < math.inf:
            raise RecipeError(f"scale: expected a number above 0, such as 255, found {self.scale}")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values and (len(values) != channels or not np.isfinite(values).all()):
                raise RecipeError(
                    f"{name}: expected a finite number for each of {channels} channels, "
                    f"found {values}"
                )
        if min(self.std, default=1.0) <= 0:
            raise RecipeError(f"std: expected numbers above 0, found {self.std}")


def from_keras(
    model: keras.Model, name: str, images: np.ndarray, classes: int, entry: Preprocessing
) -> tuple[keras.Model, list[str]]:
    """Copy a Keras model into one that takes raw images and gives logits.

    A stock Functional or Sequential model's layers become the copy's own, behind those that
    `entry` asks for; a model of another class is one layer of it.

    Args:
        model: built, of one image input and one output.
        name: what to call it in errors.
        images: the training images, uint8 of shape (n, height, width, channels).
        classes: number of classes.
        entry: how it takes its images.

    Returns:
        A Functional model from uint8 images of that shape to logits, and notes for the user.

    Raises:
        RecipeError: if `entry` scales images for a model of uint8 images.
        ModelError: if it can't be copied, or doesn't fit.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from tutelage.models import adapters
    >>> model = keras.Sequential([keras.Input((None, None, 1)), keras.layers.Conv2D(3, 3)])
    >>> model.add(keras.layers.GlobalAveragePooling2D())
    >>> images = np.zeros((4, 8, 8, 1), np.uint8)
    >>> entry = adapters.Preprocessing((9, 9), 255)
    >>> made, notes = adapters.from_keras(model, "mine", images, 3, entry)
    >>> [type(layer).__name__ for layer in made.layers[1:3]], notes
    (['Rescaling', 'Resizing'], ['images are resized for it from 8x8 to 9x9 pixels'])
    """
    if not model.built:
        raise ModelError(f"{name} has no weights yet: begin it with keras.Input, or call it once")
    shape, notes = images.shape[1:], list[str]()
    declared = keras.tree.flatten(getattr(model, "inputs", None) or [])
    if len(declared) > 1:
        raise ModelError(f"{name} has {len(declared)} inputs: expected one, of images")
    takes = declared[0].shape if declared else (None, None, None, None)
    if len(takes) != 4:
        raise ModelError(
            f"{name} takes input of shape {takes}: expected (batch, height, width, channels)"
        )
    _refuse_channels(name, takes[3], shape[2])
    size = _size(name, shape, takes[1:3], entry, notes)
    dtype = "uint8" if declared and declared[0].dtype == "uint8" else "float32"
    taken = {layer.name for layer in model.layers if not isinstance(layer, layers.InputLayer)}
    inputs, x = _entered(name, shape, entry, size, dtype, taken)
    try:
        outputs = _copied(model, x)
    except Exception as error:  # whatever a layer's class raises
        raise ModelError(
            f"{name} can't be copied for images of shape {x.shape[1:]}: {_reason(error)}; "
            "each class of its own needs a get_config, and images the size it takes"
        ) from error
    if len(keras.tree.flatten(outputs)) != 1:
        raise ModelError(f"{name} gives {len(outputs)} outputs: expected one, of logits")
    (output,) = keras.tree.flatten(outputs)
    _refuse_outputs(name, output.shape, classes)
    logits = _before_softmax(output)
    made = keras.Model(inputs, logits, name=model.name)
    answers = _asked(name, functools.partial(loading.logits, made), images, classes)
    if logits is not output:
        notes.append("it ends in softmax: its logits are taken from before that")
    elif log_of_probabilities(answers, notes) is not answers:
        inputs = keras.Input(shape, dtype="uint8", name="images")
        # A layer ends it, as an operation is none and would not be seen as the last.
        last = layers.Identity(name="logits")
        x = last(ops.log(ops.maximum(made(inputs), _LEAST)))
        made = keras.Model(inputs, x, name=f"{model.name}_logits")
    return made, notes


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
    >>> module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    >>> images = np.zeros((4, 8, 8, 1), np.uint8)
    >>> entry = adapters.Preprocessing(scale=255)
    >>> answer, _ = adapters.from_torch(module, "mine", images, 3, entry)
    >>> answer(images, "float32").shape
    (4, 3)
    """
    notes: list[str] = []
    size = _size(name, images.shape[1:], (None, None), entry, notes)

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
        raise ModelError(f"{path} can't be read as an ONNX model: {_reason(error)}") from error
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
    _refuse_channels(str(path), shape[3 if last else 1], channels)
    size = _size(
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


def log_of_probabilities(answers: np.ndarray, notes: list[str]) -> np.ndarray:
    """A model's answers as they are, or their logarithms, with a note, if all are probabilities."""
    if not ((answers >= 0).all() and (np.abs(answers.sum(axis=1) - 1) < 1e-3).all()):
        return answers
    notes.append("it gives probabilities: their logarithms are taken as its logits")
    return np.log(np.maximum(answers, np.float32(_LEAST)))


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
    front = keras.Model(*_entered(name, images.shape[1:], entry, size, dtype, set()))

    def ask(shown: np.ndarray, precision: str) -> np.ndarray:
        starts = range(0, len(shown), loading.BATCH)
        batches = (shown[start : start + loading.BATCH] for start in starts)
        return np.concatenate([run(front.predict_on_batch(b), precision) for b in batches])

    answers = _asked(name, ask, images, classes)
    if log_of_probabilities(answers, notes) is answers:
        return ask, notes
    return lambda shown, precision: np.log(np.maximum(ask(shown, precision), _LEAST)), notes


def _asked(name: str, ask: TeacherFunction, images: np.ndarray, classes: int) -> np.ndarray:
    """What a model answers a few images, spread over all."""
    probes = images[np.linspace(0, len(images) - 1, min(_PROBES, len(images))).astype(int)]
    try:
        answers = ask(probes, "float32")
    except TutelageError:
        raise
    except Exception as error:  # whatever a model raises
        raise ModelError(
            f"{name} can't answer images of shape {probes.shape[1:]}: {_reason(error)}; "
            "set size to what it takes, or choose another model"
        ) from error
    _refuse_outputs(name, answers.shape, classes)
    if not np.isfinite(answers).all():
        raise ModelError(
            f"{name} gives logits that are not finite: is it trained, and how does it take "
            "images (size, scale, mean, std)?"
        )
    return answers


def _size(
    name: str,
    shape: tuple[int, ...],
    takes: tuple[Any, ...],
    entry: Preprocessing,
    notes: list[str],
) -> tuple[int, int]:
    """The (height, width) to show a model that takes such; what is no integer is free."""
    own = (shape[0], shape[1])
    height, width = size = tuple(entry.size or own)
    fits = tuple(t if isinstance(t, int) else s for t, s in zip(takes, size, strict=True))
    if fits != size:
        raise ModelError(
            f"{name} takes images of {fits[0]}x{fits[1]} pixels, but "
            f"{'size is' if entry.size else 'these are'} {height}x{width}: set size to {fits}"
        )
    if size != own:
        notes.append(f"images are resized for it from {own[0]}x{own[1]} to {height}x{width} pixels")
    return height, width


def _refuse_channels(name: str, takes: Any, channels: int) -> None:
    if isinstance(takes, int) and takes != channels:
        raise ModelError(
            f"{name} takes images of {takes} channels, but these have {channels} (grey 1, colour "
            "3): choose another model, or other images"
        )


def _refuse_outputs(name: str, shape: tuple[int | None, ...], classes: int) -> None:
    if len(shape) != 2:
        raise ModelError(f"{name} gives output of shape {shape}: expected logits (batch, classes)")
    if shape[1] != classes:
        raise ModelError(
            f"{name} tells {shape[1]} classes apart, but there are {classes}: choose another model"
        )


def _entered(
    name: str,
    shape: tuple[int, ...],
    entry: Preprocessing,
    size: tuple[int, int],
    dtype: str,
    taken: set[str],
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Raw images, and what a model of `dtype` takes of them: stock layers where any are needed."""

    def free(wanted: str) -> str:
        return wanted if wanted not in taken else free(f"{wanted}_")

    x = inputs = keras.Input(shape, dtype="uint8", name=free("images"))
    if dtype == "float32":
        std = np.asarray(entry.std or [1.0] * shape[2])
        mean = np.asarray(entry.mean or [0.0] * shape[2])
        scale, offset = 1 / (entry.scale * std), -mean / std
        # Ahead of resizing, which commutes with it.
        x = layers.Rescaling(
            scale.tolist(), offset.tolist(), dtype=dtype, name=free("entry_scale")
        )(x)
    elif entry.scale != 1 or entry.mean or entry.std:
        raise RecipeError(f"{name} takes pixels as they are: give no scale, mean or std for it")
    if size != shape[:2]:
        x = layers.Resizing(*size, dtype=dtype, name=free("entry_size"))(x)
    return inputs, x


def _copied(model: keras.Model, x: keras.KerasTensor) -> Any:
    """What a copy of a model, with its weights and state, makes of `x`."""
    copies: dict[Any, Any] = {}

    def copied(operation: Any) -> Any:
        if operation not in copies:
            copies[operation] = (
                keras.models.clone_model(operation)
                if isinstance(operation, keras.Model)
                else type(operation).from_config(operation.get_config())
            )
        return copies[operation]

    if type(model).__module__.startswith("keras."):
        outputs = private_api.run_through(private_api.graph(model), [x], copied)
    else:
        outputs = copied(model)(x)
    for old, new in copies.items():
        if isinstance(old, keras.Layer):
            for ours, theirs in zip(new.variables, old.variables, strict=True):
                # By way of NumPy: JAX would share the array, and training gives it away.
                ours.assign(np.array(ops.convert_to_numpy(theirs)))
    return outputs


def _before_softmax(output: Any) -> Any:
    """The logits that a softmax makes `output` of; `output` itself where no layer shows one."""
    head, inputs = private_api.producer(output)
    activation = getattr(head, "activation", None)
    if not isinstance(head, layers.Softmax) and activation is not keras.activations.softmax:
        return output
    (x,) = inputs
    if isinstance(head, layers.Softmax | layers.Activation):
        return x
    linear = type(head).from_config(head.get_config() | {"activation": "linear"})
    logits = linear(x)
    linear.set_weights(head.get_weights())
    return logits


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


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
