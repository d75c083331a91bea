"""Documents and dead letters: every record is in one of the two, under an id that only its own content moves."""

import gzip
import itertools
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

from pipelines.core.identity import content_hash, record_id
from pipelines.readers.base import ReadConfig, ReadError
from pipelines.readers.decompress import zstd
from pipelines.readers.discover import ReadTask, discover
from pipelines.readers.documents import read_task
from schemas.document import DOCUMENT
from schemas.ledger import LEDGER

SHARED = Path(__file__).resolve().parents[3] / ".." / "shared" / "data"


def read(inputs: list[str], **config: Any) -> tuple[pa.Table, pa.Table]:
    settings = ReadConfig(**config)
    pairs = [pair for task in discover(inputs, settings) for pair in read_task(task, "src", settings)]
    documents = pa.Table.from_batches([d for d, _ in pairs], DOCUMENT.schema)
    ledger = pa.Table.from_batches([rejects for _, rejects in pairs], LEDGER.schema)
    DOCUMENT.validate(documents)
    LEDGER.validate(ledger)
    return documents, ledger


def lines(path: Path, records: list[Any]) -> str:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return str(path)


def digest(text: str) -> str:
    return xxhash.xxh3_128(text.encode()).hexdigest()


def test_all_columns_of_a_record_without_its_own_id(tmp_path: Path) -> None:
    documents, ledger = read([lines(tmp_path / "x.jsonl", [{"text": "汉字", "n": 1}, {"text": "汉字"}])])
    locators = [f"x.jsonl#{digest('汉字')}#{n}" for n in (0, 1)]
    assert documents.to_pylist() == [
        {
            "id": record_id("src", locator),
            "source": "src",
            "locator": locator,
            "path": "x.jsonl",
            "text": "汉字",
            "content_hash": content_hash("汉字".encode()),
            "metadata": metadata,
        }
        for locator, metadata in zip(locators, ['{"n":1}', None], strict=True)
    ]
    assert ledger.num_rows == 0


def test_a_record_with_its_own_id_is_known_by_it_alone(tmp_path: Path) -> None:
    one = read([lines(tmp_path / "x.jsonl", [{"id": "http://a/1", "text": "a"}])], id_field="id")[0]
    other = read([lines(tmp_path / "y.jsonl", [{"id": "http://a/1", "text": "b"}])], id_field="id")[0]
    assert one["locator"].to_pylist() == other["locator"].to_pylist() == ["http://a/1"]
    assert one["id"].to_pylist() == [record_id("src", "http://a/1")]


def test_all_columns_of_a_dead_letter(tmp_path: Path) -> None:
    bad = '{"text": 7, "secret": "SECRET"}'
    (tmp_path / "x.jsonl").write_text(f'{{"text":"a"}}\n{bad}\n')
    documents, ledger = read([str(tmp_path)])
    assert documents["text"].to_pylist() == ["a"]
    assert ledger.to_pylist() == [
        {
            "id": record_id("src", "x.jsonl@13"),
            "source": "src",
            "stage": "ingest",
            "action": "rejected",
            "reason": "text_not_a_string",
            "score": None,
            "threshold": None,
            "kept_id": None,
            "similarity": None,
            "similarity_error": None,
            "locator": "x.jsonl@13",
            "detail": f"field 'text' is a number; xxh3-128 {digest(bad)}",
        }
    ]


def test_details_are_at_most_200_characters(tmp_path: Path) -> None:
    _, ledger = read([lines(tmp_path / "x.jsonl", [{}])], text_field="long " * 100)
    (detail,) = ledger["detail"].to_pylist()
    assert len(detail) == 200 and detail.endswith(digest("{}"))


def test_inserting_a_line_moves_no_other_id(tmp_path: Path) -> None:
    records = [{"text": text} for text in ("a", "b", "a", "c", "b", "a")]
    before = read([lines(tmp_path / "x.jsonl", records)])[0]["id"].to_pylist()
    for at in range(len(records) + 1):
        changed = [*records[:at], {"text": "new"}, *records[at:]]
        after = read([lines(tmp_path / "x.jsonl", changed)])[0]["id"].to_pylist()
        assert after[:at] + after[at + 1 :] == before
    assert len(set(before)) == len(before)


@pytest.mark.parametrize("batch_bytes", [1, 150, 400, 1 << 20])
def test_the_bounds_of_batches_change_no_row(tmp_path: Path, batch_bytes: int) -> None:
    records = [{"text": f"{i % 7} text"} if i % 5 else {"no": 1} for i in range(100)]
    path = lines(tmp_path / "x.jsonl", records)
    assert read([path], batch_bytes=batch_bytes) == read([path])
    config = ReadConfig(batch_bytes=batch_bytes)
    (task,) = discover([path], config)
    for documents, ledger in read_task(task, "src", config):
        content = sum(len(text) for text in documents["text"].to_pylist())
        assert content + 128 * (documents.num_rows + ledger.num_rows) < batch_bytes + 400


