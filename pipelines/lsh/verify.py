"""Verify candidates: the last pass, which compares sketches, chooses survivors, and writes ledger and clusters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa

from pipelines.core import files, ledger
from pipelines.core.dataset import LEDGER_TABLE, Dataset, shard_path, sorted_by_id, surviving_batches, survivors
from pipelines.core.grouping import GroupBatches, Keyed, batch_element, report_element
from pipelines.core.identity import id_bytes
from pipelines.core.shards import read_table, write_shard
from pipelines.core.stage import Report
from pipelines.lsh.config import DedupeConfig
from pipelines.lsh.gather import gather_heads, gather_signed
from pipelines.lsh.groups import Span
from pipelines.lsh.nodes import Nodes
from pipelines.lsh.survivors import (
    Candidates,
    Verdicts,
    decide,
    dense_buckets,
    first_of_content,
    policy_order,
    spread,
)
from pipelines.text.minhash import band_hashes
from schemas.document import DOCUMENT
from schemas.ledger import REMOVED
from schemas.signature import CLUSTER

CLUSTERS, SURVIVING = "clusters", "surviving"
EXACT, NEAR = "exact_duplicate", "near_duplicate"
_STAGE = "dedupe"


class Target(NamedTuple):
    """Where the last pass writes: the output's root, the documents, their table, and whether to materialize them."""

    root: str
    dataset: Dataset
    table: str
    materialize: bool


def verify_nodes(
    nodes: np.ndarray, component: np.ndarray, numbering: Nodes, config: DedupeConfig
) -> tuple[np.ndarray, pa.RecordBatch, Verdicts]:
    """Decide on the candidates of whole components: node numbers and index heads in the order of decision, verdicts."""
    heads = gather_heads(nodes, numbering)
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
    signed = gather_signed(nodes[unique], numbering, config.minhash.num_perm)
    bands = config.minhash.bands if config.near else 0
    hashes = band_hashes(signed.signatures, config.minhash.bands, config.minhash.rows, 0, bands)
    dense, total = dense_buckets(hashes, counts == 0)
    candidates = Candidates(dense, total, signed.values, signed.offsets, counts, fixed[unique])
    verdicts = decide(candidates, config.threshold, config.minhash.sketch_size, config.bucket_cap, within=config.within)
    return nodes, heads, spread(verdicts, unique, first, fixed, within=config.within)


def ledger_rows(heads: pa.RecordBatch, verdicts: Verdicts, config: DedupeConfig) -> tuple[pa.RecordBatch, np.ndarray]:
    """Make the ledger rows of the removed candidates, and their positions among the index heads."""
    gone = np.flatnonzero(verdicts.kept >= 0)
    rows = heads.take(pa.array(gone))
    columns = {
        **{name: rows.column(name) for name in ("id", "source", "locator")},
        "stage": _STAGE,
        "action": REMOVED,
        "reason": pa.array(np.where(verdicts.exact[gone], EXACT, NEAR)),
        "score": verdicts.similarity[gone],
        "threshold": pa.array(np.where(verdicts.exact[gone], 1.0, config.threshold)),
        "kept_id": heads.column("id").take(pa.array(verdicts.kept[gone])),
        "similarity": verdicts.similarity[gone],
        "similarity_error": verdicts.error[gone],
    }
    return ledger.rows(columns, len(gone)), gone


def cluster_rows(heads: pa.RecordBatch, verdicts: Verdicts) -> tuple[pa.RecordBatch, np.ndarray]:
    """Make the cluster rows of candidates that have a verified duplicate, and their positions among the index heads.

    Documents of an earlier run count as members, but have no row here.
    """
    roots, inverse, sizes = np.unique(verdicts.cluster, return_inverse=True, return_counts=True)
    ids = id_bytes(heads.column("id"))
    words = np.ascontiguousarray(ids).view(">u8").reshape(-1, 2)
    by_id = np.lexsort([words[:, 1], words[:, 0], inverse])
    smallest = by_id[np.searchsorted(inverse[by_id], np.arange(len(roots)))]
    own = ~heads.column("fixed").to_numpy(zero_copy_only=False)
    members = np.flatnonzero((sizes[inverse] > 1) & own)
    columns = [
        heads.column("id").take(pa.array(members)),
        heads.column("id").take(pa.array(smallest[inverse[members]])),
        pa.array(sizes[inverse[members]].astype(np.uint32)),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=CLUSTER.schema), members


def verify_task(span: Span, numbering: Nodes, scratch: str, config: DedupeConfig) -> Iterator[Keyed]:
    """Decide on the components of some rows of a groups file; yield ledger and cluster rows by shard, and a report."""
    path, first, last = span
    groups = read_table(files.join(scratch, path)).slice(first, last - first)
    nodes, heads, verdicts = verify_nodes(groups["node"].to_numpy(), groups["component"].to_numpy(), numbering, config)
    for table, (rows, where) in (
        (LEDGER_TABLE, ledger_rows(heads, verdicts, config)),
        (CLUSTERS, cluster_rows(heads, verdicts)),
    ):
        for shard, positions, _ in numbering.by_shard(nodes[where]):
            yield batch_element(f"{table}/{shard.key}", rows.take(pa.array(positions)))
    yield report_element(Report(f"verify-{path}-{first:012d}", facts={"capped_comparisons": int(verdicts.capped)}))


def write_decisions(key: str, batches: Sequence[pa.RecordBatch], target: Target, config: DedupeConfig) -> Report:
    """Write what was decided about one shard: its ledger and, where asked for, its surviving records; or its clusters.

    A ledger group also holds one batch without rows, so that a shard that loses nothing is materialized too.
    """
    table, shard = key.split("/", 1)
    options = {"compression": config.compression}
    rows = sorted_by_id(batches)
    written = [write_shard(target.root, shard_path(table, shard), rows.schema, [rows], **options)] if len(rows) else []
    if table == CLUSTERS:
        return Report(key, tuple(written))
    if target.materialize:
        gone = rows.column("id")
        kept = (survivors(b, gone) for b in surviving_batches(target.dataset, shard, table=target.table))
        path = shard_path(SURVIVING, shard)
        written.append(write_shard(target.root, path, DOCUMENT.schema, kept, text_column="text", **options))
    return Report(key, tuple(written), ledger.count({}, [rows]))


def _empty_ledger(key: str) -> Keyed:
    return batch_element(f"{LEDGER_TABLE}/{key}", ledger.rows({}, 0))


def build_verify(
    pipeline: beam.Pipeline, numbering: Nodes, target: Target, scratch: str, config: DedupeConfig, spans: Sequence[Span]
) -> beam.PCollection:
    """Build the last pipeline: verdicts, then ledger, clusters and surviving records by shard."""
    verdicts = (
        pipeline
        | "Tasks" >> beam.Create(list(spans))
        | "Verify" >> beam.FlatMap(verify_task, numbering, scratch, config).with_output_types(Keyed)
    )
    if target.materialize:
        keys = pipeline | "Keys" >> beam.Create(target.dataset.keys(target.table))
        every = keys | "EveryShard" >> beam.Map(_empty_ledger).with_output_types(Keyed)
        verdicts = (verdicts, every) | "Flatten" >> beam.Flatten()
    return verdicts | "Write" >> GroupBatches(write_decisions, (target, config))
