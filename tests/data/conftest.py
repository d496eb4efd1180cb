"""Fixtures of the tests of data: empty places, and CIFAR-10 in small."""

import numpy as np
import pytest

from tests.data.example_data import (
    noise,
)


@pytest.fixture(autouse=True)
def empty_places(tmp_path, monkeypatch, request):
    if "shared_data" in request.fixturenames:
        return  # decoded once a session
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("TUTELAGE_OFFLINE", "1")
    monkeypatch.delenv("TUTELAGE_DATA", raising=False)


@pytest.fixture(scope="module")
def cifar():
    """Six batches of 20 images, as (rows, labels)."""
    return [(noise(20, 3072), np.arange(20) % 10) for _ in range(6)]
