"""Knowledge distillation of image classifiers with Keras 3.

Keras and PyTorch are loaded when a name that needs them is first used, not by
`import tutelage`.

Example:
    >>> import tutelage
    >>> tutelage.losses.KD(temperature=4.0).temperature
    4.0
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tutelage import keras_backend
from tutelage._version import __version__

if TYPE_CHECKING:
    from tutelage import errors, losses
    from tutelage.data.datasets import load as load_dataset
    from tutelage.distillation.distiller import Distiller
    from tutelage.experiment.api import distill

__all__ = ["Distiller", "__version__", "distill", "errors", "load_dataset", "losses"]

_HOMES = {
    "Distiller": ("tutelage.distillation.distiller", "Distiller"),
    "distill": ("tutelage.experiment.api", "distill"),
    "load_dataset": ("tutelage.data.datasets", "load"),
}

keras_backend.prefer_torch()


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        module, attribute = _HOMES[name]
        return getattr(importlib.import_module(module), attribute)
    if name in __all__:
        return importlib.import_module(f"tutelage.{name}")
    raise AttributeError(f"module 'tutelage' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
