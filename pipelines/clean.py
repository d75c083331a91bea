"""Clean a corpus: repair texts or prepare images, measure signals once, and let rules decide from thresholds.

python -m pipelines.clean --input data/ingest --output data/clean --config params.yaml

`clean_texts` and `clean_images` say what becomes of a batch of records; all else is the same for both.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.clean_config import CleanConfig
from pipelines.clean_images import Images
from pipelines.clean_texts import Texts
from pipelines.core import files, ledger, progress
from pipelines.core.cli import StageCommand
from pipelines.core.config import ConfigError, to_dict
from pipelines.core.dataset import LEDGER_TABLE, Dataset, shard_path, surviving_batches, survivors
from pipelines.core.kinds import IMAGE_KIND, Kind, kind_of
from pipelines.core.runners import RunOptions
from pipelines.core.shards import ShardWriter, copy_shard
from pipelines.core.stage import Report, begin, check_ceilings, check_rejected, versions
from pipelines.core.summary import print_summary
from pipelines.text import bad_words
from pipelines.text.pii import read_key
from pipelines.text.prepare import Given
from pipelines.text.rules import Rule, decide
from schemas.base import SchemaError
from schemas.ledger import LEDGER, REJECTED, REMOVED
from schemas.manifest import MANIFEST_PATH, Shard
from schemas.signals import SIGNALS

STAGE = "clean"
SURVIVING = "surviving"


Cleaner = Texts | Images


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


def measured_columns(signals: pa.RecordBatch | pa.Table) -> dict[str, Any]:
    """The columns of a signals table by name, as rules take them."""
    return {name: signals.column(name).to_numpy(zero_copy_only=False) for name in signals.schema.names[1:]}


def clean_batch(
    batch: pa.RecordBatch, cleaner: Cleaner
) -> tuple[dict[str, pa.RecordBatch], pa.RecordBatch, pa.RecordBatch]:
    """Prepare a batch of records and decide on them.

    Returns the cleaner's tables (all records but dead letters, row for row), and ledger rows: of the records that a
    rule removes, with the first rule that fails, in the order of the rules; and of the dead letters.
    """
    tables, dead = cleaner.clean(batch)
    measured = cleaner.derived(measured_columns(tables[SIGNALS]))
    return tables, decide_rows(tables[cleaner.kind.table], measured, cleaner.rules), dead


def scored(signals: pa.RecordBatch | pa.Table, cleaner: Cleaner) -> Counter[str]:
    """How many records have each of the scores that are asked for."""
    return Counter({name: int(np.isfinite(signals.column(name).to_numpy()).sum()) for name in cleaner.scores})


class _Writers:
    """The shards of one key: all tables that a task writes, open until the end of the block."""

    def __init__(self, stack: ExitStack, root: str, key: str, config: CleanConfig, content: str) -> None:
        self._stack, self._root, self._key, self._config, self._content = stack, root, key, config, content
        self._open: dict[str, ShardWriter] = {}

    def add(self, table: str, schema: pa.Schema, *, counted: bool = False) -> None:
        """Begin a table; `counted`: its content is what the run's rate is of."""
        path, column = shard_path(table, self._key), self._content if counted else None
        writer = ShardWriter(self._root, path, schema, compression=self._config.compression, text_column=column)
        self._open[table] = self._stack.enter_context(writer)

    def write(self, batches: Mapping[str, pa.RecordBatch]) -> None:
        """Append to tables; those that were not begun are left out."""
        for table in self._open.keys() & batches.keys():
            self._open[table].write(batches[table])

    def shards(self) -> tuple[Shard, ...]:
        """The manifest lines, once the block has ended."""
        return tuple(writer.shard for writer in self._open.values() if writer.shard is not None)


def clean_shard(
    key: str, dataset: Dataset, root: str, config: CleanConfig, materialize: bool, cleaner: Cleaner
) -> Report:
    """Clean one shard: writes the cleaner's tables, ledger/ and, if asked, surviving/ of the same key."""
    kind, books = cleaner.kind, []
    rejected: list[pa.RecordBatch] = []
    scores = Counter[str]()
    with ExitStack() as stack:
        writers = _Writers(stack, root, key, config, kind.content)
        for table, schema in cleaner.schemas.items():
            writers.add(table, schema, counted=table == kind.table)
        writers.add(LEDGER_TABLE, LEDGER.schema)
        if materialize:
            writers.add(SURVIVING, kind.record.schema)
        for batch in surviving_batches(dataset, key, table=kind.table):
            tables, removed, dead = clean_batch(batch, cleaner)
            writers.write({**tables, LEDGER_TABLE: removed})
            if materialize:
                writers.write({SURVIVING: survivors(tables[kind.table], removed.column("id"))})
            rejected.append(dead)
            scores.update(scored(tables[SIGNALS], cleaner))
            books.append(ledger.count(ledger.by_source(batch), [removed, dead]))
            progress.advance(len(batch), batch.column(kind.content).nbytes)
        for dead in rejected:  # behind the others, as where an earlier run's are taken
            writers.write({LEDGER_TABLE: dead})
    return Report(key, writers.shards(), ledger.add(books), {"scored": dict(scores)})


