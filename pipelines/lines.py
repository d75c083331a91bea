"""Deduplicate lines: take out of every document the lines that the corpus repeats.

    python -m pipelines.lines --input data/clean --output data/lines --config params.yaml

Three passes. `hash` reads the text and writes, for each shard, the distinct hashes of its units (a line, or a span of
lines, in normal form) with how often and where first they occur. `count` sends these through a shuffle by range of the
hash, in rounds that fit the memory, and writes the repeated ones. `drop` reads the text again and writes it without
them. No text crosses a shuffle.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core import files, ledger, progress
from pipelines.core.cli import StageCommand
from pipelines.core.counts import COUNT_SCHEMA, UNITS, Round, count_range, count_units, plan_rounds, unit_elements
from pipelines.core.dataset import DOCUMENTS, LEDGER_TABLE, Dataset, shard_key, shard_path, surviving_batches, survivors
from pipelines.core.grouping import GroupBatches, Keyed
from pipelines.core.identity import content_hashes
from pipelines.core.runners import RunOptions
from pipelines.core.shards import ShardWriter, read_batches, write_shard
from pipelines.core.stage import Report, StageRun, begin, check_ceilings
from pipelines.core.summary import print_summary
from pipelines.text.line_hashes import Lines, UnitConfig, drop_lines, find_lines, letters_left, unit_text, widen
from schemas.document import DOCUMENT, ID
from schemas.frequent_line import FREQUENT_LINE
from schemas.ledger import LEDGER, REMOVED
from schemas.manifest import Shard

STAGE = "lines"
SURVIVING, FREQUENT = "surviving", "frequent"
TOO_SHORT = "repeated_lines"
COUNTED = ("lines", "dropped", "dropped_bytes")
_SHOWN, _SHOWN_CHARS, _TEXT_CHARS = 5, 60, 200


@dataclass(frozen=True)
class LinesConfig:
    """Which lines go, and from where on a document is not worth keeping.

    mode: 'first' keeps the first of the lines that are alike, by the order of shards and rows (CCNet, C4); 'all' keeps
    none of them. max_repeats: so often may a line occur in the corpus; only beyond that it goes. min_letters_left: a
    document that loses lines and keeps fewer letters than this (weighed as in `units`) is removed, as it came.
    frequent: lines to list in frequent/. ceilings: the greatest share of a source that may be removed, as in clean.
    compression: of the shards' buffers, null or 'zstd'.
    """

    mode: Literal["first", "all"] = "first"
    max_repeats: int = 1
    units: UnitConfig = field(default_factory=UnitConfig)
    min_letters_left: int = 100
    frequent: int = 1000
    ceilings: dict[str, float] = field(default_factory=dict)
    compression: str | None = None

    def __post_init__(self) -> None:
        """Check the limits."""
        for name, least in (("max_repeats", 1), ("min_letters_left", 1), ("frequent", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is at least {least}; got {getattr(self, name)}")


# --- hash: the units of a shard --------------------------------------------------------------------------------------


def hash_shard(key: str, dataset: Dataset, scratch: str, config: LinesConfig) -> Report:
    """Write the distinct unit hashes of one shard; `place` counts the shard's units."""
    found = []
    for batch in surviving_batches(dataset, key, ["text"]):
        lines = find_lines(batch.column("text"), config.units)
        found.append(lines.hashes[lines.counted])
        progress.advance(len(batch), batch.column("text").nbytes)
    hashes = np.concatenate(found) if found else np.empty(0, np.uint64)
    entries = count_units(hashes, np.arange(len(hashes)), np.ones(len(hashes), np.int64))
    write_shard(scratch, shard_path(UNITS, key), COUNT_SCHEMA, [entries], durable=False)
    return Report(key, facts={"units": len(hashes), "distinct": len(entries)})


# --- drop: the text again --------------------------------------------------------------------------------------------


class Repeated(NamedTuple):
    """Hashes that go, uint64, ascending, and the place of the first unit of each in the corpus, int64."""

    hashes: np.ndarray
    places: np.ndarray


def repeated_in(key: str, paths: Sequence[str], scratch: str) -> Repeated:
    """Look up the units of a shard among those that the corpus repeats, of which a batch at a time is in memory."""
    own = [batch.column(0).to_numpy() for batch in read_batches(files.join(scratch, shard_path(UNITS, key)), ["hash"])]
    hashes = np.concatenate(own)
    found = [(np.empty(0, np.uint64), np.empty(0, np.int64))]
    for path in paths:
        for batch in read_batches(files.join(scratch, path)):
            theirs = batch.column("hash").to_numpy()
            mine = hashes[np.searchsorted(hashes, theirs[0]) : np.searchsorted(hashes, theirs[-1], "right")]
            at = np.searchsorted(theirs, mine)  # below len(theirs): no hash of `mine` is above the last of theirs
            hit = theirs[at] == mine
            found.append((mine[hit], batch.column("place").to_numpy()[at[hit]]))
    return Repeated(*(np.concatenate(part) for part in zip(*found, strict=True)))


