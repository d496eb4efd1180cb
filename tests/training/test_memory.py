"""The C allocator is tuned while training, and as it was afterwards."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tutelage.training import memory

pytestmark = pytest.mark.skipif(memory._glibc() is None, reason="not glibc")

# A block above the threshold is mapped by itself with glibc's settings, and is not while training.
SCRIPT = """
import ctypes, sys
from tutelage.training import memory
libc = ctypes.CDLL("libc.so.6")

class Info(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

libc.mallinfo2.restype = Info
libc.malloc.restype = ctypes.c_void_p

def mapped():
    before = libc.mallinfo2().hblks
    libc.malloc(64 << 20)
    return libc.mallinfo2().hblks - before

first = mapped()
with memory.freed_memory_kept():
    within = mapped()
print(first, within, mapped())
"""


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "1 0 1"),
        ({"TUTELAGE_KEEP_ALLOCATOR": "1"}, "1 1 1"),
        ({"MALLOC_TRIM_THRESHOLD_": "131072"}, "1 1 1"),
    ],
    ids=["default", "left alone", "user's own"],
)
def test_settings_hold_for_the_block_alone(
    variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.stdout.strip() == expected, done.stderr


def test_they_are_put_back_where_training_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    set_ = []
    monkeypatch.setattr(memory, "_set", lambda libc, values: set_.append(values))
    with pytest.raises(KeyboardInterrupt), memory.freed_memory_kept():
        raise KeyboardInterrupt
    assert set_ == [memory._TUNED, memory._DEFAULTS]
