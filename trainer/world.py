"""The processes of a run: who they are, how they add numbers, how they start."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

STOPPED = 128 + signal.SIGTERM  # exit code of a run that saved and left because it was told to
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


def connect(threads: int, mode: str = "elastic") -> World:
    """Join the processes that torchrun or `launch` started, NCCL on CUDA and gloo on CPU; or be alone.

    threads: for this process; 0: its share of the cores. mode: 'elastic' asks CUDA for deterministic kernels; 'fsdp'
    needs a process group also for one process.
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
            torch.use_deterministic_algorithms(True, warn_only=True)
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
    """Processes to start here: 1 under torchrun; as wanted; or for 0 the largest power of two that cores, GPUs and
    `most` (micro-batches of a step) allow."""
    if "RANK" in os.environ:
        return 1
    if wanted:
        return wanted
    places = torch.cuda.device_count() if torch.cuda.is_available() else cores()
    return 1 << (max(1, min(places, most)).bit_length() - 1)


def launch(count: int, function: Callable[..., int], *arguments: Any) -> int:
    """Run `function(*arguments)` here, or in `count` new processes; return its exit code, the first that is not 0.

    SIGTERM is passed on, so that a run saves its checkpoint however it is stopped; when a process fails, the others,
    which would wait for it for ever, are killed.
    """
    if count == 1:
        return function(*arguments)
    context: Any = multiprocessing.get_context(_start_method())
    with tempfile.TemporaryDirectory() as folder:
        given = (count, str(Path(folder) / "store"), function, arguments)
        children = [context.Process(target=_child, args=(rank, *given)) for rank in range(count)]
        previous = signal.signal(signal.SIGTERM, lambda *_: [child.terminate() for child in children])
        try:
            for child in children:
                child.start()
            running, code = {child.sentinel: child for child in children}, 0
            while running:
                for done in connection.wait(list(running)):
                    running.pop(done).join()
                failed = [child.exitcode for child in children if child.exitcode]
                code = code or (failed[0] if failed else 0)
                if code and code != STOPPED:
                    for child in running.values():
                        child.kill()
        finally:
            signal.signal(signal.SIGTERM, previous)
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
    code = function(*arguments)
    if dist.is_initialized():
        dist.destroy_process_group()
    sys.exit(code)
