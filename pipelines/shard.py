"""Apply all decisions in one pass over the records, and write shuffled, split, even shards.

    python -m pipelines.shard --input data/clean --decisions data/dedupe --output data/shards --config params.yaml

The plan (which record goes where, in which order) is made of ids and sizes and crosses the shuffle; texts and images
are read again from their shard, where they are written. The order is a function of (seed, id): it does not depend on
how the input is sharded.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core import card, files, ledger, progress
from pipelines.core.cli import StageCommand
from pipelines.core.config import ConfigError
from pipelines.core.dataset import DOCUMENTS, LEDGER_TABLE, Dataset, expand, shard_path, sorted_by_id, survivors
from pipelines.core.grouping import GroupBatches, Keyed, batch_element, report_element
from pipelines.core.identity import id_bytes, mixed64
from pipelines.core.kinds import IMAGE_KIND, Kind, kind_of
from pipelines.core.runners import RunOptions
from pipelines.core.shards import BATCH_BYTES, ShardWriter, take_rows, write_shard
from pipelines.core.stage import Report, begin
from pipelines.core.summary import print_summary
from schemas.base import SchemaError
from schemas.image import IMAGES, THUMBNAILS
from schemas.ledger import LEDGER, REMOVED

STAGE = "shard"
SAMPLED_OUT = "sampled_out"
_PLAN_SCHEMA = pa.schema(
    [
        pa.field("order", pa.uint64(), False),
        pa.field("shard", pa.uint32(), False),
        pa.field("row", pa.uint32(), False),
    ]
)
_GATHER_BYTES = 32 << 20  # of content that a writer holds at a time
_ROW_BYTES = 200  # of a record's other columns, about
_FULL = 2.0**64
# tables of other stages
_RESERVED = (DOCUMENTS, IMAGES, THUMBNAILS, LEDGER_TABLE, "signals", "index", "clusters", "surviving")


@dataclass(frozen=True)
class ShardConfig:
    """How the surviving records become a dataset.

    seed: of the order, the splits and the sampling. shard_bytes: bytes of text or images that a shard aims at.
    splits: share of each split; records of one cluster of near-duplicates fall on one side. weights: by source; 0.5
    keeps half of the records (by hash of the id), 2 writes each of them twice, in the first split (the others hold a
    record once); sources that are not named have weight 1.
    """

    seed: int = 0
    shard_bytes: int = 256 << 20
    splits: dict[str, float] = field(default_factory=lambda: {"train": 0.98, "validation": 0.01, "test": 0.01})
    weights: dict[str, float] = field(default_factory=dict)
    title: str = "Prepared corpus"

    def __post_init__(self) -> None:
        if not self.splits or not abs(sum(self.splits.values()) - 1) < 1e-6 or min(self.splits.values()) < 0:
            raise ConfigError(f"splits must be shares that add up to 1, not {self.splits}")
        if any(not name.isidentifier() or name[0] == "_" or name in _RESERVED for name in self.splits):
            raise ConfigError(f"splits must be plain names, none of them {', '.join(_RESERVED)}: {list(self.splits)}")
        if self.shard_bytes < 1:
            raise ConfigError(f"shard_bytes must be at least 1, not {self.shard_bytes}")
        if any(not 0 <= weight < math.inf for weight in self.weights.values()):
            raise ConfigError(f"weights must not be negative or without end: {self.weights}")


# --- the plan: pure functions over ids --------------------------------------------------------------------------------


def split_numbers(keys: np.ndarray, config: ShardConfig) -> np.ndarray:
    """Choose a split for each key (cluster id or own id, uint8[n, 16]): int64[n], position in config.splits."""
    borders = np.cumsum(list(config.splits.values()))[:-1]
    return np.searchsorted(borders, mixed64(keys, f"split {config.seed}") / _FULL, side="right")


def copies(ids: np.ndarray, weights: np.ndarray, config: ShardConfig) -> np.ndarray:
    """How often each record is written: int64[n]; the fraction of its weight decides by hash of the id."""
    whole = np.floor(weights)
    extra = mixed64(ids, f"weight {config.seed}") / _FULL < weights - whole
    return (whole + extra).astype(np.int64)


def shard_counts(content_bytes: int, config: ShardConfig) -> dict[str, int]:
    """Number of shards per split, from the bytes of content that are expected to survive."""
    return {
        split: max(1, math.ceil(content_bytes * share / config.shard_bytes)) for split, share in config.splits.items()
    }


def _cluster_keys(ids: pa.Array, clusters: pa.Table) -> pa.Array:
    """Replace ids by their cluster's id where they have one."""
    if not len(clusters):
        return ids
    found = pc.index_in(ids, clusters["id"].combine_chunks())
    cluster = clusters["cluster_id"].combine_chunks().take(found)
    return pc.if_else(pc.is_valid(found), cluster, ids)


