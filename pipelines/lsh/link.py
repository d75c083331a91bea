"""Link documents that share a bucket: bands in rounds, each a shuffle of (hash, node) arrays that fits the memory.

A unit of work is one band and one range of its hashes; band -1 is the content hash, since an exact copy is one more way
to be a candidate. A round takes as many units as the memory for a shuffle allows. The index is read again in each round
but the first, which is fed while it is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core import files, ledger
from pipelines.core.dataset import Dataset, shard_key
from pipelines.core.grouping import SHUFFLE, GroupBatches, Keyed, batch_element, report_element
from pipelines.core.identity import id_bytes
from pipelines.core.shards import read_batches, write_shard
from pipelines.core.stage import Report
from pipelines.lsh.buckets import BUCKET_BYTES, EDGE_SCHEMA, cut_by_range, star_edges
from pipelines.lsh.config import DedupeConfig
from pipelines.lsh.nodes import Nodes
from pipelines.lsh.probe import Probe
from pipelines.lsh.sign import ShardSigner
from pipelines.text.minhash import band_hashes

CONTENT = -1  # the band of content hashes
_RANGE_BYTES = 64 << 20  # of the pairs in one group of the shuffle
_HOT = 5  # largest buckets that a group reports


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


def plan_rounds(documents: int, config: DedupeConfig, memory: int) -> list[Round]:
    """Cut all bands into rounds whose shuffle takes at most `memory` bytes (0: no limit), or one unit each."""
    bands = 1 + (config.minhash.bands if config.near else 0)
    held = max(1, documents * BUCKET_BYTES)
    ranges = max(1, -(-held // _RANGE_BYTES), -(-int(held * SHUFFLE) // memory) if memory else 1)
    units = bands * ranges
    size = max(1, int(memory / (held * SHUFFLE / ranges))) if memory else units
    return [Round(first, min(first + size, units), ranges) for first in range(0, units, size)]


def bucket_hashes(index: pa.RecordBatch, bands: range, config: DedupeConfig) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each band and the hashes, uint64[n], of index rows in it."""
    if CONTENT in bands:
        content = np.ascontiguousarray(id_bytes(index.column("content_hash"))).view("<u8").reshape(-1, 2)
        yield CONTENT, content[:, 0]
    first, last = max(bands.start, 0), bands.stop
    if first < last:
        minhash = config.minhash
        yield from enumerate(band_hashes(_signed(index), minhash.bands, minhash.rows, first, last), first)


def _signed(index: pa.RecordBatch) -> np.ndarray:
    return index.column("signature").flatten().to_numpy().reshape(len(index), -1)


