"""Current names of version 0.1.0's modules; to be removed in version 0.3."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_NOW = {
    "archives": "data.archives",
    "arrays": "data.formats",
    "bridge": "models.keras_adapter",
    "comparison": "runs.compare",
    "compiled": "kernels.build",
    "console": "cli.console",
    "correction": "evaluation.bias_correction",
    "datasets": "data.datasets",
    "distiller": "distillation.distiller",
    "ensemble": "models.ensemble",
    "events": "tracking.tensorboard",
    "exhibits": "runs.example_images",
    "export": "exporters.exporter",
    "exported": "models.onnx_model",
    "findings": "runs.findings",
    "folding": "exporters.fold_batch_norm",
    "fusion": "kernels.fused_batch_norm",
    "grid": "sweeps.search_space",
    "inference": "models.loading",
    "job": "experiment.spec",
    "knowledge": "distillation.logit_cache",
    "ledger": "sweeps.results_writer",
    "lessons": "distillation.loss_terms",
    "metrics": "evaluation.metrics",
    "native": "kernels.accelerate",
    "objective": "losses.from_recipe",
    "optimizers": "training.optimizers",
    "outcome": "experiment.api",
    "pictures": "data.image_folder",
    "pool": "data.unlabeled",
    "profiling": "evaluation.profiling",
    "pupils": "sweeps.worker",
    "quantisation": "exporters.quantization",
    "records": "runs.run_reader",
    "runfolder": "runs.run_folder",
    "sources": "models.resolve",
    "stages": "experiment.stages",
    "sweep": "sweeps.runner",
    "tickets": "sweeps.trial_queue",
    "twins": "kernels.layers",
    "views": "data.augmentation",
    "winograd": "kernels.winograd",
    "wording": "recipe.suggestions",
}


def hint(message: str, name: str) -> str:
    """Append the current name of a renamed module to an error message.

    Args:
        message: the error message.
        name: the name that was not found, without `tutelage.`.

    Example:

    >>> hint("no such module", "native")
    'no such module: it is tutelage.kernels.accelerate since version 0.2'
    """
    return f"{message}: it is tutelage.{_NOW[name]} since version 0.2" if name in _NOW else message


def refuse() -> None:
    """Make the import of a renamed module raise an error that gives its current name."""
    if not any(isinstance(finder, _FormerNames) for finder in sys.meta_path):
        sys.meta_path.append(_FormerNames())  # last: called only if no other finder matches


class _FormerNames(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, name = fullname.partition(".")
        if package == "tutelage" and name in _NOW:
            raise ModuleNotFoundError(hint(f"No module named {fullname!r}", name), name=fullname)
        return None
