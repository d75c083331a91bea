"""Dedupe: whoever is removed names a kept record that is as similar as the ledger says; what is similar is found."""

from __future__ import annotations

import itertools
import json
import random
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipelines import clean, dedupe, ingest
from pipelines.core.dataset import Dataset
from pipelines.core.identity import record_id
from pipelines.core.shards import verify_shard
from pipelines.dedupe import DedupeConfig
from pipelines.lsh.sign import sign_batch
from pipelines.text.minhash import MinHashConfig
from pipelines.text.shingles import shingle_hashes
from schemas.document import DOCUMENT
from schemas.ledger import LEDGER
from schemas.manifest import Books
from schemas.signature import CLUSTER, signature_record

ONE = ["--workers", "1"]
Record = dict[str, Any]


def ingested(root: Path, records: list[Record], source: str = "s", shard_bytes: int = 1 << 20) -> Path:
    path, output = root / f"{source}.jsonl", root / f"ingest-{source}-{shard_bytes}"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    options = ["--set", f"shard_bytes={shard_bytes}", "--set", f"read.batch_bytes={min(shard_bytes, 1 << 20)}"]
    argv = ["--input", str(path), "--source", source, "--id-field", "id", "--output", str(output)]
    assert ingest.main([*argv, *options, *ONE]) == 0
    return output


def run(output: Path, *inputs: Path, options: list[str] | None = None) -> Dataset:
    argv = [arg for path in inputs for arg in ("--input", str(path))]
    assert dedupe.main([*argv, "--output", str(output), *ONE, *(options or [])]) == 0
    dataset = Dataset.open(str(output))
    for shard in dataset.manifests[0].shards:
        verify_shard(str(output), shard)
    signature_record(MinHashConfig().num_perm).validate(dataset.table("index"))
    for table, record in (("ledger", LEDGER), ("clusters", CLUSTER)):
        if dataset.has(table):
            record.validate(dataset.table(table))
    return dataset


def decisions(dataset: Dataset) -> dict[str, tuple[bytes, str, float]]:
    """locator → (kept id, reason, similarity)."""
    if not dataset.has("ledger"):
        return {}
    rows = dataset.table("ledger").to_pylist()
    return {row["locator"]: (row["kept_id"], row["reason"], row["similarity"]) for row in rows}


def words(seed: int, count: int) -> list[str]:
    rng = random.Random(seed)
    return [f"w{rng.randrange(10**6)}" for _ in range(count)]


def edited(base: list[str], positions: list[int], mark: str) -> str:
    return " ".join(mark + str(i) if i in positions else word for i, word in enumerate(base))


# --- against brute force ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpus(real_records: Callable[..., list[Record]]) -> list[Record]:
    """About 500 real documents: pages of five versions of a manual, and Chinese poems, some in several anthologies."""
    pages: dict[str, list[Record]] = defaultdict(list)
    for record in real_records("documentation_versions.jsonl.zst", 3200):
        pages["/".join(record["id"].split("/")[-2:])].append(record)
    manual = [record for name in sorted(pages) if len(pages[name]) >= 4 for record in pages[name]][:360]
    poems = real_records("poetry_zh.jsonl.zst", 20_000)
    by_title: dict[str, list[Record]] = defaultdict(list)
    for poem in poems:
        by_title[poem["title"]].append(poem)
    twins = [poem for title in sorted(by_title) if 2 <= len(by_title[title]) <= 4 for poem in by_title[title]][:150]
    return [{"id": record["id"], "text": record["text"]} for record in manual + twins]


def all_pairs(texts: list[str]) -> np.ndarray:
    """Jaccard similarity of every pair, from the whole sets of shingle hashes: no signature, no band, no sketch."""
    hashes, offsets = shingle_hashes(pa.array(texts))
    sets = [set(hashes[a:b].tolist()) for a, b in itertools.pairwise(offsets)]
    holders: dict[int, list[int]] = defaultdict(list)
    for i, members in enumerate(sets):
        for shingle in members:
            holders[shingle].append(i)
    common = [who for who in holders.values() if len(who) > 1]
    shared = np.zeros((len(texts), len(texts)), np.float32)  # counts below 2^24 are exact
    for start in range(0, len(common), 8192):
        part = common[start : start + 8192]
        has = np.zeros((len(texts), len(part)), np.float32)
        for column, who in enumerate(part):
            has[who, column] = 1
        shared += has @ has.T
    sizes = np.array([len(members) for members in sets])
    np.fill_diagonal(shared, sizes)
    return shared.astype(float) / np.maximum(1, sizes[:, None] + sizes[None, :] - shared)


