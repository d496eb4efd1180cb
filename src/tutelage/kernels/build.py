"""The parts written in C, compiled by the machine's own compiler on first use.

Nothing needs them: where there is no compiler, PyTorch's kernels do the work, more
slowly. Compiling takes a few seconds, once; what comes out is kept in the cache folder.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tutelage import storage
from tutelage.errors import TutelageError

log = logging.getLogger(__name__)

PARTS = ("fused_batch_norm", "winograd")
_FLAGS = "-O3 -march=native -fno-math-errno -fno-trapping-math -fopenmp -shared -fPIC"


@functools.cache
def library(name: str) -> ctypes.CDLL | None:
    """A part's functions, or None, with a line in the log, where it can't be compiled.

    Args:
        name: one of `PARTS`, each a source beside this file.
    """
    words = shlex.split(os.environ.get("CC", "cc"))
    compiler = shutil.which(words[0]) if words else None
    if compiler is None:
        log.info("no C compiler (cc, or what CC names): training is slower without %s.c", name)
        return None
    source = Path(__file__).with_name(f"{name}.c")
    command = [compiler, *words[1:], *_FLAGS.split(), str(source), "-lm"]
    try:
        made = storage.cache_folder() / "compiled" / f"{name}-{_key(source, command)}.so"
        if not made.exists():
            storage.make_folder(made.parent)
            with storage.replacing(made) as temporary:
                line = [*command, "-o", str(temporary)]
                subprocess.run(line, check=True, capture_output=True, text=True, timeout=120)
        return ctypes.CDLL(str(made))
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or [f"exit status {error.returncode}"])[0]
    except (OSError, TutelageError, subprocess.TimeoutExpired) as error:
        reason = str(error)
    log.info("%s can't compile %s.c (%s): training is slower", compiler, name, reason)
    return None


def call(part: str, function: str, shape: ctypes.Structure, *tensors: Any) -> None:
    """Run a function of a part that has been compiled.

    Args:
        part: one of `PARTS`.
        function: its name in the source.
        shape: what the source calls `Shape`.
        tensors: its other arguments, contiguous on the processor, or None.

    Raises:
        MemoryError: if there is no memory for what the function sets aside.
    """
    pointers = (None if t is None else ctypes.c_void_p(t.data_ptr()) for t in tensors)
    if getattr(library(part), function)(ctypes.byref(shape), *pointers):
        raise MemoryError(f"no memory for {function} on a tensor of {tuple(tensors[0].shape)}")


def _key(source: Path, command: list[str]) -> str:
    """Of all that the machine code depends on: a cache may be shared by different processors."""
    about = [*command, platform.machine(), platform.processor()]
    processor = Path("/proc/cpuinfo")
    if processor.exists():
        lines = processor.read_text().splitlines()
        about += [line for line in lines if line.startswith("flags")][:1]
    return hashlib.sha256(source.read_bytes() + "\n".join(about).encode()).hexdigest()[:16]
