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
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tutelage import (
        bridge,
        datasets,
        distiller,
        errors,
        experiment,
        export,
        exported,
        findings,
        grid,
        inference,
        job,
        knowledge,
        lessons,
        losses,
        metrics,
        models,
        native,
        objective,
        optimizers,
        outcome,
        profiling,
        recipe,
        report,
        sources,
        sweep,
        training,
        views,
    )
    from tutelage.distiller import Distiller
    from tutelage.outcome import distill

__version__ = "0.1.0"

__all__ = [
    "Distiller",
    "bridge",
    "datasets",
    "distill",
    "distiller",
    "errors",
    "experiment",
    "export",
    "exported",
    "findings",
    "grid",
    "inference",
    "job",
    "knowledge",
    "lessons",
    "losses",
    "metrics",
    "models",
    "native",
    "objective",
    "optimizers",
    "outcome",
    "profiling",
    "recipe",
    "report",
    "sources",
    "sweep",
    "training",
    "views",
]

_HOMES = {"Distiller": "tutelage.distiller", "distill": "tutelage.outcome"}

# Keras reads this once, at its import; unset or empty it would look for TensorFlow.
os.environ["KERAS_BACKEND"] = os.environ.get("KERAS_BACKEND") or "torch"


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in __all__:
        return importlib.import_module(f"tutelage.{name}")
    raise AttributeError(f"module 'tutelage' has no attribute {name!r}")


def __dir__() -> list[str]:
    return ["__version__", *__all__]
