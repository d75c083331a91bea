"""Deduplicate documents: exact by content, near by MinHash LSH, every removal verified against the record it names.

    python -m pipelines.dedupe --input data/clean --output data/dedupe --config params.yaml [--materialize]

Three passes. `sign` writes the index (signature and sketch per document) and groups band hashes; buckets become star
edges. Their connected components are found in the driver. `verify` decides inside each component and writes ledger and
clusters. Only hashes, node numbers and ledger rows cross a shuffle.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core import buckets, files, ledger, progress
from pipelines.core.cli import StageCommand
from pipelines.core.components import components
from pipelines.core.dataset import (
    DOCUMENTS,
    LEDGER_TABLE,
    Dataset,
    shard_path,
    sorted_by_id,
    surviving_batches,
    survivors,
)
from pipelines.core.grouping import GroupBatches, Keyed, batch_element, report_element
from pipelines.core.identity import id_bytes
from pipelines.core.runners import RunOptions
from pipelines.core.shards import ShardWriter, open_shard, read_batches, read_table, take_rows, write_shard
from pipelines.core.stage import Report, StageRun, begin
from pipelines.core.summary import print_summary
from pipelines.core.survivors import POLICIES, Candidates, Verdicts, decide, dense_buckets, policy_order
from pipelines.text.dates import epoch_seconds
from pipelines.text.minhash import MinHashConfig, band_hashes, s_curve, signatures, sketches
from pipelines.text.shingles import shingle_hashes
from schemas.document import DOCUMENT
from schemas.ledger import REMOVED
from schemas.signature import CLUSTER, signature_record

STAGE = "dedupe"
INDEX, CLUSTERS, SURVIVING = "index", "clusters", "surviving"
EXACT, NEAR = "exact_duplicate", "near_duplicate"
_GROUP_SCHEMA = pa.schema([pa.field("component", pa.int64(), False), pa.field("node", pa.int64(), False)])
_GROUPS_PATH = "groups.arrow"
_BUCKET_BYTES = 64 << 20  # of (hash, node) pairs in one group of the shuffle
_TASK_NODES = 20_000  # candidates that one verifying task takes, unless one component is larger


@dataclass(frozen=True)
class DedupeConfig:
    """What counts as a duplicate, and which one of them stays.

    near: find near-duplicates too; else exact ones only. threshold: least Jaccard similarity of the shingle sets for a
    removal. shingle_size: tokens per shingle. survivor: the policy, see `pipelines.core.survivors.policy_order`.
    sources: names in the order of their priority, for the policy 'source'. date_field: metadata field for the policy
    'date' (ISO 8601). bucket_cap: most kept documents of one bucket that a document is compared with.
    """

    near: bool = True
    threshold: float = 0.7
    shingle_size: int = 5
    minhash: MinHashConfig = field(default_factory=MinHashConfig)
    survivor: tuple[str, ...] = ("source", "length", "date")
    sources: tuple[str, ...] = ()
    date_field: str | None = None
    bucket_cap: int = 1000
    compression: str | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for what would otherwise show only after the first pass, or never."""
        if not 0 < self.threshold <= 1:
            raise ValueError(f"threshold is a similarity above 0 and at most 1; got {self.threshold}")
        if min(self.shingle_size, self.bucket_cap) < 1:
            raise ValueError("shingle_size and bucket_cap are at least 1")
        if unknown := set(self.survivor) - set(POLICIES):
            raise ValueError(f"unknown survivor policy {sorted(unknown)[0]!r}; known: {', '.join(POLICIES)}")


# --- sign: documents → index, buckets ---------------------------------------------------------------------------------


