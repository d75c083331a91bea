"""Connected components on disk: alternating large-star and small-star passes as Beam pipelines, for graphs of any size.

Kiveris, Lattanzi, Mirrokni, Rastogi, Vassilvitskii: Connected Components in MapReduce and Beyond (SoCC 2014). A pass
takes each node with its neighbours. Large-star links the larger ones to the smallest of all, small-star the smaller
ones and the node itself to the smallest of those; connectivity stays. When neither changes an edge, every component is
a star around its smallest node, which is its label: that of `pipelines.lsh.components`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import apache_beam as beam
import numpy as np
import pyarrow as pa

from pipelines.core import files
from pipelines.core.grouping import SHUFFLE, GroupBatches, Keyed, batch_element, range_numbers, report_element
from pipelines.core.shards import read_batches, write_shard
from pipelines.core.stage import Report
from pipelines.lsh.buckets import EDGE_SCHEMA, edge_batch
from pipelines.lsh.groups import Span, write_groups

LARGE, SMALL, LABEL = "large", "small", "label"
EDGE_BYTES = 16
_PART_BYTES = 64 << 20  # of the edges in one group of the shuffle
_MOST_PASSES = 200  # far above the O(log² n) of the paper: a bug, not a graph

RunPipeline = Callable[[str, Callable[[beam.Pipeline], beam.PCollection]], list[Report]]


def _partition(nodes: np.ndarray, parts: int) -> np.ndarray:
    mixed = nodes.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)  # Knuth 6.4: neighbours do not stay neighbours
    return range_numbers(mixed, parts)


def directed(kind: str, left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn edges into (node, neighbour) pairs as a pass needs them: int64 arrays.

    large: both ways. small: from the larger node. label: from the smaller one, the star's centre.
    """
    if kind == LARGE:
        return np.concatenate([left, right]), np.concatenate([right, left])
    smaller, larger = np.minimum(left, right), np.maximum(left, right)
    return (larger, smaller) if kind == SMALL else (smaller, larger)


