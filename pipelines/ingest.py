"""Read raw files into shards of documents or images: ids, content hashes, metadata; what cannot be read: the ledger.

python -m pipelines.ingest --input 'raw/*.jsonl.zst' --source wiki --id-field id --output data/ingest/wiki
python -m pipelines.ingest --images --input photos.tar --source photos --output data/ingest/photos
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa

from pipelines.core import files, kinds, ledger, progress
from pipelines.core.cli import StageCommand
from pipelines.core.config import ConfigError
from pipelines.core.dataset import LEDGER_TABLE, shard_path
from pipelines.core.grouping import GroupBatches, Keyed, batch_element, report_element
from pipelines.core.identity import id_bytes, record_id
from pipelines.core.rolling import RollingWriter
from pipelines.core.runners import RunOptions
from pipelines.core.shards import read_batches, read_table, write_shard
from pipelines.core.stage import Report, StageRun, begin, check_rejected
from pipelines.core.summary import print_summary
from pipelines.readers import documents, images
from pipelines.readers.base import IMAGES, TEXT, ReadConfig
from pipelines.readers.discover import KEYED, ReadTask, find_files, plan
from schemas.document import ID
from schemas.ledger import LEDGER, REJECTED
from schemas.manifest import Books

STAGE = "ingest"
DUPLICATE_ID = "duplicate_id"
_POSITION_SCHEMA = pa.schema(
    [
        pa.field("id", ID, False),
        pa.field("task", pa.uint32(), False),
        pa.field("part", pa.uint32(), False),
        pa.field("row", pa.uint32(), False),
    ]
)
_RANGE_BYTES = 64 << 20  # of ids in one group of the shuffle


@dataclass(frozen=True)
class IngestConfig:
    """How raw files become shards.

    shard_bytes: bytes of text or of images at which a shard ends. max_rejected: share of a source's records that may be
    dead letters before the run fails; rejected_floor: so many may be, whatever their share.
    """

    read: ReadConfig = field(default_factory=ReadConfig)
    shard_bytes: int = 64 << 20
    max_rejected: float = 0.05
    rejected_floor: int = 100
    compression: str | None = None


@dataclass(frozen=True)
class Corpus:
    """What is read: the name of the source, and a prefix of shard names made from it."""

    source: str

    def __post_init__(self) -> None:
        if not self.source.strip() or "\0" in self.source:
            raise ConfigError("--source must be a name that is not empty")

    def prefix(self, task: int) -> str:
        """Prefix of the shards of a task: NAME-00007; a name that is no plain word is followed by its hash."""
        plain = re.sub(r"[^A-Za-z0-9_]+", "_", self.source)[:60]
        if plain != self.source:
            plain += "_" + record_id(self.source, "")[:4].hex()
        return f"{plain}-{task:05d}"


_KINDS = {TEXT: kinds.TEXT, IMAGES: kinds.IMAGE_KIND}
_READERS = {TEXT: documents.read_task, IMAGES: images.read_task}


# --- read: files → records, ledger ------------------------------------------------------------------------------------


def ingest_task(task: ReadTask, corpus: Corpus, root: str, config: IngestConfig, ranges: int) -> Iterator[Keyed]:
    """Write the shards of one task; yield a report per shard, and the ids by hash range where they can repeat."""
    kind, read_task = _KINDS[config.read.kind], _READERS[config.read.kind]
    prefix = corpus.prefix(task.index)
    tables = {kind.table: kind.record.schema, LEDGER_TABLE: LEDGER.schema}
    books: dict[str, list[dict[str, Books]]] = {}
    with RollingWriter(root, prefix, tables, config.shard_bytes, config.compression, kind.content) as writer:
        for records, dead in read_task(task, corpus.source, config.read):
            writer.write({kind.table: records, LEDGER_TABLE: dead})
            start = writer.rows - len(records)
            counts = {corpus.source: len(records) + len(dead)}
            books.setdefault(writer.key, []).append(ledger.count(counts, [dead]))
            if ranges and len(records):
                yield from _positions(records.column("id"), task.index, writer.part, start, ranges)
            progress.advance(len(records), records.column(kind.content).nbytes)
    for key, shards in writer.done:
        yield report_element(Report(key, shards, ledger.add(books.get(key, []))))


def _positions(ids: pa.Array, task: int, part: int, start: int, ranges: int) -> Iterator[Keyed]:
    rows = len(ids)
    columns = [
        ids,
        pa.array(np.full(rows, task, np.uint32)),
        pa.array(np.full(rows, part, np.uint32)),
        pa.array(np.arange(start, start + rows, dtype=np.uint32)),
    ]
    batch = pa.RecordBatch.from_arrays(columns, schema=_POSITION_SCHEMA)
    number = id_bytes(ids)[:, 0].astype(np.int64) * ranges >> 8
    for one in np.unique(number):
        yield batch_element(f"ids/{one:03d}", batch.filter(pa.array(number == one)) if ranges > 1 else batch)


def find_repeats(key: str, batches: Sequence[pa.RecordBatch], scratch: str) -> Report:
    """Find the ids of one hash range that occur more than once; write where all but the first of them stand."""
    rows = pa.Table.from_batches(batches).combine_chunks()
    words = np.ascontiguousarray(id_bytes(rows["id"])).view(">u8").reshape(-1, 2)
    place = [rows[name].to_numpy() for name in ("row", "part", "task")]
    order = np.lexsort([*place, words[:, 1], words[:, 0]])
    again = np.flatnonzero((words[order][1:] == words[order][:-1]).all(axis=1)) + 1
    if not len(again):
        return Report(key)
    path = f"{key.replace('/', '-')}.arrow"
    write_shard(scratch, path, _POSITION_SCHEMA, rows.take(pa.array(order[again])).to_batches())
    return Report(key, facts={"repeats": path})


def build(
    pipeline: beam.Pipeline, tasks: Sequence[ReadTask], corpus: Corpus, root: str, scratch: str, config: IngestConfig
) -> beam.PCollection:
    """Build the reading pipeline; results are reports."""
    size = sum(task.size for task in tasks)
    # Records without an id of their own are told apart by their content and occurrence: those cannot repeat.
    named = config.read.id_field is not None or any(file.format in KEYED for task in tasks for file in task.files)
    ranges = min(256, 1 + size // 16 // _RANGE_BYTES) if named else 0
    return (
        pipeline
        | "Tasks" >> beam.Create(list(tasks))
        | "Read" >> beam.FlatMap(ingest_task, corpus, root, config, ranges).with_output_types(Keyed)
        | "Repeats" >> GroupBatches(find_repeats, (scratch,))
    )


# --- repeated ids -----------------------------------------------------------------------------------------------------


def drop_repeats(item: tuple[str, tuple[int, ...]], root: str, config: IngestConfig) -> Report:
    """Write one shard again, as KEY-u, without the rows whose id an earlier record has; they go to its ledger."""
    key, rows = item
    kind, new = _KINDS[config.read.kind], f"{key}-u"
    records = read_table(files.join(root, shard_path(kind.table, key)))
    gone = np.zeros(len(records), bool)
    gone[list(rows)] = True
    repeats = records.select(["id", "source", "locator", "path"]).filter(pa.array(gone)).combine_chunks()
    named = zip(repeats["path"].to_pylist(), repeats["locator"].to_pylist(), strict=True)
    places = [f"{path}#{locator}" for path, locator in named]
    columns = {
        "id": [
            record_id(repeats["source"][0].as_py(), f"{place}@{key}/{row}")
            for place, row in zip(places, rows, strict=True)
        ],
        "source": repeats["source"],
        "stage": STAGE,
        "action": REJECTED,
        "reason": DUPLICATE_ID,
        "kept_id": repeats["id"],
        "locator": places,
        "detail": "an earlier record of this source has the same id",
    }
    dead = ledger.rows(columns, len(repeats))
    old = list(read_batches(files.join(root, shard_path(LEDGER_TABLE, key))))
    kept = records.filter(pa.array(~gone)).to_batches()
    options = {"compression": config.compression}
    shards = (
        write_shard(root, shard_path(kind.table, new), kind.record.schema, kept, text_column=kind.content, **options),
        write_shard(root, shard_path(LEDGER_TABLE, new), LEDGER.schema, [*old, dead], **options),
    )
    return Report(key, shards, ledger.count({}, [dead]))


def _settle_repeats(stage: StageRun, reports: list[Report], corpus: Corpus, config: IngestConfig) -> list[Report]:
    """Replace the reports of shards that hold repeated ids by those of their new versions."""
    scratch = stage.scratch("ids")
    places: dict[str, list[int]] = {}
    for report in reports:
        if "repeats" in report.facts:
            table = read_table(files.join(scratch, report.facts["repeats"]))
            for task, part, row in zip(*(table[name].to_pylist() for name in ("task", "part", "row")), strict=True):
                places.setdefault(f"{corpus.prefix(task)}-{part:03d}", []).append(row)
    if not places:
        return reports
    items = [(key, tuple(sorted(rows))) for key, rows in sorted(places.items())]

    def again(pipeline: beam.Pipeline) -> beam.PCollection:
        return (
            pipeline
            | "Shards" >> beam.Create(items)
            | "DropRepeats" >> beam.Map(drop_repeats, stage.root, config).with_output_types(Report)
        )

    renewed = stage.pipeline("repeats", again)
    old = [replace(report, shards=()) if report.key in places else report for report in reports]
    return old + renewed


# --- the stage --------------------------------------------------------------------------------------------------------


def run(inputs: Sequence[str], output: str, source: str, config: IngestConfig, options: RunOptions) -> None:
    """Read `inputs` into a dataset directory and print the summary."""
    corpus = Corpus(source)
    found = find_files(inputs, config.read)
    refuse_overlap([file.path for file in found.files if file.refused is None], output)
    tasks = plan(found.files, config.read)
    with begin(STAGE, output, config, options) as stage:
        reports = stage.pipeline("read", lambda p: build(p, tasks, corpus, stage.root, stage.scratch("ids"), config))
        reports = _settle_repeats(stage, reports, corpus, config)
        check_rejected(ledger.add(report.books for report in reports), config.max_rejected, config.rejected_floor)
        stage.commit(
            reports, kept_tables=[_KINDS[config.read.kind].table], facts={"source": source, "files": len(found.files)}
        )
    notes = [f"{len(found.files):,} files read"]
    if found.skipped:
        notes.append(f"{len(found.skipped):,} files passed over, for instance {files.redact(found.skipped[0])}")
    print_summary(stage, tuple(notes))


def refuse_overlap(paths: Sequence[str], output: str) -> None:
    """Raise ConfigError where the output directory holds a file of the input: it would be replaced, or read again."""
    if files.is_remote(output):
        return
    target = Path(output).resolve()
    for path in paths:
        if files.is_local(path) and Path(path).resolve().is_relative_to(target):
            raise ConfigError(f"{output} holds the input file {path}; name another --output")


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", required=True, metavar="NAME", help="name of the corpus; part of every record's id")
    parser.add_argument("--images", action="store_true", help="the corpus is of images (default: of text)")
    parser.add_argument("--text-field", metavar="NAME", help="field that holds the text (default: text)")
    parser.add_argument("--id-field", metavar="NAME", help="field that holds the record's own id or URL, if it has one")
    parser.add_argument("--label-field", metavar="NAME", help="of images: field that holds the class; '' is none")
    parser.add_argument("--caption-field", metavar="NAME", help="of images: field that holds the caption; '' is none")


def read_config(args: argparse.Namespace, read: ReadConfig) -> ReadConfig:
    """Apply the command line to the configuration. ConfigError for an option of the other kind of corpus."""
    if args.images:
        read = replace(read, kind=IMAGES)
    of_images = {"label_field": args.label_field, "caption_field": args.caption_field}
    given = {name: value for name, value in of_images.items() if value is not None}
    if given and read.kind != IMAGES:
        raise ConfigError(f"--{next(iter(given)).replace('_', '-')} is of images; add --images")
    if args.text_field is not None:
        if read.kind != TEXT:
            raise ConfigError("--text-field is of text; name a caption's field by --caption-field")
        read = replace(read, text_field=args.text_field)
    if args.id_field is not None:  # an empty name: records have none, whatever the configuration says
        read = replace(read, id_field=args.id_field or None)
    return replace(read, images=replace(read.images, **given))


COMMAND = StageCommand(
    STAGE,
    """
    Read raw files into shards of documents, or with --images of images.
    Reads JSON Lines (plain, gz, zst, bz2, xz), Parquet, CSV/TSV, trees of text, Markdown and HTML, web archives (WARC,
    ARC, WET), Wikipedia dumps, and directories that Hugging Face save_to_disk or Gristmill wrote. Every field but the
    text and the id is kept as metadata.
    Reads images from folders, tar archives (WebDataset too), Parquet, Arrow and save_to_disk directories with bytes,
    CSV and JSON Lines that list files, and IDX. Their bytes are kept as they are.
    docs/reading.md says what becomes of every record.
    """,
    IngestConfig,
    add_arguments=_arguments,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""

    def body(args: argparse.Namespace, config: IngestConfig, options: RunOptions) -> None:
        settings = replace(config, read=read_config(args, config.read))
        run(args.input, args.output, args.source, settings, options)

    return COMMAND.main(argv, body)


if __name__ == "__main__":
    from pipelines import ingest  # by its name: workers import functions from there, and have another __main__

    sys.exit(ingest.main())
