"""ONNX operators for what Keras' layers run on PyTorch but PyTorch's exporter does not know."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import torch

from tutelage import private_api

OPSET = 20


@contextmanager
def without_random_numbers(model: keras.Model) -> Iterator[None]:
    """While open, augmentation layers draw no random numbers.

    In inference they don't use them, but PyTorch can't export that they are drawn.

    Args:
        model: the model; only called in inference mode while this is open.
    """
    layers = [x for x in private_api.flat_layers(model) if hasattr(x, "get_random_transformation")]
    for layer in layers:
        vars(layer)["get_random_transformation"] = lambda *args, **kwargs: None
    try:
        yield
    finally:
        for layer in layers:
            del vars(layer)["get_random_transformation"]


def _resize(**attributes: Any) -> Callable[..., Any]:
    """Resizing of the last two axes to a fixed size."""

    def operator(g: Any, x: Any, size: Any, *_: Any) -> Any:
        empty = g.op("Constant", value_t=torch.tensor([]))  # regions and scales
        # All four sizes, as ONNX Runtime loses them when it moves a Resize of two axes.
        fixed = g.op("Constant", value_t=_constant(size))
        sizes = g.op("Concat", g.op("Shape", x, end_i=2), fixed, axis_i=0)
        place = {"coordinate_transformation_mode_s": "half_pixel"}
        return g.op("Resize", x, empty, empty, sizes, **place, **attributes)

    return operator


def _layer_norm(g: Any, x: Any, shape: Any, weight: Any, bias: Any, epsilon: Any, *_: Any) -> Any:
    centered = g.op("Sub", x, g.op("ReduceMean", x, _last_axes(g, shape)))
    output = _rms_norm(g, centered, shape, weight, epsilon)
    return output if bias.node().mustBeNone() else g.op("Add", output, bias)


def _rms_norm(g: Any, x: Any, shape: Any, weight: Any, epsilon: Any) -> Any:
    square = g.op("ReduceMean", g.op("Mul", x, x), _last_axes(g, shape))
    least = g.op("Constant", value_t=_constant(epsilon).float())
    output = g.op("Div", x, g.op("Sqrt", g.op("Add", square, least)))
    return output if weight.node().mustBeNone() else g.op("Mul", output, weight)


def _last_axes(g: Any, shape: Any) -> Any:
    """As many axes as a shape has."""
    count = len(list(shape.node().inputs()) or _constant(shape))
    return g.op("Constant", value_t=torch.arange(-count, 0))


def _constant(value: Any) -> torch.Tensor:
    return value.node().t("value")


_ANTIALIASED = {"antialias_i": 1, "exclude_outside_i": 1}
_OPERATORS: dict[str, Callable[..., Any]] = {
    "_upsample_bilinear2d_aa": _resize(mode_s="linear", **_ANTIALIASED),
    "_upsample_bicubic2d_aa": _resize(mode_s="cubic", cubic_coeff_a_f=-0.5, **_ANTIALIASED),
    "_upsample_nearest_exact2d": _resize(mode_s="nearest", nearest_mode_s="round_prefer_ceil"),
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
}
for _name, _operator in _OPERATORS.items():
    # Deprecated, as is the exporter that it belongs to, which Keras uses.
    torch.onnx.register_custom_op_symbolic(  # type: ignore[attr-defined]
        f"aten::{_name}", _operator, OPSET
    )