def decide_shard(
    key: str, earlier: Dataset, root: str, config: CleanConfig, materialize: bool, cleaner: Cleaner
) -> Report:
    """Decide on one shard by the signals that an earlier run measured: what clean_shard writes, without its work."""
    (source,), kind, books, start = earlier.roots, cleaner.kind, [], 0
    shards = [earlier.shard(table, key) for table in cleaner.schemas]
    taken = [copy_shard(shard, source, root) for shard in shards if shard is not None]
    table = earlier.table(SIGNALS, key)  # its batches begin at other rows than those of the records
    measured = cleaner.derived(measured_columns(table))
    with ExitStack() as stack:
        writers = _Writers(stack, root, key, config, kind.content)
        writers.add(LEDGER_TABLE, LEDGER.schema)
        if materialize:
            writers.add(SURVIVING, kind.record.schema)
        for records in earlier.batches(kind.table, key):
            here = slice(start, start := start + len(records))
            if records.column("id") != table["id"][here].combine_chunks():
                raise SchemaError(
                    f"{files.redact(source)}: signals/ and {kind.table}/ of shard {key} are not row for row"
                )
            asked = {rule.signal: measured[rule.signal][here] for rule in cleaner.rules}
            removed = decide_rows(records, asked, cleaner.rules)
            writers.write({LEDGER_TABLE: removed})
            if materialize:
                writers.write({SURVIVING: survivors(records, removed.column("id"))})
            books.append(ledger.count(ledger.by_source(records), [removed]))
            progress.advance(len(records), records.column(kind.content).nbytes)
        for batch in dead_letters(earlier, key):
            writers.write({LEDGER_TABLE: batch})
            books.append(ledger.count(ledger.by_source(batch), [batch]))
    return Report(key, (*taken, *writers.shards()), ledger.add(books), {"scored": dict(scored(table, cleaner))})


def dead_letters(dataset: Dataset, key: str) -> list[pa.RecordBatch]:
    """The ledger rows of one shard about records that could not be read."""
    if dataset.shard(LEDGER_TABLE, key) is None:
        return []
    rows = dataset.table(LEDGER_TABLE, key)
    found: list[pa.RecordBatch] = rows.filter(pc.equal(rows["action"], REJECTED)).combine_chunks().to_batches()
    return [batch for batch in found if len(batch)]


def measured_before(output: str, dataset: Dataset, config: CleanConfig, cleaner: Cleaner) -> Dataset | None:
    """The earlier output in the place of `output`, where this run would prepare and measure the same; else None."""
    if not (files.is_local(output) and files.exists(files.join(output, MANIFEST_PATH))):
        return None
    try:
        earlier = Dataset.open(output)
    except SchemaError:
        return None
    (manifest,) = earlier.manifests
    same = manifest.stage == STAGE and manifest.inputs == dataset.sha256s and manifest.versions == versions()
    given = cleaner.given if isinstance(cleaner, Texts) else None
    same = same and manifest.facts.get("given", Given().digest()) == (given or Given()).digest()
    if not same or not earlier.keys(SIGNALS) or not set(cleaner.schemas) <= set(earlier.tables()):
        return None
    if cleaner.settings(manifest.config) != cleaner.settings(json.loads(json.dumps(to_dict(config)))):
        return None
    try:
        for table in cleaner.schemas:
            for key in earlier.keys(table):
                names = earlier.open_shard(table, key).schema.names
                if table == SIGNALS and names != cleaner.schemas[SIGNALS].names:
                    return None
    except (SchemaError, OSError):  # damaged or incomplete: what a whole run mends
        return None
    return earlier


def build(
    pipeline: beam.Pipeline, dataset: Dataset, root: str, config: CleanConfig, materialize: bool, cleaner: Cleaner
) -> beam.PCollection:
    """Build the pipeline over a dataset's shards; results are reports."""
    clean = beam.Map(clean_shard, dataset, root, config, materialize, cleaner).with_output_types(Report)
    return pipeline | "Keys" >> beam.Create(dataset.keys(cleaner.kind.table)) | "Clean" >> clean