def _wanted(
    index: pa.RecordBatch, here: np.ndarray, bands: range, config: DedupeConfig, probe: Probe | None
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield each band, and the hashes and rows of the index, of those `here`, that belong into its buckets."""
    shingled = here & (index.column("shingle_count").to_numpy() > 0)  # without shingles a band means nothing
    if probe is None:
        for band, hashes in bucket_hashes(index, bands, config):
            rows = np.flatnonzero(here if band == CONTENT else shingled)
            yield band, hashes[rows], rows
        return
    for band, hashes in bucket_hashes(index, range(bands.start, min(bands.stop, 0)), config):
        rows = np.flatnonzero(here & probe.may_hold(band, hashes))
        yield band, hashes[rows], rows
    if (near := range(max(bands.start, 0), bands.stop)) and len(index):
        found, hashes, rows = probe.bands_held(_signed(index), shingled, near, config.minhash.rows)
        for band in np.unique(found).tolist():
            yield band, hashes[found == band], rows[found == band]


def bucket_elements(
    batches: Iterable[pa.RecordBatch],
    start: int,
    this: Round,
    config: DedupeConfig,
    probe: Probe | None = None,
    taking: np.ndarray | None = None,
) -> Iterator[Keyed]:
    """Yield the buckets that one index shard puts into a round, an element for each (band, range).

    start: node number of its first row. probe: where given, only hashes that it may hold. taking: bool[rows of the
    shard], those that take part; None: all.
    """
    first = start
    parts: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
    for index in batches:
        here = np.ones(len(index), np.bool_) if taking is None else taking[start - first :][: len(index)]
        for band, hashes, rows in _wanted(index, here, this.bands(), config, probe):
            if len(rows):
                parts.setdefault(band, []).append((hashes, start + rows))
        start += len(index)
    for band, pairs in parts.items():
        hashes, nodes = (np.concatenate(column) for column in zip(*pairs, strict=True))
        for part, batch in cut_by_range(hashes, nodes, this.ranges):
            if this.holds(band, part):
                yield batch_element(f"bucket/{band}/{part}", batch)


def sign_shard(
    number: int, nodes: Nodes, dataset: Dataset, table: str, this: Round | None, config: DedupeConfig
) -> Iterator[Keyed]:
    """Write the index of one shard; yield its buckets of the first round, and a report."""
    start, shard = int(nodes.starts[number]), nodes.shards[number]
    signer = ShardSigner(dataset, shard.key, table, shard.root, config)
    if this is None:
        for _ in signer:
            pass
    else:
        yield from bucket_elements(signer, start, this, config)
    assert signer.shard is not None
    books = {} if shard.fixed else ledger.count(signer.seen, [])
    facts = {} if shard.fixed else {"dated": signer.dated}
    yield report_element(Report(shard.key, () if shard.fixed else (signer.shard,), books, facts))


def link_shard(number: int, nodes: Nodes, this: Round, config: DedupeConfig, probe: Probe | None) -> Iterator[Keyed]:
    """Yield the buckets that a shard of the index, read again, puts into a round."""
    start, shard = int(nodes.starts[number]), nodes.shards[number]
    reader = shard.open()
    batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]  # mapped: no memory of its own
    taking, gone = None, shard.removed_ids()
    if len(gone):  # asked once for the whole shard: the set of removed ids is built every time
        ids = pa.chunked_array([batch.column("id") for batch in batches], gone.type)
        taking = pc.invert(pc.is_in(ids, gone)).to_numpy()
    yield from bucket_elements(batches, start, this, config, probe if shard.fixed else None, taking)


def link_bucket(key: str, batches: Sequence[pa.RecordBatch], scratch: str, cap: int) -> Report:
    """Write the star edges of one (band, range); report its buckets of more than `cap` documents."""
    edges, sizes, smallest = star_edges(batches)
    path = f"edges/{key.replace('/', '-')}.arrow"
    if len(edges):
        write_shard(scratch, path, EDGE_SCHEMA, [edges], durable=False)
    largest = np.lexsort([smallest, -sizes])[:_HOT]
    band = int(key.split("/")[1])
    hot = [[int(sizes[i]), band, int(smallest[i])] for i in largest if sizes[i] > cap]
    facts = {
        "edges": path if len(edges) else None,
        "count": len(edges),
        "largest_bucket": int(sizes.max(initial=0)),
        "hot": hot,
    }
    return Report(key, facts={**facts, "hot_buckets": int((sizes > cap).sum())})


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
        | "Link" >> GroupBatches(link_bucket, (scratch, config.bucket_cap))
    )


def build_link(
    pipeline: beam.Pipeline, nodes: Nodes, this: Round, probe: Probe | None, scratch: str, config: DedupeConfig
) -> beam.PCollection:
    """Build the pipeline of one further round."""
    return (
        pipeline
        | "Index" >> beam.Create(range(len(nodes.shards)))
        | "Buckets" >> beam.FlatMap(link_shard, nodes, this, config, probe).with_output_types(Keyed)
        | "Link" >> GroupBatches(link_bucket, (scratch, config.bucket_cap))
    )


def edge_batches(reports: Iterable[Report], scratch: str) -> Iterator[pa.RecordBatch]:
    """Read the edges that `link_bucket` wrote."""
    for report in reports:
        if report.facts.get("edges"):
            yield from read_batches(files.join(scratch, report.facts["edges"]))