@dataclass(frozen=True)
class Decisions:
    """What the decisions say about one shard: ledger rows of what is removed, and clusters."""

    removed: pa.Table
    clusters: pa.Table

    @classmethod
    def of(cls, decisions: Sequence[Dataset], key: str) -> Decisions:
        """Read the decisions of each stage about shard `key`; a record that several remove counts for the first."""
        removed, clusters = LEDGER.schema.empty_table(), pa.table({"id": [], "cluster_id": []})
        for one in decisions:
            if one.shard(LEDGER_TABLE, key):
                rows = one.table(LEDGER_TABLE, key)
                again = pc.is_in(rows["id"], removed["id"].combine_chunks())
                removed = pa.concat_tables([removed, rows.filter(pc.invert(again))])
            if one.shard("clusters", key):
                clusters = one.table("clusters", key, ["id", "cluster_id"])
        return cls(removed, clusters)


@dataclass(frozen=True)
class Plan:
    """Where the records of a batch go.

    split, copies: int64[n], a split's position and how often the record is written (0: sampled out). order: uint64[n,
    most copies], the place of each copy in its split, uniform over 64 bits.
    """

    split: np.ndarray
    copies: np.ndarray
    order: np.ndarray


def plan_batch(batch: pa.RecordBatch, clusters: pa.Table, config: ShardConfig) -> Plan:
    """Plan a batch with columns id and source."""
    ids = id_bytes(batch.column("id"))
    weights = np.array([config.weights.get(source, 1.0) for source in batch.column("source").to_pylist()])
    keys = id_bytes(_cluster_keys(batch.column("id"), clusters))
    split, times = split_numbers(keys, config), copies(ids, weights, config)
    times = np.where(split == 0, times, np.minimum(times, 1))  # measured on twice, a record would count twice
    order = [mixed64(ids, f"order {config.seed} copy {copy}") for copy in range(int(times.max(initial=1)))]
    return Plan(split, times, np.stack(order or [np.empty(0, np.uint64)], axis=1))


def plan_rows(
    plan: Plan, shard: int, rows: np.ndarray, counts: Mapping[str, int]
) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Turn a plan into rows (order, shard, row) for each output shard: 'SPLIT/NUMBER'."""
    for number, (split, count) in enumerate(counts.items()):
        member = (plan.split == number)[:, None] & (np.arange(plan.order.shape[1]) < plan.copies[:, None])
        record, copy = np.nonzero(member)
        order = plan.order[record, copy]
        target = (order >> np.uint64(32)) * np.uint64(count) >> np.uint64(32)
        for one in np.unique(target):
            chosen = target == one
            columns = [
                order[chosen],
                np.full(int(chosen.sum()), shard, np.uint32),
                rows[record[chosen]].astype(np.uint32),
            ]
            batch = pa.RecordBatch.from_arrays([pa.array(column) for column in columns], schema=_PLAN_SCHEMA)
            yield f"{split}/{one:05d}", batch


def sampled_out(batch: pa.RecordBatch, plan: Plan, config: ShardConfig) -> pa.RecordBatch:
    """Make ledger rows for the records that their source's weight leaves out."""
    gone = batch.filter(pa.array(plan.copies == 0))
    weights = [config.weights.get(source, 1.0) for source in gone.column("source").to_pylist()]
    scores = mixed64(id_bytes(gone.column("id")), f"weight {config.seed}") / _FULL
    columns = {name: gone.column(name) for name in ("id", "source", "locator")}
    columns |= {"stage": STAGE, "action": REMOVED, "reason": SAMPLED_OUT, "score": scores, "threshold": weights}
    return ledger.rows(columns, len(gone))


