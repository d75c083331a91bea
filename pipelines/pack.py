"""Encode documents and pack them into rows of tokens, ready for a masked language model.

    python -m pipelines.pack --input data/shards --tokenizer data/tokenizer --output data/packed --config params.yaml

Each shard of documents becomes one shard of rows in the same split. Tokens never cross a shuffle: what fills a row
comes from one window of one shard.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from pipelines.core import card, files, ledger, progress
from pipelines.core.cli import StageCommand
from pipelines.core.config import ConfigError
from pipelines.core.dataset import LEDGER_TABLE, Dataset, shard_path
from pipelines.core.runners import RunOptions
from pipelines.core.shards import BATCH_BYTES, ShardWriter
from pipelines.core.splits import split_batches, splits
from pipelines.core.stage import Report, begin
from pipelines.core.summary import print_summary
from pipelines.text import packing, pairing
from pipelines.text.masking import MaskConfig
from pipelines.text.packing import Segments, Tokens
from pipelines.text.sentencepiece import Tokenizer, plain_spaces
from pipelines.text.words import word_starts
from schemas.base import SchemaError
from schemas.ledger import LEDGER, REMOVED
from schemas.packed import REAL_NEXT, SECOND, packed_record

STAGE = "pack"
NO_TOKENS = "no_tokens"
MODEL_FILE = "tokenizer.model"
_COLUMNS = ["id", "source", "locator", "text"]


@dataclass(frozen=True)
class PackConfig:
    """How documents become rows.

    seq_len: slots of a row. seed: of the order of the rows. window_bytes: of text that is packed at a time; larger
    windows fill rows better and need more memory (about 8 times as much). min_fill: where whole documents fill less of
    the slots than this, some documents are cut to fill gaps; 0 cuts none that fits a row (of no use with pairs).
    static_masks: also write masked_input_ids and labels, drawn as `masks` says. pairs: cut documents into pairs of
    pieces for next-sentence prediction, half of them real neighbours: the column next_sentence says which.
    """

    seq_len: int = 512
    seed: int = 0
    window_bytes: int = 32 << 20
    min_fill: float = 0.99
    static_masks: bool = False
    pairs: bool = False
    masks: MaskConfig = field(default_factory=MaskConfig)

    def __post_init__(self) -> None:
        if not 8 <= self.seq_len <= 65_535:
            raise ConfigError(f"seq_len must be from 8 to 65,535, not {self.seq_len}")
        if self.window_bytes < 1:
            raise ConfigError(f"window_bytes must be at least 1, not {self.window_bytes}")
        if not 0 <= self.min_fill < 1:
            raise ConfigError(f"min_fill must be a share below 1, not {self.min_fill}")


def encode(texts: pa.Array, tokenizer: Tokenizer) -> Tokens:
    """Encode texts, with the mark of each token that begins a word."""
    plain = plain_spaces(texts)
    encoded = tokenizer.encode(plain)
    at = tokenizer.byte_offsets(encoded)
    return Tokens(encoded.ids, word_starts(plain)[at[:-1]], at, encoded.offsets)


def pack_window(tokens: Tokens, sources: pa.Array, seed: int, config: PackConfig) -> tuple[Segments, packing.Rows]:
    """Cut, pack and order the documents of one window. sources: by document."""
    if config.pairs:
        segments = pairing.pieces(tokens.offsets, tokens.word_start, config.seq_len)
        codes = sources.dictionary_encode().indices.to_numpy()
        segments = pairing.exchange_seconds(segments, codes, seed)
        return segments, packing.arrange(pairing.pack_pairs(segments, config.seq_len), seed)
    segments = packing.cut(tokens.offsets, tokens.word_start, config.seq_len - packing.SPECIALS)
    row_of = packing.pack(segments.lengths + packing.SPECIALS, config.seq_len)
    segments, row_of = packing.top_up(segments, row_of, tokens.word_start, config.seq_len, config.min_fill)
    return segments, packing.arrange(row_of, seed)


def windows(batches: Iterator[pa.RecordBatch], size: int) -> Iterator[list[pa.RecordBatch]]:
    """Gather batches into windows of at least `size` bytes of text, the last one excepted."""
    held: list[pa.RecordBatch] = []
    content = 0
    for batch in batches:
        held.append(batch)
        content += batch.column("text").nbytes
        if content >= size:
            yield held
            held, content = [], 0
    if held:
        yield held


@functools.lru_cache(maxsize=2)
def load_tokenizer(root: str, sha256: str) -> Tokenizer:
    """Read a tokenizer once a process. sha256: of its manifest, so that a new one at the same place is read again."""
    with files.open_read(files.join(root, MODEL_FILE)) as source:
        return Tokenizer(source.read())


@dataclass(frozen=True)
class Job:
    """What every task needs; cheap to send to a worker."""

    dataset: Dataset
    tokenizer: Dataset
    root: str
    config: PackConfig

    def model(self) -> Tokenizer:
        """The tokenizer."""
        return load_tokenizer(self.tokenizer.roots[0], self.tokenizer.sha256s[0])


def pack_shard(task: tuple[int, str, str], job: Job) -> Report:
    """Pack one shard of documents: writes the rows, and to the ledger the documents that have no token."""
    number, split, key = task
    config, tokenizer = job.config, job.model()
    record = packed_record(config.seq_len, tokenizer.vocab_size, static_masks=config.static_masks, pairs=config.pairs)
    facts: Counter[str] = Counter()
    books = []
    with ExitStack() as stack:
        # Fixed before the first row, and the same in every shard: windows must not show in the batches.
        rows_per_batch = max(1, BATCH_BYTES // (4 * config.seq_len))
        rows = stack.enter_context(
            ShardWriter(job.root, shard_path(split, key), record.schema, rows_per_batch=rows_per_batch)
        )
        gone = stack.enter_context(ShardWriter(job.root, shard_path(LEDGER_TABLE, f"{split}-{key}"), LEDGER.schema))
        for batches in windows(split_batches(job.dataset, split, key, _COLUMNS), config.window_bytes):
            # Batch by batch: the words of a whole window, as Python strings, would be many times its text.
            tokens = packing.join([encode(batch.column("text"), tokenizer) for batch in batches])
            window = pa.concat_batches(batches)
            segments, arranged = pack_window(
                tokens, window.column("source"), config.seed + (number << 32) + rows.rows, config
            )
            batch = packing.packed_batch(
                tokens,
                segments,
                arranged,
                window.column("id"),
                window.column("source"),
                seq_len=config.seq_len,
                vocab_size=tokenizer.vocab_size,
                first_row=(number << 32) + rows.rows,
                masks=config.masks if config.static_masks else None,
            )
            rows.write(batch)
            empty = no_tokens(window, tokens)
            gone.write(empty)
            books.append(ledger.count(ledger.by_source(window), [empty]))
            facts.update(counts(tokens, segments, batch))
            progress.advance(len(window), window.column("text").nbytes)
    shards = tuple(writer.shard for writer in (rows, gone) if writer.shard is not None)
    return Report(f"{split}/{key}", shards, ledger.add(books), dict(facts))


def no_tokens(window: pa.RecordBatch, tokens: Tokens) -> pa.RecordBatch:
    """Make ledger rows for the documents of a window that have no token."""
    gone = window.filter(pa.array(np.diff(tokens.offsets) == 0))
    columns: dict[str, Any] = {name: gone.column(name) for name in ("id", "source", "locator")}
    columns |= {"stage": STAGE, "action": REMOVED, "reason": NO_TOKENS, "score": 0.0, "threshold": 1.0}
    return ledger.rows(columns, len(gone))


def counts(tokens: Tokens, segments: Segments, batch: pa.RecordBatch) -> dict[str, int]:
    """Count what a window became."""
    codes = segments.next_sentence
    pairs = (
        {} if codes is None else {"pairs": int((codes == SECOND).sum()), "real_pairs": int((codes == REAL_NEXT).sum())}
    )
    return {
        **pairs,
        "rows": len(batch),
        "tokens": len(tokens.ids),
        "words": int(tokens.word_start.sum()),
        "segments": len(segments.lengths),
        "cut_documents": int((np.bincount(segments.documents) > 1).sum()),
        "text_bytes": int(tokens.byte_offsets[-1]),
    }


@dataclass
class PackShards(beam.PTransform):
    """Pack shards by (number in its split, split, key); each becomes a report."""

    job: Job

    def expand(self, tasks: beam.PCollection) -> beam.PCollection:
        """Map over the tasks."""
        return tasks | "PackShard" >> beam.Map(pack_shard, self.job).with_output_types(Report)


def build(pipeline: beam.Pipeline, job: Job) -> beam.PCollection:
    """Build the pipeline over the document shards of all splits; results are reports."""
    tasks = [(i, split, key) for split in splits(job.dataset) for i, key in enumerate(job.dataset.keys(split))]
    return pipeline | "Shards" >> beam.Create(tasks) | "Pack" >> PackShards(job)


def run(inputs: Sequence[str], tokenizer: str, output: str, config: PackConfig, options: RunOptions) -> None:
    """Pack the documents of `inputs` and print the summary."""
    dataset, model = Dataset.open(*inputs), Dataset.open(tokenizer)
    if model.manifests[0].stage != "tokenizer":
        raise SchemaError(
            f"{files.redact(tokenizer)} is an output of {model.manifests[0].stage!r}, not of the tokenizer"
        )
    names = splits(dataset)
    with begin(STAGE, output, config, options, [dataset, model]) as stage:
        job = Job(dataset, model, stage.root, config)
        total = sum(dataset.content_bytes(split) for split in names)
        reports = stage.pipeline("pack", lambda p: build(p, job), total)
        facts = facts_of(reports, config) | {"vocab_size": job.model().vocab_size, "tokenizer": _sha256(tokenizer)}
        shards = [shard for report in reports for shard in report.shards]
        books = ledger.add(report.books for report in reports)
        about = _CARD.format(**facts) + (_PAIRS.format(**facts) if config.pairs else "")
        readme = card.card("Packed rows", names, shards, books, about)
        extra = card.write_hugging_face_files(stage.root, names, shards, readme)
        stage.commit(
            reports,
            inputs=[dataset, model],
            facts={**facts, "splits": names, "extra_files": extra},
        )
    filled = f"{facts['fill']:.2%} of the slots filled"
    notes = [f"{facts['tokens']:,} tokens in {facts['rows']:,} rows of {config.seq_len}: {filled}"]
    if config.pairs:
        notes.append(f"{facts['pairs']:,} pairs, {facts['real_pairs']:,} of them real neighbours")
    print_summary(stage, tuple(notes))


def _sha256(tokenizer: str) -> str:
    """Name a tokenizer by its model file, so that a trainer can tell it from another one of the same size."""
    with files.open_read(files.join(tokenizer, MODEL_FILE)) as source:
        return hashlib.sha256(source.read()).hexdigest()


def facts_of(reports: Sequence[Report], config: PackConfig) -> dict[str, Any]:
    """Add up the shards' counts, and the share of slots that hold a token or a special token."""
    total: Counter[str] = Counter({"pairs": 0, "real_pairs": 0} if config.pairs else {})
    for report in reports:
        total.update(report.facts)
    slots = total["rows"] * config.seq_len
    filled = total["tokens"] + packing.SPECIALS * total["segments"] - total["pairs"]  # a second has no [CLS]
    return {**dict(sorted(total.items())), "seq_len": config.seq_len, "fill": filled / slots if slots else 0.0}