def units_that_go(lines: Lines, repeated: Repeated, start: int, mode: str) -> np.ndarray:
    """Say which lines begin a unit that goes: bool. start: number in the corpus of the first unit of `lines`."""
    gone = np.zeros(len(lines.hashes), np.bool_)
    if not len(repeated.hashes):
        return gone
    hashes = lines.hashes[lines.counted]
    at = np.minimum(np.searchsorted(repeated.hashes, hashes), len(repeated.hashes) - 1)
    hit = repeated.hashes[at] == hashes
    if mode == "first":
        hit &= repeated.places[at] != start + np.arange(len(hashes))
    gone[lines.counted] = hit
    return gone


class Dropped(NamedTuple):
    """A batch of documents without the lines that go, and ledger rows for those of which too little is left.

    counts: int64, as COUNTED says: lines that are not blank, lines that went, bytes of text that went. Removed
    documents stay as they are.
    """

    documents: pa.RecordBatch
    removed: pa.RecordBatch
    counts: np.ndarray


def drop_batch(batch: pa.RecordBatch, lines: Lines, gone: np.ndarray, config: LinesConfig) -> Dropped:
    """Take lines out of a batch of documents. gone: bool, one for each of its lines."""
    texts = batch.column("text")
    number = np.diff(lines.offsets)
    lost = np.concatenate(([0], np.cumsum(gone)))[lines.offsets]
    lost, left = np.diff(lost), letters_left(lines, gone)
    failed = (lost > 0) & (left < config.min_letters_left)
    gone = gone & ~np.repeat(failed, number)
    new = drop_lines(texts, lines, gone)
    documents = batch
    if new is not texts:
        changed = pa.array((lost > 0) & ~failed)
        hashes = pc.replace_with_mask(batch.column("content_hash"), changed, content_hashes(new.filter(changed)))
        fresh = {"text": new, "content_hash": hashes}
        arrays = [fresh.get(f.name, batch.column(f.name)) for f in DOCUMENT.fields]
        documents = pa.RecordBatch.from_arrays(arrays, schema=DOCUMENT.schema)
    rows = np.flatnonzero(failed)
    taken = batch.take(pa.array(rows))
    removed = ledger.rows(
        {
            "id": taken.column("id"),
            "source": taken.column("source"),
            "stage": STAGE,
            "action": REMOVED,
            "reason": TOO_SHORT,
            "score": left[rows].astype(np.float64),
            "threshold": float(config.min_letters_left),
            "locator": taken.column("locator"),
            "detail": [f"{a} of {b} lines are repeated" for a, b in zip(lost[rows], number[rows], strict=True)],
        },
        len(rows),
    )
    counts = np.array([number.sum(), gone.sum(), _bytes(texts) - _bytes(new)], np.int64)
    return Dropped(documents, removed, counts)


def _bytes(texts: pa.Array) -> int:
    return pc.sum(pc.binary_length(texts)).as_py() or 0


class Task(NamedTuple):
    """A shard to write: its key, the place of its first unit in the corpus, and places whose text is asked for."""

    key: str
    place: int
    wanted: tuple[int, ...]


def drop_shard(
    task: Task, dataset: Dataset, root: str, scratch: str, paths: Sequence[str], config: LinesConfig, materialize: bool
) -> Report:
    """Write one shard without its repeated lines: documents/, ledger/ and, if asked, surviving/ of the same key."""
    key, place, span = task.key, task.place, config.units.span
    repeated = repeated_in(key, paths, scratch)
    schemas = {DOCUMENTS: DOCUMENT.schema, LEDGER_TABLE: LEDGER.schema}
    if materialize:
        schemas[SURVIVING] = DOCUMENT.schema
    books, counts = [], np.zeros(len(COUNTED), np.int64)
    told: dict[str, list[str]] = {}
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
            lines = find_lines(batch.column("text"), config.units)
            gone = widen(units_that_go(lines, repeated, place, config.mode), lines, span)
            told |= _tell(batch, lines, place, task.wanted, span)
            place += int(lines.counted.sum())
            dropped = drop_batch(batch, lines, gone, config)
            writers[DOCUMENTS].write(dropped.documents)
            writers[LEDGER_TABLE].write(dropped.removed)
            if materialize:
                writers[SURVIVING].write(survivors(dropped.documents, dropped.removed.column("id")))
            counts += dropped.counts
            books.append(ledger.count(ledger.by_source(batch), [dropped.removed]))
            progress.advance(len(batch), batch.column("text").nbytes)
    shards = tuple(writer.shard for writer in writers.values() if writer.shard is not None)
    facts = dict(zip(COUNTED, counts.tolist(), strict=True))
    return Report(key, shards, ledger.add(books), {**facts, "told": told})


