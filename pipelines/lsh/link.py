"""Link documents that share a bucket: bands in rounds, each a shuffle of (hash, node) arrays that fits the memory.

A unit of work is one band and one range of its hashes; band CONTENT is the content hash. A round takes as many units as
the memory for a shuffle allows. The index is read again in each round but the first, which is fed while it is written.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core import files, ledger
from pipelines.core.dataset import Dataset, shard_key
from pipelines.core.grouping import SHUFFLE, GroupBatches, Keyed, batch_element, report_element
from pipelines.core.shards import read_batches, write_shard
from pipelines.core.stage import Report
from pipelines.lsh.buckets import CONTENT, EDGE_SCHEMA, cut_by_range, edge_batch
from pipelines.lsh.config import DedupeConfig
from pipelines.lsh.method import Method, Probe, Rows
from pipelines.lsh.methods import TEXTS, method_of
from pipelines.lsh.nodes import IndexShard, Nodes

_RANGE_BYTES = 64 << 20  # of the pairs in one group of the shuffle
_HOT = 5  # largest buckets that a group reports
_TASK_ROWS, _TASKS = 1 << 20, 8  # most index rows of one task that asks a probe, and tasks that there should be


@dataclass(frozen=True)
class Round:
    """Units [first, last) of `bands` × `ranges`: band number CONTENT + unit // ranges, range unit % ranges."""

    first: int
    last: int
    ranges: int

    def bands(self) -> range:
        """The bands that the round looks at."""
        return range(CONTENT + self.first // self.ranges, CONTENT + (self.last - 1) // self.ranges + 1)

    def holds(self, band: int, part: int) -> bool:
        """Whether the round takes this range of this band."""
        return self.first <= (band - CONTENT) * self.ranges + part < self.last


def plan_rounds(records: int, config: DedupeConfig, memory: int, method: Method = TEXTS) -> list[Round]:
    """Cut all bands into rounds whose shuffle takes at most `memory` bytes (0: no limit), or one unit each."""
    bands = 1 + method.bands(config)
    held = max(1, records * method.bucket_bytes(config))
    least = max(1, -(-held // _RANGE_BYTES), -(-int(held * SHUFFLE) // memory) if memory else 1)
    ranges = method.ranges(least)
    units = bands * ranges
    size = max(1, int(memory / (held * SHUFFLE / ranges))) if memory else units
    return [Round(first, min(first + size, units), ranges) for first in range(0, units, size)]


def bucket_elements(
    shards: Iterable[Rows], this: Round, config: DedupeConfig, probe: Probe | None = None, method: Method = TEXTS
) -> Iterator[Keyed]:
    """Yield the buckets that index shards put into a round, an element for each (band, range).

    probe: where given, only of buckets that it may hold.
    """
    bands = this.bands()
    parts: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
    for shard in shards:
        if probe is not None:
            found = probe.entries(shard, bands)
        else:
            found = itertools.chain.from_iterable(method.entries(*part, bands, config) for part in shard.parts())
        for band, hashes, entries in found:
            if len(entries):
                parts.setdefault(band, []).append((hashes, entries))
    for band, pairs in parts.items():
        hashes, entries = (np.concatenate(column) for column in zip(*pairs, strict=True))
        for part, batch in cut_by_range(hashes, entries, this.ranges):
            if this.holds(band, part):
                yield batch_element(f"bucket/{band}/{part}", batch)


def sign_shard(
    number: int, nodes: Nodes, dataset: Dataset, table: str, this: Round | None, config: DedupeConfig
) -> Iterator[Keyed]:
    """Write the index of one shard; yield its buckets of the first round, and a report."""
    start, shard, method = int(nodes.starts[number]), nodes.shards[number], method_of(nodes)
    signer = method.signer(dataset, shard.key, table, shard.root, config)
    if this is None:
        for _ in signer:
            pass
    else:
        yield from bucket_elements([Rows(start, signer)], this, config, method=method)
    assert signer.shard is not None
    books = {} if shard.fixed else ledger.count(signer.seen, [])
    facts = {} if shard.fixed else dict(signer.facts)
    yield report_element(Report(shard.key, () if shard.fixed else (signer.shard,), books, facts))


def link_tasks(nodes: Nodes, probe: Probe | None) -> list[tuple[int, int]]:
    """Cut the index shards into tasks [first, last): one each, or several where a probe lets through little of each."""
    tasks: list[tuple[int, int]] = []
    rows, most = 0, min(_TASK_ROWS, nodes.total // _TASKS)
    for number, shard in enumerate(nodes.shards):
        asked = probe is not None and shard.fixed
        if asked and tasks and nodes.shards[tasks[-1][0]].fixed and rows + shard.rows <= most:
            tasks[-1], rows = (tasks[-1][0], number + 1), rows + shard.rows
        else:
            tasks.append((number, number + 1))
            rows = shard.rows
    return tasks


def link_shards(
    task: tuple[int, int], nodes: Nodes, this: Round, config: DedupeConfig, probe: Probe | None
) -> Iterator[Keyed]:
    """Yield the buckets that shards of the index, read again, put into a round; they are all fixed, or one."""
    fixed = nodes.shards[task[0]].fixed
    shards = (_rows(int(nodes.starts[number]), nodes.shards[number]) for number in range(*task))
    yield from bucket_elements(shards, this, config, probe if fixed else None, method_of(nodes))


def _rows(start: int, shard: IndexShard) -> Rows:
    reader = shard.open()
    batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]  # mapped: no memory of its own
    taking, gone = None, shard.removed_ids()
    if len(gone):  # asked once for the whole shard: the set of removed ids is built every time
        ids = pa.chunked_array([batch.column("id") for batch in batches], gone.type)
        taking = pc.invert(pc.is_in(ids, gone)).to_numpy()
    return Rows(start, batches, taking)


def link_bucket(
    key: str, batches: Sequence[pa.RecordBatch], numbering: Nodes, scratch: str, config: DedupeConfig
) -> Report:
    """Write the edges of one (band, range); report its buckets of more than the cap."""
    method, band = method_of(numbering), int(key.split("/")[1])
    hashes, entries = (
        np.concatenate([batch.column(name).to_numpy() for batch in batches]) for name in ("hash", "node")
    )
    linked = method.link(band, hashes, entries, numbering, config)
    sizes, cap = linked.sizes, method.cap(config)
    path = f"edges/{key.replace('/', '-')}.arrow"
    if len(linked.left):
        write_shard(scratch, path, EDGE_SCHEMA, [edge_batch(linked.left, linked.right)], durable=False)
    largest = np.lexsort([linked.examples, -sizes])[:_HOT]
    facts = {
        "edges": path if len(linked.left) else None,
        "count": len(linked.left),
        "largest_bucket": int(sizes.max(initial=0)),
        "hot": [[int(sizes[i]), band, int(linked.examples[i])] for i in largest if sizes[i] > cap],
        "hot_buckets": int((sizes > cap).sum()),
    }
    return Report(key, facts={**facts, **linked.facts})


def build_sign(
    pipeline: beam.Pipeline,
    numbers: Sequence[int],
    nodes: Nodes,
    dataset: Dataset,
    table: str,
    this: Round | None,
    scratch: str,
    config: DedupeConfig,
) -> beam.PCollection:
    """Build the pipeline that writes the index of a dataset, whose shards have these numbers, and links a round."""
    size = {shard_key(shard.path): shard.text_bytes for shard in dataset.of(table)}
    largest_first = sorted(numbers, key=lambda n: (-size[nodes.shards[n].key], n))  # so that workers end together
    return (
        pipeline
        | "Shards" >> beam.Create(largest_first)
        | "Sign" >> beam.FlatMap(sign_shard, nodes, dataset, table, this, config).with_output_types(Keyed)
        | "Link" >> GroupBatches(link_bucket, (nodes, scratch, config))
    )


def build_link(
    pipeline: beam.Pipeline, nodes: Nodes, this: Round, probe: Probe | None, scratch: str, config: DedupeConfig
) -> beam.PCollection:
    """Build the pipeline of one further round."""
    return (
        pipeline
        | "Index" >> beam.Create(link_tasks(nodes, probe))
        | "Buckets" >> beam.FlatMap(link_shards, nodes, this, config, probe).with_output_types(Keyed)
        | "Link" >> GroupBatches(link_bucket, (nodes, scratch, config))
    )


def edge_batches(reports: Iterable[Report], scratch: str) -> Iterator[pa.RecordBatch]:
    """Read the edges that `link_bucket` wrote."""
    for report in reports:
        if report.facts.get("edges"):
            yield from read_batches(files.join(scratch, report.facts["edges"]))