def sign_batch(batch: pa.RecordBatch, config: DedupeConfig) -> pa.RecordBatch:
    """Make the index rows of a batch of documents."""
    texts, minhash = batch.column("text"), config.minhash
    hashes, offsets = shingle_hashes(texts, config.shingle_size)
    signed = signatures(hashes, offsets, minhash.num_perm, minhash.seed)
    values, borders = sketches(hashes, offsets, minhash.sketch_size)
    schema = signature_record(minhash.num_perm).schema
    signature, sketch = schema.field("signature").type, schema.field("sketch").type
    columns = {
        **{name: batch.column(name) for name in ("id", "source", "locator", "content_hash")},
        "length": pc.utf8_length(texts).cast(pa.uint32()),
        "date": epoch_seconds(batch.column("metadata"), config.date_field),
        "shingle_count": pa.array(np.diff(offsets).astype(np.uint32)),
        "signature": pa.FixedSizeListArray.from_arrays(pa.array(signed.reshape(-1)), type=signature),
        "sketch": pa.ListArray.from_arrays(pa.array(borders.astype(np.int32)), pa.array(values), type=sketch),
    }
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def bucket_hashes(index: pa.RecordBatch, config: DedupeConfig) -> tuple[np.ndarray, np.ndarray]:
    """Band hashes of index rows, uint64[bands, n], and bool[n] of rows without shingles, whose bands mean nothing."""
    minhash = config.minhash
    signed = index.column("signature").flatten().to_numpy().reshape(len(index), minhash.num_perm)
    bands = minhash.bands if config.near else 0
    return band_hashes(signed, minhash.bands, minhash.rows)[:bands], index.column("shingle_count").to_numpy() == 0


def sign_shard(
    task: tuple[int, str], dataset: Dataset, root: str, config: DedupeConfig, ranges: int
) -> Iterator[Keyed]:
    """Write the index of one shard; yield its buckets by band and hash range, and a report.

    Band -1 is the content hash: an exact duplicate is one more way to be a candidate.
    """
    number, key = task
    schema = signature_record(config.minhash.num_perm).schema
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    books = []
    with ShardWriter(root, shard_path(INDEX, key), schema, compression=config.compression) as writer:
        for batch in surviving_batches(dataset, key):
            index = sign_batch(batch, config)
            hashes, empty = bucket_hashes(index, config)
            content = np.ascontiguousarray(id_bytes(index.column("content_hash"))).view("<u8").reshape(-1, 2)[:, 0]
            nodes = buckets.node_numbers(number, writer.rows + np.arange(len(index)))
            parts += [(np.full(len(nodes), -1), content, nodes)]
            parts += [
                (np.full(int((~empty).sum()), band), row[~empty], nodes[~empty]) for band, row in enumerate(hashes)
            ]
            writer.write(index)
            books.append(ledger.count(ledger.by_source(batch), []))
            progress.advance(len(batch), batch.column("text").nbytes)
    if parts:
        band, hashes, nodes = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        for one in np.unique(band):
            for i, part in buckets.cut_by_range(hashes[band == one], nodes[band == one], ranges):
                yield batch_element(f"bucket/{one}/{i}", part)
    assert writer.shard is not None
    yield report_element(Report(key, (writer.shard,), ledger.add(books)))


def link_bucket(key: str, batches: Sequence[pa.RecordBatch], scratch: str) -> Report:
    """Write the star edges of one (band, range)."""
    edges, largest = buckets.star_edges(batches)
    name = key.replace("/", "-")
    write_shard(scratch, f"edges/{name}.arrow", buckets.EDGE_SCHEMA, [edges])
    return Report(key, facts={"edges": f"edges/{name}.arrow", "largest_bucket": largest})


def build_sign(
    pipeline: beam.Pipeline, dataset: Dataset, root: str, scratch: str, config: DedupeConfig
) -> beam.PCollection:
    """Build the first pipeline: index, then candidate edges."""
    rows = sum(shard.rows for shard in dataset.of(DOCUMENTS))
    ranges = 1 + rows * 16 // _BUCKET_BYTES
    return (
        pipeline
        | "Shards" >> beam.Create(list(enumerate(dataset.keys(DOCUMENTS))))
        | "Sign" >> beam.FlatMap(sign_shard, dataset, root, config, ranges).with_output_types(Keyed)
        | "Link" >> GroupBatches(link_bucket, (scratch,))
    )


