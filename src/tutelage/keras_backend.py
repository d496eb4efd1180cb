"""PyTorch as Keras' backend, where nobody has chosen one.

Keras reads its backend once, when it is imported: from `KERAS_BACKEND`, else from `keras.json`,
else it takes TensorFlow. `import tutelage` leaves the environment and an imported Keras as they
are; it decides when Keras is imported, so a choice made until then is followed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

_VARIABLE = "KERAS_BACKEND"


def chosen() -> str | None:
    """The backend that `KERAS_BACKEND` or `keras.json` names.

    Returns:
        Its name, or None where none is named. Keras itself writes a `keras.json` that names
        TensorFlow; where TensorFlow is not installed, that counts as no choice.
    """
    if named := os.environ.get(_VARIABLE):
        return named
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    try:
        named = json.loads((home / "keras.json").read_text(encoding="utf-8")).get("backend")
    except (OSError, ValueError, AttributeError):
        return None
    if named == "tensorflow" and importlib.util.find_spec("tensorflow") is None:
        return None
    return named


def prefer_torch() -> None:
    """From now on, let Keras start on PyTorch where nobody has chosen a backend.

    Does nothing where Keras is imported already. `os.environ` names PyTorch only while Keras is
    being imported.
    """
    if "keras" not in sys.modules and not any(isinstance(f, _KerasFinder) for f in sys.meta_path):
        sys.meta_path.insert(0, _KerasFinder())


class _KerasFinder(MetaPathFinder):
    """Finds Keras as the other finders do, and has it loaded with a backend."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "keras" or chosen() is not None:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        specs = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _KerasLoader(spec.loader)
        return spec


class _KerasLoader(Loader):
    def __init__(self, loader: Loader):
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        before = os.environ.get(_VARIABLE)  # unset, or empty
        os.environ[_VARIABLE] = "torch"
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        try:
            self.loader.exec_module(module)
        finally:
            del os.environ[_VARIABLE]
            if before is not None:
                os.environ[_VARIABLE] = before