def distinct_pairs(nodes: np.ndarray, neighbours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort pairs by node, then neighbour, and drop repeated ones."""
    order = np.lexsort([neighbours, nodes])
    nodes, neighbours = nodes[order], neighbours[order]
    new = np.ones(len(nodes), np.bool_)
    new[1:] = (nodes[1:] != nodes[:-1]) | (neighbours[1:] != neighbours[:-1])
    return nodes[new], neighbours[new]


def star_pass(kind: str, nodes: np.ndarray, neighbours: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Do one pass over all pairs of some nodes, sorted and distinct: new edges (left, right), and how many changed.

    kind: LARGE or SMALL; `directed` says which pairs it needs.
    """
    if not len(nodes):
        return nodes, nodes, 0
    first = np.flatnonzero(np.concatenate([[True], nodes[1:] != nodes[:-1]]))
    sizes = np.diff(np.append(first, len(nodes)))
    smallest = np.minimum(nodes[first], neighbours[first])  # neighbours ascend
    centre = np.repeat(smallest, sizes)
    if kind == LARGE:
        larger = neighbours > nodes
        return centre[larger], neighbours[larger], int((centre != nodes)[larger].sum())
    others = neighbours != centre
    left, right = np.concatenate([centre[others], smallest]), np.concatenate([neighbours[others], nodes[first]])
    return left, right, int(others.sum())


def spread_edges(path: str, kind: str, parts: int, chosen: range) -> Iterator[Keyed]:
    """Send the pairs of a file of edges to the partitions of their nodes; only to the chosen ones."""
    for batch in read_batches(path):
        nodes, neighbours = directed(kind, batch.column("left").to_numpy(), batch.column("right").to_numpy())
        number = _partition(nodes, parts)
        order = np.argsort(number, kind="stable")
        nodes, neighbours = nodes[order], neighbours[order]
        borders = np.searchsorted(number[order], np.arange(parts + 1, dtype=np.uint64))
        for part in chosen:
            inside = slice(borders[part], borders[part + 1])
            if inside.start < inside.stop:
                yield batch_element(f"{kind}/{part}", edge_batch(nodes[inside], neighbours[inside]))
    yield report_element(Report(f"read-{path.rsplit('/', 1)[-1]}"))


def gather_partition(key: str, batches: Sequence[pa.RecordBatch], scratch: str, folder: str) -> Report:
    """Do one pass over a partition and write its edges; or, for labels, its groups."""
    kind, part = key.split("/")
    columns = [np.concatenate([b.column(name).to_numpy() for b in batches]) for name in EDGE_SCHEMA.names]
    nodes, neighbours = distinct_pairs(*columns)
    path = f"{folder}/{part}.arrow"
    if kind == LABEL:
        centres = np.unique(nodes)
        labels, members = np.concatenate([nodes, centres]), np.concatenate([neighbours, centres])
        order = np.lexsort([members, labels])
        return Report(key, facts={"spans": write_groups(members[order], labels[order], scratch, path)})
    left, right, changed = star_pass(kind, nodes, neighbours)
    if len(left):
        write_shard(scratch, path, EDGE_SCHEMA, [edge_batch(left, right)], durable=False)
    facts = {"edges": path if len(left) else None, "count": len(left), "changed": changed}
    return Report(key, facts=facts)


def build_pass(
    pipeline: beam.Pipeline, paths: Sequence[str], kind: str, parts: int, chosen: range, scratch: str, folder: str
) -> beam.PCollection:
    """Build the pipeline of one pass over the chosen partitions."""
    return (
        pipeline
        | "Edges" >> beam.Create([files.join(scratch, path) for path in paths])
        | "Spread" >> beam.FlatMap(spread_edges, kind, parts, chosen).with_output_types(Keyed)
        | "Star" >> GroupBatches(gather_partition, (scratch, folder))
    )


class Stars:
    """The driver's loop: passes until no edge changes, then labels."""

    def __init__(self, run: RunPipeline, scratch: str, memory: int) -> None:
        self._run, self._scratch, self._memory = run, scratch, memory

    def _pass(self, number: int, kind: str, paths: Sequence[str], edges: int) -> list[Report]:
        shuffled = edges * EDGE_BYTES * (2 if kind == LARGE else 1)
        slices = max(1, -(-int(shuffled * SHUFFLE) // self._memory)) if self._memory else 1
        parts = max(slices, -(-shuffled // _PART_BYTES), 1)
        size, reports = -(-parts // slices), []
        for start in range(0, parts, size):
            chosen, folder = range(start, min(start + size, parts)), f"stars/{number:03d}-{kind}"

            def build(p: beam.Pipeline, chosen: range = chosen, folder: str = folder) -> beam.PCollection:
                return build_pass(p, paths, kind, parts, chosen, self._scratch, folder)

            reports += self._run(f"stars-{number:03d}-{kind}-{start}", build)
        return reports

    def groups(self, paths: Sequence[str], edges: int) -> list[Span]:
        """Find the components of the edges in files under scratch; returns the verifying tasks."""
        still, number = 0, 0
        while still < 2 and paths:
            kind = SMALL if number % 2 else LARGE
            reports = self._pass(number, kind, paths, edges)
            paths = [r.facts["edges"] for r in reports if r.facts.get("edges")]
            edges = sum(r.facts.get("count", 0) for r in reports)
            still = still + 1 if not sum(r.facts.get("changed", 0) for r in reports) else 0
            number += 1
            if number > _MOST_PASSES:
                raise RuntimeError(f"the components did not settle in {_MOST_PASSES} passes")
        if not paths:
            return []
        reports = self._pass(number, LABEL, paths, edges)
        return [tuple(span) for r in reports for span in r.facts.get("spans", ())]
