"""What is said of the machine, against what it says itself."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import torch

from tutelage import environment
from tutelage._version import __version__


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with one file committed."""
    (tmp_path / "module.py").write_text("x = 1\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "module.py")
    git(tmp_path, "commit", "--quiet", "--message", "First")
    return tmp_path


def git(folder: Path, *arguments: str) -> str:
    own = ["-c", "user.name=nobody", "-c", "user.email=nobody@localhost", "-c", "commit.gpgsign=0"]
    command = ["git", "-C", str(folder), *own, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_a_description_holds_versions_hardware_and_when() -> None:
    before = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    told = environment.describe()
    assert told == json.loads(json.dumps(told))
    assert before <= datetime.datetime.fromisoformat(told["date"])
    assert told["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert told["versions"]["tutelage"] == __version__
    assert told["versions"]["keras"] == keras.__version__
    assert told["versions"]["torch"] == torch.__version__
    assert told["versions"]["numpy"] == np.__version__
    assert told["hardware"]["cores"] == os.cpu_count()
    assert told["hardware"]["processor"].strip()
    assert (told["hardware"]["accelerator"] is None) is not torch.cuda.is_available()


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="only Linux has /proc")
def test_memory_and_processor_are_the_kernel_s() -> None:
    hardware = environment.describe()["hardware"]
    (line,) = [x for x in Path("/proc/meminfo").read_text().splitlines() if "MemTotal" in x]
    assert hardware["memory_gib"] == pytest.approx(int(line.split()[1]) / 2**20, abs=0.06)
    named = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x]
    if named:
        assert hardware["processor"].startswith(named[0].partition(": ")[2])


def test_a_password_in_the_command_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "postgresql://me:se:cr@t@host:5432/there"
    monkeypatch.setattr(sys, "argv", ["tutelage", "sweep", "--storage", url, "--data=a:b@c"])
    told = environment.describe()["command"]
    assert told == "tutelage sweep --storage 'postgresql://me:***@host:5432/there' --data=a:b@c"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["/opt/bin/tutelage", "run", "digits"], "tutelage run digits"),
        (["tutelage", "run", "a b.toml", "--alpha=1"], "tutelage run 'a b.toml' --alpha=1"),
        (["/x/tutelage/__main__.py", "run", "digits"], "python -m tutelage run digits"),
    ],
)
def test_the_command_can_be_given_to_a_shell_again(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str
) -> None:
    monkeypatch.setattr(sys, "argv", arguments)
    assert environment.describe()["command"] == told


def test_the_commit_is_that_of_the_checkout(checkout: Path) -> None:
    module = checkout / "module.py"
    head = git(checkout, "rev-parse", "--short=12", "HEAD")
    git(checkout, "tag", "--annotate", "v1", "--message", "Tagged")  # git would name it instead
    assert environment._commit(module) == head
    module.write_text("x = 2\n")
    assert environment._commit(module) == f"{head}-dirty"


def test_a_file_that_no_checkout_knows_has_no_commit(checkout: Path, tmp_path: Path) -> None:
    installed = checkout / "site-packages.py"  # as in an environment within a repository
    installed.write_text("")
    assert environment._commit(installed) is None
    assert environment._commit(Path(os.sep) / "nowhere" / "module.py") is None


def test_no_git_is_no_error(monkeypatch: pytest.MonkeyPatch, checkout: Path) -> None:
    monkeypatch.setenv("PATH", "")
    assert environment._commit(checkout / "module.py") is None