def test_real_duplicates_equal_an_all_pairs_comparison(tmp_path: Path, corpus: list[Record]) -> None:
    threshold = 0.7
    dataset = run(tmp_path / "d", ingested(tmp_path, corpus, shard_bytes=200_000), options=["--materialize"])
    locators = [str(record["id"]) for record in corpus]
    position = {record_id("s", locator): i for i, locator in enumerate(locators)}
    similarity = all_pairs([record["text"] for record in corpus])
    rows = dataset.table("ledger").to_pylist()
    gone = {position[row["id"]] for row in rows}
    assert len(gone) > 100 and {row["reason"] for row in rows} == {"exact_duplicate", "near_duplicate"}
    for row in rows:
        me, twin = position[row["id"]], position[row["kept_id"]]
        assert twin not in gone, "a removed record names a kept one"
        assert row["similarity"] >= row["threshold"] and row["similarity"] == row["score"]
        error = row["similarity_error"]
        assert abs(similarity[me, twin] - row["similarity"]) <= (4 * error if error else 1e-12)
        if row["reason"] == "exact_duplicate":
            assert corpus[me]["text"] == corpus[twin]["text"] and error == 0
        else:
            assert similarity[me, twin] >= threshold - 4 * error and row["threshold"] == threshold
    assert any(row["similarity_error"] > 0 for row in rows) and any(row["similarity_error"] == 0 for row in rows)
    kept = sorted(set(range(len(corpus))) - gone)
    left = np.triu(similarity[np.ix_(kept, kept)], 1)
    found = len(gone)
    missed = (left >= threshold).any(axis=0).sum()
    assert not (left >= 0.8).any(), "a pair that 14 bands of 8 rows, cut twice, find with 98.6 % or more is still there"
    assert missed / (found + missed) < 0.05
    assert dataset.books["s"] == Books(len(corpus), len(kept), dataset.books["s"].removed)
    surviving = dataset.table("surviving")
    assert sorted(position[i] for i in surviving["id"].to_pylist()) == kept
    _check_clusters(dataset, rows)


def _check_clusters(dataset: Dataset, rows: list[Record]) -> None:
    clusters = {row["id"]: row for row in dataset.table("clusters").to_pylist()}
    members: dict[bytes, list[bytes]] = defaultdict(list)
    for row in clusters.values():
        members[row["cluster_id"]].append(row["id"])
    for cluster, ids in members.items():
        assert cluster == min(ids) and len(ids) >= 2
        assert all(clusters[i]["cluster_size"] == len(ids) for i in ids)
    for row in rows:
        assert clusters[row["id"]]["cluster_id"] == clusters[row["kept_id"]]["cluster_id"]
    assert set(clusters) == {row["id"] for row in rows} | {row["kept_id"] for row in rows}


def test_decisions_do_not_depend_on_how_the_input_is_sharded_or_on_workers(
    tmp_path: Path, corpus: list[Record]
) -> None:
    some = corpus[::2]
    whole = run(tmp_path / "a", ingested(tmp_path, some))
    small = ingested(tmp_path, some, shard_bytes=30_000)
    cut, threads = run(tmp_path / "b", small), run(tmp_path / "c", small, options=["--workers", "3"])
    assert len(cut.keys("index")) > 10 > len(whole.keys("index"))
    assert decisions(whole) == decisions(cut) != {}
    for table in ("clusters", "ledger"):
        sorted_rows = [sorted(d.table(table).to_pylist(), key=lambda row: row["id"]) for d in (whole, cut)]
        assert sorted_rows[0] == sorted_rows[1]
    assert cut.sha256s == threads.sha256s


