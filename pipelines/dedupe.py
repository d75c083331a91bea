"""Deduplicate texts or images: exact by content, near by LSH, every removal verified against the record it names.

    python -m pipelines.dedupe --input data/clean --output data/dedupe --config params.yaml [--materialize]
    python -m pipelines.dedupe --input data/new --against data/dedupe --output data/dedupe-new

Passes, each in a module of `pipelines.lsh`: `sign` reads the records and writes the index (signature and sketch of each
document, hashes and thumbnail of each image); `link` groups hashes of bands, in rounds that fit the memory, and writes
the edges of their buckets; `components` in the driver, or `stars` as pipelines where the graph is too large for that,
find what is connected; `verify` decides inside each component and writes ledger, clusters and, with --materialize, the
surviving records. Only hashes, node numbers and ledger rows cross a shuffle. Records that --against names are compared
with, and never removed. What differs between texts and images is in `lsh.texts` and `lsh.images`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipelines.core import files
from pipelines.core.cli import StageCommand
from pipelines.core.config import ConfigError, to_dict
from pipelines.core.dataset import Dataset, expand
from pipelines.core.grouping import SHUFFLE
from pipelines.core.identity import id_bytes
from pipelines.core.kinds import kind_of
from pipelines.core.ledger import add as ledger_books
from pipelines.core.runners import RunOptions
from pipelines.core.stage import Report, StageRun, begin, check_ceilings
from pipelines.core.summary import print_summary
from pipelines.lsh.components import components
from pipelines.lsh.config import DedupeConfig
from pipelines.lsh.gather import gather_heads
from pipelines.lsh.groups import Span, deal, write_groups
from pipelines.lsh.link import Round, build_link, build_sign, edge_batches, plan_rounds
from pipelines.lsh.method import INDEX, Method
from pipelines.lsh.methods import method_for, method_of
from pipelines.lsh.nodes import IndexShard, Nodes, shards_to_sign, stored_shards
from pipelines.lsh.stars import Stars
from pipelines.lsh.verify import SURVIVING, VERDICT_BYTES, Target, build_store, build_verify, build_write
from schemas.base import SchemaError

STAGE = "dedupe"
_NODE_BYTES = 12  # that the driver holds for a document while it finds components: its parent, and a mark
_SHOWN_BUCKETS = 10


class Run:
    """One run of the stage: what is signed, and how its documents are numbered."""

    def __init__(
        self, stage: StageRun, inputs: Dataset, against: Sequence[Dataset], config: DedupeConfig, options: RunOptions
    ) -> None:
        self.stage, self.inputs, self.config = stage, inputs, config
        self.scratch, self.memory = stage.scratch(STAGE), options.shuffle_memory
        self.table = kind_of(inputs).table
        own = shards_to_sign(stage.root, inputs, self.table, fixed=False)
        self.signed: list[tuple[Dataset, list[IndexShard]]] = [(inputs, own)]
        stored: list[IndexShard] = []
        for number, dataset in enumerate(against):
            if dataset.has(INDEX):
                stored += stored_shards(dataset)
            else:
                root = files.join(self.scratch, f"against-{number}")
                self.signed.append((dataset, shards_to_sign(root, dataset, self.table, fixed=True)))
        self.nodes = Nodes(tuple(shard for _, shards in self.signed for shard in shards) + tuple(stored), self.table)
        self.method = method_of(self.nodes)

    def edges(self) -> list[Report]:
        """Sign what is not signed yet, and link all documents in rounds."""
        rounds = plan_rounds(self.nodes.total, self.config, self.memory, self.method)
        alone = not any(shard.fixed for shard in self.nodes.shards)
        reports = self._sign(rounds.pop(0) if alone else None)
        probe = None if alone else self._probe()
        for number, one in enumerate(rounds):

            def build(pipeline: Any, one: Round = one) -> Any:
                return build_link(pipeline, self.nodes, one, probe, self.scratch, self.config)

            reports += self.stage.pipeline(f"link-{number:04d}", build)
        return reports

    def _sign(self, first: Round | None) -> list[Report]:
        reports: list[Report] = []
        start = 0
        for number, (dataset, shards) in enumerate(self.signed):  # their shards come first, in the same order
            numbers = range(start, start := start + len(shards))

            def build(pipeline: Any, dataset: Dataset = dataset, numbers: range = numbers) -> Any:
                args = (numbers, self.nodes, dataset, self.table, first, self.scratch, self.config)
                return build_sign(pipeline, *args)

            label = f"sign-against-{number}" if number else "sign"
            reports += self.stage.pipeline(label, build, dataset.content_bytes(self.method.measured))
        return reports

    def _probe(self) -> Any:
        """What the records that may be removed look like."""
        own = [shard for shard in self.nodes.shards if not shard.fixed]
        return self.method.probe(own, self.config, self.scratch)

    def spans(self, reports: Sequence[Report]) -> list[Span]:
        """Find the connected components of the edges; returns where they stand, and what they may cost."""
        paths = [report.facts["edges"] for report in reports if report.facts.get("edges")]
        if self.memory and self.nodes.total * _NODE_BYTES > self.memory:
            edges = sum(report.facts.get("count", 0) for report in reports)
            return Stars(self.stage.pipeline, self.scratch, self.memory).groups(paths, edges)
        found = components(edge_batches(reports, self.scratch), self.nodes.total)
        return write_groups(*found, self.scratch, "groups.arrow")

    def verify(self, spans: list[Span], materialize: bool) -> list[Report]:
        """Decide on all candidates, and write what was decided."""
        if not spans and not materialize:
            return []
        target = Target(self.stage.root, self.inputs, self.table, materialize)
        options = self.stage.options
        tasks = deal(spans, options.worker_count if options.runner == "local" else len(spans))
        candidates = sum(last - first for _, first, last, _ in spans)
        if not self.memory or candidates * VERDICT_BYTES * SHUFFLE <= self.memory:
            args = (self.nodes, target, self.scratch, self.config, tasks)
            return self.stage.pipeline("verify", lambda p: build_verify(p, *args))
        decided = self.stage.pipeline("verify", lambda p: build_store(p, self.nodes, self.scratch, self.config, tasks))
        stored: dict[str, list[str]] = {}
        for report in decided:
            for key, path in report.facts["verdicts"].items():
                stored.setdefault(key, []).append(path)
        write = (stored, self.nodes, target, self.scratch, self.config)
        return decided + self.stage.pipeline("write", lambda p: build_write(p, *write))

    def facts(self, reports: Sequence[Report]) -> dict[str, Any]:
        """What the run says about itself: its largest buckets, each with one of its documents."""
        hot = sorted((-size, band, node) for r in reports for size, band, node in r.facts.get("hot", ()))
        nodes = np.array([node for *_, node in hot[:_SHOWN_BUCKETS]], np.int64)
        ids = id_bytes(gather_heads(nodes, self.nodes, ["id"]).column("id")) if len(nodes) else ()
        return {
            "largest_bucket": max((r.facts.get("largest_bucket", 0) for r in reports), default=0),
            "hot_buckets": sum(r.facts.get("hot_buckets", 0) for r in reports),
            "hottest": [
                {"documents": -size, "band": band, "example": one.tobytes().hex()}
                for (size, band, _), one in zip(hot, ids, strict=False)
            ],
            **{name: sum(r.facts.get(name, 0) for r in reports) for name in self.method.counted},
        }


def open_against(paths: Sequence[str], inputs: Dataset, config: DedupeConfig, method: Method) -> list[Dataset]:
    """Open the directories that records are compared with: outputs of dedupe, or of a stage that writes such records.

    SchemaError where one is also an input or was made of one, has no such records, or has an index of another kind or
    configuration.
    """
    opened = []
    for path in expand(paths):
        dataset = Dataset.open(path)
        (manifest,) = dataset.manifests
        same = {*dataset.sha256s, *(manifest.inputs if dataset.has(INDEX) else ())} & set(inputs.sha256s)
        if same:
            raise SchemaError(
                f"{files.redact(path)}, named by --against, is an --input or was made of one: its {method.kind.noun} "
                f"would be removed for themselves; give only new {method.kind.noun} as --input"
            )
        if dataset.has(INDEX):
            for key in dataset.keys(INDEX)[:1]:
                method.check_index(dataset.open_sized(INDEX, key).schema, f"the index of {files.redact(path)}")
            theirs, ours = method.signing(manifest.config), method.signing(to_dict(config))
            if theirs != ours:
                raise SchemaError(
                    f"{files.redact(path)} was signed with {theirs}, this run signs with {ours}; use the same "
                    f"settings, or name its {method.kind.noun} in place of its index"
                )
        opened.append(dataset if dataset.has(INDEX) else _require(dataset, method))
    return opened


def _require(dataset: Dataset, method: Method) -> Dataset:
    """Return the dataset; SchemaError where it lacks a table that the method reads."""
    for table in (method.kind.table, *method.needs):
        dataset.require(table)
    return dataset


def check_choices(config: DedupeConfig, sources: Sequence[str], against: bool) -> None:
    """Raise ConfigError for settings that would quietly do nothing on this input."""
    if not (config.within or against):
        raise ConfigError("within=false compares with --against alone: name at least one directory there")
    if unknown := [name for name in config.sources if name not in sources]:
        raise ConfigError(f"sources names {', '.join(unknown)}; the input holds: {', '.join(sources)}")


def run(
    inputs: Sequence[str],
    output: str,
    config: DedupeConfig,
    options: RunOptions,
    materialize: bool = False,
    against: Sequence[str] = (),
) -> None:
    """Deduplicate dataset directories into `output` and print the summary."""
    dataset = Dataset.open(*inputs)
    method = method_for(kind_of(dataset).table)
    _require(dataset, method)
    check_choices(config, list(dataset.books), bool(against))
    others = open_against(against, dataset, config, method)
    with begin(STAGE, output, config, options, [dataset, *others]) as stage:
        one = Run(stage, dataset, others, config, options)
        reports = one.edges()
        reports += one.verify(one.spans(reports), materialize)
        facts = one.facts(reports)
        if others:
            facts["against"] = sorted(sha256 for other in others for sha256 in other.sha256s)
        books = ledger_books(report.books for report in reports)
        check_ceilings(books, {"*": config.max_removed})
        stage.commit(reports, inputs=[dataset], kept_tables=[SURVIVING] if materialize else [], facts=facts)
    removed = sum(sum(one.removed.values()) for one in books.values())
    print_summary(stage, tuple(_notes(facts, config, method, removed, materialize)))


def _notes(facts: dict[str, Any], config: DedupeConfig, method: Method, removed: int, materialize: bool) -> list[str]:
    notes = method.notes(facts, config)
    if materialize:
        return [*notes, "surviving/ holds the kept records"]
    notes.append(
        "nothing is removed: there is no ledger/"
        if not removed
        else "ledger/ names each removed record, its kept twin and their similarity; `gristmill shard` applies it "
        "(--materialize writes the kept records here)"
    )
    return notes


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--against",
        action="extend",
        nargs="+",
        default=[],
        metavar="DIR",
        help="compare with these records too and never remove them: outputs of earlier runs of dedupe (their stored "
        "index is read, not their records), or evaluation sets and other corpora as ingest or clean wrote them "
        "(images: as clean wrote them)",
    )


COMMAND = StageCommand(
    STAGE,
    """
    Remove exact and near duplicates.
    Writes index/ (of texts MinHash signatures that datasketch can query, of images difference hashes), clusters/ and
    ledger/ (who is removed, for which kept record, at what measured similarity).
    """,
    DedupeConfig,
    materialize=True,
    corpora=True,
    memory=True,
    resumable=True,
    add_arguments=_arguments,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""

    def body(args: argparse.Namespace, config: DedupeConfig, options: RunOptions) -> None:
        run(args.input, args.output, config, options, args.materialize, args.against)

    return COMMAND.main(argv, body)


if __name__ == "__main__":
    from pipelines import dedupe  # by its name: workers import functions from there, and have another __main__

    sys.exit(dedupe.main())
