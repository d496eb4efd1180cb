"""Fast layers against Keras' own, on random networks of stock layers."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from tutelage.kernels import accelerate

SIZE, CLASSES = 8, 5
NETWORKS = 320
PER_TEST = 20


class Doubled(layers.Dense):
    """A subclass with a call of its own."""

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return 2 * super().call(inputs, training=training)


class Network:
    """A random network: `model` builds the same one each time."""

    def __init__(self, seed: int):
        self.seed = seed
        self.quantized = seed % 10 == 9

    def model(self) -> keras.Model:
        keras.utils.set_random_seed(self.seed)
        self.random = np.random.default_rng(self.seed)
        self.shared: list[keras.Layer] = []
        dtype = self.pick("uint8", "float32")
        inputs = keras.Input((SIZE, SIZE, 3), dtype=dtype)
        x = layers.Rescaling(1 / 255)(inputs) if dtype == "uint8" else inputs
        for _ in range(self.random.integers(2, 7)):
            x = self.block(x, nested=True)
        x = self.head(x)
        model = keras.Model(inputs, x)
        self.disturb(model)
        return model

    def pick(self, *choices: Any) -> Any:
        return choices[self.random.integers(len(choices))]

    def chance(self, share: float) -> bool:
        return bool(self.random.random() < share)

    def block(self, x: Any, nested: bool) -> Any:
        kind = self.random.integers(13)
        channels, large = x.shape[-1], min(x.shape[1:3]) > 3
        activation = self.pick(None, "relu", "gelu", "relu6", "swish")
        match kind:
            case 0 | 1:
                return layers.Conv2D(
                    self.pick(2, 4, 6),
                    self.pick(1, 3, (1, 3)),
                    padding=self.pick("same", "same", "valid") if large else "same",
                    strides=self.pick(1, 1, 2) if large else 1,
                    activation=activation,
                    use_bias=self.chance(0.5),
                    activity_regularizer=keras.regularizers.L2(1e-3) if self.chance(0.1) else None,
                )(x)
            case 2:
                return layers.DepthwiseConv2D(3, padding="same", depth_multiplier=self.pick(1, 2))(
                    x
                )
            case 3:
                return layers.SeparableConv2D(4, 3, padding="same", activation=activation)(x)
            case 4 | 5:
                x = self.norm()(x)
                x = layers.ReLU(max_value=self.pick(None, 6.0))(x) if self.chance(0.5) else x
                return layers.MaxPooling2D()(x) if large and self.chance(0.5) else x
            case 6:
                pool = self.pick(layers.MaxPooling2D, layers.AveragePooling2D)
                return pool(2, strides=self.pick(1, 2), padding="same")(x)
            case 7:
                y = layers.Conv2D(channels, 3, padding="same", activation="relu")(x)
                y = self.norm()(y)
                merge = self.pick(layers.Add, layers.Multiply, layers.Average, layers.Maximum)
                return merge()([x, y])
            case 8:
                y = layers.Conv2D(2, 1)(x)
                return layers.Concatenate()([x, y])
            case 9:  # channels first within
                y = layers.Permute((3, 1, 2))(x)
                y = layers.BatchNormalization(axis=1)(y)
                y = layers.Conv2D(4, 3, padding="same", data_format="channels_first")(y)
                return layers.Permute((2, 3, 1))(y)
            case 10:  # one layer in two places
                layer = layers.Conv2D(channels, 3, padding="same", activation="relu")
                norm = self.norm()
                return norm(layer(norm(layer(x))))
            case 11 if nested:
                inner = keras.Input(x.shape[1:])
                y = self.block(self.block(inner, nested=False), nested=False)
                model = keras.Model(inner, y)
                model.trainable = self.chance(0.6)
                return model(x)
            case _:
                x = layers.ZeroPadding2D(self.pick(1, ((1, 0), (1, 1))))(x)
                kernel = 3 if large else 2
                return layers.Conv2D(4, kernel, strides=self.pick(1, 2), activation=activation)(x)

    def norm(self) -> keras.Layer:
        return layers.BatchNormalization(
            momentum=self.pick(0.9, 0.99),
            scale=self.chance(0.8),
            center=self.chance(0.8),
            trainable=self.chance(0.8),
        )

    def head(self, x: Any) -> Any:
        pool = self.pick(layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D, layers.Flatten)
        x = pool()(x)
        if self.chance(0.4):
            x = layers.Dense(8, activation="relu")(x)
            x = self.pick(self.norm, layers.LayerNormalization)()(x)
        if self.chance(0.2):
            x = Doubled(8)(x)
        if self.chance(0.2):  # a mask that only stock layers pass on
            x = layers.Masking()(layers.Reshape((-1, 2))(layers.Dense(8)(x)))
            x = layers.GlobalAveragePooling1D()(layers.Dense(6)(x))
        return layers.Dense(CLASSES)(x)

    def disturb(self, model: keras.Model) -> None:
        """Statistics of a trained network, frozen layers, LoRA, quantization, a call of its own."""
        for layer in model._flatten_layers():
            if isinstance(layer, layers.BatchNormalization):
                shape = layer.moving_mean.shape
                layer.moving_mean.assign(self.random.normal(0, 0.3, shape))
                layer.moving_variance.assign(self.random.uniform(0.5, 2, shape))
            if type(layer) in (layers.Dense, layers.Conv2D):
                if self.chance(0.1):
                    layer.trainable = False
                elif self.chance(0.1) and getattr(layer, "groups", 1) == 1:
                    layer.enable_lora(2)
                    layer.lora_kernel_b.assign(
                        self.random.normal(0, 0.2, layer.lora_kernel_b.shape)
                    )
                elif self.chance(0.1):
                    call = layer.call
                    layer.call = lambda x, training=None, call=call: call(x) - 1
        if self.quantized:
            for layer in model._flatten_layers():
                if type(layer) is layers.Dense and "call" not in vars(layer):
                    layer.quantize("int8")


def batch(model: keras.Model, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    if model.inputs[0].dtype == "uint8":
        return random.integers(0, 256, (6, SIZE, SIZE, 3), dtype=np.uint8)
    return random.normal(size=(6, SIZE, SIZE, 3)).astype(np.float32)


def close(one: list[Any], other: list[Any], tolerance: float) -> None:
    for a, b in zip(one, other, strict=True):
        a, b = (np.asarray(ops.convert_to_numpy(v), np.float64) for v in (a, b))
        assert np.abs(a - b).max(initial=0) <= tolerance * max(1, np.abs(b).max(initial=0))


@pytest.mark.parametrize("start", range(0, NETWORKS, PER_TEST))
def test_a_random_network_computes_and_learns_as_stock(start: int) -> None:
    ran_fast = 0
    for seed in range(start, start + PER_TEST):
        network = Network(seed)
        model, twin = network.model(), network.model()
        fast = accelerate.accelerate(twin)
        ran_fast += len(fast.layers_run_fast)
        x = batch(model, seed)
        close([fast.predict(x, verbose=0)], [model.predict(x, verbose=0)], 1e-4)
        if network.quantized or not model.trainable_weights:
            continue
        y = np.arange(6) % CLASSES
        for trained in (model, fast):
            trained.compile(
                keras.optimizers.SGD(0.01),
                keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            )
        for _ in range(2):
            losses = [trained.train_on_batch(x, y) for trained in (model, fast)]
            close(losses[:1], losses[1:], 1e-3)
        close(twin.variables, model.variables, 1e-3)
    assert ran_fast > 3 * PER_TEST