_CARD = """
Each row is {seq_len} token ids (`input_ids`; vocabulary of {vocab_size}): documents side by side, each
`[CLS]` … `[SEP]`, then `[PAD]`. `seq_lens` are the documents' boundaries, `word_start` marks the tokens that begin a
word (Chinese words too), `doc_ids`, `sources` and `byte_lens` belong to the documents in their order. Masks are not
baked in, unless there are columns `masked_input_ids` and `labels`. {fill:.2%} of the slots are filled.
"""

_PAIRS = """
Two neighbouring segments may be a pair, `[CLS]` A `[SEP]` and B `[SEP]`: `next_sentence` is 1 (B follows A in the
text) or 0 (B is from another document) of the first, 2 of the second, and -1 of a segment that stands alone. {pairs}
pairs, {real_pairs} of them real.
"""


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tokenizer", required=True, metavar="DIR", help="output of tokenizer")
    parser.add_argument("--pairs", action="store_true", help="pairs for next-sentence prediction (--set pairs=true)")


COMMAND = StageCommand(
    STAGE,
    """
    Encode documents and pack them into rows of tokens, with document boundaries and word starts.
    Writes train/, validation/, test/ (the input's splits), a dataset card, and ledger/ (documents without a token).
    """,
    PackConfig,
    add_arguments=_arguments,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""

    def body(args: argparse.Namespace, config: PackConfig, options: RunOptions) -> None:
        config = replace(config, pairs=config.pairs or args.pairs)
        run(args.input, args.tokenizer, args.output, config, options)

    return COMMAND.main(argv, body)


if __name__ == "__main__":
    from pipelines import pack  # by its name: workers import functions from there, and have another __main__

    sys.exit(pack.main())
