"""Write the candidates of each connected component side by side, cut into tasks for verification."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipelines.core.shards import write_shard

GROUP_SCHEMA = pa.schema([pa.field("component", pa.int64(), False), pa.field("node", pa.int64(), False)])
TASK_NODES = 5_000  # candidates that one verifying task takes at most, unless one component is larger
_TASKS, _LEAST = 16, 1_250  # tasks that there should be, so that workers end together, unless they would be too small

Span = tuple[str, int, int]  # groups file, first row, last row


def write_groups(nodes: np.ndarray, labels: np.ndarray, scratch: str, path: str) -> list[Span]:
    """Write (component, node) rows and cut them, at the borders of components, into tasks; no rows make no file.

    nodes, labels: int64[n], sorted by label, then node.
    """
    if not len(nodes):
        return []
    batch = pa.RecordBatch.from_arrays([pa.array(labels), pa.array(nodes)], schema=GROUP_SCHEMA)
    write_shard(scratch, path, GROUP_SCHEMA, [batch], durable=False)
    most = min(TASK_NODES, max(_LEAST, len(labels) // _TASKS))
    borders = np.append(np.flatnonzero(labels[1:] != labels[:-1]) + 1, len(labels))
    spans, start = [], 0
    while start < len(labels):
        end = int(borders[min(int(np.searchsorted(borders, start + most)), len(borders) - 1)])
        spans.append((path, start, end))
        start = end
    return spans
