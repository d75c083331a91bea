"""Clean documents: repair and normalise the text, measure signals once, and let rules decide from thresholds.

python -m pipelines.clean --input data/ingest --output data/clean --config params.yaml
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from pipelines.core import files, ledger, progress
from pipelines.core.cli import StageCommand
from pipelines.core.config import ConfigError, to_dict
from pipelines.core.dataset import DOCUMENTS, LEDGER_TABLE, Dataset, shard_path, surviving_batches, survivors
from pipelines.core.identity import content_hashes
from pipelines.core.runners import RunOptions
from pipelines.core.shards import ShardWriter, copy_shard
from pipelines.core.stage import Report, begin, check_ceilings, versions
from pipelines.core.summary import print_summary
from pipelines.text import bad_words
from pipelines.text.pii import read_key
from pipelines.text.prepare import CleanConfig, Given, derived, prepare
from pipelines.text.rules import Rule, decide
from schemas.base import Record, SchemaError
from schemas.document import DOCUMENT
from schemas.ledger import LEDGER, REMOVED
from schemas.manifest import MANIFEST_PATH
from schemas.signals import SIGNALS, signals_record

STAGE = "clean"
SURVIVING = "surviving"
_DECIDING = ("profile", "filters", "ceilings", "measure")  # not what is measured: the columns say what was


def signals_of(config: CleanConfig) -> Record:
    """The record type of the signals that a configuration measures."""
    return signals_record(config.signal_names)


def decide_rows(documents: pa.RecordBatch, measured: Mapping[str, np.ndarray], asked: Sequence[Rule]) -> pa.RecordBatch:
    """Make the ledger rows of the documents that a rule removes: the first one that each breaks."""
    decisions = decide(measured, asked)
    failed = np.flatnonzero(decisions.rule >= 0)
    gone = documents.select(["id", "source", "locator"]).take(pa.array(failed))
    return ledger.rows(
        {
            "id": gone.column("id"),
            "source": gone.column("source"),
            "stage": STAGE,
            "action": REMOVED,
            "reason": [asked[i].name for i in decisions.rule[failed]],
            "score": decisions.score[failed],
            "threshold": decisions.threshold[failed],
            "locator": gone.column("locator"),
        },
        len(failed),
    )


def clean_batch(
    batch: pa.RecordBatch, config: CleanConfig, given: Given | None = None
) -> tuple[pa.RecordBatch, pa.RecordBatch, pa.RecordBatch]:
    """Repair a batch of documents and decide on them.

    Returns the repaired documents (all of them), their signals row for row, and ledger rows for those that a rule
    removes: the first rule that fails, in the order of `config.rules`.
    """
    texts, measured = prepare(batch.column("text"), config, given)
    columns = {name: batch.column(name) for name in batch.schema.names}
    columns |= {"text": texts, "content_hash": content_hashes(texts)}
    documents = pa.RecordBatch.from_arrays([columns[f.name] for f in DOCUMENT.fields], schema=DOCUMENT.schema)
    schema = signals_of(config).schema
    table = pa.RecordBatch.from_arrays(
        [columns["id"], *(pa.array(measured[name]) for name in schema.names[1:])], schema=schema
    )
    asked = config.rules
    return documents, table, decide_rows(documents, derived(measured, config), asked)


def clean_shard(
    key: str, dataset: Dataset, root: str, config: CleanConfig, materialize: bool, given: Given | None = None
) -> Report:
    """Clean one shard: writes documents/, signals/, ledger/ and, if asked, surviving/ of the same key."""
    schemas = {DOCUMENTS: DOCUMENT.schema, SIGNALS: signals_of(config).schema, LEDGER_TABLE: LEDGER.schema}
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
            documents, table, removed = clean_batch(batch, config, given)
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


def decide_shard(key: str, earlier: Dataset, root: str, config: CleanConfig, materialize: bool) -> Report:
    """Decide on one shard by the signals that an earlier run measured: what clean_shard writes, without its work."""
    (source,) = earlier.roots
    shards = [earlier.shard(table, key) for table in (DOCUMENTS, SIGNALS)]
    taken = [copy_shard(shard, source, root) for shard in shards if shard is not None]
    asked, books, start = config.rules, [], 0
    table = earlier.table(SIGNALS, key)  # its batches begin at other rows than those of the documents
    measured = derived({name: table[name].to_numpy() for name in table.column_names[1:]}, config)
    with ExitStack() as stack:

        def writer(table: str, schema: pa.Schema) -> ShardWriter:
            path = shard_path(table, key)
            return stack.enter_context(ShardWriter(root, path, schema, compression=config.compression))

        writers = [writer(LEDGER_TABLE, LEDGER.schema)]
        writers += [writer(SURVIVING, DOCUMENT.schema)] if materialize else []
        for documents in earlier.batches(DOCUMENTS, key):
            here = slice(start, start := start + len(documents))
            if documents.column("id") != table["id"][here].combine_chunks():
                raise SchemaError(f"{files.redact(source)}: signals/ and documents/ of shard {key} are not row for row")
            removed = decide_rows(documents, {rule.signal: measured[rule.signal][here] for rule in asked}, asked)
            writers[0].write(removed)
            if materialize:
                writers[1].write(survivors(documents, removed.column("id")))
            books.append(ledger.count(ledger.by_source(documents), [removed]))
            progress.advance(len(documents), documents.column("text").nbytes)
    written = [one.shard for one in writers if one.shard is not None]
    return Report(key, (*taken, *written), ledger.add(books))


def measured_before(output: str, dataset: Dataset, config: CleanConfig, given: Given) -> Dataset | None:
    """The earlier output in the place of `output`, where this run would repair and measure the same; else None."""
    if not (files.is_local(output) and files.exists(files.join(output, MANIFEST_PATH))):
        return None
    try:
        earlier = Dataset.open(output)
    except SchemaError:
        return None
    (manifest,) = earlier.manifests
    same = manifest.stage == STAGE and manifest.inputs == dataset.sha256s and manifest.versions == versions()
    same = same and manifest.facts.get("given", Given().digest()) == given.digest()
    if not same or measuring(manifest.config) != measuring(to_dict(config)) or not earlier.keys(SIGNALS):
        return None
    try:
        for table in (DOCUMENTS, SIGNALS):
            for key in earlier.keys(table):
                names = earlier.open_shard(table, key).schema.names
                if table == SIGNALS and names != signals_of(config).schema.names:
                    return None
    except (SchemaError, OSError):  # damaged or incomplete: what a whole run mends
        return None
    return earlier


def measuring(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide what texts become and what is measured, of a configuration as the manifest has it."""
    plain = json.loads(json.dumps(config))
    plain["language"] = {"max_chars": plain["language"]["max_chars"]}
    return {name: value for name, value in plain.items() if name not in _DECIDING}


