"""Run stock Keras models through PyTorch's own kernels.

Stock Keras layers on the PyTorch backend are three to five times slower on a CPU, mostly
because of batch normalization composed of separate operations and copies between memory
layouts. A fast layer computes a stock layer with PyTorch's fused kernel, on the layer's own
variables, and returns a channels-last tensor; the model itself, and thus its file, is
unchanged. A layer without a fast version runs as stock. On a CPU, batch normalization is
fused with adjacent layers (`fused_batch_norm.py`), and 3x3 convolutions need fewer
multiplications (`winograd.py`).
"""

from __future__ import annotations

import logging
import warnings
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from tutelage import private_api
from tutelage.errors import RecipeError
from tutelage.kernels import build, fused_batch_norm
from tutelage.kernels.layers import FAST_LAYERS, Pass

if keras.backend.backend() == "torch":
    import torch

log = logging.getLogger(__name__)

_PROBES, _SIDE = 2, 32  # inputs that a model is checked with, and their size where it is free
_TOLERANCES = 1e-3, 1e-3
# The models that have been checked, each with the layers that ran fast.
_checked: weakref.WeakKeyDictionary[keras.Model, frozenset[keras.Layer]] = (
    weakref.WeakKeyDictionary()
)


def hardware_precision() -> str:
    """The fastest training precision of this machine.

    Returns:
        `"bfloat16"` on the PyTorch backend if the hardware has units for bfloat16 matrix
        products (AMX, or a recent GPU), else `"float32"`. AVX512-BF16 alone does not count:
        without AMX, convolutions in bfloat16 took 1.8 times as long as in float32.
    """
    if keras.backend.backend() != "torch":
        return "float32"
    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if torch.cpu.get_capabilities().get("amx_bf16") else "float32"


def set_threads(count: int) -> None:
    """Set the number of compute threads; it may change results in the last bits.

    Args:
        count: number of threads, at least 1.

    Raises:
        RecipeError: `count` is below 1, or the backend is not PyTorch.
    """
    if count < 1:
        raise RecipeError(f"threads: expected 1 or more, found {count}")
    if keras.backend.backend() != "torch":
        raise RecipeError(
            f"threads: expected the PyTorch backend, found {keras.backend.backend()}, which "
            "chooses its own number"
        )
    torch.set_num_threads(count)


def threads() -> int | None:
    """The number of compute threads; None if the backend doesn't tell."""
    return torch.get_num_threads() if keras.backend.backend() == "torch" else None


def compiled_parts() -> list[str]:
    """The compiled C kernels in use: none on a GPU or another backend.

    Example:

    >>> from tutelage.kernels import accelerate
    >>> set(accelerate.compiled_parts()) <= {"fused_batch_norm", "winograd"}
    True
    """
    if keras.backend.backend() != "torch" or torch.cuda.is_available():
        return []
    return [part for part in build.PARTS if build.library(part)]


def accelerate(model: keras.Model, precision: str = "float32") -> keras.Model:
    """Run a stock model through fast layers that share its variables.

    Args:
        model: a Functional or Sequential model, channels last.
        precision: `"float32"` or `"bfloat16"`, for the computation of fast layers. The
            variables and the output stay float32.

    Returns:
        On the PyTorch backend, a model with the same variables whose `save` writes the
        stock model. `model` itself on other backends, for a custom class, and, with a
        warning, where fast layers give other outputs for a small random batch.

    Example:

    >>> import keras
    >>> from tutelage.kernels import accelerate
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3)])
    >>> fast = accelerate.accelerate(model)
    >>> fast.count_params() == model.count_params()
    True
    """
    custom = not type(model).__module__.startswith("keras.") or "call" in vars(model)
    if keras.backend.backend() != "torch" or custom:
        return model
    fast = _Native(model, precision)
    if _checked.get(model) != fast.layers_run_fast:
        if not _agrees(fast):
            warnings.warn(
                f"{model.name}: fast layers give other outputs than Keras' own; it runs on those, "
                "more slowly",
                stacklevel=2,
            )
            return model
        _checked[model] = fast.layers_run_fast
    return fast


def watching(model: keras.Model, names: Sequence[str]) -> keras.Model:
    """Run a model once for its output and those of intermediate layers.

    Args:
        model: a model, stock or from `accelerate`.
        names: names of its layers.

    Returns:
        A model with the same variables and kernels that returns its output and theirs in a list.

    Example:

    >>> import keras, numpy as np
    >>> from tutelage.kernels import accelerate
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, name="inner")])
    >>> [tuple(x.shape) for x in accelerate.watching(model, ["inner"])(np.ones((5, 3), "float32"))]
    [(5, 4), (5, 4)]
    """
    inner = stock(model)
    outputs = [inner.outputs[0], *(inner.get_layer(name).output for name in names)]
    return alike(keras.Model(inner.inputs[0], outputs), model)


