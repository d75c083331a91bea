"""Decontaminate documents: find the n-grams of evaluation sets in them, and remove the documents or the spans.

    python -m pipelines.decontaminate --input data/clean --evaluation eval/*.jsonl --output data/decontaminate
    … --set mode=spans                   cut the spans out: writes documents/, for the next stage to read

Pass 1 finds n-grams shard by shard and counts in how many documents each occurs; n-grams of too many are no
contamination but common phrases. Pass 2 decides. Each evaluation file is a benchmark of its name, and a reason.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Literal

import apache_beam as beam
import numpy as np
import pyarrow as pa

from pipelines.core import files, ledger, progress
from pipelines.core.cli import StageCommand
from pipelines.core.dataset import DOCUMENTS, LEDGER_TABLE, Dataset, shard_path, surviving_batches, survivors
from pipelines.core.identity import content_hashes
from pipelines.core.runners import RunOptions
from pipelines.core.shards import ShardWriter, read_batches, write_shard
from pipelines.core.stage import Report, begin, check_ceilings
from pipelines.core.summary import print_summary
from pipelines.readers.evaluation import Evaluation, read_items, write_evaluation
from pipelines.text.overlap import Grams, find, merge
from schemas.document import DOCUMENT
from schemas.ledger import LEDGER, REMOVED

STAGE, SURVIVING = "decontaminate", "surviving"
_MATCH_SCHEMA = pa.schema([pa.field(name, pa.int64(), False) for name in ("row", "gram", "start", "end")])


@dataclass(frozen=True)
class DecontaminateConfig:
    """What counts as contamination, and what is done about it.

    n: tokens of an n-gram (words, or characters of scripts without spaces). shortest: an evaluation item of fewer than
    n tokens is one n-gram of them all, if it has so many. fields: of an evaluation record, together one item; it must
    have the first. mode: 'documents' removes the documents, 'spans' cuts what was found out of them. common: an
    n-gram in more documents than this is a common phrase (null: none is). min_grams: distinct n-grams of one benchmark
    that a document must hold. max_cut: greatest share of a text's bytes that 'spans' cuts; more removes the document.
    ceilings: the greatest share of a source that may be removed, as in clean.
    """

    n: int = 13
    shortest: int = 8
    fields: tuple[str, ...] = ("text",)
    mode: Literal["documents", "spans"] = "documents"
    common: int | None = 100
    min_grams: int = 1
    max_cut: float = 0.5
    ceilings: dict[str, float] = field(default_factory=dict)
    compression: str | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for numbers that make no sense."""
        if min(self.n, self.shortest, self.min_grams) < 1 or (self.common is not None and self.common < 1):
            raise ValueError("n, shortest, min_grams and common are at least 1")
        if not 0 <= self.max_cut <= 1:
            raise ValueError(f"max_cut is a share from 0 to 1; got {self.max_cut}")
        if not self.fields:
            raise ValueError("fields names at least one field of the evaluation records")


def match_shard(key: str, dataset: Dataset, evaluation: Evaluation, scratch: str) -> Report:
    """Find the n-grams in one shard; writes them under scratch, and says in how many documents each occurs."""
    grams, _ = evaluation.load()
    counts: Counter[int] = Counter()
    start, found = 0, []
    for batch in surviving_batches(dataset, key):
        rows, at, starts, ends = find(batch.column("text"), grams)
        if len(rows):
            columns = [pa.array(column) for column in (rows + start, at, starts, ends)]
            found.append(pa.RecordBatch.from_arrays(columns, schema=_MATCH_SCHEMA))
            counts.update(np.unique(np.stack([rows, at]), axis=1)[1].tolist())
        start += len(batch)
        progress.advance(len(batch), batch.column("text").nbytes)
    path = f"matches/{key}.arrow"
    if found:
        write_shard(scratch, path, _MATCH_SCHEMA, found, durable=False)
    return Report(f"match-{key}", facts={"matches": path if found else None, "counts": sorted(counts.items())})


@dataclass(frozen=True)
class Shards:
    """What pass 2 works on. matches: key → file under scratch. common: indexes of the n-grams that are left aside."""

    dataset: Dataset
    evaluation: Evaluation
    scratch: str
    matches: dict[str, str]
    common: tuple[int, ...]
    root: str
    config: DecontaminateConfig
    materialize: bool


def _by_row(shards: Shards, key: str) -> dict[int, np.ndarray]:
    """The n-grams found in each row of a shard that are no common phrases: row → int64[3, m], gram, start and end."""
    path = shards.matches.get(key)
    if path is None:
        return {}
    table = pa.Table.from_batches(list(read_batches(files.join(shards.scratch, path))))
    row, *rest = (table[name].to_numpy() for name in _MATCH_SCHEMA.names)
    keep = ~np.isin(rest[0], shards.common)
    row, columns = row[keep], np.stack(rest)[:, keep]
    borders = np.flatnonzero(np.diff(row, prepend=-1))
    return dict(zip(row[borders].tolist(), np.split(columns, borders[1:], axis=1), strict=True))


