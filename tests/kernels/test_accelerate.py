"""Fast layers against the stock layers that they replace."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import torch
from keras import layers

from tutelage.kernels import accelerate

RNG = np.random.default_rng(7)


def images(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype("float32")


def settled(model: keras.Model) -> keras.Model:
    """A model whose every weight, moving statistics too, is away from its start."""
    for variable in model.weights:
        noise = RNG.normal(size=variable.shape)
        value = 1 + 0.3 * np.abs(noise) if "variance" in variable.path else 0.3 * noise
        variable.assign(value.astype("float32"))
    return model


def passes(model: keras.Model, runner: keras.Model, x: np.ndarray, training: bool):
    """Output, gradients of a loss, and moving statistics after one pass."""
    start = [keras.ops.convert_to_numpy(v.value).copy() for v in model.variables]
    for variable in model.trainable_variables:
        variable.value.grad = None
    y = runner(x, training=training)
    weight = torch.cos(torch.arange(y.numel(), dtype=torch.float32)).reshape(y.shape)
    (y * weight).sum().backward()
    gradients = [v.value.grad.numpy().copy() for v in model.trainable_variables]
    statistics = [keras.ops.convert_to_numpy(v.value).copy() for v in model.non_trainable_variables]
    for variable, value in zip(model.variables, start, strict=True):
        variable.assign(value)
    return y.detach().numpy(), gradients, statistics


def assert_same_work(model: keras.Model, x: np.ndarray, training: bool) -> None:
    fast = accelerate.accelerate(model)
    assert fast is not model
    # oneDNN's gradient of a strided 1x1 kernel is wrong now and then on AVX2 (PyTorch 2.13), so the
    # reference goes without it.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "TF32 acceleration")  # the switch says it of a GPU
        with torch.backends.mkldnn.flags(enabled=False):
            expected = passes(model, model, x, training)
    got = passes(model, fast, x, training)
    np.testing.assert_allclose(got[0], expected[0], rtol=1e-4, atol=1e-4)
    for ours, stock in zip(got[1] + got[2], expected[1] + expected[2], strict=True):
        np.testing.assert_allclose(ours, stock, rtol=2e-4, atol=2e-4)


LAYERS = {
    "conv same relu": lambda: layers.Conv2D(5, 3, padding="same", activation="relu"),
    "conv valid without bias": lambda: layers.Conv2D(4, 3, use_bias=False),
    "conv strided same": lambda: layers.Conv2D(4, 3, strides=2, padding="same"),
    "conv strided more than its kernel": lambda: layers.Conv2D(4, 1, strides=3, padding="same"),
    "conv strided valid": lambda: layers.Conv2D(4, 3, strides=(2, 1)),
    "conv even kernel": lambda: layers.Conv2D(4, 2, padding="same"),
    "conv of two sizes": lambda: layers.Conv2D(4, (2, 5), strides=(1, 2), padding="same"),
    "conv of a pixel": lambda: layers.Conv2D(5, 1, activation="relu"),
    "conv of every other pixel": lambda: layers.Conv2D(5, 1, strides=(2, 3), use_bias=False),
    "conv of more filters than pixels": lambda: layers.Conv2D(
        150, (3, 2), strides=(2, 1), padding="same", activation="relu"
    ),
    "conv of more filters than pixels, valid": lambda: layers.Conv2D(
        150, (2, 4), strides=(3, 2), use_bias=False
    ),
    "conv dilated": lambda: layers.Conv2D(4, 3, dilation_rate=2, padding="same"),
    "conv of groups": lambda: layers.Conv2D(6, (3, 1), groups=3, activation="tanh"),
    "depthwise": lambda: layers.DepthwiseConv2D(3, padding="same", activation="relu"),
    "depthwise strided": lambda: layers.DepthwiseConv2D(3, strides=2, padding="same"),
    "depthwise multiplied": lambda: layers.DepthwiseConv2D(2, depth_multiplier=2, use_bias=False),
    "separable": lambda: layers.SeparableConv2D(4, 3, padding="same", activation="relu"),
    "separable strided": lambda: layers.SeparableConv2D(
        4, 3, strides=2, depth_multiplier=2, use_bias=False
    ),
    "batch norm": lambda: layers.BatchNormalization(momentum=0.8, epsilon=1e-2),
    "batch norm of nothing learnt": lambda: layers.BatchNormalization(center=False, scale=False),
    "layer norm": lambda: layers.LayerNormalization(epsilon=1e-2),
    "layer norm of nothing learnt": lambda: layers.LayerNormalization(center=False, scale=False),
    "layer norm of two axes": lambda: layers.LayerNormalization(axis=[-2, -1]),
    "max pooling": lambda: layers.MaxPooling2D(2),
    "max pooling same": lambda: layers.MaxPooling2D(3, strides=2, padding="same"),
    "max pooling same even": lambda: layers.MaxPooling2D(3, strides=1, padding="same"),
    "average pooling": lambda: layers.AveragePooling2D((2, 3)),
    "average pooling same": lambda: layers.AveragePooling2D(3, strides=1, padding="same"),
    "average pooling same uneven": lambda: layers.AveragePooling2D(2, padding="same"),
    "average": lambda: layers.GlobalAveragePooling2D(keepdims=True),
    "maximum": lambda: layers.GlobalMaxPooling2D(),
    "relu to six": lambda: layers.ReLU(6.0),
    "relu with a slope": lambda: layers.ReLU(negative_slope=0.1, threshold=0.2),
    "leaky relu": lambda: layers.LeakyReLU(0.1),
    "swish": lambda: layers.Activation("swish"),
    "softmax": lambda: layers.Softmax(),
    "zero padding": lambda: layers.ZeroPadding2D(((0, 1), (2, 1))),
    "cropping": lambda: layers.Cropping2D(1),
    "reshape": lambda: layers.Reshape((9, 8, 6)),
    "without a fast version": lambda: layers.UpSampling2D(2),
}
MERGES = [
    *(layers.Add, layers.Subtract, layers.Multiply, layers.Average),
    *(layers.Maximum, layers.Minimum, layers.Concatenate),
]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("merge", MERGES, ids=lambda merge: merge.__name__)
def test_merged_branches_are_what_stock_keras_makes_of_them(
    merge: type[keras.Layer], training: bool
) -> None:
    inputs = keras.Input((8, 9, 6))
    branches = [layers.Conv2D(4, 3)(inputs), layers.Conv2D(4, 3, activation="relu")(inputs)]
    model = settled(keras.Model(inputs, layers.Conv2D(3, 1)(merge()(branches))))
    assert_same_work(model, images(4, 8, 9, 6), training)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_a_fast_layer_computes_what_the_stock_layer_does(name: str, training: bool) -> None:
    inputs = keras.Input((8, 9, 6))
    x = layers.Conv2D(6, 1)(inputs)  # so that something is learnt before the layer, too
    model = settled(keras.Model(inputs, LAYERS[name]()(x)))
    assert_same_work(model, images(4, 8, 9, 6), training)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "conv",
    [
        lambda: layers.Conv2D(5, 3, use_bias=False, activation="relu"),
        lambda: layers.Conv2D(5, 3, strides=2),
        lambda: layers.Conv2D(4, 1),
        lambda: layers.Conv2D(170, 3, strides=4),
        lambda: layers.Conv2D(4, 3, padding="same"),
        lambda: layers.DepthwiseConv2D(3, strides=2),
        lambda: layers.SeparableConv2D(4, 3),
    ],
)
@pytest.mark.parametrize("zeros", [1, ((0, 1), (2, 1))])
def test_convolution_behind_a_border_of_zeros_does_what_both_layers_do(
    zeros: object, conv: Callable[[], keras.Layer], training: bool
) -> None:
    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(6, 1)(inputs)
    model = settled(keras.Model(inputs, conv()(layers.ZeroPadding2D(zeros)(x))))
    assert_same_work(model, images(10, 16, 16, 3), training)


@pytest.mark.parametrize("zeros", [1, 2, ((0, 2), (2, 0))])
def test_winograds_convolution_takes_a_border_of_one_pixel_and_no_other(zeros: object) -> None:
    inputs = keras.Input((16, 16, 32))
    model = settled(keras.Model(inputs, layers.Conv2D(32, 3)(layers.ZeroPadding2D(zeros)(inputs))))
    x = images(10, 16, 16, 32)
    expected = passes(model, model, x, training=True)
    got = passes(model, accelerate.accelerate(model), x, training=True)
    for ours, stock in zip([got[0], *got[1]], [expected[0], *expected[1]], strict=True):
        assert np.abs(ours - stock).max() <= 5e-5 * np.abs(stock).max()  # Winograd rounds to 1.6e-5


@pytest.mark.parametrize("training", [False, True])
def test_whole_model_of_branches_and_nested_models_does_the_same(training: bool) -> None:
    inner = keras.Sequential(
        [layers.Conv2D(4, 3, padding="same", activation="relu"), layers.BatchNormalization()]
    )
    inputs = keras.Input((8, 8, 3))
    x = inner(inputs)
    x = layers.Add()([x, layers.Conv2D(4, 1)(inputs)])
    x = layers.MaxPooling2D(2)(x)
    x = layers.Flatten()(x)
    x = layers.BatchNormalization()(layers.Dense(7, activation="relu")(x))
    model = settled(keras.Model(inputs, layers.Dense(3)(x)))
    assert_same_work(model, images(6, 8, 8, 3), training)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ["MobileNetV2", "ResNet50V2"])
def test_known_architectures_do_the_same_with_no_layer_left_to_stock(
    name: str, training: bool, caplog: pytest.LogCaptureFixture
) -> None:
    keras.utils.set_random_seed(0)
    build = getattr(keras.applications, name)
    model = build(weights=None, input_shape=(32, 32, 3), classes=10, classifier_activation=None)
    caplog.set_level("INFO", "tutelage.kernels.accelerate")
    fast = accelerate.accelerate(model)
    assert "without a fast version" not in caplog.text
    x = images(8, 32, 32, 3)
    expected, got = passes(model, model, x, training), passes(model, fast, x, training)
    for ours, stock in zip([got[0], *got[2]], [expected[0], *expected[2]], strict=True):
        # Rounding adds up over fifty layers, so it is held against the largest value.
        assert np.abs(ours - stock).max() <= 1e-3 * np.abs(stock).max() + 1e-5
    # Stock Keras' own gradients change by 1.3 % when its images change by 1e-7.
    ours, stock = (np.concatenate([g.ravel() for g in side[1]]) for side in (got, expected))
    assert np.linalg.norm(ours - stock) <= 0.05 * np.linalg.norm(stock)


def test_frozen_batch_norm_keeps_its_statistics() -> None:
    model = settled(keras.Sequential([keras.Input((4, 4, 2)), layers.BatchNormalization()]))
    model.layers[0].trainable = False
    fast = accelerate.accelerate(model)
    before = [keras.ops.convert_to_numpy(v.value).copy() for v in model.variables]
    got = fast(images(3, 4, 4, 2), training=True)
    np.testing.assert_allclose(got.numpy().shape, (3, 4, 4, 2))
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable.value), value)


def test_bfloat16_is_near_and_gives_float32() -> None:
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(8, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dense(4),
        ]
    )
    x = images(16, 8, 8, 3)
    y = accelerate.accelerate(model, "bfloat16")(x, training=True)
    assert y.dtype == torch.float32
    expected = model(x, training=True).detach().numpy()
    error = np.abs(y.detach().numpy() - expected).max()
    assert 0 < error < 0.05 * np.abs(expected).max()  # above 0: bfloat16 really was used


def test_dropout_keeps_the_stated_share_and_the_mean_and_follows_its_seed() -> None:
    def model() -> keras.Model:
        return keras.Sequential([keras.Input((50, 50, 4)), layers.Dropout(0.3, seed=5)])

    x = np.ones((16, 50, 50, 4), "float32")
    first = accelerate.accelerate(model())
    y = first(x, training=True).numpy()
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.7)}
    assert (y == 0).mean() == pytest.approx(0.3, abs=0.005)
    # Neighbours that share one draw of 64 bits decide independently.
    pairs = y.reshape(-1, 4) == 0
    assert np.abs(np.corrcoef(pairs.T) - np.eye(4)).max() < 0.02
    np.testing.assert_array_equal(accelerate.accelerate(model())(x, training=True).numpy(), y)
    assert (first(x, training=True).numpy() != y).any()
    np.testing.assert_array_equal(first(x, training=False).numpy(), x)


def test_accelerated_model_saves_the_stock_one(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4, 4, 1)), layers.Flatten(), layers.Dense(2)])
    accelerate.accelerate(model).save(tmp_path / "model.keras")
    script = (
        "import sys, keras, numpy as np;"
        f"m = keras.saving.load_model({str(tmp_path / 'model.keras')!r});"
        "assert not [n for n in sys.modules if n.startswith('tutelage')];"
        "assert type(m) is keras.Sequential; print(m.predict(np.ones((1,4,4,1)), verbose=0)[0, 0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    expected = model(np.ones((1, 4, 4, 1)))[0, 0].item()
    assert float(done.stdout) == pytest.approx(expected, rel=1e-4)


def test_model_class_of_its_own_is_left_alone() -> None:
    class Doubled(keras.Sequential):
        def call(self, inputs, training=None, mask=None):
            return 2 * super().call(inputs, training=training)

    model = Doubled([keras.Input((2,)), layers.Dense(2)])
    assert accelerate.accelerate(model) is model


def test_training_through_fast_layers_ends_where_stock_training_ends() -> None:
    def trained(fast: bool) -> list[np.ndarray]:
        keras.utils.set_random_seed(1)
        model = keras.Sequential(
            [
                keras.Input((8, 8, 2)),
                layers.Conv2D(4, 3, padding="same", activation="relu"),
                layers.BatchNormalization(),
                layers.MaxPooling2D(2),
                layers.Flatten(),
                layers.Dense(3),
            ]
        )
        runner = accelerate.accelerate(model) if fast else model
        runner.compile(
            keras.optimizers.SGD(0.05, momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        x = np.random.default_rng(0).normal(size=(32, 8, 8, 2)).astype("float32")
        runner.fit(x, np.arange(32) % 3, batch_size=8, epochs=3, shuffle=False, verbose=0)
        return model.get_weights()

    for ours, stock in zip(trained(True), trained(False), strict=True):
        np.testing.assert_allclose(ours, stock, rtol=1e-3, atol=1e-4)