def build_decide(
    pipeline: beam.Pipeline, earlier: Dataset, root: str, config: CleanConfig, materialize: bool, cleaner: Cleaner
) -> beam.PCollection:
    """Build the pipeline that decides anew on what an earlier run measured; results are reports."""
    decide = beam.Map(decide_shard, earlier, root, config, materialize, cleaner).with_output_types(Report)
    return pipeline | "Keys" >> beam.Create(earlier.keys(cleaner.kind.table)) | "Decide" >> decide


def read_given(config: CleanConfig) -> Given:
    """Read what the configuration names, before anything else is done. ValueError or OSError where it is missing."""
    words: tuple[str, ...] = ()
    if config.bad_words:
        with files.open_read(config.bad_words) as source:
            words = bad_words.parse(source.read())
    return Given(read_key(config.pii), words)


def check_scores(reports: Sequence[Report], cleaner: Cleaner) -> list[str]:
    """Say how many records have each score; ConfigError where none has one: a rule about it would do nothing."""
    totals = sum((Counter(report.facts.get("scored", {})) for report in reports), Counter[str]())
    if missing := [name for name in cleaner.scores if not totals[name]]:
        raise ConfigError(
            f"scores names {missing[0]!r}, which no {cleaner.kind.noun} have as a number in their metadata"
        )
    return [f"score {name!r} is in {totals[name]:,} {cleaner.kind.noun}; others stay" for name in cleaner.scores]


def check_names(config: CleanConfig, sources: Sequence[str], asked: Sequence[Rule]) -> None:
    """Raise ConfigError for a ceiling about a source or a rule that is not there."""
    names = [rule.name for rule in asked]
    for key in config.ceilings:
        source, _, rule = key.partition("/")
        if source not in (*sources, "*") or (rule and rule not in names):
            raise ConfigError(
                f"ceilings: {key!r} is none of the sources ({', '.join(sources)}) or '*', with or without '/' and a "
                f"rule that is asked ({', '.join(names)})"
            )


def cleaner_of(kind: Kind, config: CleanConfig) -> Cleaner:
    """What cleans records of a kind. ValueError or OSError where something that the configuration names is missing."""
    return Images(config.images) if kind == IMAGE_KIND else Texts(config, read_given(config))


def run(
    inputs: Sequence[str], output: str, config: CleanConfig, options: RunOptions, materialize: bool = False
) -> None:
    """Clean dataset directories (one or more, of ingest) into `output` and print the summary."""
    dataset = Dataset.open(*inputs)
    cleaner = cleaner_of(kind_of(dataset), config)
    check_names(config, list(dataset.books), cleaner.rules)
    earlier = measured_before(output, dataset, config, cleaner)
    if earlier is None and options.in_process and not options.planned:
        cleaner.start(options.worker_count, sum(one.kept for one in dataset.books.values()))
    with begin(STAGE, output, config, options, [dataset]) as stage:
        total, args = dataset.content_bytes(cleaner.kind.table), (stage.root, config, materialize, cleaner)
        if earlier is not None:
            reports = stage.pipeline("decide", lambda p: build_decide(p, earlier, *args), total)
        else:
            reports = stage.pipeline("clean", lambda p: build(p, dataset, *args), total)
        books = ledger.add(report.books for report in reports)
        notes = check_scores(reports, cleaner)
        check_rejected(books, *cleaner.ceiling)
        check_ceilings(books, config.ceilings)
        given = cleaner.given if isinstance(cleaner, Texts) else None
        facts = {"given": given.digest()} if given not in (None, Given()) else {}
        stage.commit(reports, inputs=[dataset], kept_tables=[SURVIVING] if materialize else [], facts=facts)
    table, noun = cleaner.kind.table, cleaner.kind.noun
    where = (
        "surviving/ holds the kept records"
        if materialize
        else f"{table}/ holds all prepared {noun}; ledger/ names those that are removed (--materialize writes the rest)"
    )
    reused = (f"{table}/ and signals/ are those of the run before: only the rules changed",) if earlier else ()
    notes += [f"nothing is left of {name!r}" for name, one in books.items() if one.records_in and not one.kept]
    print_summary(stage, (*reused, *notes, where))


COMMAND = StageCommand(
    STAGE,
    """
    Repair and normalise texts, or decode and resize images; measure signals, and decide by rules.
    Writes documents/ or images/, signals/ (row for row beside them) and ledger/ (who is removed, why, by what score);
    of images also thumbnails/, on which dedupe decides.
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
