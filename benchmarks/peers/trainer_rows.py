"""Hash and time batches of packed rows; for our side and the peers', so it imports nothing but numpy."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

Arrays = tuple[np.ndarray, "np.ndarray | None", "np.ndarray | None"]


def mix(value: np.ndarray) -> np.ndarray:
    """Hash uint64 numbers: the finaliser of splitmix64 (Steele et al. 2014)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def row_hashes(ids: np.ndarray, lens: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hash each row's token ids, and these with its boundaries: uint64 [rows] twice.

    ids: [rows, length]. lens: lengths of documents, row after row. counts: documents of each row.
    """
    tokens = mix((ids.astype(np.uint64) * mix(np.arange(1, ids.shape[1] + 1, dtype=np.uint64))).sum(axis=1))
    begin, before = np.cumsum(counts) - counts, np.cumsum(lens) - lens
    ends = (before + lens - np.repeat(before[begin], counts)).astype(np.uint64)
    return tokens, mix(tokens + np.add.reduceat(mix(ends), begin))


def digest(batches: Iterable[Arrays]) -> dict[str, Any]:
    """Sum the hashes of all rows, which tells whether the same rows came, in any order.

    A batch: int64 [rows, length] of token ids; lengths of documents and their number in each row, or None twice.
    """
    count, tokens, whole, bounded = 0, np.uint64(0), np.uint64(0), True
    with np.errstate(over="ignore"):
        for ids, lens, counts in batches:
            if ids.dtype != np.int64:
                raise TypeError(f"token ids are {ids.dtype}, not int64")
            if lens is None or counts is None:
                lens, counts, bounded = np.full(len(ids), ids.shape[1]), np.ones(len(ids), np.int64), False
            one, both = row_hashes(ids, lens, counts)
            count, tokens, whole = count + len(ids), tokens + one.sum(), whole + both.sum()
    return {"rows": count, "tokens": f"{tokens:016x}", "boundaries": f"{whole:016x}" if bounded else None}


def endless(epoch: Callable[[int], Iterator[Any]]) -> Iterator[Any]:
    """Yield batches, epoch after epoch."""
    number = 0
    while True:
        yield from epoch(number)
        number += 1


def timed(batches: Iterator[Any], seconds: float) -> dict[str, float]:
    """Read for so many seconds: rows (a batch's first part has one entry for each), seconds of wall and CPU time."""
    rows, wall, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - wall < seconds:
        rows += len(next(batches)[0])
    return {"rows": rows, "wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
