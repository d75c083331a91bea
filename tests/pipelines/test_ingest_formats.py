"""Ingest of web archives, dumps, and HTML trees, from the command line to the books."""

import bz2
import json
import sys
from pathlib import Path

import pytest

from pipelines import ingest
from pipelines.core.dataset import Dataset
from pipelines.core.identity import record_id
from schemas.document import DOCUMENT
from schemas.ledger import LEDGER
from schemas.manifest import Books

sys.path.append(str(Path(__file__).resolve().parent / "readers"))  # the writer of records
from archives import ARC_HEAD, arc, html_record, http, members, page, warc

INFO = warc("warcinfo", b"software: test\r\n", 99)


def run(output: Path, *inputs: Path, options: tuple[str, ...] = ()) -> Dataset:
    argv = [arg for path in inputs for arg in ("--input", str(path))]
    assert ingest.main([*argv, "--source", "web", "--output", str(output), "--workers", "1", *options]) == 0
    dataset = Dataset.open(str(output))
    DOCUMENT.validate(dataset.table("documents"))
    LEDGER.validate(dataset.table("ledger"))
    return dataset


def test_a_crawl_of_good_and_damaged_records_gives_exactly_the_good_ones(tmp_path: Path) -> None:
    good = [html_record(i, f"Page number {i} of the crawl, 第{i}页。") for i in range(20)]
    revisit = warc("revisit", b"HTTP/1.1 200 OK\r\n\r\n", 50)
    image = warc("response", http(b"\x89PNG\r\n\x1a\n" + bytes(99), "image/png"), 51)
    lying = warc("response", http(page("lies")), 52, length=9)
    cut = members(html_record(53, "cut"))[:-30]
    raw = members(INFO, *good[:8], revisit, image, lying, *good[8:15]) + cut + members(*good[15:])
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.warc.gz").write_bytes(raw)
    dataset = run(tmp_path / "d", tmp_path / "raw")
    rows = dataset.table("documents").to_pylist()
    assert [row["text"] for row in rows] == [f"Page number {i} of the crawl, 第{i}页。" for i in range(20)]
    first = "urn:uuid:00000000-0000-4000-8000-000000000000"
    assert (rows[0]["locator"], rows[0]["id"]) == (first, record_id("web", first))
    assert json.loads(rows[0]["metadata"])["url"] == "http://example.org/0"
    removed, rejected = {"revisit": 1, "unsupported_type": 1}, {"damaged_member": 1, "wrong_length": 1}
    assert dataset.books == {"web": Books(24, 20, removed, rejected)}
    ledger = dataset.table("ledger").to_pylist()
    assert sorted(row["reason"] for row in ledger) == sorted([*removed, *rejected])
    assert len({row["id"] for row in ledger} | {row["id"] for row in rows}) == 24


def test_ids_do_not_depend_on_the_name_or_the_packing_of_an_archive(tmp_path: Path) -> None:
    parts = [html_record(i, f"Page {i}") for i in range(3)]
    (tmp_path / "a.warc").write_bytes(b"".join(parts))
    (tmp_path / "b.warc.gz").write_bytes(members(*parts))
    ids = [run(tmp_path / n, tmp_path / f).table("documents")["id"] for n, f in (("1", "a.warc"), ("2", "b.warc.gz"))]
    assert ids[0] == ids[1]


def test_a_record_that_stands_in_two_files_is_one_document(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.warc").write_bytes(html_record(1, "The same record."))
    dataset = run(tmp_path / "d", tmp_path / "a.warc", tmp_path / "b.warc", options=("--set", "max_rejected=1"))
    assert dataset.books == {"web": Books(2, 1, {}, {"duplicate_id": 1})}


def test_every_format_at_once(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    (raw / "site").mkdir(parents=True)
    (raw / "c.arc").write_bytes(ARC_HEAD + arc("http://a.example/", http(page("From an ARC file."))))
    (raw / "w.warc.wet.gz").write_bytes(members(INFO, warc("conversion", b"From a WET file.\n", 7)))
    (raw / "site" / "i.html").write_bytes(page("From a tree of pages."))
    (raw / "notes.txt").write_text("From a text.")
    dump = (
        "<mediawiki><siteinfo><dbname>enwiki</dbname></siteinfo><page><title>T</title><ns>0</ns><id>5</id>"
        "<revision><id>6</id><text>From a [[dump]].</text></revision></page></mediawiki>"
    )
    (raw / "p.xml.bz2").write_bytes(bz2.compress(dump.encode()))
    rows = run(tmp_path / "d", raw).table("documents").to_pylist()
    assert {row["path"]: row["text"].strip() for row in rows} == {
        "c.arc": "From an ARC file.",
        "notes.txt": "From a text.",
        "p.xml.bz2": "From a dump.",
        "site/i.html": "From a tree of pages.",
        "w.warc.wet.gz": "From a WET file.",
    }
    locators = {row["path"]: row["locator"] for row in rows}
    assert locators["p.xml.bz2"] == "enwiki:5" and locators["c.arc"] == "2008-04-30T20:48:25Z/http://a.example/"
    assert locators["site/i.html"].startswith("site/i.html#")


def test_a_directory_of_a_dataset_dict_is_an_input(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="writes the directory that this reads")
    one, two = (datasets.Dataset.from_dict({"text": [f"{name} {i}" for i in range(3)]}) for name in "ab")
    datasets.DatasetDict({"train": one, "test": two}).save_to_disk(str(tmp_path / "dict"))
    rows = run(tmp_path / "d", tmp_path / "dict").table("documents").to_pylist()
    assert sorted(row["text"] for row in rows) == ["a 0", "a 1", "a 2", "b 0", "b 1", "b 2"]
