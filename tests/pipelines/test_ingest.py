"""Ingest: every record is a document or a dead letter, whatever the files, and ids are unique."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines import ingest
from pipelines.core.config import ConfigError
from pipelines.core.dataset import Dataset
from pipelines.core.identity import content_hash, record_id
from pipelines.core.shards import read_table, verify_shard
from pipelines.ingest import Corpus, IngestConfig, find_repeats, ingest_task
from pipelines.readers.base import ReadConfig
from pipelines.readers.discover import discover
from schemas.document import DOCUMENT
from schemas.ledger import LEDGER
from schemas.manifest import Books

ONE = ["--workers", "1"]


def run(source: str, output: Path, *inputs: Path, options: list[str] = ONE) -> int:
    argv = [arg for path in inputs for arg in ("--input", str(path))]
    return ingest.main([*argv, "--source", source, "--output", str(output), *options])


def lines(path: Path, *records: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return path


def opened(path: Path) -> Dataset:
    dataset = Dataset.open(str(path))
    for shard in dataset.manifests[0].shards:
        verify_shard(str(path), shard)
    DOCUMENT.validate(dataset.table("documents"))
    LEDGER.validate(dataset.table("ledger"))
    return dataset


def test_records_become_documents_with_ids_hashes_and_metadata(tmp_path: Path) -> None:
    lines(tmp_path / "raw/a.jsonl", {"id": "x1", "text": "文本 one", "label": 3}, {"id": "x2", "text": "two"})
    assert run("wiki", tmp_path / "d", tmp_path / "raw", options=[*ONE, "--id-field", "id"]) == 0
    rows = opened(tmp_path / "d").table("documents").to_pylist()
    assert rows[0] == {
        "id": record_id("wiki", "x1"),
        "source": "wiki",
        "locator": "x1",
        "path": "a.jsonl",
        "text": "文本 one",
        "content_hash": content_hash("文本 one".encode()),
        "metadata": '{"label":3}',
    }
    assert rows[1]["metadata"] is None and len(rows) == 2
    assert opened(tmp_path / "d").books == {"wiki": Books(2, 2)}


def test_every_bad_record_is_a_ledger_row_and_the_books_are_exact(tmp_path: Path) -> None:
    bad = b'{"id": 1}\n{"text": 5}\nnot json\n[1]\n{"text": "\xff"}\n\n'
    good = b'{"text": "one"}\n{"text": "two"}'
    (tmp_path / "a.jsonl").write_bytes(bad + good)
    assert run("s", tmp_path / "d", tmp_path / "a.jsonl") == 0
    dataset = opened(tmp_path / "d")
    rejected = {"missing_text": 1, "text_not_a_string": 1, "invalid_json": 1, "not_an_object": 1, "invalid_utf8": 1}
    assert dataset.books == {"s": Books(7, 2, {}, rejected)}
    ledger = dataset.table("ledger")
    assert Counter(ledger["reason"].to_pylist()) == rejected
    assert set(ledger["action"].to_pylist()) == {"rejected"} and set(ledger["stage"].to_pylist()) == {"ingest"}
    assert ledger["locator"].to_pylist() == [f"a.jsonl@{bad.index(b)}" for b in bad.splitlines()[:5]]


def test_repeated_ids_keep_the_first_record_in_file_order_across_files_and_tasks(tmp_path: Path) -> None:
    lines(tmp_path / "raw/a.jsonl", *({"id": i, "text": f"a{i}"} for i in (1, 2, 1, 3)))
    lines(tmp_path / "raw/b.jsonl", *({"id": i, "text": f"b{i}"} for i in (3, 4, 1)))
    for task_bytes, name in ((1 << 20, "one"), (1, "many")):
        options = [*ONE, "--id-field", "id", "--set", f"read.task_bytes={task_bytes}", "--set", "max_rejected=1"]
        assert run("s", tmp_path / name, tmp_path / "raw", options=options) == 0
        dataset = opened(tmp_path / name)
        texts = dict(zip(*(dataset.table("documents")[c].to_pylist() for c in ("locator", "text")), strict=True))
        assert texts == {"1": "a1", "2": "a2", "3": "a3", "4": "b4"}
        assert dataset.books == {"s": Books(7, 4, {}, {"duplicate_id": 3})}
        rows = dataset.table("ledger").to_pylist()
        assert sorted((row["locator"], row["kept_id"]) for row in rows) == [
            ("a.jsonl#1", record_id("s", "1")),
            ("b.jsonl#1", record_id("s", "1")),
            ("b.jsonl#3", record_id("s", "3")),
        ]
        assert len({row["id"] for row in rows} | set(dataset.table("documents")["id"].to_pylist())) == 7


def test_repeats_are_found_across_batches_in_any_order_of_arrival(tmp_path: Path) -> None:
    schema = ingest._POSITION_SCHEMA

    def batch(*rows: tuple[int, int, int, int]) -> pa.RecordBatch:
        values = [{"id": bytes([i]) * 16, "task": t, "part": p, "row": r} for i, t, p, r in rows]
        return pa.RecordBatch.from_pylist(values, schema=schema)

    first, second = batch((7, 2, 0, 5), (8, 0, 0, 0)), batch((7, 1, 9, 9), (9, 1, 0, 0), (7, 2, 0, 4))
    found = []
    for name, batches in (("x", [first, second]), ("y", [second, first])):
        report = find_repeats(f"ids/{name}", batches, str(tmp_path))
        found.append(read_table(str(tmp_path / report.facts["repeats"])).to_pylist())
    assert (
        found[0]
        == found[1]
        == [
            {"id": bytes([7]) * 16, "task": 2, "part": 0, "row": 4},
            {"id": bytes([7]) * 16, "task": 2, "part": 0, "row": 5},
        ]
    )
    assert find_repeats("ids/z", [batch((1, 0, 0, 0))], str(tmp_path)).facts == {}


def test_equal_texts_without_ids_are_told_apart_by_occurrence(tmp_path: Path) -> None:
    lines(tmp_path / "a.jsonl", *({"text": "same"} for _ in range(3)))
    assert run("s", tmp_path / "d", tmp_path / "a.jsonl") == 0
    documents = opened(tmp_path / "d").table("documents")
    assert len(set(documents["id"].to_pylist())) == 3 and len(set(documents["content_hash"].to_pylist())) == 1
    assert [locator.rsplit("#", 1)[1] for locator in documents["locator"].to_pylist()] == ["0", "1", "2"]


def test_too_many_dead_letters_fail_the_run_and_leave_the_old_dataset(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = lines(tmp_path / "a.jsonl", {"text": "one"})
    bad = lines(tmp_path / "b.jsonl", {"text": "two"}, *([5] * 10))
    assert run("s", tmp_path / "d", good) == 0
    before = opened(tmp_path / "d").sha256s
    capsys.readouterr()
    assert run("s", tmp_path / "d", bad, options=[*ONE, "--set", "rejected_floor=9"]) == 1
    message = capsys.readouterr().err
    assert (
        "source 's': 10 of 11 records could not be read (not_an_object: 10)" in message and "Traceback" not in message
    )
    assert opened(tmp_path / "d").sha256s == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "b.jsonl", "d"]
    assert run("s", tmp_path / "d", bad, options=[*ONE, "--set", "rejected_floor=10"]) == 0


def test_shards_roll_and_hold_all_records_in_order(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", *({"text": f"{i:04d}" * 25} for i in range(1000)))
    options = [*ONE, "--set", "shard_bytes=20000", "--set", "read.batch_bytes=3000"]
    assert run("my corpus/中", tmp_path / "d", path, options=options) == 0
    dataset = opened(tmp_path / "d")
    keys = dataset.keys()
    assert len(keys) == 5 and len(set(key.rsplit("-", 2)[0] for key in keys)) == 1
    assert keys == dataset.keys("ledger") and all(key.replace("_", "").replace("-", "").isalnum() for key in keys)
    assert dataset.table("documents")["text"].to_pylist() == [f"{i:04d}" * 25 for i in range(1000)]
    assert dataset.books == {"my corpus/中": Books(1000, 1000)}


def test_a_task_reports_each_shard_with_its_books(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", *({"id": i, "text": "x" * 100} for i in range(50)), 5)
    read = ReadConfig(id_field="id", batch_bytes=2000)
    (task,) = discover([str(path)], read)
    elements = list(ingest_task(task, Corpus("s"), str(tmp_path / "out"), IngestConfig(read, 2500), 1))
    ids = [batch for key, (_, batch) in elements if key.startswith("ids/")]
    rows = pa.Table.from_batches(ids).to_pylist()
    assert len(rows) == 50 and {row["task"] for row in rows} == {0}
    places = [(row["part"], row["row"]) for row in rows]
    assert places == sorted(places) and len(set(places)) == 50
    reports = [key for key, _ in elements if key.startswith("report/")]
    assert reports == [f"report/s-00000-{part:03d}" for part in range(len(reports))] and len(reports) > 1


@pytest.mark.parametrize("source", ["", "  ", "a\0b"])
def test_a_source_without_a_name_is_refused(source: str) -> None:
    with pytest.raises(ConfigError, match="--source must be a name"):
        Corpus(source)


def test_sources_whose_names_look_alike_in_a_file_name_have_their_own_shards() -> None:
    prefixes = [Corpus(name).prefix(7) for name in ("wiki_en", "wiki en", "wiki-en", "维基", "文库")]
    assert prefixes[0] == "wiki_en-00007" and len(set(prefixes)) == 5


def test_an_ingested_directory_can_be_ingested_again(tmp_path: Path) -> None:
    lines(tmp_path / "a.jsonl", {"text": "one"}, {"text": "two"})
    assert run("s", tmp_path / "d", tmp_path / "a.jsonl") == 0
    assert run("t", tmp_path / "e", tmp_path / "d") == 0
    assert opened(tmp_path / "e").table("documents")["text"].to_pylist() == ["one", "two"]


def test_inputs_that_match_nothing_fail_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("s", tmp_path / "d", tmp_path / "absent*.jsonl") == 1
    assert "no file matches" in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_real_records_in_two_languages_keep_their_text(
    tmp_path: Path, real_records: Callable[..., list[dict[str, Any]]]
) -> None:
    for name, source in (("wikipedia_en", "en"), ("wikipedia_zh", "zh")):
        records = real_records(f"{name}.jsonl.zst", 300)
        path = tmp_path / f"{source}.jsonl.gz"
        path.write_bytes(gzip.compress("".join(json.dumps(record) + "\n" for record in records).encode()))
        options = ["--id-field", "id", "--workers", "2", "--set", "shard_bytes=100000"]
        assert run(source, tmp_path / source, path, options=options) == 0
        documents = opened(tmp_path / source).table("documents")
        assert documents["text"].to_pylist() == [record["text"] for record in records]
        titles = [json.loads(raw)["title"] for raw in documents["metadata"].to_pylist()]
        assert titles == [record["title"] for record in records]


def test_workers_change_no_byte(tmp_path: Path) -> None:
    for number in range(4):
        lines(tmp_path / f"raw/{number}.jsonl", *({"id": f"{number}-{i % 40}", "text": "x" * i} for i in range(50)))
    shas = []
    for name, options in (("a", ["--workers", "1"]), ("b", ["--workers", "3", "--mode", "threads"])):
        extra = ["--id-field", "id", "--set", "read.task_bytes=2000", "--set", "max_rejected=1"]
        assert run("s", tmp_path / name, tmp_path / "raw", options=[*options, *extra]) == 0
        shas.append(opened(tmp_path / name).sha256s)
    assert shas[0] == shas[1]
    assert opened(tmp_path / "a").books["s"].rejected == {"duplicate_id": 40}


def test_a_shard_name_collision_between_corpora_is_told(tmp_path: Path) -> None:
    for name in ("d", "e"):
        lines(tmp_path / f"{name}.jsonl", {"text": name})
        assert run("s", tmp_path / name, tmp_path / f"{name}.jsonl") == 0
    with pytest.raises(ValueError, match="give each its own"):
        Dataset.open(str(tmp_path / "d"), str(tmp_path / "e"))
