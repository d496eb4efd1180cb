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

from tutelage import former_names, keras_backend
from tutelage._version import __version__

if TYPE_CHECKING:
    from tutelage import losses
    from tutelage.data.datasets import Dataset
    from tutelage.data.datasets import load as load_dataset
    from tutelage.distillation.distiller import Distiller
    from tutelage.errors import TutelageError
    from tutelage.evaluation.evaluate import evaluate
    from tutelage.evaluation.profiling import profile
    from tutelage.experiment.api import Outcome, compare, distill, run
    from tutelage.exporters.exporter import export
    from tutelage.models.loading import load_model, predict
    from tutelage.progress import Progress
    from tutelage.recipe.loader import load as load_recipe
    from tutelage.report.html import write as write_report
    from tutelage.server import serve
    from tutelage.sweeps.runner import sweep

__all__ = [
    "Dataset",
    "Distiller",
    "Outcome",
    "Progress",
    "TutelageError",
    "__version__",
    "compare",
    "distill",
    "evaluate",
    "export",
    "load_dataset",
    "load_model",
    "load_recipe",
    "losses",
    "predict",
    "profile",
    "run",
    "serve",
    "sweep",
    "write_report",
]

_HOMES = {
    "Dataset": "data.datasets:Dataset",
    "Distiller": "distillation.distiller:Distiller",
    "Outcome": "experiment.api:Outcome",
    "Progress": "progress:Progress",
    "TutelageError": "errors:TutelageError",
    "compare": "experiment.api:compare",
    "distill": "experiment.api:distill",
    "evaluate": "evaluation.evaluate:evaluate",
    "export": "exporters.exporter:export",
    "load_dataset": "data.datasets:load",
    "load_model": "models.loading:load_model",
    "load_recipe": "recipe.loader:load",
    "predict": "models.loading:predict",
    "profile": "evaluation.profiling:profile",
    "run": "experiment.api:run",
    "serve": "server:serve",
    "sweep": "sweeps.runner:sweep",
    "write_report": "report.html:write",
}

keras_backend.prefer_torch()
former_names.refuse()


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        module, _, attribute = _HOMES[name].partition(":")
        return getattr(importlib.import_module(f"tutelage.{module}"), attribute)
    if name == "losses":
        return importlib.import_module("tutelage.losses")
    raise AttributeError(former_names.hint(f"module 'tutelage' has no attribute {name!r}", name))


def __dir__() -> list[str]:
    return __all__
