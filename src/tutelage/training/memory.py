"""Settings of the C allocator during training."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator

_KEEP = "TUTELAGE_KEEP_ALLOCATOR"
# mallopt's parameters, and glibc's documented defaults, which can't be queried.
_MMAP_MAX, _TRIM_THRESHOLD = -4, -1
_DEFAULTS = {_MMAP_MAX: 65_536, _TRIM_THRESHOLD: 128 * 1024}
_TUNED = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1}


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Make glibc keep freed memory for the next training step inside this block.

    By default it returns each freed feature map to the system and maps it again page by page,
    which takes 20 % of a step's time. Afterwards the defaults are restored and free memory is
    returned: fragmented, it would make the next training use more. Nothing is changed if
    `TUTELAGE_KEEP_ALLOCATOR` or glibc's `MALLOC_...` variables are set, or without glibc.
    """
    libc = None if _user_has_settings() else _glibc()
    if libc is None:
        yield
        return
    _set(libc, _TUNED)
    try:
        yield
    finally:
        _set(libc, _DEFAULTS)
        libc.malloc_trim(0)


def _user_has_settings() -> bool:
    return bool(os.environ.get(_KEEP)) or any(
        name.startswith("MALLOC_") or (name == "GLIBC_TUNABLES" and "malloc" in value)
        for name, value in os.environ.items()
    )


def _set(libc: ctypes.CDLL, values: dict[int, int]) -> None:
    for parameter, value in values.items():
        libc.mallopt(parameter, value)


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    try:
        return ctypes.CDLL("libc.so.6")
    except OSError:  # another C library
        return None
