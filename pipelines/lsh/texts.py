"""Texts: MinHash signatures in bands; candidates share a bucket, and are verified by the Jaccard of their sketches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.core.dataset import Dataset
from pipelines.core.identity import id_bytes
from pipelines.core.kinds import TEXT
from pipelines.lsh.buckets import BUCKET_BYTES, CONTENT, star_edges
from pipelines.lsh.config import DedupeConfig
from pipelines.lsh.gather import gather_heads, gather_signed
from pipelines.lsh.method import EXACT, HEAD, NEAR, Decided, Linked, Method, Rows, refuse_both
from pipelines.lsh.nodes import IndexShard, Nodes
from pipelines.lsh.probe import Held, Probe, ProbeWriter
from pipelines.lsh.sign import ShardSigner
from pipelines.lsh.survivors import Candidates, decide, dense_buckets, first_of_content, policy_order, spread
from pipelines.text.minhash import MinHashConfig, band_hashes, band_places
from schemas.signature import signature_record

_HEADS = (*HEAD, "length", "date", "shingle_count")
_MINHASH = ("bands", "rows", "seed", "sketch_size")  # what a signature, its bands and its sketch depend on


def minhash_settings(config: dict[str, Any]) -> dict[str, Any]:
    """The settings of a configuration, as a mapping, that signatures depend on."""
    minhash = config.get("minhash", {})
    return {"shingle_size": config.get("shingle_size"), **{key: minhash.get(key) for key in _MINHASH}}


def content_hashes(index: pa.RecordBatch, column: str = "content_hash") -> np.ndarray:
    """The first 64 bits of a column of 16-byte hashes: uint64[n]."""
    return np.ascontiguousarray(id_bytes(index.column(column))).view("<u8").reshape(-1, 2)[:, 0]


def signed(index: pa.RecordBatch) -> np.ndarray:
    """The signatures of index rows: uint32[n, permutations]."""
    column = index.column("signature")
    return column.flatten().to_numpy().reshape(len(index), column.type.list_size)  # a shard may be empty


def bucket_hashes(index: pa.RecordBatch, bands: range, config: DedupeConfig) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each band and the hashes, uint64[n], of index rows in it."""
    if CONTENT in bands:
        yield CONTENT, content_hashes(index)
    first, last = max(bands.start, 0), bands.stop
    if first < last:
        minhash = config.minhash
        yield from enumerate(band_hashes(signed(index), minhash.bands, minhash.rows, first, last), first)


def shingled(index: pa.RecordBatch, taking: np.ndarray) -> np.ndarray:
    """Those that have shingles, of the rows that take part: without any a band means nothing. bool[n]."""
    return taking & (index.column("shingle_count").to_numpy() > 0)