def test_the_grouping_of_files_changes_no_row(tmp_path: Path) -> None:
    for i in range(12):
        lines(tmp_path / f"{i:02}.jsonl", [{"text": f"{i} {j}"} for j in range(i)])
    whole = read([str(tmp_path)])
    assert whole[0].num_rows == 66
    for task_bytes in (1, 50, 200):
        assert read([str(tmp_path)], task_bytes=task_bytes) == whole


def test_byte_ranges_give_the_rows_of_the_whole_file(tmp_path: Path) -> None:
    records = [{"id": i, "text": f"第{i}行 " * (i % 9)} if i % 10 else {"id": i} for i in range(300)]
    path = lines(tmp_path / "x.jsonl", records)
    whole = read([path], id_field="id")
    assert (whole[0].num_rows, whole[1].num_rows) == (270, 30)
    for task_bytes in (7, 64, 1000):
        assert len(discover([path], ReadConfig(id_field="id", task_bytes=task_bytes))) > 10
        assert read([path], id_field="id", task_bytes=task_bytes) == whole


def test_a_range_without_an_id_field_is_refused(tmp_path: Path) -> None:
    path = lines(tmp_path / "x.jsonl", [{"id": "1", "text": "a"}] * 9)
    cut = discover([path], ReadConfig(id_field="id", task_bytes=50))
    with pytest.raises(ReadError, match="needs an id_field"):
        list(read_task(ReadTask(0, cut[1].files), "src", ReadConfig()))


def test_one_corpus_in_every_format_gives_the_same_texts_hashes_and_metadata(tmp_path: Path) -> None:
    rows = [{"text": f"文本 {i}\nline", "tag": f"t{i}"} for i in range(50)]
    raw = "".join(json.dumps(row) + "\n" for row in rows).encode()
    table = pa.Table.from_pylist(rows)
    (tmp_path / "a.jsonl").write_bytes(raw)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(raw))
    (tmp_path / "c.jsonl.zst").write_bytes(zstd.compress(raw))
    (tmp_path / "d.csv").write_text("tag,text\n" + "".join(f'{r["tag"]},"{r["text"]}"\n' for r in rows))
    (tmp_path / "e.tsv").write_text("tag\ttext\n" + "".join(f'{r["tag"]}\t"{r["text"]}"\n' for r in rows))
    pq.write_table(table, tmp_path / "f.parquet")
    with pa.OSFile(str(tmp_path / "g.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    documents, ledger = read([str(tmp_path)])
    assert ledger.num_rows == 0
    by_path = [documents.filter(pa.compute.equal(documents["path"], p)) for p in documents["path"].unique()]
    assert len(by_path) == 7
    for one, other in itertools.pairwise(by_path):
        for name in ("text", "content_hash", "metadata"):
            assert one[name].equals(other[name])


def test_plain_files_ignore_the_id_field(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# One")
    documents, _ = read([str(tmp_path)], id_field="id")
    assert documents["locator"].to_pylist() == [f"a.md#{digest('# One')}#0"]


def test_an_empty_text_file_is_a_dead_letter_and_other_empty_files_hold_no_record(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.txt", "c.csv", "d.jsonl.gz"):
        (tmp_path / name).write_bytes(b"")
    documents, ledger = read([str(tmp_path)])
    assert documents.num_rows == 0
    assert list(zip(ledger["reason"].to_pylist(), ledger["locator"].to_pylist(), strict=True)) == [
        ("empty_file", "b.txt@0")
    ]


@pytest.mark.skipif(not SHARED.exists(), reason="needs the real corpora in ../shared/data")
@pytest.mark.parametrize(
    ("name", "records", "own_ids"),
    # 46 poems of poetry_zh carry the id of another poem, and one stands there twice.
    [("poetry_zh", 72_563, 72_516), ("dbpedia14", 14_000, 14_000), ("laws_zh", 1_445, 1_445)],
)
def test_real_corpora_are_read_whole(name: str, records: int, own_ids: int) -> None:
    documents, ledger = read([str(SHARED / f"{name}.jsonl.zst")], id_field="id")
    assert (documents.num_rows, ledger.num_rows) == (records, 0)
    assert len(documents["id"].unique()) == own_ids
    without = read([str(SHARED / f"{name}.jsonl.zst")])[0]
    assert len(without["id"].unique()) == records
    assert without["text"].equals(documents["text"])
