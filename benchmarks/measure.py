"""Run a command and measure all of its processes: wall time, CPU time, memory (Linux)."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import resource
import select
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

_SET_CHILD_SUBREAPER = 36  # prctl(2)
_LEFTOVER_SECONDS = 10.0
_HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}  # what docs/runners.md advises, for whoever is measured


@dataclass(frozen=True)
class Measured:
    """A finished run: seconds of wall and CPU time, peak bytes resident in all processes together.

    anonymous: peak of what of that is no mapped file, whose pages the system may drop at any time. timed_out: it was
    killed, so the numbers are lower bounds. output: the end of what it printed.
    """

    wall: float
    cpu: float
    resident: int
    timed_out: bool = False
    output: str = ""
    anonymous: int = 0


class CommandError(Exception):
    """A measured command failed; the message holds the end of its output."""


def use_cores(count: int) -> list[int]:
    """Confine this process and all that it starts to `count` cores; returns them. ValueError where it has fewer."""
    own = sorted(os.sched_getaffinity(0))
    if len(own) < count:
        raise ValueError(f"this process may use {len(own)} cores, not {count}")
    os.sched_setaffinity(0, own[:count])
    return own[:count]


@functools.cache
def _adopt_orphans() -> None:
    # What outlives its parent (the fork server of multiprocessing does) becomes our child, and its CPU time is counted.
    if ctypes.CDLL(None, use_errno=True).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def _memory() -> tuple[int, int]:
    """Resident bytes of all descendants, and those of them that are no mapped file."""
    resident = mapped = 0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(OSError, psutil.NoSuchProcess):
            lines = (line.split() for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
            found = {words[0]: int(words[1]) << 10 for words in lines if words[0] in ("VmRSS:", "RssFile:")}
            resident, mapped = resident + found.get("VmRSS:", 0), mapped + found.get("RssFile:", 0)
    return resident, resident - mapped


def _end_session(session: int) -> None:
    """Wait for the children that a command left behind, and kill those that do not end."""
    deadline = time.monotonic() + _LEFTOVER_SECONDS
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            if time.monotonic() > deadline:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(session, signal.SIGKILL)
            time.sleep(0.02)


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _users_own() -> dict[str, str]:
    """The environment, without what would have a checkout compiled anew by every process, and installed peers not."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def measure(
    command: list[str], timeout: float | None = None, environment: dict[str, str] | None = None, cwd: str | None = None
) -> Measured:
    """Run a command to its end, or until `timeout` seconds have passed, and measure it with all of its descendants.

    CPU time is the kernel's own count, descendants included whether their parent waited for them or not. Resident
    memory is a sum over processes, sampled ten times a second, so it counts shared pages once for each.
    Raises CommandError where the command fails.
    """
    _adopt_orphans()
    before, peak, anonymous, late = _cpu(), 0, 0, False
    with tempfile.TemporaryFile() as output:
        start = time.monotonic()
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=_HUGE_PAGES | _users_own() | (environment or {}),
            cwd=cwd,
        )
        poller = select.poll()
        handle = os.pidfd_open(process.pid)
        poller.register(handle, select.POLLIN)
        try:
            while not poller.poll(100):
                now = _memory()
                peak, anonymous = max(peak, now[0]), max(anonymous, now[1])
                late = timeout is not None and time.monotonic() - start > timeout
                if late:
                    os.killpg(process.pid, signal.SIGKILL)
                    break
            code = process.wait()
            wall = time.monotonic() - start
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            os.close(handle)
        _end_session(process.pid)
        output.seek(max(output.seek(0, os.SEEK_END) - 4000, 0))
        tail = output.read().decode(errors="replace")
    if code and not late:
        raise CommandError(f"{' '.join(command)} ended with {code}:\n{tail}")
    return Measured(wall, _cpu() - before, peak, late, tail, anonymous)
