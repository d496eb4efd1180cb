"""PyTorch as the default Keras backend.

Keras reads its backend once, when it is imported: from `KERAS_BACKEND`, else from `keras.json`,
else TensorFlow. `import tutelage` changes neither the environment nor a Keras that is already
imported; the default applies when Keras is imported, so a choice made before then is respected.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_VARIABLE = "KERAS_BACKEND"
# GNU's OpenMP reads these once, when PyTorch loads it. By default its threads spin for
# milliseconds while waiting, which slows everything down several times on a busy machine.
_OPENMP = {"GOMP_SPINCOUNT": "10000"}
_OPENMP_CHOICES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def chosen() -> str | None:
    """The backend selected by `KERAS_BACKEND` or `keras.json`.

    Returns:
        Its name, or None if none is selected. Keras itself writes a `keras.json` that selects
        TensorFlow; that is ignored if TensorFlow is not installed.
    """
    if backend := os.environ.get(_VARIABLE):
        return backend
    home = os.environ.get("KERAS_HOME")
    if home is None:  # same lookup as Keras
        user = os.path.expanduser("~")
        home = os.path.join(user if os.access(user, os.W_OK) else "/tmp", ".keras")
    try:
        with open(os.path.expanduser(os.path.join(home, "keras.json"))) as file:
            backend = json.load(file)["backend"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if backend == "tensorflow" and importlib.util.find_spec("tensorflow") is None:
        return None
    return backend or None


def prefer_torch() -> None:
    """From now on, import Keras with the PyTorch backend unless another one is selected.

    Does nothing if Keras is already imported. `KERAS_BACKEND` is set only while Keras is
    being imported.
    """
    if "keras" not in sys.modules and not any(isinstance(f, _KerasFinder) for f in sys.meta_path):
        sys.meta_path.insert(0, _KerasFinder())


class _KerasFinder(MetaPathFinder):
    """Finds Keras through the later finders and wraps its loader to select a backend.

    It stays installed after the import: removing it could make an import in another thread,
    iterating over the finders, skip one of them.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "keras" or self not in sys.meta_path:
            return None
        later = sys.meta_path[sys.meta_path.index(self) + 1 :]
        specs = (finder.find_spec(fullname, path, target) for finder in later)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _KerasLoader(spec.loader)
        return spec


class _KerasLoader(Loader):
    """Loads Keras with its own loader and a backend set in the environment."""

    def __init__(self, loader: Loader):
        self.loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)  # other loader attributes

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        wanted = {} if chosen() is not None else {_VARIABLE: "torch"}
        if not any(name in os.environ for name in _OPENMP_CHOICES):
            wanted |= _OPENMP
        before = {name: os.environ.get(name) for name in wanted}
        os.environ.update(wanted)
        try:
            self.loader.exec_module(module)
        finally:
            for name, value in before.items():
                if value is not None:
                    os.environ[name] = value
                else:
                    os.environ.pop(name, None)
