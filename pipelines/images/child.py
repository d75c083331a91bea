"""The process in which images are decoded: what runs in it, and how it talks with `sandbox`.

It imports what `process` needs, this package, Pillow and numba, whatever the program is that started it. Its limits
are the kernel's: of CPU time (a timer that kills), of memory (address space beyond the program's own), and of life (it
is killed where its parent is gone).

What it reads comes from its parent, what it writes may come from hostile code that took it over: answers are JSON and
bytes, never pickles.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import json
import os
import pickle
import resource
import signal
import struct
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from pipelines.core.start import imported
from pipelines.images.config import REASONS, THUMBNAIL_SIDE, ImageConfig, Processed, Refused

NO_MEMORY = 77  # exit status: not even the bytes of the images fit
READY = b"ready"
HEAD = struct.Struct("<II")  # of an answer: bytes of JSON, and bytes that follow it
# numba would import SciPy for its BLAS, which no kernel here uses: a quarter of the time to start.
_PROGRAM = """
import sys
sys.path[:], sys.modules["scipy"] = sys.argv[1:], None
from pipelines.core.start import importing
importing("pipelines.images.child")
from pipelines.images.child import main
main()
"""
_COUNT, _LENGTH = struct.Struct("<I"), struct.Struct("<Q")


def command() -> list[str]:
    """The command that starts a child which imports from where this process does, and runs no main module again."""
    return [sys.executable, "-I", "-c", _PROGRAM, *(path or str(Path.cwd()) for path in sys.path)]


def write_task(out: IO[bytes], images: Sequence[bytes]) -> None:
    """Send images to a child."""
    out.write(_COUNT.pack(len(images)) + b"".join(_LENGTH.pack(len(image)) for image in images))
    for image in images:
        out.write(image)
    out.flush()


def write_setup(out: IO[bytes], function: str, config: ImageConfig, lifeline: int) -> None:
    """Send a child what to run, 'module:function', its settings, and the descriptor of its lifeline.

    That is a pipe to which nothing is ever written: its end is that of the parent.
    """
    payload = pickle.dumps((function, config, lifeline))
    out.write(_LENGTH.pack(len(payload)) + payload)
    out.flush()


def pack(answer: Processed | Refused) -> bytes:
    """Make the bytes of an answer."""
    if isinstance(answer, Refused):
        small, blobs = json.dumps(answer), b""
    else:
        small, blobs = json.dumps([len(answer.data), *answer[1:-2]]), answer.data + answer.pixel_hash + answer.thumbnail
    return HEAD.pack(len(small.encode()), len(blobs)) + small.encode() + blobs


def unpack(small: bytes, blobs: bytes) -> Processed | Refused:
    """Make an answer of its bytes; ValueError where they are none."""
    fields = json.loads(small.decode())  # of bytes, json would first find out in which encoding they are
    kinds = [type(field) for field in fields] if isinstance(fields, list) else []
    if kinds == [str, str] and fields[0] in REASONS and not blobs:
        fields[1].encode()  # JSON may hold halves of characters, which no table takes
        return Refused(*fields)
    if kinds == [int, int, int, str, int, int, int] and all(0 <= n < 1 << 31 for n in fields if isinstance(n, int)):
        fields[3].encode()
        end = fields[0]
        if len(blobs) == end + 16 + THUMBNAIL_SIDE**2:
            return Processed._make([blobs[:end], *fields[1:], blobs[end : end + 16], blobs[end + 16 :]])
    raise ValueError("no answer")


def main() -> None:
    """Read settings, then images, from standard input; write answers to standard output; end where the input ends."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # a blocked signal stays blocked in a child, and ours must kill
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C goes to the parent, which ends us
    source, out = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    function, config, lifeline = pickle.loads(_exactly(source, _LENGTH.unpack(_exactly(source, _LENGTH.size))[0]))
    module, _, name = function.partition(":")
    run = getattr(importlib.import_module(module), name)
    imported()
    out.write(READY)
    out.flush()
    nothing = os.open(os.devnull, os.O_RDWR)  # decoders print warnings: not among answers, nor into the parent's log
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    most = _taken() + config.memory
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _die_with(lifeline)
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            _serve(_read_task(source), out, run, config)


def _taken() -> int:
    """Bytes of address space that the program itself takes; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def _exactly(source: IO[bytes], count: int) -> bytes:
    data = source.read(count)
    if len(data) < count:
        raise EOFError
    return data


def _read_task(source: IO[bytes]) -> list[bytes]:
    try:
        (count,) = _COUNT.unpack(_exactly(source, _COUNT.size))
        lengths = [_LENGTH.unpack(_exactly(source, _LENGTH.size))[0] for _ in range(count)]
        return [_exactly(source, length) for length in lengths]
    except MemoryError:
        os._exit(NO_MEMORY)


def _serve(
    images: list[bytes],
    out: IO[bytes],
    run: Callable[[bytes, ImageConfig], Processed | Refused],
    config: ImageConfig,
) -> None:
    for image in images:
        signal.setitimer(signal.ITIMER_PROF, config.seconds)  # CPU time, so that a busy machine refuses no more
        answer = pack(run(image, config))
        signal.setitimer(signal.ITIMER_PROF, 0)
        out.write(answer)
        out.flush()


def _die_with(descriptor: int) -> None:
    """Let the kernel kill this process where the other end of a pipe is closed, even in the midst of a decoder.

    Nothing is written to the pipe, so whatever happens there is its end: SIGIO, which kills by default. (Standard input
    will not do: its signal may come after what it announces was read. PR_SET_PDEATHSIG would kill as soon as the thread
    ends that started us.)
    """
    fcntl.fcntl(descriptor, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_ASYNC)
