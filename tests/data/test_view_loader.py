"""Batches prepared ahead by workers, also where a process can't be forked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tutelage.data import view_loader
from tutelage.data.view_loader import ViewLoader
from tutelage.errors import DataError

REQUESTS = [(number, np.arange(number + 1)) for number in range(7)]
# In a file of its own, as processes that are started anew import it.
SCRIPT = """
import warnings
warnings.simplefilter("error")
import jax
import numpy as np
jax.devices()
from tutelage.data.view_loader import ViewLoader

def added(view, index):
    return index + view

if __name__ == "__main__":
    with ViewLoader(added, 2) as loader:
        requests = [(1, np.array([1, 2])), (2, np.array([3]))]
        print([batch.tolist() for batch in loader.batches(requests)])
"""


def squared(view: int, index: np.ndarray) -> np.ndarray:
    if view == 5:
        raise DataError("five")
    return np.asarray(index**2 + view)


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("shared", [True, False])
def test_batches_come_in_order_and_an_error_in_its_place(
    workers: int, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view_loader, "_has_shared_memory", lambda: shared)
    with ViewLoader(squared, workers) as loader:
        for _ in range(2):
            found = []
            with pytest.raises(DataError, match="five"):
                found.extend(loader.batches(REQUESTS))
            batches = loader.batches(REQUESTS[:5])
            for (view, index), batch in zip(REQUESTS[:5], batches, strict=True):
                np.testing.assert_array_equal(batch, index**2 + view)


def test_a_process_with_jax_starts_workers_anew(tmp_path: Path) -> None:
    file = tmp_path / "script.py"
    file.write_text(SCRIPT)
    done = subprocess.run([sys.executable, file], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[[2, 3], [5]]"
    assert done.stderr == ""
