"""A stage's commit: books that do not add up fail the run, and a failed run leaves what was there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import apache_beam as beam
import pyarrow as pa
import pytest

from pipelines.core.dataset import Dataset
from pipelines.core.grouping import GroupBatches, Keyed, batch_element, report_element
from pipelines.core.output import OutputError
from pipelines.core.runners import RunOptions
from pipelines.core.shards import write_shard
from pipelines.core.stage import BooksError, Report, begin, check_books, check_rejected
from schemas.manifest import MANIFEST_PATH, Books, Manifest, Shard, parse

INLINE = RunOptions(workers=1)
IDS = pa.schema([pa.field("id", pa.binary(16), False)])


@dataclass(frozen=True)
class Config:
    size: int = 3


def shard(table: str, rows: int) -> Shard:
    return Shard(f"{table}/a.arrow", table, rows, 0, "", "")


def dataset(**books: Books) -> Dataset:
    return Dataset(("in",), (Manifest("ingest", {}, {}, [], [], dict(books)),))


# --- books -----------------------------------------------------------------------------------------------------------


def test_books_that_add_up_pass() -> None:
    books = {"wiki": Books(10, 7, {"a": 2}, {"b": 1}), "laws": Books(3, 3, repeated=2)}
    tables = [shard("documents", 12), shard("ledger", 3)]
    check_books(books, tables, ["documents"], [dataset(wiki=Books(99, 10), laws=Books(1, 1, repeated=2))])


@pytest.mark.parametrize(
    ("books", "documents", "ledger", "before", "message"),
    [
        (Books(10, 8, {"a": 1}), 8, 1, Books(10, 10), "'wiki': 10 records in, but .* does not add up"),
        (Books(10, -1, {"a": 11}), 0, 11, Books(10, 10), "does not add up"),
        (Books(9, 8, {"a": 1}), 8, 1, Books(10, 10), "'wiki': the input kept 10 records, this stage saw 9"),
        (Books(10, 9, {"a": 1}), 9, 0, Books(10, 10), "the ledger holds 0 rows, the books count 1 removed"),
        (Books(10, 9, {"a": 1}), 8, 1, Books(10, 10), "documents hold 8 rows, the books count 9 kept"),
        (Books(10, 9, {"a": 1}, repeated=1), 9, 1, Books(10, 10), "hold 9 rows, the books count 10 kept"),
    ],
)
def test_books_that_do_not_add_up_name_the_source_and_the_numbers(
    books: Books, documents: int, ledger: int, before: Books, message: str
) -> None:
    tables = [shard("documents", documents), shard("ledger", ledger)]
    with pytest.raises(BooksError, match=message):
        check_books({"wiki": books}, tables, ["documents"], [dataset(wiki=before)])


def test_a_source_that_vanished_is_missed() -> None:
    with pytest.raises(BooksError, match="'laws': the input kept 4 records, this stage saw 0"):
        check_books({}, [], [], [dataset(laws=Books(5, 4, {"a": 1}))])


@pytest.mark.parametrize(("rejected", "fails"), [(0, False), (5, False), (10, False), (11, True)])
def test_too_many_dead_letters_fail_the_run(rejected: int, fails: bool) -> None:
    books = {"wiki": Books(100, 100 - rejected, {}, {"invalid_json": rejected})}
    if fails:
        with pytest.raises(
            BooksError, match=r"'wiki': 11 of 100 records could not be read \(invalid_json: 11\).*10.0%"
        ):
            check_rejected(books, 0.1, 5)
    else:
        check_rejected(books, 0.1, 5)
    check_rejected(books, 0.0, 11)  # the floor holds whatever the share


# --- a run -----------------------------------------------------------------------------------------------------------


def write_ids(key: str, root: str) -> Report:
    rows = pa.RecordBatch.from_pydict({"id": [key.encode() * 16]}, schema=IDS)
    return Report(key, (write_shard(root, f"documents/shard-{key}.arrow", IDS, [rows]),), {"wiki": Books(1, 1)})


def run(path: Path, keys: str = "abc", books: dict[str, Books] | None = None) -> Manifest:
    with begin("clean", str(path), Config(), INLINE) as stage:
        reports = stage.pipeline(
            "write",
            lambda p: p | beam.Create(list(keys)) | beam.Map(write_ids, stage.root).with_output_types(Report),
        )
        return stage.commit(reports, kept_tables=["documents"], facts={"n": len(keys)}, books=books)


def test_a_run_commits_what_its_tasks_reported(tmp_path: Path) -> None:
    manifest = run(tmp_path / "d")
    assert parse((tmp_path / "d" / MANIFEST_PATH).read_bytes()) == manifest
    assert [one.path for one in manifest.shards] == [f"documents/shard-{key}.arrow" for key in "abc"]
    assert manifest.books == {"wiki": Books(3, 3)} and manifest.facts == {"n": 3} and manifest.config == {"size": 3}
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert files == sorted(["d/" + MANIFEST_PATH, *(f"d/{one.path}" for one in manifest.shards)])


def test_a_pipeline_without_tasks_reports_nothing(tmp_path: Path) -> None:
    assert run(tmp_path / "d", "").shards == []


def test_an_imbalance_at_the_commit_keeps_the_old_dataset(tmp_path: Path) -> None:
    old = run(tmp_path / "d")
    with pytest.raises(BooksError, match="documents hold 1 rows, the books count 5 kept"):
        run(tmp_path / "d", "x", books={"wiki": Books(5, 5)})
    assert parse((tmp_path / "d" / MANIFEST_PATH).read_bytes()) == old
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def fail(key: str) -> Report:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_task_that_fails_keeps_the_old_dataset(tmp_path: Path, workers: int) -> None:
    old = run(tmp_path / "d")
    with pytest.raises(Exception, match="No space left on device"):
        with begin("clean", str(tmp_path / "d"), Config(), RunOptions(workers=workers)) as stage:
            stage.pipeline("write", lambda p: p | beam.Create(["a"]) | beam.Map(fail).with_output_types(Report))
    assert parse((tmp_path / "d" / MANIFEST_PATH).read_bytes()) == old
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


@pytest.mark.parametrize("output", ["in", "in/", "."])
def test_an_output_that_would_replace_its_input_is_refused(tmp_path: Path, output: str) -> None:
    run(tmp_path / "in")
    source = Dataset.open(str(tmp_path / "in"))
    with pytest.raises(OutputError, match="is also read by this stage"):
        with begin("clean", str(tmp_path / output), Config(), INLINE, [source]):
            pass
    run(tmp_path / "in2")


# --- reports and groups ---------------------------------------------------------------------------------------------


def test_a_report_survives_being_written_and_read() -> None:
    report = Report("k", (shard("documents", 3),), {"维基": Books(3, 2, {"a": 1})}, {"edges": "e.arrow", "n": 3})
    assert Report.from_json(report.to_json()) == report
    assert Report.from_json(report.to_json()).to_json() == report.to_json()


def emit(item: tuple[str, int]) -> list[Keyed]:
    key, number = item
    batch = pa.RecordBatch.from_pydict({"id": [bytes([number]) * 16]}, schema=IDS)
    return [batch_element(key, batch), report_element(Report(f"task-{number}", facts={"number": number}))]


def count(key: str, batches: Sequence[pa.RecordBatch], step: int) -> Report:
    return Report(key, facts={"ids": sorted(b["id"][0].as_py()[0] * step for b in batches)})


def test_groups_meet_their_batches_and_reports_ride_past(tmp_path: Path) -> None:
    with begin("clean", str(tmp_path / "d"), Config(), INLINE) as stage:
        reports = stage.pipeline(
            "group",
            lambda p: (
                p
                | beam.Create([("x", 1), ("y", 2), ("x", 3)])
                | beam.FlatMap(emit).with_output_types(Keyed)
                | GroupBatches(count, (10,))
            ),
        )
        stage.output.abort()
    assert {r.key: dict(r.facts) for r in reports} == {
        "task-1": {"number": 1},
        "task-2": {"number": 2},
        "task-3": {"number": 3},
        "x": {"ids": [10, 30]},
        "y": {"ids": [20]},
    }
    assert [r.key for r in reports] == sorted(r.key for r in reports)
