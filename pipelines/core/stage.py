"""Run a stage: pipelines that report the shards they wrote, books that must balance, one commit at the end."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import apache_beam as beam

from pipelines.core import coders, files, ledger, progress
from pipelines.core.config import to_dict
from pipelines.core.dataset import LEDGER_TABLE, Dataset
from pipelines.core.output import Output, OutputError, Unclaimed
from pipelines.core.remote import RemoteOutput
from pipelines.core.runners import RunOptions, plan, run
from pipelines.core.shards import write_bytes
from schemas.manifest import MANIFEST_PATH, Books, Manifest, Shard

_REPORTS = "_meta/reports"
# Libraries whose version can change bytes of an output.
_VERSIONED = (
    "gristmill",
    "pyarrow",
    "numpy",
    "ftfy",
    "orjson",
    "phonenumbers",
    "py3langid",
    "resiliparse",
    "rjieba",
    "sentencepiece",
)


class BooksError(RuntimeError):
    """Records are not accounted for, or too many of them were rejected."""


class DryRun(Exception):
    """The end of a dry run: a stage's first pipeline was built and checked, and nothing was written.

    proto: Beam's portable form of it. Later pipelines of the stage depend on its results.
    """

    def __init__(self, stage: str, label: str, proto: Any) -> None:
        self.stage, self.label, self.proto = stage, label, proto
        names = [f"  {name:<60} {urn}" for name, urn in transforms(proto)]
        super().__init__(f"{stage}: the pipeline {label!r} is built; nothing was written\n" + "\n".join(names))


def transforms(proto: Any) -> list[tuple[str, str]]:
    """List the leaf transforms of a pipeline's proto in their order: name and URN."""
    found: list[tuple[str, str]] = []

    def walk(key: str) -> None:
        transform = proto.components.transforms[key]
        if transform.subtransforms:
            for inner in transform.subtransforms:
                walk(inner)
        elif transform.spec.urn:
            found.append((transform.unique_name, transform.spec.urn))

    for root in proto.root_transform_ids:
        walk(root)
    return found


@dataclass(frozen=True)
class Report:
    """What one task of a pipeline did: the shards it wrote, its books, and small facts for the driver."""

    key: str
    shards: tuple[Shard, ...] = ()
    books: Mapping[str, Books] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """The report as canonical JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, raw: str) -> Report:
        """Read what `to_json` wrote."""
        data = json.loads(raw)
        shards = tuple(Shard(**shard) for shard in data["shards"])
        books = {source: Books(**one) for source, one in data["books"].items()}
        return cls(data["key"], shards, books, data["facts"])


def _to_pair(report: Report) -> tuple[int, str]:
    return 0, report.to_json()


def _write_reports(pair: tuple[int, Iterable[str]], path: str) -> str:
    reports = sorted(set(pair[1]))
    write_bytes(path, json.dumps(reports).encode())
    return path


@dataclass
class CollectReports(beam.PTransform):
    """Write all reports of a pipeline as one file: the pipeline's single final node."""

    path: str

    def expand(self, reports: beam.PCollection) -> beam.PCollection:
        """Gather the reports under one key and write them, sorted."""
        return (
            reports
            | "ToPair" >> beam.Map(_to_pair).with_output_types(tuple[int, str])
            | "Gather" >> beam.GroupByKey()
            | "WriteReports" >> beam.Map(_write_reports, path=self.path).with_output_types(str)
        )


