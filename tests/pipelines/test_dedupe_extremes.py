"""Dedupe at the ends of what text can be: all the same, empty, one word, or a hundred megabytes."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from pipelines import dedupe, ingest
from pipelines.core.dataset import Dataset
from pipelines.core.identity import record_id


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """100,000 copies, 1,000 empty texts, 300 of one word (3 different), two near copies of 100 MB, one of one word."""
    root = tmp_path_factory.mktemp("extremes")
    page = " ".join(f"word{i}" for i in range(300))
    with (root / "s.jsonl").open("w") as sink:

        def write(key: str, text: str) -> None:
            sink.write(json.dumps({"id": key, "text": text}) + "\n")

        for i in range(100_000):
            write(f"same{i}", page)
        for i in range(1000):
            write(f"empty{i}", "")
        for i in range(300):
            write(f"one{i}", ("word", "字", "Word")[i % 3])
        long = " ".join(f"w{i}" for i in range(5_500_000))
        long = " ".join([long, long[: 100_000_000 - len(long)]])
        for key in ("long", "longer"):
            write(key, long + (" and one more" if key == "longer" else ""))
        write("again", "word " * 1_000_000)
    made, output = str(root / "ingest"), str(root / "dedupe")
    argv = ["--input", str(root / "s.jsonl"), "--source", "s", "--id-field", "id", "--output", made]
    argv += ["--set", "read.max_record_bytes=200000000"]
    assert ingest.main(argv) == 0
    assert dedupe.main(["--input", made, "--output", output]) == 0
    return Dataset.open(output)


def test_every_kind_keeps_one_and_names_it(result: Dataset) -> None:
    rows = result.table("ledger", columns=["locator", "kept_id", "reason", "similarity"]).to_pylist()
    kinds = Counter((row["locator"].rstrip("0123456789"), row["reason"]) for row in rows)
    assert kinds["same", "exact_duplicate"] == 99_999
    assert kinds["one", "exact_duplicate"] == 198 and kinds["one", "near_duplicate"] == 100, "Word is word, case folded"
    assert kinds["long", "near_duplicate"] == 1, "the longer one stays"
    assert kinds["empty", "exact_duplicate"] == 999, "they have no shingles, but the same content"
    assert kinds.total() == len({row["locator"] for row in rows})
    gone = {record_id("s", row["locator"]) for row in rows}
    assert gone.isdisjoint({row["kept_id"] for row in rows}), "whoever is named is kept"


def test_a_million_times_one_word_is_one_shingle(result: Dataset) -> None:
    index = result.table("index", columns=["locator", "shingle_count"]).to_pylist()
    counts = {row["locator"]: row["shingle_count"] for row in index}
    assert counts["again"] == 1 and counts["one0"] == 1 and counts["long"] > 5_000_000