# --- tasks ------------------------------------------------------------------------------------------------------------


def plan_shard(
    task: tuple[int, str],
    documents: Dataset,
    decisions: Sequence[Dataset],
    kind: Kind,
    counts: Mapping[str, int],
    config: ShardConfig,
) -> Iterator[Keyed]:
    """Plan one input shard; yields plan rows by output shard, its ledger rows, and a report with its books."""
    number, key = task
    decided = Decisions.of(decisions, key)
    decided_ids, own_removed = decided.removed["id"].combine_chunks(), documents.removed_ids(key)
    start, removed = 0, 0
    records, repeated = Counter[str](), Counter[str]()
    ledger_rows = [row for row in decided.removed.combine_chunks().to_batches() if len(row)]
    for batch in documents.batches(kind.table, key, ["id", "source", "locator"]):
        rows = pa.array(np.arange(start, start + len(batch)))
        start += len(batch)
        alive = survivors(batch.append_column("row", rows), own_removed)
        records += ledger.by_source(alive)
        kept = survivors(alive, decided_ids)
        removed += len(alive) - len(kept)
        plan = plan_batch(kept, decided.clusters, config)
        for path, part in plan_rows(plan, number, kept.column("row").to_numpy(), counts):
            yield batch_element(path, part)
        ledger_rows.append(sampled_out(kept, plan, config))
        for source, more in zip(kept.column("source").to_pylist(), (plan.copies - 1).clip(0).tolist(), strict=True):
            repeated[source] += more
    if removed != decided.removed.num_rows:
        raise SchemaError(
            f"the decisions remove {decided.removed.num_rows} records of shard {key}, of which the input "
            f"holds {removed}: they were made about another input; run that stage again on this one"
        )
    for row in ledger_rows:
        if len(row):
            yield batch_element(f"{LEDGER_TABLE}/{key}", row)
    yield report_element(Report(f"plan-{key}", books=ledger.count(records, ledger_rows, repeated)))


def write_output(
    key: str, batches: Sequence[pa.RecordBatch], keys: Sequence[str], documents: Dataset, kind: Kind, root: str
) -> Report:
    """Write one output shard: the ledger of an input shard, or the planned records of a split."""
    table, name = key.split("/", 1)
    path = shard_path(table, name)
    if table == LEDGER_TABLE:
        return Report(key, (write_shard(root, path, LEDGER.schema, [sorted_by_id(batches)]),))
    plan = pa.Table.from_batches(batches).combine_chunks()
    order = np.lexsort([plan["row"].to_numpy(), plan["shard"].to_numpy(), plan["order"].to_numpy()])
    shard, row = plan["shard"].to_numpy()[order], plan["row"].to_numpy()[order]
    # Fixed before the first row: how the content is gathered must not show in the shard.
    rows_per_batch, schema = max(1, int(BATCH_BYTES / mean_row_bytes(documents, kind))), kind.record.schema
    with ShardWriter(root, path, schema, rows_per_batch=rows_per_batch, text_column=kind.content) as writer:
        for batch in gather(shard, row, keys, documents, kind):
            writer.write(batch)
            progress.advance(len(batch), batch.column(kind.content).nbytes)
    assert writer.shard is not None
    return Report(key, (writer.shard,))


