"""Write the candidates of each connected component side by side, cut into spans, and deal these out to workers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from pipelines.core.shards import write_shard

GROUP_SCHEMA = pa.schema([pa.field("component", pa.int64(), False), pa.field("node", pa.int64(), False)])
SPAN_NODES = 5_000  # candidates that are verified together at most, unless one component is larger
_SPANS, _LEAST = 16, 1_250  # spans that there should be, so that workers end together, unless they would be too small
_PAIRS = 150  # of a component that take as long as one candidate: of 10,000 photographs and their copies

Span = tuple[str, int, int, int]  # groups file, first row, last row, what it may cost beside others
Task = tuple[Span, ...]  # what a worker takes as a whole


def write_groups(nodes: np.ndarray, labels: np.ndarray, scratch: str, path: str) -> list[Span]:
    """Write (component, node) rows and cut them, at the borders of components, into spans; no rows make no file.

    nodes, labels: int64[n], sorted by label, then node.
    """
    if not len(nodes):
        return []
    batch = pa.RecordBatch.from_arrays([pa.array(labels), pa.array(nodes)], schema=GROUP_SCHEMA)
    write_shard(scratch, path, GROUP_SCHEMA, [batch], durable=False)
    most = min(SPAN_NODES, max(_LEAST, len(labels) // _SPANS))
    borders = np.append(np.flatnonzero(labels[1:] != labels[:-1]) + 1, len(labels))
    sizes = np.diff(borders, prepend=0)
    pairs = np.cumsum(sizes * (sizes - 1) // 2)  # of all components until here
    spans, start, before = [], 0, 0
    while start < len(labels):
        place = min(int(np.searchsorted(borders, start + most)), len(borders) - 1)
        end, until = int(borders[place]), int(pairs[place])
        spans.append((path, start, end, end - start + (until - before) // _PAIRS))
        start, before = end, until
    return spans


def deal(spans: Sequence[Span], workers: int) -> list[Task]:
    """Deal spans out to so many workers that end together, the costliest first; none gets an empty task.

    A runner on one machine gives each of its workers a fixed part of the tasks: one large component among them would
    have a worker work on long after the others are at their end.
    """
    held: list[list[Span]] = [[] for _ in range(min(workers, len(spans)))]
    cost = [0] * len(held)
    for span in sorted(spans, key=lambda one: (-one[3], one)):
        least = cost.index(min(cost))
        held[least].append(span)
        cost[least] += span[3]
    return [tuple(sorted(one)) for one in held]