def _benchmark_of(found: np.ndarray, grams: Grams, benchmarks: np.ndarray, least: int) -> tuple[int, int]:
    """The benchmark with the most distinct n-grams in a document, and how many; (-1, 0) where none has `least`."""
    counts: Counter[int] = Counter()
    for gram in np.unique(found[0]).tolist():
        items = grams.items[grams.offsets[gram] : grams.offsets[gram + 1]]
        counts.update(np.unique(benchmarks[items]).tolist())
    benchmark, most = min(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return (benchmark, most) if most >= least else (-1, 0)


def cut(text: str, spans: Sequence[tuple[int, int]]) -> tuple[str, float]:
    """Cut spans of bytes out of a text, a space in place of each where no line feed stands beside it.

    Returns it, and the share of its bytes that went.
    """
    raw, left, at = text.encode(), b"", 0
    for start, end in [*spans, (len(text.encode()), 0)]:
        part = raw[at:start]
        if at and left and not left.endswith(b"\n"):
            rest = part.lstrip(b" \t")
            left = left.rstrip(b" \t") + (b"" if rest.startswith(b"\n") or not rest else b" ") + rest
        else:
            left += part.lstrip(b" \t") if at else part
        at = end
    return left.decode(), sum(end - start for start, end in spans) / max(1, len(raw))


def decide_shard(key: str, shards: Shards) -> Report:
    """Decide on one shard: writes ledger/, with mode 'spans' documents/ too, and if asked surviving/."""
    config, dataset = shards.config, shards.dataset
    grams, benchmarks = shards.evaluation.load()
    found = _by_row(shards, key)
    hit: dict[str, Counter[str]] = {"documents": Counter(), "removed": Counter()}
    spans = config.mode == "spans"
    tables = [LEDGER_TABLE] + [DOCUMENTS] * spans + [SURVIVING] * shards.materialize
    books, start = [], 0
    with ExitStack() as stack:
        writers = {
            table: stack.enter_context(
                ShardWriter(
                    shards.root,
                    shard_path(table, key),
                    LEDGER.schema if table == LEDGER_TABLE else DOCUMENT.schema,
                    compression=config.compression,
                    text_column="text" if table == DOCUMENTS else None,
                )
            )
            for table in tables
        }
        for batch in surviving_batches(dataset, key):
            rows = {row: found[start + row] for row in range(len(batch)) if start + row in found}
            start += len(batch)
            gone, texts = _decide(batch, rows, grams, benchmarks, shards.evaluation.names, config, hit)
            removed = ledger.rows(gone, len(gone["id"]))
            writers[LEDGER_TABLE].write(removed)
            documents = _rewritten(batch, texts) if spans else batch
            if spans:
                writers[DOCUMENTS].write(documents)
            if shards.materialize:
                writers[SURVIVING].write(survivors(documents, removed.column("id")))
            books.append(ledger.count(ledger.by_source(batch), [removed]))
            progress.advance(len(batch), batch.column("text").nbytes)
    written = tuple(writer.shard for writer in writers.values() if writer.shard is not None)
    facts = {name: dict(counter) for name, counter in hit.items()}
    return Report(key, written, ledger.add(books), facts)


def _decide(
    batch: pa.RecordBatch,
    rows: dict[int, np.ndarray],
    grams: Grams,
    benchmarks: np.ndarray,
    names: Sequence[str],
    config: DecontaminateConfig,
    hit: dict[str, Counter[str]],
) -> tuple[dict[str, Any], dict[int, str]]:
    """Ledger columns of the documents that go, and the new texts of those that are cut; counts into `hit`."""
    gone: list[tuple[int, str, float, float]] = []
    texts: dict[int, str] = {}
    for row, found in rows.items():
        benchmark, count = _benchmark_of(found, grams, benchmarks, config.min_grams)
        if benchmark < 0:
            continue
        name = names[benchmark]
        hit["documents"][name] += 1
        if config.mode == "documents":
            gone.append((row, name, float(count), float(config.min_grams)))
            continue
        text, share = cut(batch.column("text")[row].as_py(), merge(found[1], found[2]))
        if share > config.max_cut or not text:
            gone.append((row, name, share, config.max_cut))
        else:
            texts[row] = text
    hit["removed"].update(name for _, name, *_ in gone)
    taken = batch.take(pa.array([row for row, *_ in gone], pa.int64()))
    columns = {
        "id": taken.column("id"),
        "source": taken.column("source"),
        "stage": STAGE,
        "action": REMOVED,
        "reason": [f"overlap_{name}" for _, name, *_ in gone],
        "score": [score for *_, score, _ in gone],
        "threshold": [threshold for *_, threshold in gone],
        "locator": taken.column("locator"),
    }
    return columns, texts


def _rewritten(batch: pa.RecordBatch, texts: dict[int, str]) -> pa.RecordBatch:
    if not texts:
        return batch
    column = batch.column("text").to_pylist()
    for row, text in texts.items():
        column[row] = text
    new = pa.array(column, pa.string())
    columns = {name: batch.column(name) for name in batch.schema.names} | {
        "text": new,
        "content_hash": content_hashes(new),
    }
    return pa.RecordBatch.from_arrays([columns[name] for name in batch.schema.names], schema=batch.schema)


def benchmark_facts(
    evaluation: Evaluation, reports: Sequence[Report], decided: Sequence[Report], common: set[int]
) -> dict[str, dict[str, int]]:
    """Say of each benchmark how many items it has, are too short, were found, and what documents were hit, removed."""
    grams, benchmarks = evaluation.load()
    seen = {gram for report in reports for gram, _ in report.facts["counts"]} - common
    found = np.zeros(len(benchmarks), np.int64)
    for gram in seen:
        found[grams.items[grams.offsets[gram] : grams.offsets[gram + 1]]] += 1
    facts = {}
    for number, name in enumerate(evaluation.names):
        own = benchmarks == number
        totals = Counter[str]()
        for report in decided:
            totals.update({what: report.facts[what].get(name, 0) for what in ("documents", "removed")})
        facts[name] = {
            "items": int(own.sum()),
            "too_short": int((grams.counts[own] == 0).sum()),
            "items_found": int((found[own] > 0).sum()),
            "items_mostly_found": int((2 * found[own] >= np.maximum(grams.counts[own], 1)).sum()),
            "documents": totals["documents"],
            "documents_removed": totals["removed"],
        }
    return facts


def _each(pipeline: beam.Pipeline, keys: Sequence[str], label: str, task: Any, *args: Any) -> beam.PCollection:
    return pipeline | "Keys" >> beam.Create(list(keys)) | label >> beam.Map(task, *args).with_output_types(Report)


def run(
    inputs: Sequence[str],
    output: str,
    evaluation: Sequence[str],
    config: DecontaminateConfig,
    options: RunOptions,
    materialize: bool = False,
) -> None:
    """Compare dataset directories with evaluation files, write the decisions into `output`, and print the summary."""
    dataset = Dataset.open(*inputs).require(DOCUMENTS)
    items = list(read_items(evaluation, config.fields))
    with begin(STAGE, output, config, options, [dataset]) as stage:
        scratch, keys, total = stage.scratch(STAGE), dataset.keys(DOCUMENTS), dataset.content_bytes()
        sets = write_evaluation(items, scratch, config.n, config.shortest)
        reports = stage.pipeline("match", lambda p: _each(p, keys, "Match", match_shard, dataset, sets, scratch), total)
        counts: Counter[int] = Counter()
        for report in reports:
            counts.update(dict(report.facts["counts"]))
        common = {gram for gram, count in counts.items() if config.common is not None and count > config.common}
        matches = {r.key.removeprefix("match-"): r.facts["matches"] for r in reports if r.facts["matches"]}
        shards = Shards(dataset, sets, scratch, matches, tuple(sorted(common)), stage.root, config, materialize)
        decided = stage.pipeline("decide", lambda p: _each(p, keys, "Decide", decide_shard, shards), total)
        facts = benchmark_facts(sets, reports, decided, common)
        check_ceilings(ledger.add(report.books for report in decided), config.ceilings)
        stage.commit(
            decided,
            inputs=[dataset],
            kept_tables=[SURVIVING] if materialize else [],
            facts={"benchmarks": facts, "common_ngrams": len(common), "evaluation": sets.digest},
        )
    print_summary(
        stage, (*_table(facts), f"n-grams of more than {config.common} documents, left aside: {len(common):,}")
    )


def _table(facts: dict[str, dict[str, int]]) -> list[str]:
    lines = [f"{'benchmark':<28}{'items':>9}{'too short':>11}{'found':>9}{'mostly':>9}{'documents':>11}{'removed':>9}"]
    for name, one in facts.items():
        lines.append(
            f"{name:<28}{one['items']:>9,}{one['too_short']:>11,}{one['items_found']:>9,}"
            f"{one['items_mostly_found']:>9,}{one['documents']:>11,}{one['documents_removed']:>9,}"
        )
    return lines


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--evaluation",
        action="extend",
        nargs="+",
        required=True,
        metavar="FILE",
        help="evaluation sets in any format that ingest reads; each file is a benchmark of its name",
    )


COMMAND = StageCommand(
    STAGE,
    """
    Find evaluation sets in documents, and remove the documents or the spans.
    Writes ledger/ (who is removed, for which benchmark), with mode=spans documents/ (without what was found).
    """,
    DecontaminateConfig,
    materialize=True,
    corpora=True,
    add_arguments=_arguments,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""

    def body(args: argparse.Namespace, config: DecontaminateConfig, options: RunOptions) -> None:
        run(args.input, args.output, args.evaluation, config, options, args.materialize)

    return COMMAND.main(argv, body)


if __name__ == "__main__":
    from pipelines import decontaminate  # by its name: workers import from there, and have another __main__

    sys.exit(decontaminate.main())