def mean_row_bytes(documents: Dataset, kind: Kind) -> float:
    """Mean size of a record, at least 1; independent of how the records are sharded."""
    shards = documents.of(kind.table)
    return max(
        1.0, sum(shard.text_bytes for shard in shards) / max(1, sum(shard.rows for shard in shards)) + _ROW_BYTES
    )


def gather(
    shard: np.ndarray, row: np.ndarray, keys: Sequence[str], documents: Dataset, kind: Kind
) -> Iterator[pa.RecordBatch]:
    """Read records by (shard number, row), in the order given, holding about _GATHER_BYTES of them at a time."""
    schema = kind.record.schema
    step = max(1, int(_GATHER_BYTES / mean_row_bytes(documents, kind)))
    for start in range(0, len(row), step):
        part = slice(start, start + step)
        order = np.lexsort([row[part], shard[part]])
        pieces = []
        for number in np.unique(shard[part]):
            reader = documents.open_shard(kind.table, keys[number])
            mine = order[shard[part][order] == number]
            pieces.append(take_rows(reader, row[part][mine].astype(np.int64), schema.names))
        inverse = np.empty_like(order)
        inverse[order] = np.arange(len(order))
        yield pa.concat_batches(pieces).take(pa.array(inverse)).replace_schema_metadata(schema.metadata)


def build(
    pipeline: beam.Pipeline,
    documents: Dataset,
    decisions: Sequence[Dataset],
    kind: Kind,
    root: str,
    config: ShardConfig,
) -> beam.PCollection:
    """Build the pipeline: plan by input shard, write by output shard; results are reports."""
    keys = documents.keys(kind.table)
    counts = shard_counts(expected_bytes(documents, decisions, kind, config), config)
    none = pa.RecordBatch.from_arrays([pa.array([], f.type) for f in _PLAN_SCHEMA], schema=_PLAN_SCHEMA)
    # An output shard that no record falls into is written all the same: readers expect every split.
    empty = [batch_element(f"{split}/{i:05d}", none) for split, count in counts.items() for i in range(count)]
    plans = (
        pipeline
        | "Shards" >> beam.Create(list(enumerate(keys)))
        | "Plan" >> beam.FlatMap(plan_shard, documents, decisions, kind, counts, config).with_output_types(Keyed)
    )
    outputs = pipeline | "Outputs" >> beam.Create(empty).with_output_types(Keyed)
    return (plans, outputs) | beam.Flatten() | "Write" >> GroupBatches(write_output, (keys, documents, kind, root))


def expected_bytes(documents: Dataset, decisions: Sequence[Dataset], kind: Kind, config: ShardConfig) -> int:
    """Bytes of content that will be written, as the manifests and the weights foresee it."""
    books = documents.books
    kept = sum(one.kept for one in books.values())
    written = sum(one.kept * config.weights.get(source, 1.0) for source, one in books.items())
    removed = sum(shard.rows for one in decisions for shard in one.of(LEDGER_TABLE))
    rows = sum(shard.rows for shard in documents.of(kind.table))
    return int(documents.content_bytes(kind.table) * max(0.0, written - removed) / max(1, rows)) if kept else 0


def run(inputs: Sequence[str], decisions: Sequence[str], output: str, config: ShardConfig, options: RunOptions) -> None:
    """Write the surviving records of `inputs` as a dataset directory and print the summary."""
    documents = Dataset.open(*inputs)
    kind = kind_of(documents)
    decided = open_decisions(decisions)
    for one in decided:
        check_decisions(documents, one)
    unknown = sorted(set(config.weights) - set(documents.books))
    if unknown:
        raise ConfigError(f"weights name {', '.join(unknown)}; the input holds: {', '.join(documents.books)}")
    with begin(STAGE, output, config, options, [documents, *decided]) as stage:
        reports = stage.pipeline(
            "shard",
            lambda p: build(p, documents, decided, kind, stage.root, config),
            documents.content_bytes(kind.table),
        )
        splits = list(config.splits)
        shards = [shard for report in reports for shard in report.shards]
        books = ledger.add(report.books for report in reports)
        readme = card.card(config.title, splits, shards, books, _rows(kind) + _CARD)
        extra = card.write_hugging_face_files(stage.root, splits, shards, readme)
        stage.commit(
            reports,
            inputs=[documents, *decided],
            kept_tables=splits,
            facts={"splits": splits, "extra_files": extra},
        )
    notes = [f"datasets.load_from_disk({output!r}) reads it"]
    if not decided:
        notes.append("no --decisions were given: duplicates are still in it")
    print_summary(stage, tuple(notes))


