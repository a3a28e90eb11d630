"""Memory that a process which does the same work over and over had better keep."""

from __future__ import annotations

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h
_KEPT = 2**30  # bytes


def keep_memory(worker: int = 0) -> None:
    """Let glibc keep what this process frees for the next frame or batch instead of returning it to the system.

    The faults of fresh pages are a quarter of the time otherwise. Nothing happens with other C libraries. `worker` is
    not used: a DataLoader gives it to what it calls first in a worker.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_TRIM_THRESHOLD, _KEPT)
        libc.mallopt(_MMAP_THRESHOLD, _KEPT)