def alike(model: keras.Model, other: keras.Model) -> keras.Model:
    """Run a model like another one: through fast layers with its precision, or as stock.

    Args:
        model: a stock model.
        other: a model, stock or from `accelerate`.

    Returns:
        The model, with the same variables.

    Example:

    >>> import keras
    >>> from tutelage.kernels import accelerate
    >>> net = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)])
    >>> accelerate.alike(net, net) is net
    True
    """
    return _Native(model, other.precision) if isinstance(other, _Native) else model


def stock(model: keras.Model) -> keras.Model:
    """The stock model inside a result of `accelerate`; other models are returned unchanged."""
    return model.model if isinstance(model, _Native) else model


class _Native(keras.Model):
    def __init__(self, model: keras.Model, precision: str):
        super().__init__(name=model.name)
        self.model, self.precision = model, precision
        graphs, plain = fused_batch_norm.graphs(model), fused_batch_norm.plain
        layers = {node.operation for graph in graphs for node in private_api.nodes(graph)}
        self._pass = Pass(
            training=False,
            dtype=torch.bfloat16 if precision == "bfloat16" else torch.float32,
            fast=frozenset(x for x in layers if type(x) in FAST_LAYERS and plain(x)),
            chains=fused_batch_norm.chains(model),
            borders=fused_batch_norm.borders(model),
        )
        self.built = True
        kinds = {type(layer).__name__ for layer in layers - self._pass.fast} - {"InputLayer"}
        if kinds:
            log.info("%s: run as stock Keras: %s", model.name, ", ".join(sorted(kinds)))

    @property
    def layers_run_fast(self) -> frozenset[keras.Layer]:
        return self._pass.fast

    @property
    def input_shape(self) -> Any:
        return self.model.input_shape

    @property
    def output_shape(self) -> Any:
        return self.model.output_shape

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        if keras.tree.flatten(inputs)[0].device.type == "meta":  # Keras infers shapes
            return self.model(inputs, training=training)
        how = replace(self._pass, training=bool(training))
        return keras.tree.map_structure(lambda x: x.float(), _run(self.model, inputs, how))

    def save(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        self.model.save(filepath, *args, **kwargs)

    def save_weights(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        self.model.save_weights(filepath, *args, **kwargs)

    def load_weights(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        self.model.load_weights(filepath, *args, **kwargs)


def _run(model: keras.Model, inputs: Any, how: Pass) -> Any:
    graph = private_api.graph(model)

    def native(op: Any) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            if isinstance(op, keras.Model) and type(op).__module__.startswith("keras."):
                return _run(op, args[0], how)
            chain = how.chains.get(op)
            if chain is not None and op in chain.behind:
                return args[0]  # already done by the chain
            if type(op) is keras.layers.ZeroPadding2D and op in how.borders:
                return args[0]  # done by the next convolution
            if op in how.fast and _inputs_alone(args, kwargs):
                result = FAST_LAYERS[type(op)](op, args[0], how)
                if result is not None:
                    return result
            if isinstance(op, keras.Layer) and private_api.takes_training(op):
                kwargs["training"] = how.training
            return op(*args, **kwargs)

        return run

    return private_api.run_through(graph, private_api.standardize(graph, inputs), native)


def _inputs_alone(args: Any, kwargs: Any) -> bool:
    """Whether a layer is called with its inputs alone, without a mask, its own or a tensor's."""
    inputs = args[0] if isinstance(args[0], list | tuple) else args[:1]
    return (
        len(args) == 1
        and all(value is None for name, value in kwargs.items() if name != "training")
        and all(getattr(x, "_keras_mask", None) is None for x in inputs)
    )


def _agrees(fast: _Native) -> bool:
    """Whether fast layers give a model's stock output, up to rounding, for a few random inputs."""
    model, random = fast.model, np.random.default_rng(0)
    inputs = []
    for declared in model.inputs:
        shape = [_PROBES, *(size or _SIDE for size in declared.shape[1:])]
        values = random.integers(0, 256, shape) if "int" in declared.dtype else random.random(shape)
        inputs.append(keras.ops.convert_to_tensor(values, declared.dtype))
    inputs = keras.tree.pack_sequence_as(private_api.graph(model).input, inputs)
    with torch.no_grad():
        try:
            stock_outputs = model(inputs, training=False)
        except Exception:  # of inputs of free size, a layer may need another one
            return True
        outputs = _run(model, inputs, replace(fast._pass, dtype=torch.float32))
    return all(
        bool(torch.isclose(a.float(), b.float(), *_TOLERANCES, equal_nan=True).all())
        for a, b in zip(*map(keras.tree.flatten, (outputs, stock_outputs)), strict=True)
    )
