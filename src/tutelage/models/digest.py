"""Hashes of what the outputs of a Keras, PyTorch or ONNX model depend on."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import re
from collections.abc import Iterable
from pathlib import Path

import keras
import numpy as np
import torch

from tutelage import private_api, storage
from tutelage.models.preprocessing import Preprocessing


def keras_digest(model: keras.Model) -> str:
    """Hash what a model's outputs depend on; the same in every process that loads it.

    Args:
        model: a built model whose architecture can be written as JSON.

    Returns:
        SHA-256 in hexadecimal of its architecture, weights and custom classes' source code.
    """
    # Layer names depend on counters of the process; their order of appearance doesn't.
    text = model.to_json()
    for number, name in enumerate(dict.fromkeys(re.findall(r'"name": ("[^"]*")', text))):
        text = text.replace(name, f'"{number}"')
    sha256 = hashlib.sha256((text + source_code(private_api.flat_layers(model))).encode())
    for weights in model.get_weights():
        sha256.update(np.ascontiguousarray(weights).data)
    return sha256.hexdigest()


def source_code(parts: Iterable[object]) -> str:
    """The source code of classes that are neither Keras' nor PyTorch's.

    Args:
        parts: layers or modules.

    Returns:
        The concatenated sources; a class without source by its name.
    """
    kinds = {type(part) for part in parts}
    custom = (kind for kind in kinds if not kind.__module__.startswith(("keras.", "torch.")))
    sources = []
    for kind in custom:
        try:
            sources.append(inspect.getsource(kind))
        except (OSError, TypeError):  # not defined in a file
            sources.append(kind.__qualname__)
    return "\n".join(sorted(sources))


def torch_digest(module: torch.nn.Module, preprocessing: Preprocessing) -> str:
    """SHA-256 of a module's classes, weights and preprocessing."""
    sha256 = hashlib.sha256(
        f"{_hashed(preprocessing)} {module} {source_code(module.modules())}".encode()
    )
    for name, tensor in itertools.chain(module.named_parameters(), module.named_buffers()):
        sha256.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha256.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return sha256.hexdigest()


def onnx_digest(path: Path, preprocessing: Preprocessing) -> str:
    """SHA-256 of an ONNX file, its external weights and its preprocessing."""
    sha256 = hashlib.sha256(f"{_hashed(preprocessing)} {storage.sha256(path)}".encode())
    # Weights over 2 GB, and often smaller ones, are in files named in the graph.
    graph = path.read_bytes()
    for other in sorted(path.parent.iterdir()):
        if other != path and other.name.encode() in graph and other.is_file():
            sha256.update(f"{other.name} {storage.sha256(other)}".encode())
    return sha256.hexdigest()


def _hashed(preprocessing: Preprocessing) -> str:
    # The class name in version 0.1.0, so that its runs and cached logits stay valid.
    return repr(preprocessing).replace(type(preprocessing).__name__, "Entry", 1)
