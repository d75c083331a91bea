"""Bad input: each case is the stated ledger row or a clear error, never a crash, and never a partial output."""

from __future__ import annotations

import gzip
import importlib
import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines import ingest
from pipelines.core.dataset import Dataset
from schemas.ledger import LEDGER
from schemas.manifest import Books

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ONE = ["--workers", "1"]
GOOD = b'{"id": "g1", "text": "good one"}\n', b'{"id": "g2", "text": "good two"}\n'
MIB = 1 << 20


def run(tmp_path: Path, source: Path | str, *options: str) -> int:
    return ingest.main(["--input", str(source), "--source", "s", "--output", str(tmp_path / "out"), *ONE, *options])


def result(tmp_path: Path) -> tuple[list[str], list[tuple[str, str]], Books]:
    """Texts, (reason, locator) of the dead letters, books; what is kept beside the output must be nothing."""
    dataset = Dataset.open(str(tmp_path / "out"))
    ledger = dataset.table("ledger")
    LEDGER.validate(ledger)
    assert all(len(detail or "") <= 200 for detail in ledger["detail"].to_pylist())
    dead = list(zip(ledger["reason"].to_pylist(), ledger["locator"].to_pylist(), strict=True))
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
    return dataset.table("documents")["text"].to_pylist(), dead, dataset.books.get("s", Books(0, 0))


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b'{"id": "b", "text": "caf\xe9"}\n', "invalid_utf8"),
        (b'{"id": "b", "title": "no text"}\n', "missing_text"),
        (b'{"id": "b", "text": null}\n', "missing_text"),
        (b'{"id": "b", "text": 12.5}\n', "text_not_a_string"),
        (b'{"id": "b", "text": ["a"]}\n', "text_not_a_string"),
        (b'{"id": "b", "text": "\\ud800"}\n', "invalid_json"),
        (b'{"id": "b", "text": "x", "n": NaN}\n', "invalid_json"),
        (b"[" * 100_000 + b"]" * 100_000 + b"\n", "invalid_json"),
        (b'{"text": ' + b"[" * 100_000 + b"\n", "invalid_json"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"\n", "invalid_json"),
        (b"just words\n", "invalid_json"),
        (b"\x00\x01\x02\xff\n", "invalid_utf8"),
        (b'"text"\n', "not_an_object"),
    ],
)
def test_one_bad_line_is_one_dead_letter_and_its_neighbours_survive(tmp_path: Path, bad: bytes, reason: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(GOOD[0] + bad + GOOD[1])
    assert run(tmp_path, tmp_path / "a.jsonl") == 0
    texts, dead, books = result(tmp_path)
    assert texts == ["good one", "good two"] and dead == [(reason, f"a.jsonl@{len(GOOD[0])}")]
    assert books == Books(3, 2, {}, {reason: 1})


def test_duplicate_ids_are_dead_letters_that_name_the_record_kept(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(GOOD[0] + GOOD[1] + GOOD[0])
    assert run(tmp_path, tmp_path / "a.jsonl", "--id-field", "id") == 0
    texts, dead, books = result(tmp_path)
    assert texts == ["good one", "good two"] and dead == [("duplicate_id", "a.jsonl#g1")]
    assert books == Books(3, 2, {}, {"duplicate_id": 1})


def test_empty_files_hold_no_records(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    for name in ("a.jsonl", "b.txt", "c.csv"):
        (tmp_path / "raw" / name).touch()
    (tmp_path / "raw" / "d.jsonl").write_bytes(GOOD[0])
    (tmp_path / "raw" / "e.jsonl.gz").write_bytes(gzip.compress(b""))
    assert run(tmp_path, tmp_path / "raw") == 0
    texts, dead, books = result(tmp_path)
    # An empty JSON Lines or CSV file holds no record; an empty text file is a record without text.
    assert (texts, dead, books) == (["good one"], [("empty_file", "b.txt@0")], Books(2, 1, {}, {"empty_file": 1}))


def test_a_run_over_nothing_but_an_empty_file_is_an_empty_dataset(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch()
    assert run(tmp_path, tmp_path / "a.jsonl") == 0
    assert result(tmp_path) == ([], [], Books(0, 0))


def test_a_truncated_gzip_keeps_what_was_whole_and_says_where_it_ends(tmp_path: Path) -> None:
    lines = b"".join(json.dumps({"id": i, "text": f"record {i} {i * 7919}"}).encode() + b"\n" for i in range(5000))
    whole = gzip.compress(lines)
    (tmp_path / "a.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    assert run(tmp_path, tmp_path / "a.jsonl.gz") == 0
    texts, dead, books = result(tmp_path)
    assert 100 < len(texts) < 5000 and texts == [f"record {i} {i * 7919}" for i in range(len(texts))]
    assert [reason for reason, _ in dead] == ["truncated_file"]
    end = lines.splitlines(keepends=True)[: len(texts)]
    assert dead[0][1] == f"a.jsonl.gz@{len(b''.join(end))}"
    assert books == Books(len(texts) + 1, len(texts), {}, {"truncated_file": 1})


def test_what_is_no_gzip_is_one_dead_letter(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(b"<html>404 not found</html>" * 10)
    assert run(tmp_path, tmp_path / "a.jsonl.gz") == 1, "nothing could be read"
    assert run(tmp_path, tmp_path / "a.jsonl.gz", "--set", "max_rejected=1") == 0
    assert result(tmp_path)[1] == [("unreadable_file", "a.jsonl.gz@0")]


def test_a_line_of_a_gigabyte_is_a_dead_letter_in_bounded_memory(
    tmp_path: Path, run_stage: Callable[..., dict[str, Any]]
) -> None:
    (tmp_path / "small.jsonl").write_bytes(GOOD[0])
    argv = ["--source", "s", "--output", str(tmp_path / "out")]
    base = run_stage("ingest", "--input", str(tmp_path / "small.jsonl"), *argv)
    assert base["code"] == 0
    with zstd.open(tmp_path / "a.jsonl.zst", "wb") as sink:
        sink.write(GOOD[0] + b'{"text": "')
        for _ in range(1024):
            sink.write(b"a" * MIB)
        sink.write(b'"}\n' + GOOD[1])
    assert (tmp_path / "a.jsonl.zst").stat().st_size < MIB
    ended = run_stage("ingest", "--input", str(tmp_path / "a.jsonl.zst"), *argv)
    assert ended["code"] == 0, ended["console"]
    texts, dead, books = result(tmp_path)
    assert texts == ["good one", "good two"] and dead == [("line_too_long", f"a.jsonl.zst@{len(GOOD[0])}")]
    assert books == Books(3, 2, {}, {"line_too_long": 1})
    assert ended["peak"] - base["peak"] < 300 * MIB, "the limit of a record is 64 MiB"


@pytest.mark.parametrize("stage", ["ingest", "clean", "dedupe", "shard"])
def test_an_unknown_key_in_params_yaml_stops_every_stage(
    tmp_path: Path, stage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "params.yaml").write_text(f"{stage}:\n  treshold: 0.5\n")
    argv = ["--input", "x", "--output", str(tmp_path / "out"), "--config", str(tmp_path / "params.yaml"), *ONE]
    argv += ["--source", "s"] if stage == "ingest" else []
    assert importlib.import_module(f"pipelines.{stage}").main(argv) == 1
    message = capsys.readouterr().err
    assert f"gristmill {stage}: error:" in message and "unknown key 'treshold'; known keys:" in message
    assert "params.yaml" in message and not (tmp_path / "out").exists()


@pytest.mark.parametrize("held", ["file", "directory"])
def test_an_output_that_holds_something_else_is_refused_and_untouched(
    tmp_path: Path, held: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.jsonl").write_bytes(GOOD[0])
    if held == "file":
        (tmp_path / "out").write_text("thesis")
    else:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.txt").write_text("thesis")
    before = {path.relative_to(tmp_path) for path in tmp_path.rglob("*")}
    assert run(tmp_path, tmp_path / "a.jsonl") == 1
    message = capsys.readouterr().err
    assert "holds something else than a Gristmill dataset" in message and "Traceback" not in message
    assert {path.relative_to(tmp_path) for path in tmp_path.rglob("*")} == before


def test_records_of_every_kind_of_damage_in_one_file_balance(tmp_path: Path) -> None:
    bad = [b"\xff", b"{", b"5", b'{"text": 5}', b"{}", b"[" * 5000]
    (tmp_path / "a.jsonl").write_bytes(b"".join(line + b"\n" for line in bad * 2) + GOOD[0] * 50)
    assert run(tmp_path, tmp_path / "a.jsonl", "--set", "max_rejected=0.5") == 0
    texts, dead, books = result(tmp_path)
    assert len(texts) == 50 and books.records_in == 62 and books.balance() == 0
    assert Counter(reason for reason, _ in dead) == {
        "invalid_utf8": 2,
        "invalid_json": 4,
        "not_an_object": 2,
        "text_not_a_string": 2,
        "missing_text": 2,
    }