# --- between: connected components in the driver ----------------------------------------------------------------------


def group_candidates(edge_paths: Iterable[str], scratch: str) -> list[tuple[int, int]]:
    """Find the components of all edges and write their nodes, grouped; returns the row ranges of verifying tasks."""
    batches = [batch for path in edge_paths for batch in read_batches(path)]
    if not sum(len(batch) for batch in batches):
        return []
    left = np.concatenate([batch.column("left").to_numpy() for batch in batches])
    right = np.concatenate([batch.column("right").to_numpy() for batch in batches])
    nodes, labels = components(left, right)
    order = np.lexsort([nodes, labels])
    nodes, labels = nodes[order], labels[order]
    rows = pa.RecordBatch.from_arrays([pa.array(labels), pa.array(nodes)], schema=_GROUP_SCHEMA)
    write_shard(scratch, _GROUPS_PATH, _GROUP_SCHEMA, [rows])
    borders = np.append(np.flatnonzero(np.concatenate([[True], labels[1:] != labels[:-1]])), len(labels))
    cuts = [0]
    for border in borders[1:].tolist():
        if border - cuts[-1] >= _TASK_NODES or border == len(labels):
            cuts.append(border)
    return list(itertools.pairwise(cuts))


# --- verify: candidates → ledger, clusters ----------------------------------------------------------------------------


def gather(nodes: np.ndarray, keys: Sequence[str], root: str, columns: list[str]) -> pa.RecordBatch:
    """Read the index rows of node numbers, in their order."""
    order = np.lexsort([buckets.node_row(nodes), buckets.node_shard(nodes)])
    shard, row = buckets.node_shard(nodes)[order], buckets.node_row(nodes)[order]
    parts = []
    for number in np.unique(shard):
        reader = open_shard(files.join(root, shard_path(INDEX, keys[number])))
        parts.append(take_rows(reader, row[shard == number], columns))
    inverse = np.empty_like(order)
    inverse[order] = np.arange(len(order))
    return pa.concat_batches(parts).take(pa.array(inverse))


def verify_rows(index: pa.RecordBatch, component: np.ndarray, config: DedupeConfig) -> tuple[pa.RecordBatch, Verdicts]:
    """Decide on candidates; returns their index rows in the order of decision, and the verdicts on them."""
    numbers = {
        "length": index.column("length").to_numpy(),
        "date": index.column("date").cast(pa.float64()).to_numpy(zero_copy_only=False),
    }
    columns = {"id": index.column("id"), "source": index.column("source"), **numbers}
    order = policy_order(columns, config.survivor, config.sources, component)
    index, component = index.take(pa.array(order)), component[order]
    hashes, empty = bucket_hashes(index, config)
    dense, total = dense_buckets(hashes, index.column("content_hash"), empty)
    sketch = index.column("sketch")
    candidates = Candidates(
        component,
        dense,
        total,
        sketch.values.to_numpy(),
        sketch.offsets.to_numpy().astype(np.int64),
        index.column("shingle_count").to_numpy(),
    )
    return index, decide(candidates, config.threshold, config.minhash.sketch_size, config.bucket_cap)


def ledger_rows(index: pa.RecordBatch, verdicts: Verdicts, config: DedupeConfig) -> tuple[pa.RecordBatch, np.ndarray]:
    """Make the ledger rows of the removed candidates, and their positions among the index rows."""
    gone = np.flatnonzero(verdicts.kept >= 0)
    rows = index.take(pa.array(gone))
    columns = {
        **{name: rows.column(name) for name in ("id", "source", "locator")},
        "stage": STAGE,
        "action": REMOVED,
        "reason": pa.array(np.where(verdicts.exact[gone], EXACT, NEAR)),
        "score": verdicts.similarity[gone],
        "threshold": pa.array(np.where(verdicts.exact[gone], 1.0, config.threshold)),
        "kept_id": index.column("id").take(pa.array(verdicts.kept[gone])),
        "similarity": verdicts.similarity[gone],
        "similarity_error": verdicts.error[gone],
    }
    return ledger.rows(columns, len(gone)), gone


