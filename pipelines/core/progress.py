"""Progress on a terminal: bytes, records, rate and time left, from any number of local workers.

Workers append 16-byte records (records, bytes) to one file, which the operating system keeps whole; the driver adds
them up. Where the driver set no file (a log, a cluster), workers write nothing.
"""

from __future__ import annotations

import contextlib
import os
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

ENVIRONMENT = "GRISTMILL_PROGRESS"
_INTERVAL = 0.5


def advance(records: int, size: int) -> None:
    """Tell the driver that `records` records of `size` bytes are done. Call it once a batch, not once a record."""
    path = os.environ.get(ENVIRONMENT)
    if path:
        with contextlib.suppress(OSError):
            handle = os.open(path, os.O_WRONLY | os.O_APPEND)
            try:
                os.write(handle, struct.pack("<qq", records, size))
            finally:
                os.close(handle)


def _line(label: str, records: int, size: int, total: int, elapsed: float) -> str:
    rate = size / max(elapsed, 1e-9)
    line = f"{label}: {size / 1e6:,.1f} MB, {records:,} records, {rate / 1e6:.1f} MB/s"
    if total:
        left = max(0, total - size) / max(rate, 1)
        line += f", {min(100, 100 * size // total)} %, {left:.0f} s left"
    return line


@contextlib.contextmanager
def shown(label: str, total: int) -> Iterator[None]:
    """Show progress on standard error while the body runs; nothing where it is no terminal.

    total: bytes to do, 0 where it is not known.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        yield
        return
    # Not in the working directory: that may be read-only, or shared with another run.
    handle, name = tempfile.mkstemp(prefix="gristmill-", suffix=".progress")
    os.close(handle)
    path = Path(name)
    os.environ[ENVIRONMENT] = str(path)
    done, start = threading.Event(), time.monotonic()

    def show() -> None:
        while not done.wait(_INTERVAL):
            with contextlib.suppress(OSError):
                raw = path.read_bytes()
                sums = np.frombuffer(raw[: len(raw) // 16 * 16], np.int64).reshape(-1, 2).sum(axis=0)
                line = _line(label, int(sums[0]), int(sums[1]), total, time.monotonic() - start)
                sys.stderr.write(f"\r{line:<79}")
                sys.stderr.flush()

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        os.environ.pop(ENVIRONMENT, None)
        path.unlink(missing_ok=True)
        sys.stderr.write("\r" + " " * 79 + "\r")
