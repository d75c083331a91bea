"""Verify candidates: the last pass, which compares them, chooses survivors, and writes ledger and clusters."""

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
from pipelines.core.shards import read_batches, read_table, take_rows, write_shard
from pipelines.core.stage import Report
from pipelines.lsh.config import DedupeConfig
from pipelines.lsh.groups import Span, Task
from pipelines.lsh.method import Decided, Method
from pipelines.lsh.methods import method_of
from pipelines.lsh.nodes import Nodes
from schemas.document import ID
from schemas.ledger import REMOVED
from schemas.signature import CLUSTER

CLUSTERS, SURVIVING = "clusters", "surviving"
VERDICT_BYTES = 62  # of one row of VERDICT_SCHEMA
_STAGE = "dedupe"
VERDICT_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), False),
        pa.field("kept_id", ID),  # null: it is kept
        pa.field("reason", pa.uint8(), False),  # see Method.reasons
        pa.field("similarity", pa.float64(), False),
        pa.field("similarity_error", pa.float64(), False),
        pa.field("cluster_id", ID, False),
        pa.field("cluster_size", pa.uint32(), False),
    ]
)


class Target(NamedTuple):
    """Where the last pass writes: the output's root, the records, their table, and whether to materialize them."""

    root: str
    dataset: Dataset
    table: str
    materialize: bool


def verdict_rows(decided: Decided, numbering: Nodes) -> Iterator[Keyed]:
    """Yield, for each shard of this run, what was decided about its rows: those removed, and those of a cluster."""
    roots, inverse, sizes = np.unique(decided.cluster, return_inverse=True, return_counts=True)
    words = np.ascontiguousarray(id_bytes(decided.heads.column("id"))).view(">u8").reshape(-1, 2)
    by_id = np.lexsort([words[:, 1], words[:, 0], inverse])
    smallest = by_id[np.searchsorted(inverse[by_id], np.arange(len(roots)))]
    own = ~decided.heads.column("fixed").to_numpy(zero_copy_only=False)
    told = np.flatnonzero((sizes[inverse] > 1) & own)  # whoever is removed is in the cluster of its twin
    ids, kept = decided.heads.column("id"), decided.kept[told]
    columns = [
        ids.take(pa.array(kept, mask=kept < 0)),
        pa.array(decided.reason[told]),
        pa.array(decided.similarity[told]),
        pa.array(decided.error[told]),
        ids.take(pa.array(smallest[inverse[told]])),
        pa.array(sizes[inverse[told]].astype(np.uint32)),
    ]
    for shard, positions, rows in numbering.by_shard(decided.nodes[told]):
        part = [pa.array(rows), *(column.take(pa.array(positions)) for column in columns)]
        yield batch_element(f"verdicts/{shard.key}", pa.RecordBatch.from_arrays(part, schema=VERDICT_SCHEMA))


def verify_task(task: Task, numbering: Nodes, scratch: str, config: DedupeConfig) -> Iterator[Keyed]:
    """Decide on the components of some spans; yield verdicts by shard, and reports."""
    numbering = numbering.kept_open()
    for span in task:
        yield from verify_span(span, numbering, scratch, config)


def verify_span(span: Span, numbering: Nodes, scratch: str, config: DedupeConfig) -> Iterator[Keyed]:
    """Decide on the components of some rows of a groups file; yield verdicts by shard, and a report."""
    path, first, last, _ = span
    groups = read_table(files.join(scratch, path)).slice(first, last - first)
    decided = method_of(numbering).decide(groups["node"].to_numpy(), groups["component"].to_numpy(), numbering, config)
    yield from verdict_rows(decided, numbering)
    yield report_element(Report(f"verify-{path}-{first:012d}", facts={"capped_comparisons": int(decided.capped)}))


def decision_tables(
    verdicts: pa.RecordBatch, heads: pa.RecordBatch, method: Method, config: DedupeConfig
) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """Make the ledger rows and the cluster rows of one shard, sorted by id, from its verdicts and their index rows."""
    clusters = pa.RecordBatch.from_arrays(
        [heads.column("id"), verdicts.column("cluster_id"), verdicts.column("cluster_size")], schema=CLUSTER.schema
    )
    gone = verdicts.column("kept_id").is_valid()
    rows, of = verdicts.filter(gone), heads.filter(gone)
    reason, similarity = rows.column("reason"), rows.column("similarity")
    columns = {
        **{name: of.column(name) for name in ("id", "source", "locator")},
        "stage": _STAGE,
        "action": REMOVED,
        "reason": pa.array(method.reasons).take(reason),
        "score": similarity,
        "threshold": pa.array(method.thresholds(config), pa.float64()).take(reason),
        "kept_id": rows.column("kept_id"),
        "similarity": similarity,
        "similarity_error": rows.column("similarity_error"),
    }
    return sorted_by_id([ledger.rows(columns, len(rows))]), sorted_by_id([clusters])


