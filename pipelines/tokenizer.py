"""Train a SentencePiece tokenizer on a deterministic sample, and measure it.

    python -m pipelines.tokenizer --input data/shards --output data/tokenizer --config params.yaml

The sample is chosen by hash of the id: a pass counts bytes by hash, a second copies records under each source's limit.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core import files, progress
from pipelines.core.cli import StageCommand
from pipelines.core.config import ConfigError
from pipelines.core.dataset import Dataset
from pipelines.core.identity import id_bytes, mixed64
from pipelines.core.runners import RunOptions
from pipelines.core.shards import read_batches, write_bytes, write_shard
from pipelines.core.splits import split_batches, splits
from pipelines.core.stage import Report, begin
from pipelines.core.summary import print_summary
from pipelines.text import fertility, hf_tokenizer, sampling
from pipelines.text.sentencepiece import Tokenizer, TrainConfig, train
from schemas.base import SchemaError
from schemas.manifest import Books

STAGE = "tokenizer"
MODEL_FILE, REPORT_FILE = "tokenizer.model", "report.json"
_SAMPLE = pa.schema(
    [pa.field("hash", pa.uint64(), False), pa.field("source", pa.string(), False), pa.field("text", pa.string(), False)]
)
Task = tuple[str, str]  # split, shard key
Limits = dict[str, dict[str, int]]  # split → source → limit of pipelines.text.sampling


@dataclass(frozen=True)
class TokenizerConfig(TrainConfig):
    """What the vocabulary is learned from, and how it is measured; see TrainConfig for the vocabulary itself.

    seed: of the sample. split: that is sampled (the input's only table where it has no splits). sample_bytes: of text,
    in all; the trainer takes about 25 times as much memory (0.4 GB for 16 MB), and 8 MB instead of 16 cost 1.5 % more
    tokens at a vocabulary of 32,000 on English and Chinese Wikipedia (1.27 and 1.25 a word). document_bytes: longer
    documents are cut to that. balance, weights: how sources share the sample (pipelines.text.sampling.quotas).
    measure_split, measure_bytes: what the report is measured on (the training sample where the input has no such
    split). max_length: model_max_length that transformers is told.
    """

    seed: int = 0
    split: str = "train"
    sample_bytes: int = 8 << 20
    document_bytes: int = 64 << 10
    balance: float = 0.5
    weights: dict[str, float] = field(default_factory=dict)
    measure_split: str = "validation"
    measure_bytes: int = 4 << 20
    max_length: int = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("sample_bytes", "document_bytes", "measure_bytes", "max_length"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0 <= self.balance <= 1:
            raise ConfigError(f"balance must be a number from 0 to 1, not {self.balance}")
        if any(weight < 0 for weight in self.weights.values()):
            raise ConfigError(f"weights must not be negative: {self.weights}")


def hashed(batch: pa.RecordBatch, config: TokenizerConfig) -> tuple[np.ndarray, np.ndarray]:
    """Hash each record of a batch and say how many bytes of it a sample takes: (uint64, int64)."""
    sizes = pc.binary_length(batch.column("text")).to_numpy(zero_copy_only=False).astype(np.int64)
    return mixed64(id_bytes(batch.column("id")), f"tokenizer {config.seed}"), np.minimum(sizes, config.document_bytes)


def count_shard(task: Task, dataset: Dataset, config: TokenizerConfig) -> Report:
    """Count one shard: per source, bytes by hash."""
    found: dict[str, list[dict[int, int]]] = {}
    for batch in split_batches(dataset, *task, ["id", "source", "text"]):
        hashes, sizes = hashed(batch, config)
        sources = batch.column("source")
        for source in pc.unique(sources).to_pylist():
            mine = pc.equal(sources, source).to_numpy(zero_copy_only=False)
            found.setdefault(source, []).append(sampling.histogram(hashes[mine], sizes[mine]))
        progress.advance(len(batch), int(sizes.sum()))
    return Report("/".join(task), facts={source: list(sampling.add(one).items()) for source, one in found.items()})


def limits_of(reports: Sequence[Report], budgets: Mapping[str, int], config: TokenizerConfig) -> Limits:
    """Turn the counts of all shards into a limit per split and source. budgets: bytes wanted of each split."""
    limits: Limits = {}
    for split, budget in budgets.items():
        counts: dict[str, dict[int, int]] = {}
        for report in reports:
            if report.key.split("/")[0] == split:
                for source, pairs in report.facts.items():
                    counts[source] = sampling.add([counts.get(source, {}), dict(pairs)])
        available = {source: sum(histogram.values()) for source, histogram in counts.items()}
        wanted = sampling.quotas(available, budget, config.balance, config.weights)
        limits[split] = {source: sampling.limit(counts[source], wanted[source]) for source in sorted(counts)}
    return limits


def sample_shard(task: Task, dataset: Dataset, root: str, limits: Limits, config: TokenizerConfig) -> Report:
    """Copy the sampled records of one shard to a file below `root`."""
    split, key = task

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in split_batches(dataset, split, key, ["id", "source", "text"]):
            yield sample_batch(batch, limits[split], config)

    write_shard(root, _sample_path(task), _SAMPLE, batches())
    return Report("/".join(task))


def sample_batch(batch: pa.RecordBatch, limits: Mapping[str, int], config: TokenizerConfig) -> pa.RecordBatch:
    """Take the records of a batch that lie under their source's limit, as (hash, source, text), long texts cut."""
    hashes, _ = hashed(batch, config)
    sources = batch.column("source")
    limit = np.array([limits.get(source, 0) for source in sources.to_pylist()], np.int64)
    chosen = np.flatnonzero(sampling.bins(hashes) < limit)
    texts = [cut(text.as_py(), config.document_bytes) for text in batch.column("text").take(pa.array(chosen))]
    columns = [pa.array(hashes[chosen]), sources.take(pa.array(chosen)), pa.array(texts, pa.string())]
    return pa.RecordBatch.from_arrays(columns, schema=_SAMPLE)


def cut(text: str, size: int) -> str:
    """The longest beginning of a text that has at most `size` bytes."""
    return text if len(text) * 4 <= size else text.encode()[:size].decode(errors="ignore")


def _sample_path(task: Task) -> str:
    return f"{task[0]}/{task[1]}.arrow"


def read_sample(root: str, tasks: Sequence[Task]) -> pa.Table:
    """Read the sample of some shards, in the order of its hashes: the same rows however the input is sharded."""
    batches = [batch for task in tasks for batch in read_batches(files.join(root, _sample_path(task)))]
    order = [("hash", "ascending"), ("source", "ascending"), ("text", "ascending")]
    return pa.Table.from_batches(batches, _SAMPLE).sort_by(order).combine_chunks()


def train_model(tasks: Sequence[Task], sample: str, root: str, config: TokenizerConfig) -> Report:
    """Train on the sample of all shards and write the model and its transformers files into `root`."""
    texts = read_sample(sample, tasks)["text"].combine_chunks()
    model = train(texts, config)
    contents = {MODEL_FILE: model, **hf_tokenizer.files(model, config.max_length)}
    for name, content in contents.items():
        write_bytes(files.join(root, name), content)
    facts = {
        "files": sorted(contents),
        "sha256": hashlib.sha256(model).hexdigest(),
        "vocab_size": Tokenizer(model).vocab_size,
        "sample_bytes": pc.sum(pc.binary_length(texts)).as_py(),
        "sample_documents": len(texts),
    }
    return Report("train", facts=facts)


def measure_shard(task: Task, sample: str, root: str) -> Report:
    """Measure the model in `root` on the sample of one shard."""
    with files.open_read(files.join(root, MODEL_FILE)) as source:
        tokenizer = Tokenizer(source.read())
    rows = read_sample(sample, [task])
    counts = fertility.measure(rows["text"].combine_chunks(), rows["source"].combine_chunks(), tokenizer)
    return Report("/".join(task), facts=counts)


def report_of(reports: Sequence[Report], trained: Report, measured: str, config: TokenizerConfig) -> dict[str, Any]:
    """The report: what was trained on what, rates overall, by source and by script."""
    counts = fertility.add(report.facts for report in reports)  # type: ignore[misc]
    groups: dict[str, dict[str, Any]] = {"source": {}, "script": {}}
    for name, one in counts.items():
        kind, label = name.split("/", 1)
        groups[kind][label] = {**one, **fertility.rates(one)}
    whole = fertility.add({"all": one} for name, one in counts.items() if name.startswith("source/")).get("all", {})
    return {
        "model": config.model,
        "sample_bytes": trained.facts["sample_bytes"],
        "sample_documents": trained.facts["sample_documents"],
        "measured_on": measured,
        "vocab_size": trained.facts["vocab_size"],
        **fertility.rates(whole),
        "sources": groups["source"],
        "scripts": groups["script"],
    }


@dataclass
class Tasks(beam.PTransform):
    """Run a function of a task, with further arguments, over a list of tasks; results are reports."""

    tasks: tuple[Any, ...]
    function: Any
    arguments: tuple[Any, ...]

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        """Create the tasks, then map."""
        return (
            pipeline
            | "Tasks" >> beam.Create(self.tasks)
            | "Run" >> beam.Map(self.function, *self.arguments).with_output_types(Report)
        )


def run(inputs: Sequence[str], output: str, config: TokenizerConfig, options: RunOptions) -> None:
    """Train on dataset directories (of shard, or of earlier stages) and print the summary."""
    dataset = Dataset.open(*inputs)
    unknown = sorted(set(config.weights) - set(dataset.books))
    if unknown:
        raise ConfigError(f"weights name {', '.join(unknown)}; the input holds: {', '.join(dataset.books)}")
    tables = splits(dataset)
    learned = config.split if config.split in tables else tables[0]
    measured = config.measure_split if config.measure_split in tables else learned
    budgets = {measured: config.measure_bytes} | {learned: config.sample_bytes}
    tasks = {split: tuple((split, key) for key in dataset.keys(split)) for split in budgets}
    both = tuple(task for split in tasks for task in tasks[split])
    total = sum(dataset.content_bytes(split) for split in budgets)
    with begin(STAGE, output, config, options, [dataset]) as stage:
        sample, root = stage.scratch("sample"), stage.root
        counted = stage.pipeline("count", lambda p: p | Tasks(both, count_shard, (dataset, config)), total)
        limits = limits_of(counted, budgets, config)
        if not any(limits[learned].values()):
            raise SchemaError(f"split {learned!r} of the input holds no text to train a tokenizer on")
        stage.pipeline("sample", lambda p: p | Tasks(both, sample_shard, (dataset, sample, limits, config)))
        (trained,) = stage.pipeline(
            "train", lambda p: p | Tasks((tasks[learned],), train_model, (sample, root, config))
        )
        reports = stage.pipeline("measure", lambda p: p | Tasks(tasks[measured], measure_shard, (sample, root)))
        report = report_of(reports, trained, measured, config)
        write_bytes(files.join(root, REPORT_FILE), (json.dumps(report, indent=1) + "\n").encode())
        seen = {source: one.kept + one.repeated for source, one in dataset.books.items()}
        stage.commit(
            [],
            inputs=[dataset],
            books={source: Books(records, records) for source, records in seen.items()},
            facts={
                "extra_files": [*trained.facts["files"], REPORT_FILE],
                "model_sha256": trained.facts["sha256"],
                **{name: value for name, value in report.items() if isinstance(value, (int, float, str))},
            },
        )
    print_summary(stage, (*report_lines(report), f"AutoTokenizer.from_pretrained({output!r}) reads it"))


def report_lines(report: Mapping[str, Any]) -> list[str]:
    """The report as a table for people."""
    lines = [f"{report['model']}, {report['vocab_size']:,} tokens, measured on {report['measured_on']}:"]
    lines.append(f"  {'':<24} {'tokens/word':>12} {'bytes/token':>12} {'byte tokens':>12} {'round trips':>12}")
    rows = {"all": report, **report["sources"], **report["scripts"]}
    for name, one in rows.items():
        trips = f"{one['round_trip_rate']:.2%}" if "round_trip_rate" in one else ""
        if "fertility" in one:
            numbers = f"{one['fertility']:>12.2f} {one['bytes_per_token']:>12.2f} {one['byte_rate']:>12.2%}"
            lines.append(f"  {name:<24} {numbers} {trips:>12}")
    return lines


COMMAND = StageCommand(
    STAGE,
    """
    Train a SentencePiece tokenizer on a bounded sample of the documents.
    Writes tokenizer.model, tokenizer.json and its companions (AutoTokenizer.from_pretrained reads the directory) and
    report.json (tokens per word, bytes per token, byte fallback and round trips, by source and script).
    """,
    TokenizerConfig,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""

    def body(args: argparse.Namespace, config: TokenizerConfig, options: RunOptions) -> None:
        run(args.input, args.output, config, options)

    return COMMAND.main(argv, body)


if __name__ == "__main__":
    from pipelines import tokenizer  # by its name: workers import functions from there, and have another __main__

    sys.exit(tokenizer.main())