def cluster_rows(index: pa.RecordBatch, verdicts: Verdicts) -> tuple[pa.RecordBatch, np.ndarray]:
    """Make the cluster rows of candidates that have a verified duplicate, and their positions among the index rows."""
    roots, inverse, sizes = np.unique(verdicts.cluster, return_inverse=True, return_counts=True)
    ids = id_bytes(index.column("id"))
    words = np.ascontiguousarray(ids).view(">u8").reshape(-1, 2)
    by_id = np.lexsort([words[:, 1], words[:, 0], inverse])
    smallest = by_id[np.searchsorted(inverse[by_id], np.arange(len(roots)))]
    members = np.flatnonzero(sizes[inverse] > 1)
    columns = [
        index.column("id").take(pa.array(members)),
        index.column("id").take(pa.array(smallest[inverse[members]])),
        pa.array(sizes[inverse[members]].astype(np.uint32)),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=CLUSTER.schema), members


def verify_task(
    span: tuple[int, int], keys: Sequence[str], root: str, scratch: str, config: DedupeConfig
) -> Iterator[Keyed]:
    """Decide on the components of some rows of the groups file; yield ledger and cluster rows by shard."""
    groups = read_table(files.join(scratch, _GROUPS_PATH)).slice(span[0], span[1] - span[0])
    nodes, component = groups["node"].to_numpy(), groups["component"].to_numpy()
    columns = signature_record(config.minhash.num_perm).schema.names
    position = pa.array(nodes)
    index = gather(nodes, keys, root, columns).append_column("node", position)
    index, verdicts = verify_rows(index, component, config)
    shard = buckets.node_shard(index.column("node").to_numpy())
    for table, (rows, where) in (
        (LEDGER_TABLE, ledger_rows(index, verdicts, config)),
        (CLUSTERS, cluster_rows(index, verdicts)),
    ):
        for number in np.unique(shard[where]):
            yield batch_element(f"{table}/{keys[number]}", rows.filter(pa.array(shard[where] == number)))
    facts = {"capped_comparisons": int(verdicts.capped)}
    yield report_element(Report(f"verify-{span[0]:012d}", facts=facts))


def write_decisions(key: str, batches: Sequence[pa.RecordBatch], root: str, config: DedupeConfig) -> Report:
    """Write the ledger or cluster shard of one document shard, sorted by id."""
    table, shard = key.split("/", 1)
    rows = sorted_by_id(batches)
    written = write_shard(root, shard_path(table, shard), rows.schema, [rows], compression=config.compression)
    books = ledger.count({}, [rows]) if table == LEDGER_TABLE else {}
    return Report(key, (written,), books)


def build_verify(
    pipeline: beam.Pipeline,
    dataset: Dataset,
    root: str,
    scratch: str,
    config: DedupeConfig,
    spans: list[tuple[int, int]],
) -> beam.PCollection:
    """Build the second pipeline: verdicts, then ledger and clusters by shard."""
    keys = dataset.keys(DOCUMENTS)
    return (
        pipeline
        | "Tasks" >> beam.Create(spans)
        | "Verify" >> beam.FlatMap(verify_task, keys, root, scratch, config).with_output_types(Keyed)
        | "Write" >> GroupBatches(write_decisions, (root, config))
    )


# --- materialize: the surviving records -------------------------------------------------------------------------------


