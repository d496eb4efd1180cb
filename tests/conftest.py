"""What every test shares: a machine's own settings kept out, and real data where there is some."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]

_home = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    # Before any test module is imported: Keras reads its settings at import.
    home = config.stash[_home] = tempfile.mkdtemp(prefix="tutelage-tests-")
    # A test may import Keras before tutelage, which would choose the backend for it.
    os.environ.setdefault("KERAS_BACKEND", "torch")
    os.environ["TUTELAGE_CACHE"] = os.path.join(home, "cache")
    os.environ["TUTELAGE_OFFLINE"] = "1"
    os.environ["KERAS_HOME"] = os.path.join(home, "keras")


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash[_home], ignore_errors=True)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets: the first of TUTELAGE_DATA, else ../shared/data."""
    named = os.environ.get("TUTELAGE_DATA", "").split(os.pathsep)
    for folder in [*filter(None, named), REPOSITORY.parent / "shared" / "data"]:
        if Path(folder).is_dir():
            return Path(folder)
    pytest.skip("real data not present: set TUTELAGE_DATA")
