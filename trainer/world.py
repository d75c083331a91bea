"""The processes of a run: who they are, how they add numbers, how they start."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import connection, forkserver
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

STOPPED = 128 + signal.SIGTERM  # exit code of a run that saved and left because it was told to
STOPPING = (signal.SIGTERM, signal.SIGINT)
GRACE = 600.0  # seconds in which processes that were told to stop may still finish a step and save
STORE = "GRISTMILL_STORE"  # file in which the processes that `launch` starts find each other


@dataclass(frozen=True)
class World:
    """This process among the others. One process alone is a world too, and needs no process group."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Add a tensor over all processes along a binary tree; every process gets the same bits.

        A butterfly: in round r each process swaps with the one whose rank differs in bit r. a + b = b + a in floating
        point, so both partners hold the same sum, which is a node of the tree over all leaves.
        """
        if self.size & (self.size - 1):
            raise ValueError(f"{self.size} processes are no power of two: their sums make no binary tree")
        span = 1
        while span < self.size:
            other = torch.empty_like(tensor)
            partner = self.rank ^ span
            swap = [dist.P2POp(dist.isend, tensor, partner), dist.P2POp(dist.irecv, other, partner)]
            for request in dist.batch_isend_irecv(swap):
                request.wait()
            tensor, span = tensor + other, span * 2
        return tensor

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        """Add a tensor over all processes in place, in whatever order is fastest."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def gather(self, value: Any) -> list[Any]:
        """Collect a picklable value from every process, in the order of ranks, everywhere."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values


def connect(threads: int, mode: str = "elastic", *, strict: bool = True) -> World:
    """Join the processes that torchrun or `launch` started, NCCL on CUDA and gloo on CPU; or be alone.

    threads: for this process; 0: its share of the cores. mode: 'elastic' asks CUDA for deterministic kernels; 'fsdp'
    needs a process group also for one process. strict: an operation that has no deterministic kernel is an error. Else
    PyTorch warns, and takes for attention the quicker kernel even though it has a deterministic one.
    """
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    torch.set_num_threads(threads or max(1, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
        torch.set_float32_matmul_precision("high")
        if mode == "elastic":
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # as torch's notes on reproducibility ask for
            torch.use_deterministic_algorithms(True, warn_only=not strict)
    if size > 1 or mode == "fsdp":
        store = os.environ.get(STORE) or ("" if "RANK" in os.environ else tempfile.mkdtemp() + "/store")
        where = Path(store).as_uri() if store else "env://"
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, init_method=where, rank=rank, world_size=size)
    return World(rank, size, device)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processes(wanted: int, most: int) -> int:
    """Processes to start here: 1 under torchrun; as wanted; or for 0 the largest power of two that cores or GPUs allow
    and that divides `most` (micro-batches of a step)."""
    if "RANK" in os.environ:
        return 1
    if wanted:
        return wanted
    places = torch.cuda.device_count() if torch.cuda.is_available() else cores()
    return min(1 << (max(1, places).bit_length() - 1), most & -most)


def launch(count: int, function: Callable[..., int], *arguments: Any) -> int:
    """Run `function(*arguments)` here, or in `count` new processes; return its exit code, the first that is not 0.

    SIGTERM and Ctrl-C are passed on, so that a run saves its checkpoint however it is stopped; when a process fails,
    the others, which would wait for it for ever, are killed.
    """
    if count == 1:
        return function(*arguments)
    context: Any = multiprocessing.get_context(_start_method())
    with tempfile.TemporaryDirectory() as folder:
        given = (count, str(Path(folder) / "store"), function, arguments)
        children = [context.Process(target=_child, args=(rank, *given)) for rank in range(count)]
        told: list[float] = []

        def tell(*_: object) -> None:
            told.append(time.monotonic())
            for child in children:
                if child.pid:
                    (child.terminate if len(told) == 1 else child.kill)()

        # the fork server inherits that signals to the whole group, as batch systems send them, pass it by
        previous = {each: signal.signal(each, signal.SIG_IGN) for each in STOPPING}
        try:
            if sys.platform == "linux":
                forkserver.ensure_running()
            for each in STOPPING:
                signal.signal(each, tell)
            for child in children:
                child.start()
            return _watch(children, told)
        finally:
            for child in children:
                if child.pid and child.is_alive():
                    child.kill()
            for each, handler in previous.items():
                signal.signal(each, handler)


def _watch(children: list[Any], told: list[float]) -> int:
    """Wait for all processes; kill the others when one fails, and those that do not stop when told to."""
    running, code = {child.sentinel: child for child in children}, 0
    while running:
        for done in connection.wait(list(running), timeout=5.0):
            child = running.pop(done)
            child.join()
            ended = child.exitcode if child.exitcode >= 0 else 128 - child.exitcode
            if child.exitcode < 0 and not code:
                text = f"process {children.index(child)} was killed by signal {-child.exitcode}"
                print(f"error: {text} (by the system, for memory, if nobody sent it); continue with --resume",
                      file=sys.stderr)  # fmt: skip
            code = code or ended
        for child in running.values() if told else ():
            child.terminate()  # again: the first may have come before it could listen
        late = told and time.monotonic() - told[0] > GRACE
        if (code and code != STOPPED) or late:
            for child in running.values():
                child.kill()
    return code


def _start_method() -> str:
    """Start processes as forks of a server that has imported everything once (seconds each, otherwise) and run nothing.

    A fork of this process itself would inherit its threads' locks; other systems than Linux do not fork reliably.
    """
    if sys.platform != "linux":
        return "spawn"
    # What trainer.train imports, but not itself: it may be __main__, which each process runs anew. (Optimizers import
    # dynamo.)
    multiprocessing.set_forkserver_preload(["trainer.evaluate", "trainer.metrics", "trainer.optim", "torch._dynamo"])
    return "forkserver"


def _child(rank: int, count: int, store: str, function: Callable[..., int], arguments: tuple[Any, ...]) -> None:
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, STORE: store}
    os.environ.update({name: str(value) for name, value in names.items()})
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # a host name that resolves to nowhere must not matter
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with STOPPER:
        code = function(*arguments)
    if dist.is_initialized():
        dist.destroy_process_group()
    sys.exit(code)


def _end_with_parent() -> None:
    """End this process when the one that started it is gone: nobody could stop it, or wait for it, any more."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


class Stopper:
    """Remember, while entered, that SIGTERM or Ctrl-C came. May be entered again inside.

    All processes stop at one step: the wish travels with gradients. A second Ctrl-C ends a process that nobody watches
    at once.
    """

    def __init__(self) -> None:
        self.asked, self._depth = False, 0
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Stopper:
        self._depth += 1
        if self._depth == 1:
            self.asked = False
            self._previous = {each: signal.signal(each, self._ask) for each in STOPPING}
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            for number, handler in self._previous.items():
                signal.signal(number, handler)

    def _ask(self, number: int, _: object) -> None:
        if self.asked and number == signal.SIGINT and multiprocessing.parent_process() is None:
            os._exit(128 + number)
        self.asked = True


STOPPER = Stopper()