def materialize_shard(
    key: str, dataset: Dataset, root: str, ledger_shards: frozenset[str], config: DedupeConfig
) -> Report:
    """Write the records of one shard that survive."""
    path = shard_path(LEDGER_TABLE, key)
    gone = pa.array([], pa.binary(16))
    if path in ledger_shards:
        gone = read_table(files.join(root, path), ["id"])["id"].combine_chunks()
    kept = (survivors(batch, gone) for batch in surviving_batches(dataset, key))
    target = shard_path(SURVIVING, key)
    shard = write_shard(root, target, DOCUMENT.schema, kept, text_column="text", compression=config.compression)
    return Report(key, (shard,))


# --- the stage --------------------------------------------------------------------------------------------------------


def _pipelines(stage: StageRun, dataset: Dataset, config: DedupeConfig, materialize: bool) -> list[Report]:
    root, scratch = stage.root, stage.scratch("dedupe")
    size = dataset.content_bytes()
    reports = stage.pipeline("sign", lambda p: build_sign(p, dataset, root, scratch, config), size)
    paths = [files.join(scratch, r.facts["edges"]) for r in reports if "edges" in r.facts]
    spans = group_candidates(paths, scratch)
    if spans:
        reports += stage.pipeline("verify", lambda p: build_verify(p, dataset, root, scratch, config, spans))
    if materialize:
        written = frozenset(shard.path for report in reports for shard in report.shards)

        def build(pipeline: beam.Pipeline) -> beam.PCollection:
            return (
                pipeline
                | "Keys" >> beam.Create(dataset.keys(DOCUMENTS))
                | "Materialize" >> beam.Map(materialize_shard, dataset, root, written, config).with_output_types(Report)
            )

        reports += stage.pipeline("materialize", build)
    return reports


def run(
    inputs: Sequence[str], output: str, config: DedupeConfig, options: RunOptions, materialize: bool = False
) -> None:
    """Deduplicate dataset directories into `output` and print the summary."""
    dataset = Dataset.open(*inputs).require(DOCUMENTS)
    with begin(STAGE, output, config, options, [dataset]) as stage:
        reports = _pipelines(stage, dataset, config, materialize)
        facts = {
            "largest_bucket": max((r.facts.get("largest_bucket", 0) for r in reports), default=0),
            "capped_comparisons": sum(r.facts.get("capped_comparisons", 0) for r in reports),
        }
        stage.commit(reports, inputs=[dataset], kept_tables=[SURVIVING] if materialize else [], facts=facts)
    notes = [
        f"largest bucket {facts['largest_bucket']:,}, comparisons left out by the cap {facts['capped_comparisons']:,}"
    ]
    if config.near:
        bands, rows = config.minhash.bands, config.minhash.rows
        reach = {max(config.threshold, 0.01), 0.8, 0.9}
        found = ", ".join(f"{s:.2f}: {s_curve(s, bands, rows):.0%}" for s in sorted(reach))
        notes.append(f"{bands} × {rows} bands compare this share of the pairs of a similarity: {found}")
    notes.append(
        "surviving/ holds the kept records"
        if materialize
        else "ledger/ names each removed record, its kept twin and their similarity; `gristmill shard` applies it "
        "(--materialize writes the kept records here)"
    )
    print_summary(stage, tuple(notes))


COMMAND = StageCommand(
    STAGE,
    """
    Remove exact and near duplicates.
    Writes index/ (MinHash signatures that datasketch can query), clusters/ and ledger/ (who is removed, for which kept
    record, at what measured similarity).
    """,
    DedupeConfig,
    materialize=True,
    corpora=True,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""

    def body(args: argparse.Namespace, config: DedupeConfig, options: RunOptions) -> None:
        run(args.input, args.output, config, options, args.materialize)

    return COMMAND.main(argv, body)


if __name__ == "__main__":
    from pipelines import dedupe  # by its name: workers import functions from there, and have another __main__

    sys.exit(dedupe.main())