@dataclass(frozen=True)
class TextProbe:
    """Which buckets new documents have; old ones are asked by the filters of their content and of their bands."""

    filters: Probe
    minhash: MinHashConfig

    def entries(self, shard: Rows, bands: range) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yield the band hashes of those documents that may share a bucket with a new one."""
        near = range(max(bands.start, 0), bands.stop)
        places = band_places(self.minhash.bands, self.minhash.rows, near.start, near.stop)
        parts = list(shard.parts())
        held = Held(near, places, sum(len(index) for index, *_ in parts))
        for index, start, taking in parts:
            if CONTENT in bands:
                hashes = content_hashes(index)
                rows = np.flatnonzero(taking & self.filters.may_hold(CONTENT, hashes))
                yield CONTENT, hashes[rows], start + rows
            if near and len(index):
                self.filters.collect(signed(index), shingled(index, taking), start, held)
        yield from held


class Texts(Method):
    """Documents."""

    kind = TEXT
    measured = TEXT.table
    reasons = (EXACT, NEAR)
    counted = ("dated", "capped_comparisons")

    def signing(self, config: dict[str, Any]) -> dict[str, Any]:
        """The size of shingles, and what the signatures were made with."""
        return minhash_settings(config)

    def check_index(self, schema: pa.Schema, where: str) -> None:
        """Raise SchemaError where an index is not one of signatures."""
        signature_record(1).check_version(schema, where)

    def bands(self, config: DedupeConfig) -> int:
        """The bands of the signatures, of all cuts."""
        return config.minhash.all_bands if config.near else 0

    def bucket_bytes(self, config: DedupeConfig) -> int:
        """A hash and a node."""
        return BUCKET_BYTES

    def signer(self, dataset: Dataset, key: str, table: str, root: str, config: DedupeConfig) -> ShardSigner:
        """Make the signer of one shard."""
        return ShardSigner(dataset, key, table, root, config)

    def entries(
        self, index: pa.RecordBatch, start: int, here: np.ndarray, bands: range, config: DedupeConfig
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yield the band hashes of documents."""
        for band, hashes in bucket_hashes(index, bands, config):
            rows = np.flatnonzero(here if band == CONTENT else shingled(index, here))
            yield band, hashes[rows], start + rows

    def link(
        self, band: int, hashes: np.ndarray, entries: np.ndarray, numbering: Nodes, config: DedupeConfig
    ) -> Linked:
        """Join each bucket to its smallest node."""
        return Linked(*star_edges(hashes, entries), {})

    def probe(self, shards: Sequence[IndexShard], config: DedupeConfig, scratch: str) -> TextProbe:
        """Collect the buckets of all bands."""
        near = range(self.bands(config))
        places = band_places(config.minhash.bands, config.minhash.rows, near.start, near.stop)
        writer = ProbeWriter(sum(shard.rows for shard in shards), range(CONTENT, near.stop))
        for shard in shards:
            reader = shard.open()
            for i in range(reader.num_record_batches):
                index = reader.get_batch(i)
                writer.add(CONTENT, content_hashes(index))
                writer.add_signed(signed(index), near, places)
        return TextProbe(writer.write(scratch), config.minhash)

    def decide(self, nodes: np.ndarray, component: np.ndarray, numbering: Nodes, config: DedupeConfig) -> Decided:
        """Decide by the Jaccard similarity of sketches, in the order of the survivor policy."""
        heads = gather_heads(nodes, numbering, _HEADS)
        refuse_both(heads)
        columns = {
            "id": heads.column("id"),
            "source": heads.column("source"),
            "length": heads.column("length").to_numpy(),
            "date": heads.column("date").cast(pa.float64()).to_numpy(zero_copy_only=False),
            "fixed": heads.column("fixed").to_numpy(zero_copy_only=False),
        }
        order = policy_order(columns, config.survivor, config.sources, component)
        heads, nodes, fixed = heads.take(pa.array(order)), nodes[order], columns["fixed"][order]
        first = first_of_content(component[order], heads.column("content_hash"))
        unique = np.flatnonzero(first == np.arange(len(first)))
        counts = heads.column("shingle_count").to_numpy()[unique]
        gathered = gather_signed(nodes[unique], numbering, config.minhash.num_perm)
        bands = self.bands(config)
        hashes = band_hashes(gathered.signatures, config.minhash.bands, config.minhash.rows, 0, bands)
        dense, total = dense_buckets(hashes, counts == 0)
        candidates = Candidates(dense, total, gathered.values, gathered.offsets, counts, fixed[unique])
        size, cap = config.minhash.sketch_size, config.bucket_cap
        some = decide(candidates, config.threshold, size, cap, within=config.within)
        verdicts = spread(some, unique, first, fixed, within=config.within)
        reason = np.where(verdicts.exact, self.reasons.index(EXACT), self.reasons.index(NEAR)).astype(np.uint8)
        return Decided(
            nodes, heads, verdicts.kept, reason, verdicts.similarity, verdicts.error, verdicts.cluster, verdicts.capped
        )

    def thresholds(self, config: DedupeConfig) -> tuple[float, ...]:
        """1 for an exact copy."""
        return 1.0, config.threshold

    def notes(self, facts: dict[str, Any], config: DedupeConfig) -> list[str]:
        """How dates were read, how large buckets were, and what the bands can find."""
        notes = []
        if config.date_field:
            notes.append(f"{config.date_field!r} is a date in {facts['dated']:,} records")
        if config.near:
            notes.append(
                f"largest bucket {facts['largest_bucket']:,}; {facts['hot_buckets']:,} of more than "
                f"{config.bucket_cap:,}, comparisons that the cap left out {facts['capped_comparisons']:,}"
            )
            minhash = config.minhash
            reach = {max(config.threshold, 0.01), 0.8, 0.9}
            found = ", ".join(f"{s:.2f}: {_percent(minhash.s_curve(s))}" for s in sorted(reach))
            cut = ", cut twice," if minhash.all_bands > minhash.bands else ""
            notes.append(
                f"{minhash.bands} × {minhash.rows} bands{cut} compare this share of the pairs of a similarity: {found}"
            )
        return notes


def _percent(share: float) -> str:
    return f"{share:.0%}" if share < 0.995 else f"{share:.2%}"
