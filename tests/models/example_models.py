"""Images, small models of every kind, and what makes teachers and students of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
import torch
from keras import layers
from onnx import TensorProto, helper, numpy_helper

from tutelage.errors import (
    TutelageError,
)
from tutelage.models import resolve, stored_logits
from tutelage.models.preprocessing import Preprocessing

GREY = np.random.default_rng(0).integers(0, 256, (300, 8, 8, 1), dtype=np.uint8)


RGB_IMAGES = np.random.default_rng(1).integers(0, 256, (20, 6, 8, 3), dtype=np.uint8)


CLASSES = ("cat", "dog", "emu")


SEEN = Preprocessing(scale=255, mean=(0.5,), std=(0.25,))


COLORS = Preprocessing(scale=255, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))


WEIGHTS = np.random.default_rng(2).normal(0, 0.3, (64, 3)).astype(np.float32)


BIAS = np.array([0.1, -0.2, 0.3], np.float32)


def preprocessed(images: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Images after preprocessing, without a resize."""
    return (
        (images / preprocessing.scale - np.array(preprocessing.mean)) / np.array(preprocessing.std)
    ).astype(np.float32)


def linear(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1) @ WEIGHTS + BIAS


def dense(activation: str | None = None) -> layers.Dense:
    layer = layers.Dense(3, activation)
    layer.build((None, 64))
    layer.set_weights([WEIGHTS, BIAS])
    return layer


def net(*head: keras.Layer, shape: tuple[Any, ...] = (8, 8, 1), dtype: str = "float32") -> Any:
    return keras.Sequential([keras.Input(shape, dtype=dtype), layers.Flatten(), *head])


def conv_net(dtype: str = "float32", seed: int = 1) -> Any:
    """A Keras net with what copies, fused layers or recalibrated normalization could get wrong."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((None, None, 1), dtype=dtype)
    x = layers.Rescaling(1 / 255)(inputs) if dtype == "uint8" else inputs
    x = layers.Conv2D(4, 3, activation="relu")(x)
    x = layers.Dropout(0.5, seed=1)(layers.BatchNormalization()(x))
    x = layers.Add()([layers.Conv2D(4, 3, padding="same")(x), x])
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)), name="conv")


class Small(torch.nn.Module):
    def __init__(self, channels: int = 3):
        super().__init__()
        self.conv = torch.nn.Conv2d(channels, 4, 3)
        self.norm = torch.nn.BatchNorm2d(4)
        self.drop = torch.nn.Dropout(0.5)
        self.head = torch.nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.drop(self.norm(self.conv(x)).relu().mean((2, 3))))


def small(channels: int = 3) -> Small:
    torch.manual_seed(0)
    return Small(channels)


def flat(*head: torch.nn.Module, inputs: int = 64) -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(inputs, 3), *head)


def onnx_file(
    path: Path,
    shape: tuple[int | str, ...] = ("n", 1, 8, 8),
    end: Sequence[str] = (),
    *,
    kind: int = TensorProto.FLOAT,
    outputs: tuple[str, ...] = ("logits",),
    inputs: tuple[str, ...] = ("image",),
    last: tuple[str, ...] = (),
) -> Path:
    """A file of [Cast], Flatten, Gemm and the operators of `end`, with the weights above."""
    nodes = [
        helper.make_node("Cast", ["image"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["cast"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w", "b"], ["linear"]),
        *(
            helper.make_node(name, [f"end{i}" if i else "linear"], [f"end{i + 1}"])
            for i, name in enumerate(end)
        ),
        helper.make_node("Identity", [f"end{len(end)}" if end else "linear"], ["logits"]),
        helper.make_node("Identity", ["linear"], ["more"]),
        helper.make_node("Identity", ["cast"], ["maps"]),
    ]
    declared = {"maps": (shape[0], *shape[1:])}
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(name, kind, shape) for name in inputs],
        [
            helper.make_tensor_value_info(
                name, TensorProto.FLOAT, declared.get(name, (shape[0], 3))
            )
            for name in outputs
        ],
        [numpy_helper.from_array(WEIGHTS, "w"), numpy_helper.from_array(BIAS, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return path


def means_file(path: Path, shape: tuple[int | str, ...]) -> Path:
    """A file whose logits are the means of the channels, so that a wrong layout shows."""
    axes = numpy_helper.from_array(np.array([1, 2] if shape[3] in (1, 3) else [2, 3]), "axes")
    node = helper.make_node("ReduceMean", ["image", "axes"], ["logits"], keepdims=0)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "means",
        [value("image", TensorProto.FLOAT, shape)],
        [value("logits", TensorProto.FLOAT, (shape[0], "channels"))],
        [axes],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path)
    return path


def teacher_of(source: Any, images: np.ndarray = GREY, **settings: Any) -> resolve.Teacher:
    return resolve.teacher(source, images=images, classes=CLASSES, **settings)


def student_of(
    source: Any, images: np.ndarray = GREY, seed: int = 0, **settings: Any
) -> keras.Model:
    return resolve.student(source, images=images, classes=CLASSES, seed=seed, **settings)[0]


def logits_of(teacher: resolve.Teacher, images: np.ndarray = GREY) -> np.ndarray:
    assert teacher.logits is not None
    logits = teacher.logits(images, "float32")
    assert logits.dtype == np.float32
    return logits


def predicted(model: keras.Model, images: np.ndarray) -> np.ndarray:
    return np.asarray(model.predict(images, verbose=0))


def refused(
    kind: type[TutelageError],
    offender: str,
    source: Any,
    images: np.ndarray = GREY,
    make: Callable[..., Any] = teacher_of,
    **settings: Any,
) -> None:
    with pytest.raises(kind, match=offender) as caught:
        make(source, images, **settings)
    assert "\n" not in str(caught.value)


FUNCTION = """
import keras, torch
def keras_model():
    return keras.Sequential([
        keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(3)
    ])
def module():
    import made_helper  # when it is called, not when this is imported
    torch.manual_seed(made_helper.SEED)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
"""


def store(path: Path, logits: np.ndarray, **changes: Any) -> Path:
    np.save(path, logits)
    manifest = {"images": stored_logits.image_hash(GREY), "classes": CLASSES} | changes
    path.with_suffix(".json").write_text(json.dumps(manifest))
    return path