# --- small cases, by hand -------------------------------------------------------------------------------------------


def test_exact_and_near_copies_across_shards_and_corpora(tmp_path: Path) -> None:
    base, other = words(1, 100), words(2, 100)
    near = edited(base, [50], "x")  # 96 shingles each, 5 differ: 91 / 101
    one = ingested(tmp_path, [{"id": "a", "text": " ".join(base)}, {"id": "b", "text": " ".join(other)}], "one")
    two = ingested(tmp_path, [{"id": "c", "text": " ".join(base)}, {"id": "d", "text": near}], "two")
    dataset = run(tmp_path / "d", one, two, options=["--set", "sources=[one]"])
    a = record_id("one", "a")
    assert decisions(dataset) == {"c": (a, "exact_duplicate", 1.0), "d": (a, "near_duplicate", 91 / 101)}
    assert dataset.books == {
        "one": Books(2, 2),
        "two": Books(2, 0, {"exact_duplicate": 1, "near_duplicate": 1}),
    }
    assert run(tmp_path / "e", two, one, options=["--set", "sources=[one]"]).sha256s == dataset.sha256s
    other_way = run(tmp_path / "f", one, two, options=["--set", "sources=[two]", "--set", "survivor=[source]"])
    assert set(decisions(other_way)) >= {"a"} and other_way.books["one"].kept == 1


def test_chinese_is_compared_by_characters(tmp_path: Path) -> None:
    base = "".join(chr(0x4E00 + (i * 7919) % 20_000) for i in range(100))
    near = base[:50] + "龘" + base[51:]
    records = [{"id": i, "text": text} for i, text in enumerate((base, near, base[::-1]))]
    dataset = run(tmp_path / "d", ingested(tmp_path, records))
    (decision,) = decisions(dataset).values()
    assert decision[1:] == ("near_duplicate", 91 / 101)


@pytest.mark.parametrize(
    ("policy", "kept"),
    [
        (["--set", "survivor=[length]"], "long"),
        (["--set", "survivor=[date]", "--set", "date_field=when"], "old"),
        (["--set", "survivor=[]"], min("long", "old", "new", key=lambda name: record_id("s", name))),
    ],
)
def test_the_survivor_is_the_one_that_the_policy_names(tmp_path: Path, policy: list[str], kept: str) -> None:
    base = words(3, 100)
    records = [
        {"id": "new", "text": " ".join(base), "when": "2024-01-01"},
        {"id": "long", "text": " ".join([*base, "end"]), "when": "2023-01-01T00:00:00Z"},
        {"id": "old", "text": " ".join(base) + " ", "when": "2001-09-09T01:46:40+00:00"},
    ]
    dataset = run(tmp_path / "d", ingested(tmp_path, records), options=policy)
    found = decisions(dataset)
    assert set(found) == {"new", "long", "old"} - {kept}
    assert {decision[0] for decision in found.values()} == {record_id("s", kept)}


def test_a_chain_of_edits_is_not_swallowed_by_its_first_link(tmp_path: Path) -> None:
    links = [edited(words(4, 100), list(range(0, 6 * i, 6)), "x") for i in range(6)]
    records: list[Record] = [{"id": i, "text": text + " pad" * (10 - i)} for i, text in enumerate(links)]
    dataset = run(tmp_path / "d", ingested(tmp_path, records), options=["--set", "survivor=[length]"])
    similarity = all_pairs([record["text"] for record in records])
    assert similarity[0, 5] < 0.7
    found = decisions(dataset)
    assert found and len(found) < 5
    for locator, (twin, _, measured) in found.items():
        index = next(i for i in range(6) if record_id("s", str(i)) == twin)
        assert measured == similarity[int(locator), index] >= 0.7 and str(index) not in found


def test_near_off_removes_exact_copies_only(tmp_path: Path) -> None:
    base = words(5, 100)
    texts = [" ".join(base), edited(base, [3], "x"), " ".join(base)]
    dataset = run(tmp_path / "d", ingested(tmp_path, [{"id": i, "text": t} for i, t in enumerate(texts)]),
                  options=["--set", "near=false"])  # fmt: skip
    assert [decision[1] for decision in decisions(dataset).values()] == ["exact_duplicate"]