@dataclass
class CleanShards(beam.PTransform):
    """Clean shards by key; each becomes a report."""

    dataset: Dataset
    root: str
    config: CleanConfig
    materialize: bool = False
    given: Given | None = None

    def expand(self, keys: beam.PCollection) -> beam.PCollection:
        """Map over the keys."""
        return keys | "CleanShard" >> beam.Map(
            clean_shard, self.dataset, self.root, self.config, self.materialize, self.given
        ).with_output_types(Report)


def build(
    pipeline: beam.Pipeline,
    dataset: Dataset,
    root: str,
    config: CleanConfig,
    materialize: bool = False,
    given: Given | None = None,
) -> beam.PCollection:
    """Build the pipeline over a dataset's document shards; results are reports."""
    keys = dataset.keys(DOCUMENTS)
    return pipeline | "Keys" >> beam.Create(keys) | "Clean" >> CleanShards(dataset, root, config, materialize, given)


def read_given(config: CleanConfig) -> Given:
    """Read what the configuration names, before anything else is done. ValueError or OSError where it is missing."""
    words: tuple[str, ...] = ()
    if config.bad_words:
        with files.open_read(config.bad_words) as source:
            words = bad_words.parse(source.read())
    return Given(read_key(config.pii), words)


def check_names(config: CleanConfig, sources: Sequence[str]) -> None:
    """Raise ConfigError for a ceiling about a source or a rule that is not there."""
    asked = [rule.name for rule in config.rules]
    for key in config.ceilings:
        source, _, rule = key.partition("/")
        if source not in (*sources, "*") or (rule and rule not in asked):
            raise ConfigError(
                f"ceilings: {key!r} is none of the sources ({', '.join(sources)}) or '*', with or without '/' and a "
                f"rule that is asked ({', '.join(asked)})"
            )


def build_decide(
    pipeline: beam.Pipeline, earlier: Dataset, root: str, config: CleanConfig, materialize: bool
) -> beam.PCollection:
    """Build the pipeline that decides anew on what an earlier run measured; results are reports."""
    return (
        pipeline
        | "Keys" >> beam.Create(earlier.keys(DOCUMENTS))
        | "Decide" >> beam.Map(decide_shard, earlier, root, config, materialize).with_output_types(Report)
    )


def run(
    inputs: Sequence[str], output: str, config: CleanConfig, options: RunOptions, materialize: bool = False
) -> None:
    """Clean dataset directories (one or more, of ingest) into `output` and print the summary."""
    dataset = Dataset.open(*inputs).require(DOCUMENTS)
    check_names(config, list(dataset.books))
    given = read_given(config)
    earlier = measured_before(output, dataset, config, given)
    with begin(STAGE, output, config, options, [dataset]) as stage:
        total = dataset.content_bytes()
        if earlier is not None:
            reports = stage.pipeline(
                "decide", lambda p: build_decide(p, earlier, stage.root, config, materialize), total
            )
        else:
            reports = stage.pipeline(
                "clean", lambda p: build(p, dataset, stage.root, config, materialize, given), total
            )
        check_ceilings(ledger.add(report.books for report in reports), config.ceilings)
        facts = {"given": given.digest()} if given != Given() else {}
        stage.commit(reports, inputs=[dataset], kept_tables=[SURVIVING] if materialize else [], facts=facts)
    where = (
        "surviving/ holds the kept records"
        if materialize
        else (
            "documents/ holds all repaired records; ledger/ names those that are removed "
            "(--materialize writes the others)"
        )
    )
    reused = ("documents/ and signals/ are those of the run before: only the rules changed",) if earlier else ()
    print_summary(stage, (*reused, where))


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
