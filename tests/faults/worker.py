"""A warm process that runs stages in forked children, so that a test can kill many of them in little time.

It reads one JSON request a line: {"stage", "argv", "warm", "delay", "fault", "at", "limit"} and answers one JSON line:
the child's exit code (negative: the signal that ended it), its console, the calls that it made to the disk, its seconds
and its peak memory. warm: run in this process, once, so that later children find everything loaded and compiled. delay:
seconds after which the child is killed. fault: 'kill' or 'full', what happens at disk call number `at`. limit: bytes
that a file may have.
"""

from __future__ import annotations

import errno
import importlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pipelines.core import output, shards

STAGES = ("ingest", "clean", "dedupe", "shard")
CALLS = [
    (shards.AtomicFile, "write"),
    (os, "fsync"),
    (Path, "replace"),
    (output, "_exchange"),
    (Path, "rename"),
    (Path, "unlink"),
    (shutil, "rmtree"),
]


def arm(fault: str | None, at: int, counter: Path) -> None:
    """Count calls to the disk; at call number `at` fail as a full disk does, or end as by kill -9."""
    calls = 0

    def wrap(name: str, real: Any) -> Any:
        def instrumented(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if fault is None:
                counter.write_text(str(calls))
            elif calls == at and fault == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            elif calls == at and name not in ("unlink", "rmtree", "rename"):
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*args, **kwargs)

        return instrumented

    for owner, name in CALLS:
        setattr(owner, name, wrap(name, getattr(owner, name)))


def child(request: dict[str, Any], console: Path, counter: Path) -> int:
    """Run the stage in this process."""
    handle = os.open(console, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    if request.get("limit"):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["limit"], request["limit"]))
    if "at" in request:
        arm(request.get("fault"), request["at"], counter)
    code: int = importlib.import_module(f"pipelines.{request['stage']}").main(request["argv"])
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def run(request: dict[str, Any], scratch: Path) -> dict[str, Any]:
    """Fork, run, perhaps kill, and say how it went."""
    console, counter = scratch / "console", scratch / "counter"
    counter.write_text("0")
    start = time.monotonic()
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = child(request, console, counter)
        finally:
            os._exit(code)
    if request.get("delay") is not None:
        time.sleep(request["delay"])
        os.kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    return {
        "code": os.waitstatus_to_exitcode(status),
        "console": console.read_text() if console.exists() else "",
        "calls": int(counter.read_text() or 0),
        "seconds": time.monotonic() - start,
        "peak": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    }


def warm(request: dict[str, Any], scratch: Path) -> dict[str, Any]:
    """Run in this process."""
    code = child(request, scratch / "console", scratch / "counter")
    return {"code": code, "console": (scratch / "console").read_text(), "threads": threading.active_count()}


def main() -> None:
    """Answer requests until standard input ends."""
    for stage in STAGES:
        importlib.import_module(f"pipelines.{stage}")
    answers = os.fdopen(os.dup(1), "w")
    with tempfile.TemporaryDirectory() as scratch:
        for line in sys.stdin:
            request = json.loads(line)
            answer = warm(request, Path(scratch)) if request.get("warm") else run(request, Path(scratch))
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