def test_texts_without_words_are_duplicates_only_where_they_are_equal(tmp_path: Path) -> None:
    texts = ["!!!", "???", "!!!", "", "", " "]
    dataset = run(tmp_path / "d", ingested(tmp_path, [{"id": i, "text": t} for i, t in enumerate(texts)]))
    found = decisions(dataset)
    assert len(found) == 2 and {decision[1] for decision in found.values()} == {"exact_duplicate"}
    assert {min("02", key=lambda i: record_id("s", i)), min("34", key=lambda i: record_id("s", i))}.isdisjoint(found)


def test_short_texts_are_one_shingle(tmp_path: Path) -> None:
    texts = ["Hello, world", "hello world!", "hello there"]
    dataset = run(tmp_path / "d", ingested(tmp_path, [{"id": i, "text": t} for i, t in enumerate(texts)]))
    assert len(decisions(dataset)) == 1 and set(decisions(dataset)) < {"0", "1"}


def test_a_corpus_without_duplicates_has_an_index_and_no_ledger(tmp_path: Path) -> None:
    records = [{"id": i, "text": " ".join(words(i, 30))} for i in range(20)]
    dataset = run(tmp_path / "d", ingested(tmp_path, records), options=["--materialize"])
    assert dataset.tables() == ["index", "surviving"] and dataset.books == {"s": Books(20, 20)}


def test_ten_thousand_copies_do_not_explode(tmp_path: Path) -> None:
    text = " ".join(words(6, 40))
    records = [{"id": i, "text": text} for i in range(5000)]
    records += [{"id": f"n{i}", "text": text + f" {i}"} for i in range(5000)]
    dataset = run(tmp_path / "d", ingested(tmp_path, records), options=["--set", "survivor=[]"])
    assert dataset.books["s"].kept == 1
    assert dataset.manifests[0].facts["largest_bucket"] > 5000


def test_what_clean_removed_is_no_duplicate_and_keeps_nobody_out(tmp_path: Path) -> None:
    base = "The quick brown fox jumps over the lazy dog, and then it sleeps. " * 4
    records = [
        {"id": "a", "text": "tiny"},
        {"id": "b", "text": "tiny"},
        {"id": "c", "text": base},
        {"id": "d", "text": base},
    ]
    source = ingested(tmp_path, records)
    assert clean.main(["--input", str(source), "--output", str(tmp_path / "clean"), *ONE]) == 0
    dataset = run(tmp_path / "d", tmp_path / "clean")
    assert dataset.books == {"s": Books(2, 1, {"exact_duplicate": 1})} and set(decisions(dataset)) < {"c", "d"}


# --- parts ----------------------------------------------------------------------------------------------------------


def test_an_index_row_says_what_the_document_is() -> None:
    row = {
        "id": b"1" * 16,
        "source": "s",
        "locator": "l",
        "path": "p",
        "text": "一二三 four five",
        "content_hash": b"2" * 16,
        "metadata": '{"when": "1970-01-02"}',
    }
    batch = pa.RecordBatch.from_pylist([row, row | {"text": "", "metadata": None}], schema=DOCUMENT.schema)
    made = sign_batch(batch, DedupeConfig(date_field="when"))
    first, empty = made.to_pylist()
    assert (first["length"], first["date"], first["shingle_count"]) == (13, 86_400, 1)
    assert len(first["signature"]) == 112 and len(first["sketch"]) == 1
    assert (empty["length"], empty["date"], empty["shingle_count"], empty["sketch"]) == (0, None, 0, [])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("survivor=[newest]", "unknown survivor policy 'newest'; known: source, length, date"),
        ("threshold=0", "threshold is a similarity above 0"),
        ("threshold=1.5", "threshold is a similarity above 0"),
        ("shingle_size=0", "at least 1"),
    ],
)
def test_a_wrong_setting_fails_before_anything_is_read(
    tmp_path: Path, setting: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--input", str(tmp_path / "absent"), "--output", str(tmp_path / "d"), "--set", setting]
    assert dedupe.main(argv) == 1 and message in capsys.readouterr().err
