"""The environment of a measurement: versions, hardware, commit, command."""

from __future__ import annotations

import contextlib
import datetime
import importlib
import importlib.metadata
import os
import platform
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any


def describe() -> dict[str, Any]:
    """Describe everything but the recipe that a result may depend on.

    Returns:
        `date`, `command`, `commit`, `versions` and `hardware`, ready for JSON.

    Example:

    >>> from tutelage import environment
    >>> sorted(environment.describe())
    ['command', 'commit', 'date', 'hardware', 'versions']
    """
    import keras

    backend = keras.backend.backend()
    packages = ("tutelage", "keras", "numpy", "scipy", "scikit-learn", "pillow")
    # Of PyTorch's builds, such as 2.13.0+cu130, the installed package tells only 2.13.0.
    build = {backend: str(importlib.import_module(backend).__version__)}
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": _command(sys.argv),
        "commit": _commit(),
        "versions": {"python": platform.python_version()}
        | {package: _version(package) for package in packages}
        | build,
        "hardware": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "memory_gib": _memory(),
            "accelerator": accelerator(),
            "system": f"{platform.system()} {platform.machine()}",
        },
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"  # imported from a source tree


def _command(arguments: list[str]) -> str:
    """The command line of this process, quoted for a shell, with passwords masked."""
    arguments = [re.sub(r"(://[^:/@]*):.*@", r"\1:***@", word) for word in arguments]
    program = Path(arguments[0])
    if program.name == "__main__.py":
        return shlex.join(["python", "-m", program.parent.name, *arguments[1:]])
    return shlex.join([program.name, *arguments[1:]])


def _commit(file: Path = Path(__file__)) -> str | None:
    """The commit of the checkout that contains this file; None if the package is installed."""
    file = file.resolve()

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(file.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", str(file))  # fails if the file is untracked
        return git("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        flags = next((line.split() for line in lines if line.startswith("flags")), [])
        special = [flag for flag in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if flag in flags]
        return f"{named[0]} ({special[0]})" if special else named[0]
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


def _memory() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):  # not on Windows
        return None


def accelerator() -> str | None:
    """The name of the GPU or other accelerator that Keras' backend computes on, if any."""
    import keras

    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else None
    if backend == "jax":
        import jax

        device = jax.devices()[0]
        return None if device.platform == "cpu" else device.device_kind
    return None


def available_memory() -> int | None:
    """Bytes of memory that this process can still get; None where the system doesn't tell.

    The least of what the machine has available, what the process's control group allows
    (Linux's version 2), and its limit of address space.
    """
    amounts = []
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
        amounts.append(1024 * int(line.split()[1]))
    with contextlib.suppress(OSError, ValueError):  # "max" is no limit
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        lines = (group / "memory.stat").read_text().splitlines()
        cached = dict(line.split() for line in lines).get("inactive_file", "0")
        amounts.append(limit - used + int(cached))  # the cache of files is given up on demand
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource  # not on Windows

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            used = int(Path("/proc/self/statm").read_text().split()[0])
            amounts.append(limit - used * resource.getpagesize())
    return max(0, min(amounts)) if amounts else None
