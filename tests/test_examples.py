"""The examples run, as the files they are, and show what they say."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from tutelage.models import loading

FOLDER = Path(__file__).parents[1] / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path))


def test_every_example_is_tested() -> None:
    tested = {"keras_fit", "torch_teacher", "image_folder", "unlabeled_images", "data_loader"}
    assert {path.stem for path in FOLDER.glob("*.py")} == tested


def test_keras_own_fit() -> None:
    assert example("keras_fit").main(epochs=8) > 0.8


def test_a_pytorch_teacher() -> None:
    found = example("torch_teacher").main(epochs=4)
    assert set(found) == {"teacher", "baseline", "student"}
    assert found["teacher"] > 0.9


def test_a_data_loader_with_augmentation() -> None:
    found = example("data_loader").main(epochs=4)
    assert set(found) == {"teacher", "baseline", "student"}
    assert found["teacher"] > 0.85


def test_an_image_folder() -> None:
    module = example("image_folder")
    student = module.main(module.make_folder(300), epochs=1)
    assert loading.load_model(student).input_shape == (None, 16, 16, 1)


def test_an_unlabeled_images() -> None:
    found = example("unlabeled_images").main(labeled=200, epochs=4)
    assert found["and the pool"] > found["labeled images alone"]
