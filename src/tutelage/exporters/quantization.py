"""Quantization of an ONNX graph to 8-bit integers with ONNX Runtime."""

from __future__ import annotations

import io
import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime import quantization
from onnxruntime.quantization import (
    CalibrationMethod,
    QuantFormat,
    QuantType,
    create_calibrator,
)

from tutelage.exporters.fold_batch_norm import BOUND

# How the range of an activation is computed on the calibration images.
METHODS: Mapping[str, tuple[CalibrationMethod, dict[str, Any]]] = {
    "minmax": (CalibrationMethod.MinMax, {}),
    "percentile 99.99": (CalibrationMethod.Percentile, {"percentile": 99.99}),
    "percentile 99.9": (CalibrationMethod.Percentile, {"percentile": 99.9}),
}
# Operators that only move values are quantized if their inputs are.
_KINDS = ["Add", "AveragePool", "Concat", "Conv", "Flatten", "Gemm", "GlobalAveragePool", "MatMul"]
_KINDS += ["MaxPool", "Relu", "Reshape", "Transpose"]


def int8(model: onnx.ModelProto, images: np.ndarray, method: str) -> onnx.ModelProto:
    """Quantize a folded graph: weights and activations in 8 bits, weights per channel.

    Weights use 7 of their 8 bits, so that processors that add pairs of products in 16 bits can't
    overflow: results are the same on all. Logits stay float32.

    Args:
        model: a model from `fold_batch_norm.fold` that takes uint8 images.
        images: calibration images, uint8 of shape (n, height, width, channels).
        method: one of `METHODS`.

    Returns:
        The model with QuantizeLinear and DequantizeLinear nodes, which ONNX Runtime fuses.

    Source: weights per channel and activations per tensor as in arXiv 1806.08342, section 3.
    """
    way, settings = METHODS[method]
    with tempfile.TemporaryDirectory() as folder, _quietly():
        place, target = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, place)
        bounds = {chain[-1].output[0]: _free(chain, model) for chain in _bounds(model)}
        ranges = _ranges(place, images, method) if bounds else {}
        quantization.quantize_static(
            place,
            target,
            _Reader(model, images),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=_KINDS,
            nodes_to_exclude=[*_before_the_first(model), *_variances(model)],
            calibrate_method=way,
            extra_options={
                # Clipped values need no range: use that of the bound's output.
                "TensorQuantOverrides": {
                    free: [ranges[bounded]] for bounded, free in bounds.items()
                },
            }
            | {f"Calib{name.title()}": value for name, value in settings.items()},
        )
        made = onnx.load(target)
    _compare_integers(made)
    _leave_logits(made)
    _drop_unused(made)
    return made


class _Reader(quantization.CalibrationDataReader):
    """Passes the calibration images to ONNX Runtime one by one, in the same shape."""

    def __init__(self, model: onnx.ModelProto, images: np.ndarray):
        name = model.graph.input[0].name
        self._images = iter([{name: image[np.newaxis]} for image in images])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._images, None)


def _bounds(model: onnx.ModelProto) -> list[list[onnx.NodeProto]]:
    """The chains of one or two nodes that clip values to bounds."""
    chains: list[list[onnx.NodeProto]] = []
    for node in model.graph.node:
        if chains and _is_bound(node) and node.input[0] == chains[-1][-1].output[0]:
            chains[-1].append(node)
        elif _is_bound(node):
            chains.append([node])
    return chains


def _free(chain: list[onnx.NodeProto], model: onnx.ModelProto) -> str:
    """The name of the convolution's output that a chain of bounds clips."""
    makers = {node.output[0]: node for node in model.graph.node}
    node = makers[chain[0].input[0]]
    return node.output[0] if node.op_type != "MaxPool" else node.input[0]


def _is_bound(node: onnx.NodeProto) -> bool:
    return node.name.startswith(BOUND)


def _before_the_first(model: onnx.ModelProto) -> list[str]:
    """The nodes before the first multiplication, which normalize few values."""
    heavy = [node.op_type in ("Conv", "Gemm", "MatMul") for node in model.graph.node]
    return [node.name for node in model.graph.node[: heavy.index(True)]] if any(heavy) else []


def _variances(model: onnx.ModelProto) -> list[str]:
    """The additions before a square root: variances, which differ by orders of magnitude."""
    roots = {node.input[0] for node in model.graph.node if node.op_type == "Sqrt"}
    return [n.name for n in model.graph.node if n.op_type == "Add" and n.output[0] in roots]


def _ranges(place: Path, images: np.ndarray, method: str) -> dict[str, dict[str, np.ndarray]]:
    """The range of each bound's output on the calibration images."""
    way, settings = METHODS[method]
    calibrator = create_calibrator(
        place,
        ["Max", "Min"],
        augmented_model_path=str(place.with_name("watched.onnx")),
        calibrate_method=way,
        extra_options=settings,
    )
    calibrator.collect_data(_Reader(onnx.load(place), images))
    ranges = {}
    for name, data in calibrator.compute_data().items():
        low, high = (np.asarray(value, np.float32) for value in data.range_value)
        ranges[name] = {"rmin": low, "rmax": high}
    return ranges


def _compare_integers(model: onnx.ModelProto) -> None:
    """Apply bounds to 8-bit values instead of decoded ones, as their order is the same.

    `Q -> DQ -> Max(b) -> Q -> DQ` becomes `Q -> Max(Q(b)) -> DQ`, as all have the same scale.
    """
    graph = model.graph
    constants = {x.name: numpy_helper.to_array(x) for x in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    for chain in _bounds(model):
        decoder = makers[chain[0].input[0]]
        readers = [node for node in graph.node if chain[-1].output[0] in node.input]
        if decoder.op_type != "DequantizeLinear" or [r.op_type for r in readers] != [
            "QuantizeLinear"
        ]:
            continue
        scale, zero = (constants[name] for name in decoder.input[1:])
        for node in chain:
            steps = np.rint(constants[node.input[1]].astype(np.float64) / scale) + int(zero)
            name = node.input[1] = f"{node.name}_uint8"
            bound = np.clip(steps, 0, 255).astype(np.uint8)
            graph.initializer.append(numpy_helper.from_array(bound, name))
        chain[0].input[0] = decoder.input[0]
        chain[-1].output[0] = readers[0].output[0]
        graph.node.remove(readers[0])


def _leave_logits(model: onnx.ModelProto) -> None:
    """Leave the logits unquantized."""
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    (output,) = graph.output
    decoder = makers[output.name]
    if decoder.op_type == "DequantizeLinear":
        encoder = makers[decoder.input[0]]
        makers[encoder.input[0]].output[0] = output.name
        graph.node.remove(decoder)
        graph.node.remove(encoder)


def _drop_unused(model: onnx.ModelProto) -> None:
    graph = model.graph
    kept = {output.name for output in graph.output}
    while True:
        used = {name for node in graph.node for name in node.input} | kept
        unused = [node for node in graph.node if used.isdisjoint(node.output)]
        if not unused:
            break
        for node in unused:
            graph.node.remove(node)
    constants = [x for x in graph.initializer if x.name in used]
    del graph.initializer[:], graph.value_info[:]
    graph.initializer.extend(constants)


@contextmanager
def _quietly() -> Iterator[None]:
    """Silence the quantizer and its advice to preprocess the graph, which is done by folding."""
    logger = logging.getLogger()
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(before)
