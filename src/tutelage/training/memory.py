"""The C allocator while training."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator

_KEEP = "TUTELAGE_KEEP_ALLOCATOR"
# mallopt's parameters and glibc's defaults, of its manual page; there is no way to read them.
_MMAP_MAX, _TRIM_THRESHOLD = -4, -1
_DEFAULTS = {_MMAP_MAX: 65_536, _TRIM_THRESHOLD: 128 * 1024}
_TUNED = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1}


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Let glibc keep freed memory for the next step while a block trains.

    It would return each freed feature map to the system and take it again page by page, which
    costs a fifth of a step's time. Afterwards its defaults are set again, and what is free is
    returned: in pieces as it is, the next training would take more. Nothing is changed where
    `TUTELAGE_KEEP_ALLOCATOR` or glibc's own `MALLOC_...` variables are set, or elsewhere than in
    glibc.
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