def write_decisions(
    key: str, batches: Sequence[pa.RecordBatch], numbering: Nodes, target: Target, config: DedupeConfig
) -> Report:
    """Write what was decided about one shard: ledger, clusters and, where asked for, its surviving records.

    Sources and locators are read again from the index, so that no text of a record crosses the shuffle.
    """
    name = key.split("/", 1)[1]
    verdicts = pa.concat_batches(batches)
    (shard,) = (one for one in numbering.shards if one.key == name and not one.fixed)
    heads = take_rows(shard.open(), verdicts.column("row").to_numpy(), ["id", "source", "locator"])
    method = method_of(numbering)
    gone, clusters = decision_tables(verdicts, heads, method, config)
    options = {"compression": config.compression}
    written = [
        write_shard(target.root, shard_path(table, name), rows.schema, [rows], **options)
        for table, rows in ((LEDGER_TABLE, gone), (CLUSTERS, clusters))
        if len(rows)
    ]
    if target.materialize:
        ids = gone.column("id")
        kept = (survivors(b, ids) for b in surviving_batches(target.dataset, name, table=target.table))
        path = shard_path(SURVIVING, name)
        kind = method.kind
        written.append(write_shard(target.root, path, kind.record.schema, kept, text_column=kind.content, **options))
    return Report(key, tuple(written), ledger.count({}, [gone]))


def _no_verdicts(key: str) -> Keyed:
    nothing = pa.RecordBatch.from_arrays([pa.array([], f.type) for f in VERDICT_SCHEMA], schema=VERDICT_SCHEMA)
    return batch_element(f"verdicts/{key}", nothing)


def build_verify(
    pipeline: beam.Pipeline, numbering: Nodes, target: Target, scratch: str, config: DedupeConfig, tasks: Sequence[Task]
) -> beam.PCollection:
    """Build the last pipeline: verdicts, then ledger, clusters and surviving records by shard."""
    verdicts = (
        pipeline
        | "Tasks" >> beam.Create(list(tasks))
        | "Verify" >> beam.FlatMap(verify_task, numbering, scratch, config).with_output_types(Keyed)
    )
    if target.materialize:
        keys = pipeline | "Keys" >> beam.Create(target.dataset.keys(target.table))
        every = keys | "EveryShard" >> beam.Map(_no_verdicts).with_output_types(Keyed)
        verdicts = (verdicts, every) | "Flatten" >> beam.Flatten()
    return verdicts | "Write" >> GroupBatches(write_decisions, (numbering, target, config))


# --- the same through files, where the verdicts of all shards are more than the memory for a shuffle ------------------


def store_verdicts(task: Task, numbering: Nodes, scratch: str, config: DedupeConfig) -> Iterator[Report]:
    """Decide on the components of some spans, and write the verdicts of each shard to scratch."""
    numbering = numbering.kept_open()
    for span in task:
        yield _store_span(span, numbering, scratch, config)


def _store_span(span: Span, numbering: Nodes, scratch: str, config: DedupeConfig) -> Report:
    stored, facts = {}, {}
    for key, (report, batch) in verify_span(span, numbering, scratch, config):
        if report:
            facts = dict(Report.from_json(report).facts)
        else:
            shard = key.split("/", 1)[1]
            stored[shard] = f"verdicts/{shard}/{span[0].replace('/', '-')}-{span[1]:012d}.arrow"
            write_shard(scratch, stored[shard], VERDICT_SCHEMA, [batch], durable=False)
    return Report(f"{span[0]}-{span[1]:012d}", facts={**facts, "verdicts": stored})


def build_store(
    pipeline: beam.Pipeline, numbering: Nodes, scratch: str, config: DedupeConfig, tasks: Sequence[Task]
) -> beam.PCollection:
    """Build the pipeline that only decides."""
    return (
        pipeline
        | "Tasks" >> beam.Create(list(tasks))
        | "Verify" >> beam.FlatMap(store_verdicts, numbering, scratch, config).with_output_types(Report)
    )


def write_stored(
    key: str, stored: dict[str, list[str]], numbering: Nodes, target: Target, scratch: str, config: DedupeConfig
) -> Report:
    """Write what was decided about one shard, from the verdicts in scratch."""
    name, (_, nothing) = _no_verdicts(key)
    batches = [batch for path in stored.get(key, ()) for batch in read_batches(files.join(scratch, path))]
    return write_decisions(name, [nothing, *batches], numbering, target, config)


def build_write(
    pipeline: beam.Pipeline,
    stored: dict[str, list[str]],
    numbering: Nodes,
    target: Target,
    scratch: str,
    config: DedupeConfig,
) -> beam.PCollection:
    """Build the pipeline that writes ledger, clusters and surviving records from stored verdicts."""
    keys = target.dataset.keys(target.table) if target.materialize else sorted(stored)
    write = beam.Map(write_stored, stored, numbering, target, scratch, config).with_output_types(Report)
    return pipeline | "Keys" >> beam.Create(keys) | "Write" >> write
