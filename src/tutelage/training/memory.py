"""The C allocator while training."""

from __future__ import annotations

import ctypes
import sys


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next step.

    It would return each freed feature map to the system and take it again page by page, which
    costs a fifth of a step's time.
    """
    if libc := _glibc():
        libc.mallopt(-4, 0)  # M_MMAP_MAX
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def give_freed_memory_back() -> None:
    """Return freed memory to the system: in pieces as it is, the next training would take more."""
    if libc := _glibc():
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    try:
        return ctypes.CDLL("libc.so.6")
    except OSError:  # another C library
        return None
