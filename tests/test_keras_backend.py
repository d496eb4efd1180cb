"""Which backend Keras gets, and what `import tutelage` leaves as it was: in fresh processes."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BACKEND = "import keras; print(keras.config.backend())"

needs_jax = pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="JAX is not installed"
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A `KERAS_HOME` without a `keras.json`."""
    folder = tmp_path / "keras"
    folder.mkdir()
    return folder


def python(code: str, home: Path, backend: str | None = None) -> list[str]:
    """The lines that a fresh interpreter prints, where `KERAS_BACKEND` is this or unset."""
    environment = {**os.environ, "KERAS_HOME": str(home)}
    environment.pop("KERAS_BACKEND", None)
    if backend is not None:
        environment["KERAS_BACKEND"] = backend
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().splitlines()


def write(home: Path, **settings: str) -> None:
    (home / "keras.json").write_text(json.dumps(settings))


@pytest.mark.parametrize("backend", [None, ""], ids=["unset", "empty"])
def test_where_nobody_chose_it_is_pytorch_and_the_environment_stays(home, backend):
    if backend is None:  # what Keras writes itself is no choice without TensorFlow
        write(home, backend="tensorflow")
        if importlib.util.find_spec("tensorflow") is not None:
            pytest.skip("TensorFlow is installed")
    code = """
import os, subprocess, sys
before = dict(os.environ)
import tutelage
print(os.environ == before, sorted({"keras", "torch", "numpy"} & set(sys.modules)))
import keras
print(keras.config.backend())
child = "import os; print(repr(os.environ.get('KERAS_BACKEND')))"
print(subprocess.run([sys.executable, "-c", child], capture_output=True, text=True).stdout.strip())
before = dict(os.environ)  # Keras and PyTorch have set variables of their own
tutelage.losses.KD()
print(os.environ == before)
"""
    imported, used, inherited, unchanged = python(code, home, backend)
    assert imported == "True []"
    assert used == "torch"
    assert inherited == repr(backend)
    assert unchanged == "True"


def test_a_backend_in_the_environment_goes_before_keras_json(home):
    write(home, backend="torch")
    assert python(f"import tutelage; {BACKEND}", home, "numpy") == ["numpy"]


def test_a_backend_chosen_after_tutelage_and_before_keras_is_used(home):
    code = f"import os, tutelage; os.environ['KERAS_BACKEND'] = 'numpy'; {BACKEND}"
    assert python(f"{code}; print(os.environ['KERAS_BACKEND'])", home) == ["numpy", "numpy"]


@needs_jax
def test_a_backend_in_keras_json_is_used(home):
    write(home, backend="jax")
    assert python(f"import tutelage; tutelage.losses.KD(); {BACKEND}", home) == ["jax"]


@needs_jax
def test_an_imported_keras_is_left_as_it_is(home):
    code = """
import os, sys
import keras
environment = dict(os.environ)
import tutelage
tutelage.losses.KD()
finders = [type(finder).__module__ for finder in sys.meta_path]
print(keras.config.backend(), "tutelage.keras_backend" in finders, os.environ == environment)
"""
    assert python(code, home, "jax") == ["jax False True"]


def test_after_an_import_that_failed_threads_import_keras_at_once(home):
    write(home, floatx="float7")
    code = f"""
import os, pathlib, threading
import tutelage
try:
    import keras
except ValueError as error:
    print("floatx" in str(error), "KERAS_BACKEND" in os.environ)
pathlib.Path({str(home)!r}, "keras.json").unlink()
start, backends = threading.Barrier(4), []

def use():
    start.wait()
    import keras
    backends.append(keras.config.backend())

threads = [threading.Thread(target=use) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(*backends, "KERAS_BACKEND" in os.environ)
"""
    assert python(code, home) == ["True False", "torch torch torch torch False"]


def test_what_is_loaded_anew_changes_nothing(home):
    code = """
import importlib, importlib.util, os, sys
import tutelage
importlib.reload(tutelage)
importlib.reload(tutelage.keras_backend)
importlib.reload(tutelage)
spec = importlib.util.find_spec("keras")
print(spec.origin == spec.loader.get_filename("keras"), "keras" in sys.modules)
import keras
print(keras.__loader__ is keras.__spec__.loader, type(keras.__loader__) is not type(spec.loader))
print(importlib.reload(keras).config.backend(), "KERAS_BACKEND" in os.environ)
"""
    assert python(code, home) == ["True False", "True True", "torch False"]


def test_importing_every_module_leaves_the_process_as_it_was(home):
    code = """
import locale, logging, multiprocessing, os, pkgutil, signal, sys, threading, warnings
# What is set by other packages, when they are imported, is not counted.
import fastapi, jinja2, keras, numpy, onnx, optuna, prometheus_client, scipy.stats
import onnxruntime.quantization, sklearn.metrics, sqlalchemy, torch, uvicorn
import matplotlib.figure, PIL.Image, PIL.ImageFile

def state():
    loggers = [logging.getLogger(), *map(logging.getLogger, logging.root.manager.loggerDict)]
    return {
        "environment": dict(os.environ),
        "path": list(sys.path),
        # That of former names is asked for modules of this package only.
        "finders": [finder for finder in sys.meta_path
                    if type(finder).__module__ != "tutelage.former_names"],
        "interpreter": (sys.excepthook, sys.getrecursionlimit()),
        "warnings": list(warnings.filters),
        # A logger that only exists, as Pillow's plugins create them, sets nothing.
        "logging": {one.name: (one.level, list(one.handlers), one.propagate)
                    for one in loggers if not one.name.startswith("tutelage")
                    and (one.level, one.handlers, one.propagate) != (0, [], True)},
        "optuna": optuna.logging.get_verbosity(),
        "signals": [signal.getsignal(number) for number in signal.valid_signals()],
        "threads": threading.active_count(),
        "processes": multiprocessing.get_start_method(allow_none=True),
        "locale": locale.setlocale(locale.LC_ALL),
        "numpy": numpy.geterr(),
        "pillow": (PIL.Image.MAX_IMAGE_PIXELS, PIL.ImageFile.LOAD_TRUNCATED_IMAGES),
        "matplotlib": (matplotlib.get_backend(auto_select=False),
                       [matplotlib.rcParams[n] for n in matplotlib.rcParams if n != "backend"]),
        "torch": (torch.get_num_threads(), torch.get_num_interop_threads(),
                  torch.get_default_dtype(), torch.is_grad_enabled(), torch.initial_seed(),
                  torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark,
                  torch.get_float32_matmul_precision()),
        "keras": (keras.config.floatx(), keras.config.dtype_policy().name),
    }

before = state()
import tutelage
for module in pkgutil.walk_packages(tutelage.__path__, "tutelage."):
    if not module.name.endswith("__main__"):
        __import__(module.name)
after = state()
print(*[(name, before[name], after[name]) for name in before if before[name] != after[name]])
"""
    assert python(code, home, "torch") == [""]
