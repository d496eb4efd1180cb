"""C kernels, compiled with the machine's compiler on first use.

They are optional: without a compiler, PyTorch's slower kernels are used. Compiling takes a few
seconds, once; the libraries are cached in a folder that only the user can write.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tutelage import storage
from tutelage.errors import RunError, TutelageError

log = logging.getLogger(__name__)

PARTS = ("fused_batch_norm", "winograd")
_FLAGS = "-O3 -march=native -fno-math-errno -fno-trapping-math -fopenmp -shared -fPIC"


@functools.cache
def library(name: str) -> ctypes.CDLL | None:
    """Compile and load a part; None, with a warning, if it can't be compiled or trusted.

    Args:
        name: one of `PARTS`, whose source is next to this file.
    """
    words = shlex.split(os.environ.get("CC", "cc"))
    compiler = shutil.which(words[0]) if words else None
    if compiler is None:
        _warn(f"no C compiler ({' '.join(words) or 'CC is empty'}) was found")
        return None
    source = Path(__file__).with_name(f"{name}.c")
    command = [compiler, *words[1:], *_FLAGS.split(), str(source), "-lm"]
    try:
        made = _private_folder() / f"{name}-{_key(source, command)}.so"
        if not made.exists():
            with storage.replacing(made) as temporary:
                line = [*command, "-o", str(temporary)]
                subprocess.run(line, check=True, capture_output=True, text=True, timeout=120)
        _check_owner(made, stat.S_ISREG, 0o022)
        return ctypes.CDLL(str(made))
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or [f"exit status {error.returncode}"])[0]
    except (OSError, TutelageError, subprocess.TimeoutExpired) as error:
        reason = str(error)
    _warn(f"{name}.c can't be compiled with {compiler} and loaded ({reason})")
    return None


@functools.cache
def _warn(reason: str) -> None:
    log.warning(
        "%s: training on this CPU takes about twice as long, and its results differ in the last "
        "bits; install a C compiler, or set CC to one",
        reason,
    )


def _private_folder() -> Path:
    """The folder of the compiled libraries, owned by the user, of mode 0700."""
    folder = storage.cache_folder() / "kernels"
    storage.make_folder(folder.parent)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    _check_owner(folder, stat.S_ISDIR, 0o077)
    return folder


def _check_owner(path: Path, is_kind: Callable[[int], bool], forbidden: int) -> None:
    """Raise for a file or folder through which others could inject code."""
    about = path.lstat()
    mine = not hasattr(os, "getuid") or about.st_uid == os.getuid()
    if not is_kind(about.st_mode) or not mine or (os.name == "posix" and about.st_mode & forbidden):
        raise RunError(
            f"{path} can be written by others, or is not yours, so nothing is loaded from it: "
            "delete it, or set TUTELAGE_CACHE to another cache folder"
        )


def call(part: str, function: str, shape: ctypes.Structure, *tensors: Any) -> None:
    """Call a function of a compiled part.

    Args:
        part: one of `PARTS`.
        function: its name in the source.
        shape: the struct `Shape` of the source.
        tensors: its other arguments, contiguous on the CPU, or None.

    Raises:
        MemoryError: if the function can't allocate its buffers.
    """
    pointers = (None if t is None else ctypes.c_void_p(t.data_ptr()) for t in tensors)
    if getattr(library(part), function)(ctypes.byref(shape), *pointers):
        raise MemoryError(f"no memory for {function} on a tensor of {tuple(tensors[0].shape)}")


def _key(source: Path, command: list[str]) -> str:
    """Hash everything the machine code depends on, as processors may share a cache."""
    about = [*command, platform.machine(), platform.processor()]
    processor = Path("/proc/cpuinfo")
    if processor.exists():
        lines = processor.read_text().splitlines()
        about += [line for line in lines if line.startswith("flags")][:1]
    return hashlib.sha256(source.read_bytes() + "\n".join(about).encode()).hexdigest()[:16]