class StageRun:
    """One run of a stage, from the claim of the output directory to the commit."""

    def __init__(self, stage: str, output: Output | RemoteOutput | Unclaimed, config: Any, options: RunOptions) -> None:
        self.stage, self.output, self.config, self.options = stage, output, config, options
        self.started = time.monotonic()
        self.manifest: Manifest | None = None

    @property
    def root(self) -> str:
        """Where the tasks write their shards."""
        return self.output.root

    def scratch(self, name: str) -> str:
        """A path for intermediate files of this run; the commit sweeps it."""
        return files.join(self.root, f"_scratch/{name}")

    def pipeline(self, label: str, build: Callable[[beam.Pipeline], beam.PCollection], total: int = 0) -> list[Report]:
        """Run one pipeline whose result is a collection of reports; returns them sorted by key.

        A resumed run takes the reports of a pipeline that had ended. total: bytes that its tasks will say they did, for
        the progress line.
        """
        coders.register()
        path = files.join(self.root, f"{_REPORTS}/{label}.json")

        def whole(pipeline: beam.Pipeline) -> None:
            _ = build(pipeline) | "Reports" >> CollectReports(path)

        if self.options.planned:
            raise DryRun(self.stage, label, plan(whole, self.options))
        if not files.exists(path):
            with progress.shown(f"{self.stage} {label}", total):
                run(whole, self.options)
        if not files.exists(path):
            return []  # no task, no report
        with files.open_read(path) as source:
            reports = [Report.from_json(raw) for raw in json.loads(source.read())]
        return sorted(reports, key=lambda report: report.key)

    def commit(
        self,
        reports: Sequence[Report],
        *,
        inputs: Sequence[Dataset] = (),
        kept_tables: Sequence[str] = (),
        facts: Mapping[str, Any] | None = None,
        shards: Sequence[Shard] = (),
        books: Mapping[str, Books] | None = None,
    ) -> Manifest:
        """Check the books and make the output visible.

        kept_tables: tables that together hold exactly the kept records. books: totals, where they are not the sum of
        the reports'.
        """
        all_shards = [shard for report in reports for shard in report.shards] + list(shards)
        totals = dict(books) if books is not None else ledger.add(report.books for report in reports)
        for source in {source for dataset in inputs[:1] for source in dataset.books}:
            totals.setdefault(source, Books(0, 0))  # a source of which nothing is left is still accounted for
        totals = dict(sorted(totals.items()))
        check_books(totals, all_shards, kept_tables, inputs[:1])
        manifest = Manifest(
            stage=self.stage,
            config=to_dict(self.config),
            versions=versions(),
            inputs=[sha256 for dataset in inputs for sha256 in dataset.sha256s],
            shards=sorted(all_shards),
            books=totals,
            facts=self._facts(facts or {}),
        )
        self.output.commit(manifest)
        self.manifest = manifest
        return manifest

    def _facts(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """The facts, with the sha256 of each extra file in place of its name, so that `verify` can check it."""
        hashed = {}
        for path in facts.get("extra_files", ()):
            with files.open_read(files.join(self.root, path)) as source:
                hashed[path] = hashlib.sha256(source.read()).hexdigest()
        return {**facts, "extra_files": hashed} if hashed else dict(facts)


def check_books(
    books: Mapping[str, Books], shards: Sequence[Shard], kept_tables: Sequence[str], inputs: Sequence[Dataset]
) -> None:
    """Raise BooksError where in ≠ kept + removed + rejected, or where rows written say otherwise.

    Checked per source: the balance, and records in against those that the input kept. Over all sources: rows of the
    ledger, and rows of each table that holds the kept records.
    """
    for source, one in books.items():
        if one.balance() or one.kept < 0:
            raise BooksError(f"source {source!r}: {one.records_in} records in, but {one} does not add up to that")
    for dataset in inputs:
        for source, before in dataset.books.items():
            found = books[source].records_in if source in books else 0
            if found != before.kept + before.repeated:
                raise BooksError(
                    f"source {source!r}: the input kept {before.kept + before.repeated} records, this stage saw {found}"
                )
    gone = sum(sum(one.removed.values()) + sum(one.rejected.values()) for one in books.values())
    written = sum(shard.rows for shard in shards if shard.table == LEDGER_TABLE)
    if written != gone:
        raise BooksError(f"the ledger holds {written} rows, the books count {gone} removed and rejected records")
    kept = sum(one.kept + one.repeated for one in books.values())
    rows = sum(shard.rows for shard in shards if shard.table in kept_tables)
    if kept_tables and rows != kept:
        raise BooksError(f"{', '.join(kept_tables)} hold {rows} rows, the books count {kept} kept records")


def check_rejected(books: Mapping[str, Books], ceiling: float, floor: int) -> None:
    """Raise BooksError where a source's dead letters are more than `floor` and more than the share `ceiling`."""
    for source, one in books.items():
        rejected = sum(one.rejected.values())
        # A run that could read nothing at all is wrong however small it is (unless the ceiling allows everything).
        too_many = rejected > floor and rejected > ceiling * one.records_in
        if too_many or (0 < rejected == one.records_in and ceiling < 1):
            reasons = ", ".join(f"{reason}: {count:,}" for reason, count in one.rejected.items())
            raise BooksError(
                f"source {source!r}: {rejected:,} of {one.records_in:,} records could not be read ({reasons}), "
                f"more than the ceiling of {ceiling:.1%}; mend the input, or raise max_rejected"
            )


def check_ceilings(books: Mapping[str, Books], ceilings: Mapping[str, float]) -> None:
    """Raise BooksError where a greater share of a source was removed than a ceiling allows.

    ceilings: source, or source/reason, → share; '*' is every source. The error names the reasons and their counts.
    """
    for key, ceiling in ceilings.items():
        wanted, _, reason = key.partition("/")
        for source, one in books.items():
            if wanted not in (source, "*"):
                continue
            removed = one.removed.get(reason, 0) if reason else sum(one.removed.values())
            if removed and removed / one.records_in > ceiling:
                reasons = ", ".join(f"{name}: {count:,}" for name, count in one.removed.items())
                raise BooksError(
                    f"source {source!r}: {removed:,} of {one.records_in:,} records would be removed "
                    f"({f'by {reason}; in all ' if reason else ''}{reasons}), more than the ceiling of "
                    f"{ceiling:.1%}; look at what they share, change what removes them, or raise the ceiling"
                )


def versions() -> dict[str, str]:
    """Versions of the libraries that can change bytes of an output."""
    found = {}
    for name in _VERSIONED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _place(path: str) -> PurePath:
    return Path(path).resolve() if files.is_local(path) else PurePosixPath(path)


def _refuse_other_stage(stage: str, output: str) -> None:
    """Raise OutputError where the output directory holds what another stage wrote: that is a slip of the keyboard."""
    path = files.join(output, MANIFEST_PATH)
    if files.exists(path):
        with files.open_read(path) as source:
            try:
                other = json.loads(source.read())["stage"]
            except (ValueError, KeyError, TypeError):
                return  # no manifest of ours: the claim of the directory refuses it and says so
        if other != stage:
            raise OutputError(
                f"{files.redact(output)} holds an output of {other}, which {stage} would replace; "
                "name another --output, or remove it yourself"
            )


def _resumable(stage: str, config: Any, options: RunOptions, inputs: Sequence[Dataset]) -> str:
    """Name all that decides what a run writes and in which steps; "" where it is not to be resumed."""
    if not options.resume:
        return ""
    read = [sha256 for dataset in inputs for sha256 in dataset.sha256s]
    everything = [stage, to_dict(config), versions(), options.resume, options.shuffle_memory, read]
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()


@contextmanager
def begin(
    stage: str, output: str, config: Any, options: RunOptions, inputs: Sequence[Dataset] = ()
) -> Iterator[StageRun]:
    """Claim an output directory for a run of `stage`; what was written is dropped where the body fails, or kept for a
    run that resumes it.

    OutputError where the output would replace one of the inputs.
    """
    for root in {root for dataset in inputs for root in dataset.roots}:
        if _place(root).is_relative_to(_place(output)):
            raise OutputError(f"{output} is also read by this stage; name another --output")
    _refuse_other_stage(stage, output)
    claimed: Output | RemoteOutput | Unclaimed
    if options.planned:
        claimed = Unclaimed(output)
    else:
        name = _resumable(stage, config, options, inputs)
        claimed = Output(output, name) if files.is_local(output) else RemoteOutput(output, name)
    stage_run = StageRun(stage, claimed, config, options)
    try:
        yield stage_run
    except BaseException:
        claimed.abort()
        raise
