"""Process images in child processes, so that a decoder that crashes, hangs or eats memory costs one image.

Results do not depend on how images are chunked: an image at which a child died is tried once more, alone, in a new
child, and so is one for which memory did not suffice; only what that says counts.

Why not `pebble` or `multiprocessing`: both import the main module of the parent again in every child (here Beam, torch
and what else the stage needs), count time by the clock and per chunk, and read pickles from the child.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import queue
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

from pipelines.images import child
from pipelines.images.config import ImageConfig, Processed, Refused

PROCESS = "pipelines.images.process:process"
_MOST_IMAGES, _MOST_BYTES = 64, 8 << 20  # of one message to a child
_START_SECONDS = 120.0  # on a busy machine, from a network's file system
_PATIENCE = 20.0  # by the clock, of `seconds`: only for what does not use the processor at all
_END_SECONDS = 5.0
_PIPE = 1 << 20  # bytes that wait in a pipe, where the system lets them; its default is less than most photos
# glibc gives the memory of every large picture back to the system, which then clears it for the next one: 1/5 of all
# time. NumPy's threads would count as memory.
ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
    "OPENBLAS_NUM_THREADS": "1",
}


@functools.lru_cache(maxsize=1)
def sandbox(config: ImageConfig) -> Sandbox:
    """The sandbox of this process: as many children as threads call it at once, at most one a core."""
    return Sandbox(config, os.cpu_count() or 1)


class SandboxError(RuntimeError):
    """A child process could not be started, twice; the message holds the end of what it printed."""


class Sandbox:
    """A few child processes that run `process`; threads may share one.

    children: how many calls may be at work at a time; each starts when it is first needed. function: what to run in
    them, 'module:function' with the signature of `process.process`.
    """

    def __init__(self, config: ImageConfig, children: int = 1, function: str = PROCESS) -> None:
        """Start nothing yet. ValueError where there would be no child."""
        if children < 1:
            raise ValueError(f"children is at least 1; got {children}")
        self._config, self._function = config, function
        self._idle: queue.LifoQueue[_Child | None] = queue.LifoQueue()
        self._children = children
        for _ in range(children):
            self._idle.put(None)

    def __enter__(self) -> Sandbox:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the children."""
        self.close()

    def start(self, most: int, images: int) -> None:
        """Start the children that so many images will keep at work, at most so many; does not wait for them."""
        held = [self._idle.get() for _ in range(min(most, self._children, -(-images // _MOST_IMAGES)))]
        for one in held:
            self._idle.put(one or _Child(self._config, self._function))

    def close(self) -> None:
        """End the children that are idle; it may be used again."""
        held = [self._idle.get() for _ in range(self._children)]
        for one in held:
            if one is not None:
                one.end()
            self._idle.put(None)

    def process(self, images: Sequence[bytes]) -> list[Processed | Refused]:
        """Process images, one result each, in their order. Waits while all children are at work.

        Children that other threads have started and do not use take a share. Raises SandboxError where no child can be
        started, twice in a row.
        """
        chunks = list(_chunks(images))
        results: list[list[Processed | Refused]] = [[] for _ in chunks]
        held = [self._idle.get(), *self._unused(len(chunks) - 1)]
        todo = iter(range(len(chunks)))  # `next` of it is one step for all threads

        def work(one: _Child | None) -> None:
            try:
                for number in todo:
                    one = self._process(one, chunks[number], results[number])
            except BaseException:
                one = None
                raise
            finally:
                self._idle.put(one)

        if len(held) == 1:
            work(held[0])
        else:
            with ThreadPoolExecutor(len(held)) as pool:
                for done in [pool.submit(work, one) for one in held]:
                    done.result()
        return [result for part in results for result in part]

    def _unused(self, most: int) -> Iterator[_Child]:
        """Children that were started and are idle."""
        for _ in range(most):
            try:
                one = self._idle.get_nowait()
            except queue.Empty:
                return
            if one is None:  # those stand at the bottom: what was used last comes first
                self._idle.put(None)
                return
            yield one

    def _process(
        self, held: _Child | None, images: Sequence[bytes], results: list[Processed | Refused]
    ) -> _Child | None:
        """Let a child, or a new one, process images; returns the child, None where that is at its end."""
        try:
            while len(results) < len(images):
                held = self._ready(held)
                for answer in held.ask(images[len(results) :]):
                    results.append(answer)
                if held.broken:
                    held.end()
                    verdict, held = held.verdict(), None
                    late = verdict.reason == "decode_timeout"  # that would be no other the second time
                    results.append(verdict if late else self._alone(images[len(results)]))
        except BaseException:
            if held is not None:
                held.end()  # its answers are of no use to the next call
            raise
        return held

    def _ready(self, held: _Child | None) -> _Child:
        with contextlib.suppress(SandboxError):  # killed, say, by who saw that memory was short: no reason to end a run
            return (held or _Child(self._config, self._function)).ready()
        return _Child(self._config, self._function).ready()

    def _alone(self, image: bytes) -> Processed | Refused:
        fresh = self._ready(None)
        try:
            answer = next(fresh.ask([image]), None)
        finally:
            fresh.end()
        return answer or fresh.verdict()


def _chunks(images: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    start = 0
    while start < len(images):
        end, size = start, 0
        while (
            end < len(images)
            and end - start < _MOST_IMAGES
            and (end == start or size + len(images[end]) <= _MOST_BYTES)
        ):
            size += len(images[end])
            end += 1
        yield images[start:end]
        start = end


class _Child:
    """A child process. broken: it died, was killed, or should be replaced; it answered nothing to the last question."""

    def __init__(self, config: ImageConfig, function: str) -> None:
        self.broken, self._late, self._odd, self._fresh = False, False, False, True
        self._patience, self._came = _PATIENCE * config.seconds, bytearray()
        lifeline, held = os.pipe()
        self._life, self._starting = os.fdopen(held, "wb"), True
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  held until it is ready
        try:
            self._process = subprocess.Popen(
                child.command(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                pass_fds=[lifeline],
                env=ENVIRONMENT | os.environ,
            )
        finally:
            os.close(lifeline)
        assert self._process.stdin is not None and self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout
        self._poller = select.poll()
        self._poller.register(self._from, select.POLLIN)
        for pipe in (self._to, self._from):
            with contextlib.suppress(OSError, AttributeError):  # Linux, and within what it allows to a user
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE)
        with contextlib.suppress(BrokenPipeError):
            child.write_setup(self._to, function, config, lifeline)

    def ready(self) -> _Child:
        """Wait until it has started, and return itself. SandboxError where it did not."""
        if not self._starting:
            return self
        self._starting = False
        with self._errors:
            if self._read(len(child.READY), _START_SECONDS) != child.READY:
                self.end()
                self._errors.seek(max(self._errors.seek(0, os.SEEK_END) - 2000, 0))
                tail = self._errors.read().decode(errors="replace").strip()
                raise SandboxError(f"cannot start a process to decode images: {tail or self.verdict().detail}")
        return self

    def ask(self, images: Sequence[bytes]) -> Iterator[Processed | Refused]:
        """Yield the answers; fewer than there are images where it broke, at the first one that has none."""
        if self._came or self._poller.poll(0):  # it answers what it was not asked, or is at its end
            self.broken = True
            return
        try:
            child.write_task(self._to, images)
        except BrokenPipeError:
            self.broken = True
            return
        for _ in images:
            answer = self._answer()
            if answer is None or (answer[0] == "out_of_memory" and not self._fresh):
                self.broken = True
                return
            self._fresh = False
            yield answer

    def _answer(self) -> Processed | Refused | None:
        head = self._read(child.HEAD.size, self._patience)
        if head is None:
            return None
        small, blobs = child.HEAD.unpack(head)
        body = self._read(small + blobs, self._patience)
        try:
            return None if body is None else child.unpack(body[:small], body[small:])
        except (ValueError, RecursionError):  # who took it over may answer anything
            self._odd = True
            return None

    def _read(self, count: int, seconds: float) -> bytes | None:
        """Read exactly so many bytes; None where the child ended or the time did."""
        deadline, came = time.monotonic() + seconds, self._came
        while len(came) < count:
            left = deadline - time.monotonic()
            if left <= 0 or not self._poller.poll(left * 1000):
                self._late = True
                return None
            part = os.read(self._from.fileno(), max(count, 1 << 16))
            if not part:
                return None
            came += part
        wanted = bytes(memoryview(came)[:count])
        del came[:count]
        return wanted

    def verdict(self) -> Refused:
        """What killed it; ask when it has ended."""
        code = self._process.wait()
        if self._late or code in (-signal.SIGPROF, -signal.SIGXCPU):
            return Refused("decode_timeout", "the decoder took longer than the setting `seconds` allows")
        if self._odd:
            return Refused("decoder_crash", "the decoder's process gave an answer that is none")
        if code == child.NO_MEMORY:
            return Refused("out_of_memory", "not even the encoded image fits into the setting `memory`")
        died = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        return Refused("decoder_crash", f"the decoder's process ended with {died}")

    def end(self) -> None:
        """End it, and wait for that."""
        with contextlib.suppress(BrokenPipeError):
            self._to.close()
        if self._starting:
            self._errors.close()
        if self.broken or self._starting:
            self._process.kill()
        self._life.close()  # which kills one that is still at work
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._from.close()
