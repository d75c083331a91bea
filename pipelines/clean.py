"""Clean documents: repair and normalise the text, measure signals once, and let rules decide from thresholds.

python -m pipelines.clean --input data/ingest --output data/clean --config params.yaml
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import apache_beam as beam
import numpy as np
import pyarrow as pa

from pipelines.core import ledger, progress
from pipelines.core.cli import StageCommand
from pipelines.core.dataset import DOCUMENTS, LEDGER_TABLE, Dataset, shard_path, surviving_batches, survivors
from pipelines.core.identity import content_hashes
from pipelines.core.runners import RunOptions
from pipelines.core.shards import ShardWriter
from pipelines.core.stage import Report, begin
from pipelines.core.summary import print_summary
from pipelines.text import filters, signals
from pipelines.text.filters import FilterConfig
from pipelines.text.normalize import NormalizeConfig, normalize
from schemas.document import DOCUMENT
from schemas.ledger import LEDGER, REMOVED
from schemas.signals import signals_record

STAGE = "clean"
SIGNALS, SURVIVING = "signals", "surviving"
SIGNALS_RECORD = signals_record(signals.SIGNALS)


@dataclass(frozen=True)
class CleanConfig:
    """How documents are repaired, and which ones are removed.

    compression: of the shards' buffers: null (readers map memory) or 'zstd' (smaller; every reader copies).
    """

    normalize: NormalizeConfig = field(default_factory=NormalizeConfig)
    filters: FilterConfig = field(default_factory=FilterConfig)
    compression: str | None = None


def clean_batch(batch: pa.RecordBatch, config: CleanConfig) -> tuple[pa.RecordBatch, pa.RecordBatch, pa.RecordBatch]:
    """Repair a batch of documents and decide on them.

    Returns the repaired documents (all of them), their signals row for row, and ledger rows for those that a rule
    removes: the first rule that fails, in the order of `filters.rules`.
    """
    texts = normalize(batch.column("text"), config.normalize)
    columns = {name: batch.column(name) for name in batch.schema.names}
    columns |= {"text": texts, "content_hash": content_hashes(texts)}
    documents = pa.RecordBatch.from_arrays([columns[f.name] for f in DOCUMENT.fields], schema=DOCUMENT.schema)
    measured = signals.signals(texts)
    table = pa.RecordBatch.from_arrays(
        [columns["id"], *(pa.array(measured[name]) for name in signals.SIGNALS)], schema=SIGNALS_RECORD.schema
    )
    rules = filters.rules(config.filters)
    decisions = filters.decide(measured, rules)
    failed = np.flatnonzero(decisions.rule >= 0)
    gone = documents.take(pa.array(failed))
    removed = ledger.rows(
        {
            "id": gone.column("id"),
            "source": gone.column("source"),
            "stage": STAGE,
            "action": REMOVED,
            "reason": [rules[i].name for i in decisions.rule[failed]],
            "score": decisions.score[failed],
            "threshold": decisions.threshold[failed],
            "locator": gone.column("locator"),
        },
        len(failed),
    )
    return documents, table, removed


def clean_shard(key: str, dataset: Dataset, root: str, config: CleanConfig, materialize: bool) -> Report:
    """Clean one shard: writes documents/, signals/, ledger/ and, if asked, surviving/ of the same key."""
    schemas = {DOCUMENTS: DOCUMENT.schema, SIGNALS: SIGNALS_RECORD.schema, LEDGER_TABLE: LEDGER.schema}
    if materialize:
        schemas[SURVIVING] = DOCUMENT.schema
    books = []
    with ExitStack() as stack:
        writers = {
            table: stack.enter_context(
                ShardWriter(
                    root,
                    shard_path(table, key),
                    schema,
                    compression=config.compression,
                    text_column="text" if table == DOCUMENTS else None,
                )
            )
            for table, schema in schemas.items()
        }
        for batch in surviving_batches(dataset, key):
            documents, table, removed = clean_batch(batch, config)
            writers[DOCUMENTS].write(documents)
            writers[SIGNALS].write(table)
            writers[LEDGER_TABLE].write(removed)
            if materialize:
                writers[SURVIVING].write(survivors(documents, removed.column("id")))
            counts = ledger.by_source(batch)
            books.append(ledger.count(counts, [removed]))
            progress.advance(len(batch), batch.column("text").nbytes)
    shards = tuple(writer.shard for writer in writers.values() if writer.shard is not None)
    return Report(key, shards, ledger.add(books))


@dataclass
class CleanShards(beam.PTransform):
    """Clean shards by key; each becomes a report."""

    dataset: Dataset
    root: str
    config: CleanConfig
    materialize: bool = False

    def expand(self, keys: beam.PCollection) -> beam.PCollection:
        """Map over the keys."""
        return keys | "CleanShard" >> beam.Map(
            clean_shard, self.dataset, self.root, self.config, self.materialize
        ).with_output_types(Report)


def build(
    pipeline: beam.Pipeline, dataset: Dataset, root: str, config: CleanConfig, materialize: bool = False
) -> beam.PCollection:
    """Build the pipeline over a dataset's document shards; results are reports."""
    keys = dataset.keys(DOCUMENTS)
    return pipeline | "Keys" >> beam.Create(keys) | "Clean" >> CleanShards(dataset, root, config, materialize)


def run(
    inputs: Sequence[str], output: str, config: CleanConfig, options: RunOptions, materialize: bool = False
) -> None:
    """Clean dataset directories (one or more, of ingest) into `output` and print the summary."""
    dataset = Dataset.open(*inputs).require(DOCUMENTS)
    with begin(STAGE, output, config, options, [dataset]) as stage:
        total = dataset.content_bytes()
        reports = stage.pipeline("clean", lambda p: build(p, dataset, stage.root, config, materialize), total)
        stage.commit(reports, inputs=[dataset], kept_tables=[SURVIVING] if materialize else [])
    where = (
        "surviving/ holds the kept records"
        if materialize
        else (
            "documents/ holds all repaired records; ledger/ names those that are removed "
            "(--materialize writes the others)"
        )
    )
    print_summary(stage, (where,))


COMMAND = StageCommand(
    STAGE,
    """
    Repair and normalise documents, measure signals, and decide by rules.
    Writes documents/ (repaired), signals/ (row for row beside them) and ledger/ (who is removed, why, by what score).
    """,
    CleanConfig,
    materialize=True,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""

    def body(args: argparse.Namespace, config: CleanConfig, options: RunOptions) -> None:
        run(args.input, args.output, config, options, args.materialize)

    return COMMAND.main(argv, body)


if __name__ == "__main__":
    from pipelines import clean  # by its name: workers import functions from there, and have another __main__

    sys.exit(clean.main())