def _tell(batch: pa.RecordBatch, lines: Lines, place: int, wanted: Iterable[int], span: int) -> dict[str, list[str]]:
    """Tell document and text of the units at the `wanted` places: {place: [id, text]}."""
    begins = np.flatnonzero(lines.counted)
    told = {}
    for one in wanted:
        if place <= one < place + len(begins):
            line = int(begins[one - place])
            row = int(np.searchsorted(lines.offsets, line, "right")) - 1
            shown = unit_text(batch.column("text"), lines, line, span).strip()[:_TEXT_CHARS]
            told[str(one)] = [batch.column("id")[row].as_py().hex(), shown]
    return told


# --- the stage -------------------------------------------------------------------------------------------------------


class Run:
    """One run of the stage."""

    def __init__(self, stage: StageRun, dataset: Dataset, config: LinesConfig, memory: int) -> None:
        self.stage, self.dataset, self.config, self.memory = stage, dataset, config, memory
        self.scratch = stage.scratch(STAGE)
        sizes = {shard_key(shard.path): shard.text_bytes for shard in dataset.of(DOCUMENTS)}
        self.keys = sorted(
            sizes
        )  # the order of documents; the one of tasks is largest first, so that workers end together
        self.largest_first = sorted(sizes, key=lambda key: (-sizes[key], key))

    def hash(self) -> tuple[dict[str, int], int]:
        """Hash all units; returns the place of each shard's first one, and how many entries were written."""
        args = (self.dataset, self.scratch, self.config)
        reports = self.stage.pipeline("hash", lambda p: build_hash(p, self.largest_first, *args), self._bytes())
        units = {report.key: report.facts["units"] for report in reports}
        places = np.cumsum([0, *(units[key] for key in self.keys)]).tolist()
        return dict(zip(self.keys, places[:-1], strict=True)), sum(report.facts["distinct"] for report in reports)

    def count(self, places: dict[str, int], entries: int) -> list[Report]:
        """Find the repeated units, in rounds."""
        reports = []
        for number, one in enumerate(plan_rounds(entries, self.memory)):

            def build(pipeline: beam.Pipeline, one: Round = one) -> beam.PCollection:
                return build_count(pipeline, places, one, self.scratch, self.config)

            reports += self.stage.pipeline(f"count-{number:04d}", build)
        return reports

    def drop(self, places: dict[str, int], paths: list[str], wanted: list[int], materialize: bool) -> list[Report]:
        """Write the documents without what the corpus repeats."""
        owner = np.searchsorted([places[key] for key in self.keys], wanted, "right") - 1
        asked: dict[str, list[int]] = {}
        for place, number in zip(wanted, owner.tolist(), strict=True):
            asked.setdefault(self.keys[number], []).append(place)
        tasks = [Task(key, places[key], tuple(asked.get(key, ()))) for key in self.largest_first]
        args = (self.dataset, self.stage.root, self.scratch, paths, self.config, materialize)
        return self.stage.pipeline("drop", lambda p: build_drop(p, tasks, *args), self._bytes())

    def _bytes(self) -> int:
        return self.dataset.content_bytes()

    def write_frequent(self, frequent: list[list[int]], told: dict[str, list[str]]) -> Shard | None:
        """Write the most frequent lines as a table of one shard, named like the first of the documents."""
        if not frequent:
            return None
        ids, texts = zip(*(told[str(place)] for _, place, _ in frequent), strict=True)
        arrays = [
            pa.array([count for count, _, _ in frequent], pa.int64()),
            pa.array([hash_ for _, _, hash_ in frequent], pa.uint64()),
            pa.array([bytes.fromhex(one) for one in ids], ID),
            pa.array(texts, pa.string()),
        ]
        batch = pa.RecordBatch.from_arrays(arrays, schema=FREQUENT_LINE.schema)
        path = shard_path(FREQUENT, self.keys[0])  # so that outputs of other corpora can be read with this one
        return write_shard(self.stage.root, path, FREQUENT_LINE.schema, [batch])