def open_decisions(paths: Sequence[str]) -> list[Dataset]:
    """Open the outputs of deciding stages: a dataset for each stage, in the order of their names."""
    stages: dict[str, list[str]] = {}
    for path in expand(paths):
        (manifest,) = Dataset.open(path).manifests
        stages.setdefault(manifest.stage, []).append(path)
    return [Dataset.open(*stages[stage]) for stage in sorted(stages)]


def check_decisions(documents: Dataset, decided: Dataset) -> None:
    """Raise SchemaError where the decisions, all together, were not made about exactly these documents."""
    about = {sha256 for manifest in decided.manifests for sha256 in manifest.inputs}
    if set(documents.sha256s) < about:
        raise SchemaError(
            "the decisions were made about more inputs than these: a record may have been removed for a twin that is "
            "not in the output; give all of those inputs, or run that stage again on these"
        )
    uncovered = [
        root
        for root, manifest in zip(documents.roots, documents.manifests, strict=True)
        if manifest.sha256() not in about
    ]
    if about and about < set(documents.sha256s):
        raise SchemaError(
            f"no decisions are about {files.redact(', '.join(uncovered))}; add the run of that stage over it to "
            "--decisions, or leave it out of --input"
        )
    if uncovered:
        raise SchemaError(
            "the decisions were made about another version of the input (its manifest's sha256 is not among "
            "their inputs); run that stage again on this input"
        )


_DOCUMENT_ROWS = """
Each row is one document: `id` (16 bytes), `source`, `locator` (where it came from), `path`, `text`, `content_hash`,
`metadata` (JSON).
"""
_IMAGE_ROWS = """
Each row is one image: `id` (16 bytes), `source`, `locator` (where it came from), `path`, `image` (its bytes and file
name; `datasets` gives a PIL image), `width`, `height`, `label`, `caption`, `content_hash` and `sha256` (of the bytes as
they were read, before they were prepared), `metadata` (JSON).
"""
_CARD = """
Rows are shuffled globally by a seeded hash of the id; records that dedupe found to be duplicates of each other stand
in one split. Shards are Arrow IPC streams with a file footer: `datasets`, `pyarrow.ipc`, `pyarrow.dataset`, polars and
duckdb (through pyarrow) read them as they are. `_meta/manifest.json` names every shard with its sha256.
"""


def _rows(kind: Kind) -> str:
    return _IMAGE_ROWS if kind == IMAGE_KIND else _DOCUMENT_ROWS


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--decisions",
        action="extend",
        nargs="+",
        default=[],
        metavar="DIR",
        help="outputs of dedupe, of decontaminate, or of both, each about exactly these inputs; several of one stage "
        "together",
    )


COMMAND = StageCommand(
    STAGE,
    """
    Apply all decisions in one pass over texts or images. Writes train/, validation/, test/ (or the splits you name),
    shuffled, in even shards, with a dataset card, and ledger/.
    """,
    ShardConfig,
    corpora=True,
    add_arguments=_arguments,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""

    def body(args: argparse.Namespace, config: ShardConfig, options: RunOptions) -> None:
        run(args.input, args.decisions, args.output, config, options)

    return COMMAND.main(argv, body)


if __name__ == "__main__":
    from pipelines import shard  # by its name: workers import functions from there, and have another __main__

    sys.exit(shard.main())
