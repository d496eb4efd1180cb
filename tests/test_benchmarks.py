"""The benchmarks run as their heads say, on very little work."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, BENCHMARKS / "throughput.py", *arguments]
    return subprocess.run([str(word) for word in line], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("only", "names"),
    [
        ("tutelage", {"tutelage, stored", "tutelage, online"}),
        ("PyTorch, float32", {"Keras on PyTorch, float32", "PyTorch, float32"}),
    ],
)
def test_throughput_measures_its_parties_and_writes_what_it_prints(
    tmp_path: Path, only: str, names: set[str]
) -> None:
    work = ["--jobs", "distil", "--repeats", 1, "--images", 32, "--batch", 16]
    done = run(*work, "--only", only, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.iterdir()
    written = json.loads(file.read_text())
    assert written["failures"] == {}
    assert set(written["figures"]["distil"]) == names
    for (figure,) in written["figures"]["distil"].values():
        assert figure > 0
        assert f"{figure:.1f}" in done.stdout


def test_throughput_refuses_fewer_images_than_a_batch(tmp_path: Path) -> None:
    done = run("--images", 8, "--batch", 16, "--out", tmp_path / "none")
    assert done.returncode == 2
    assert "at least as many images as a batch" in done.stderr
    assert not (tmp_path / "none").exists()
