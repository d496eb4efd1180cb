"""Layers that PyTorch's exporter doesn't know give Keras' outputs in an exported file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers, ops

from tutelage.data import datasets
from tutelage.exporters import exporter, onnx_graph
from tutelage.models.onnx_model import ExportedModel

DIGITS = datasets.load("digits")


def network(*middle: keras.Layer, dtype: str = "uint8") -> keras.Model:
    keras.utils.set_random_seed(0)
    conv = layers.Conv2D(8, 3, padding="same", bias_initializer="normal")
    front = [keras.Input((8, 8, 1), dtype=dtype), layers.Rescaling(1 / 16), conv]
    model = keras.Sequential([*front, *middle, layers.Flatten(), layers.Dense(10)])
    for variable in model.trainable_variables:  # scales of 1 and shifts of 0 could hide a mistake
        variable.assign(variable + 0.3 * keras.random.normal(variable.shape, seed=1))
    return model


def exported(model: keras.Model, folder: Path, **options: bool) -> dict:
    model.save(folder / "mine.keras")
    return exporter.export(folder / "mine.keras", data="digits", **options)


def assert_same(model: keras.Model, folder: Path) -> None:
    result = exported(model, folder)
    images = DIGITS.test.images[:100]
    found = ExportedModel(result["file"]).logits(images)
    wanted = model.predict(images, verbose=0)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6 * np.abs(wanted).max())


NORMALIZATION = [
    layers.GroupNormalization(4),
    layers.GroupNormalization(-1),
    layers.LayerNormalization(),
    layers.LayerNormalization(scale=False),
    layers.LayerNormalization(center=False),
    layers.LayerNormalization(axis=[1, 2, 3], epsilon=0.1),
    layers.LayerNormalization(axis=1),
    layers.RMSNormalization(epsilon=0.1),
    layers.UnitNormalization(),
]
RESIZING = [
    layers.Resizing(5, 6, antialias=True),
    layers.Resizing(4, 12, antialias=True),
    layers.Resizing(5, 6, interpolation="bicubic", antialias=True),
    layers.Resizing(5, 6, interpolation="nearest", antialias=True),
    layers.Resizing(13, 3, interpolation="nearest"),
    layers.Resizing(5, 3, crop_to_aspect_ratio=True, antialias=True),
    layers.Resizing(5, 3, pad_to_aspect_ratio=True, antialias=True),
    layers.Resizing(13, 12, antialias=True),
]
AUGMENTATION = [
    layers.RandomFlip(),
    layers.RandomRotation(0.2),
    layers.RandomTranslation(0.2, 0.2),
    layers.RandomZoom(0.2),
    layers.RandomContrast(0.2),
    layers.RandomBrightness(0.2),
    layers.RandomCrop(8, 8),
    layers.RandomErasing(),
    layers.RandomHue(0.2, value_range=(0, 255)),
    layers.RandAugment(),
]


@pytest.mark.parametrize("layer", [*NORMALIZATION, *RESIZING, *AUGMENTATION])
def test_a_layer_gives_keras_outputs(layer: keras.Layer, tmp_path: Path) -> None:
    assert_same(network(type(layer).from_config(layer.get_config())), tmp_path)


def test_layers_of_a_nested_model_and_operations_do_too(tmp_path: Path) -> None:
    inner = keras.Sequential([keras.Input((8, 8, 1)), layers.RandomFlip(), layers.RandomZoom(0.2)])
    images = keras.Input((8, 8, 1), dtype="uint8")
    x = layers.Dense(6)(inner(layers.Rescaling(1 / 16)(images)))
    x = ops.image.resize(ops.layer_normalization(x, axis=-1), (5, 5), antialias=True)
    assert_same(keras.Model(images, layers.Dense(10)(layers.Flatten()(x))), tmp_path)


@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_a_model_of_other_inputs_gets_raw_pixels(dtype: str, tmp_path: Path) -> None:
    assert_same(network(dtype=dtype), tmp_path)


@pytest.mark.parametrize("kind", [layers.LayerNormalization, layers.GroupNormalization])
def test_what_is_resized_and_normalized_is_quantized(kind: type, tmp_path: Path) -> None:
    options = {"groups": 4} if kind is layers.GroupNormalization else {}
    model = network(layers.Resizing(6, 6, antialias=True), kind(**options))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.003), loss)
    model.fit(DIGITS.train.images, DIGITS.train.labels, batch_size=64, epochs=20, verbose=0)
    result = exported(model, tmp_path, int8=True)
    assert result["models"]["exported"]["accuracy"] > 0.9


def test_a_model_is_left_as_it_was(tmp_path: Path) -> None:
    model = network(layers.RandomFlip(seed=1))
    assert onnx_graph.obstacle(model) is None
    images = DIGITS.test.images[:8]
    outputs = [ops.convert_to_numpy(model(images, training=True)) for _ in range(8)]
    assert any((output != outputs[0]).any() for output in outputs)


def test_what_cannot_be_exported_is_said_in_one_line(tmp_path: Path) -> None:
    model = network(layers.AdaptiveAveragePooling2D((5, 3)))
    assert "adaptive_avg_pool2d" in onnx_graph.obstacle(model)
    model.save(tmp_path / "mine.keras")
    line = [sys.executable, "-m", "tutelage", "export", tmp_path / "mine.keras"]
    # As in a pipe, where C buffers what it prints; this variable would make it unbuffered.
    piped = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run([*line, "--data", "digits"], capture_output=True, text=True, env=piped)
    assert (done.returncode, done.stdout) == (2, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("tutelage: ")
    assert "adaptive_avg_pool2d" in last
    assert not any(word in done.stderr for word in ("Traceback", "Please", "bug report"))


def test_a_graph_of_one_image_is_refused(tmp_path: Path) -> None:
    """Traced with one image, a custom layer keeps that number."""

    class One(layers.Layer):
        def call(self, x):
            return ops.reshape(x, (len(x), 8, 8, 8)) if ops.is_tensor(x) else x

    assert "ONNX" in onnx_graph.obstacle(network(One()))
