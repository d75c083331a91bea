"""Data loading alone: ours, and other libraries on the same rows, one core each, in turns."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import use_cores
from peers.trainer_rows import digest, endless, timed
from trainer_table import ROOT, Row, Table

from trainer.config import Config
from trainer.data import READ_TOKENS, PackedDataset, read_batches
from trainer.step import MicroBatch
from trainer.train import schedule

SCRIPT = ROOT / "benchmarks" / "peers" / "trainer_loading.py"
TARGET, BATCHES = 5.0, (8, 64)
#: label, loader of the peers' script, worker processes, whether the target is for it
PEERS = (
    ("datasets, torch format, DataLoader", "datasets", 0, True),
    ("datasets, torch format, DataLoader, 1 worker, 2 cores", "datasets", 1, True),
    ("datasets, torch format, rows by number", "datasets-indexed", 0, True),
    ("datasets, numpy format, rows by number", "datasets-numpy", 0, True),
    ("MosaicML streaming, DataLoader", "streaming", 0, True),
    ("MosaicML streaming, DataLoader, 1 worker, 2 cores", "streaming", 1, True),
    ("litdata, StreamingDataLoader", "litdata", 0, True),
    ("litdata, StreamingDataLoader, 1 worker, 2 cores", "litdata", 1, True),
    ("litdata, TokensLoader: no boundaries", "litdata-tokens", 0, False),
)
PREPARED = ("streaming", "litdata", "litdata-tokens")


class Ours:
    """Our rows in the order of a training run, as batches of int64 token ids and int32 cu_seqlens."""

    def __init__(self, data: Path, rows: int) -> None:
        self.dataset, self.config, self.batch = PackedDataset(data, "train"), Config(), rows
        self.order = schedule(self.dataset, self.config)

    def epoch(self, number: int, *, masks: bool = False) -> Iterator[tuple[torch.Tensor, ...]]:
        """Read an epoch as training does; with masks, the micro-batches of training."""
        size, run = len(self.dataset), self.config.run
        starts = range(0, size, self.batch)
        positions = (np.arange(row, min(row + self.batch, size)) + number * size for row in starts)
        for numbers, draws, rows in read_batches(self.dataset, self.order, positions):
            if masks:
                micro = MicroBatch.of(self.dataset, numbers, draws, self.config.mask, run.seed, rows=rows)
                yield micro.input_ids, micro.segments.cu_seqlens, micro.slots, micro.labels
            else:
                yield torch.from_numpy(rows.input_ids), torch.from_numpy(rows.cu_seqlens)

    def digest(self) -> dict[str, Any]:
        """Hash an epoch, as the peers' script does."""

        def arrays() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
            block = READ_TOKENS // self.dataset.seq_len
            for first in range(0, len(self.dataset), block):
                rows = self.dataset.rows(self.order(np.arange(first, min(first + block, len(self.dataset))))[0])
                row = ((np.cumsum(rows.lens) - rows.lens) // self.dataset.seq_len)[~rows.padding]
                yield rows.input_ids, rows.lens[~rows.padding], np.bincount(row, minlength=len(rows.row_ids))

        return digest(arrays())


class Peer:
    """A peer's script that answers commands."""

    def __init__(self, python: str, loader: str, data: Path, work: Path, cores: list[int], *flags: str) -> None:
        """Start it on its cores; it says its version when it is ready."""
        command = [python, str(SCRIPT), loader, str(data.absolute()), str(work), *flags]
        environment = os.environ | {"PYTHONPATH": "", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        self.log = (work / f"{loader}.log").open("wb+")
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, env=environment
        )
        os.sched_setaffinity(self.process.pid, cores)

    def answer(self, command: str = "") -> dict[str, Any]:
        """Ask, and wait for the answer."""
        assert self.process.stdin and self.process.stdout
        if command:
            self.process.stdin.write(f"{command}\n")
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            raise RuntimeError(self.log.read().decode(errors="replace")[-2000:])
        return json.loads(line)

    def close(self) -> None:
        """End it."""
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()
        self.log.close()


def compare(ours: Iterator[Any], peer: Peer, passes: int, seconds: float) -> list[tuple[float, float]]:
    """Read in turns, each for some seconds: rows per second of both, pass by pass."""
    pairs = []
    for _ in range(passes):
        mine, theirs = timed(ours, seconds), peer.answer(f"pass {seconds}")
        pairs.append((mine["rows"] / mine["wall"], theirs["rows"] / theirs["wall"]))
    return pairs


def run(args: Any, work: Path) -> None:
    """Measure and print a table for each size of batch."""
    cores = sorted(os.sched_getaffinity(0))
    use_cores(1)
    torch.set_num_threads(1)
    for loader in PREPARED if args.peers_python else ():
        prepared = Peer(args.peers_python, loader, args.data, work, cores, "--prepare")
        prepared.close()
        if prepared.process.returncode:
            print(f"{loader} could not write the rows: {(work / f'{loader}.log').read_text()[-2000:]}", file=sys.stderr)
    for rows in BATCHES:
        loader = Ours(args.data, rows)
        own, truth = endless(loader.epoch), loader.digest()
        size, length = len(loader.dataset), loader.dataset.seq_len
        print(f"\nloading alone: {size:,} rows of {length}, shuffled, batches of {rows}, one core\n")
        table = Table("rows/s", "same rows")
        timed(own, args.seconds)  # caches and branch predictors
        masked = endless(lambda number, own=loader: own.epoch(number, masks=True))  # type: ignore[misc]
        for label, batches in (("ours", own), ("ours, with masks", masked)):
            table.add(Row(label, "", statistics.median(rate(batches, args.seconds) for _ in range(args.repeat))))
        for label, name, workers, aimed in PEERS if args.peers_python else ():
            flags = ("--rows", str(rows), "--workers", str(workers))
            peer = Peer(args.peers_python, name, args.data, work, cores[: workers + 1], *flags)
            try:
                version = peer.answer()["version"]
                found = "" if workers else same(truth, peer.answer("digest"))  # once is enough
                pairs = compare(own, peer, args.repeat, args.seconds)
            except RuntimeError as error:
                print(f"| {label} failed |\n{error}", flush=True)
                continue
            finally:
                peer.close()
            ratio = statistics.median(mine / theirs for mine, theirs in pairs)
            rate_of_peer = statistics.median(theirs for _, theirs in pairs)
            table.add(Row(label, version, rate_of_peer, found, ratio, TARGET if aimed else None))


def rate(batches: Iterator[Any], seconds: float) -> float:
    """Rows per second."""
    found = timed(batches, seconds)
    return found["rows"] / found["wall"]


def same(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """Say in how far an epoch of a peer holds the rows of ours."""
    if ours == theirs:
        return "yes"
    if {**ours, "boundaries": None} == theirs:
        return "tokens only"
    return f"NO: {theirs['rows']:,}"