def build_hash(
    pipeline: beam.Pipeline, keys: Sequence[str], dataset: Dataset, scratch: str, config: LinesConfig
) -> beam.PCollection:
    """Build the pipeline that hashes the units of every shard."""
    hashed = beam.Map(hash_shard, dataset, scratch, config).with_output_types(Report)
    return pipeline | "Shards" >> beam.Create(keys) | "Hash" >> hashed


def build_count(
    pipeline: beam.Pipeline, places: dict[str, int], this: Round, scratch: str, config: LinesConfig
) -> beam.PCollection:
    """Build the pipeline of one round: entries by range of the hash."""
    return (
        pipeline
        | "Shards" >> beam.Create(sorted(places.items()))
        | "Units" >> beam.FlatMap(unit_elements, this, scratch).with_output_types(Keyed)
        | "Count" >> GroupBatches(count_range, (scratch, config.max_repeats, config.frequent))
    )


def build_drop(
    pipeline: beam.Pipeline,
    tasks: Sequence[Task],
    dataset: Dataset,
    root: str,
    scratch: str,
    paths: Sequence[str],
    config: LinesConfig,
    materialize: bool,
) -> beam.PCollection:
    """Build the pipeline that writes every shard without its repeated lines."""
    dropped = beam.Map(drop_shard, dataset, root, scratch, paths, config, materialize).with_output_types(Report)
    return pipeline | "Shards" >> beam.Create(tasks) | "Drop" >> dropped


def run(
    inputs: Sequence[str], output: str, config: LinesConfig, options: RunOptions, materialize: bool = False
) -> None:
    """Deduplicate the lines of dataset directories into `output` and print the summary."""
    dataset = Dataset.open(*inputs).require(DOCUMENTS)
    with begin(STAGE, output, config, options, [dataset]) as stage:
        one = Run(stage, dataset, config, options.shuffle_memory)
        places, entries = one.hash()
        counted = one.count(places, entries)
        frequent = sorted((row for r in counted for row in r.facts["frequent"]), key=lambda row: (-row[0], row[1]))
        frequent = frequent[: config.frequent]
        paths = [report.facts["path"] for report in counted if report.facts["path"]]
        reports = one.drop(places, paths, [place for _, place, _ in frequent], materialize)
        told = {place: text for report in reports for place, text in report.facts["told"].items()}
        table = one.write_frequent(frequent, told)
        facts = {name: sum(report.facts[name] for report in reports) for name in COUNTED}
        facts["repeated"] = sum(report.facts["repeated"] for report in counted)
        check_ceilings(ledger.add(report.books for report in reports), config.ceilings)
        kept = [SURVIVING] if materialize else []
        stage.commit(reports, inputs=[dataset], kept_tables=kept, facts=facts, shards=[table] if table else [])
    print_summary(stage, tuple(_notes(facts, frequent, told, materialize)))


def _notes(
    facts: dict[str, Any], frequent: list[list[int]], told: dict[str, list[str]], materialize: bool
) -> Iterator[str]:
    share = facts["dropped"] / max(1, facts["lines"])
    yield (
        f"{facts['dropped']:,} of {facts['lines']:,} lines dropped "
        f"({share:.1%}, {facts['dropped_bytes'] / 1e6:,.1f} MB); "
        f"{facts['repeated']:,} different ones are repeated"
    )
    for count, place, _ in frequent[:_SHOWN]:
        text = " ".join(told[str(place)][1].split())
        yield f"{count:>9,} × {text[:_SHOWN_CHARS]}{'…' if len(text) > _SHOWN_CHARS else ''}"
    yield "documents/ holds all records, without these lines; ledger/ names those of which too little was left"
    if materialize:
        yield "surviving/ holds the kept records"


COMMAND = StageCommand(
    STAGE,
    """
    Take lines that the corpus repeats out of its documents: menus, notices, boilerplate.
    Writes documents/ (without these lines), frequent/ (the most frequent ones) and ledger/ (documents of which too
    little was left).
    """,
    LinesConfig,
    materialize=True,
    corpora=True,
    memory=True,
    resumable=True,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""

    def body(args: argparse.Namespace, config: LinesConfig, options: RunOptions) -> None:
        run(args.input, args.output, config, options, args.materialize)

    return COMMAND.main(argv, body)


if __name__ == "__main__":
    from pipelines import lines  # by its name: workers import functions from there, and have another __main__

    sys.exit(lines.main())
