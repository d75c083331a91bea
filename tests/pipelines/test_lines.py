"""Lines: what goes and what stays equals a count of all lines in plain Python, whatever the workers and the memory."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines import ingest, lines
from pipelines.core.counts import ENTRY_BYTES, count_units, plan_rounds
from pipelines.core.dataset import Dataset
from pipelines.core.grouping import SHUFFLE
from pipelines.core.identity import content_hash
from pipelines.core.shards import verify_shard
from pipelines.lines import LinesConfig
from pipelines.text.line_hashes import letters as _letters
from pipelines.text.line_hashes import normalized_line as _normalized_line
from schemas.document import DOCUMENT
from schemas.frequent_line import FREQUENT_LINE
from schemas.ledger import LEDGER
from schemas.manifest import Books

ONE = ["--workers", "1"]
letters, normalized_line = functools.cache(_letters), functools.cache(_normalized_line)  # each line many times
MENU, MENU_ZH = "Home, about us, privacy, terms of use", "首页　关于我们　隐私政策　使用条款"


def ingested(root: Path, texts: list[str], source: str = "s", shard_bytes: int = 20_000) -> Path:
    path, output = root / f"{source}.jsonl", root / f"ingest-{source}"
    path.write_text("".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in enumerate(texts)), encoding="utf-8")
    options = ["--set", f"shard_bytes={shard_bytes}", "--set", f"read.batch_bytes={shard_bytes // 2}", *ONE]
    argv = ["--input", str(path), "--source", source, "--id-field", "id", "--output", str(output)]
    assert ingest.main([*argv, *options]) == 0
    return output


def run(output: Path, *inputs: Path, options: list[str] | None = None) -> Dataset:
    argv = [arg for path in inputs for arg in ("--input", str(path))]
    assert lines.main([*argv, "--output", str(output), *ONE, *(options or [])]) == 0
    dataset = Dataset.open(str(output))
    for shard in dataset.manifests[0].shards:
        verify_shard(str(output), shard)
    for table, record in (("documents", DOCUMENT), ("ledger", LEDGER), ("frequent", FREQUENT_LINE)):
        if dataset.has(table):
            record.validate(dataset.table(table))
    return dataset


def sets(**settings: Any) -> list[str]:
    return [arg for key, value in settings.items() for arg in ("--set", f"{key.replace('__', '.')}={value}")]


def rows_of(dataset: Dataset) -> list[dict[str, Any]]:
    """Documents in the order of shards and rows, which is the order of 'first'."""
    return [row for key in dataset.keys("documents") for row in dataset.table("documents", key).to_pylist()]


def by_definition(texts: list[str], mode: str, most: int, span: int, least: int, left: int) -> list[list[str] | None]:
    """The visible lines that stay of each text, in plain Python; None for a text of which too little stays."""
    documents = [[line for line in text.split("\n") if line.strip()] for text in texts]
    units = {
        (d, i): tuple(map(normalized_line, found[i : i + span]))
        for d, found in enumerate(documents)
        for i in range(len(found) - span + 1)
        if sum(map(letters, found[i : i + span])) >= least
    }
    counts, seen = Counter(units.values()), set()
    gone = set()
    for (d, i), unit in units.items():
        if counts[unit] > most and (mode == "all" or unit in seen):
            gone |= {(d, j) for j in range(i, i + span)}
        seen.add(unit)
    kept: list[list[str] | None] = []
    for d, found in enumerate(documents):
        stay = [line for i, line in enumerate(found) if (d, i) not in gone]
        too_short = len(stay) < len(found) and sum(map(letters, stay)) < left
        kept.append(None if too_short else stay)
    return kept


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, real_records: Callable[..., list[dict[str, Any]]]) -> list[Path]:
    """Real pages of one manual in several versions, and Chinese laws in several editions, with a menu on every page."""
    root = tmp_path_factory.mktemp("corpus")
    manual = [record["text"] for record in real_records("documentation_versions.jsonl.zst", 24)]
    laws = [record["text"] for record in real_records("laws_zh.jsonl.zst", 16)]
    laws = [f"{MENU_ZH}\n\n{text[:3000]}" if i % 2 else f"{text[:3000]}\n{MENU_ZH}。" for i, text in enumerate(laws)]
    manual = [f"{MENU}\n{text[:9000]}" for text in manual] + [f"{MENU}!\n\nA short page", "untouched", ""]
    return [ingested(root, manual, "manual"), ingested(root, laws, "laws", 40_000)]


@pytest.mark.parametrize(
    ("mode", "most", "span", "least"), [("first", 1, 1, 12), ("all", 2, 1, 30), ("first", 1, 3, 40), ("all", 1, 2, 1)]
)
def test_real_text_equals_a_count_in_plain_python(
    tmp_path: Path, corpus: list[Path], mode: str, most: int, span: int, least: int
) -> None:
    before = rows_of(Dataset.open(*map(str, corpus)))
    settings = sets(mode=mode, max_repeats=most, units__span=span, units__min_letters=least, min_letters_left=50)
    dataset = run(tmp_path / "d", *corpus, options=settings)
    assert len(dataset.keys()) >= 4
    expected = by_definition([row["text"] for row in before], mode, most, span, least, 50)
    removed = {row["id"]: row for row in dataset.table("ledger").to_pylist()}
    dropped = 0
    for old, new, kept in zip(before, rows_of(dataset), expected, strict=True):
        assert new["content_hash"] == content_hash(new["text"].encode())
        assert {**old, "text": "", "content_hash": b""} == {**new, "text": "", "content_hash": b""}
        if kept is None:
            assert new == old and removed.pop(old["id"])["reason"] == "repeated_lines"
            continue
        assert [line for line in new["text"].split("\n") if line.strip()] == kept
        lost = sum(bool(line.strip()) for line in old["text"].split("\n")) - len(kept)
        assert lost or new["text"] == old["text"]
        dropped += lost
    assert not removed and dropped == dataset.manifests[0].facts["dropped"] > 100
    assert sum(one.records_in for one in dataset.books.values()) == len(before)


@pytest.mark.parametrize("settings", [sets(), sets(mode="all", units__span=2)])
def test_the_bytes_do_not_depend_on_workers_memory_or_order(
    tmp_path: Path, corpus: list[Path], settings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = run(tmp_path / "one", *corpus, options=settings)
    two = run(tmp_path / "two", *reversed(corpus), options=[*settings, "--workers", "2"])
    monkeypatch.setattr(lines, "plan_rounds", lambda entries, memory: [lines.Round(0, 7, 9), lines.Round(7, 9, 9)])
    many = run(tmp_path / "many", *corpus, options=settings)
    assert one.sha256s == two.sha256s == many.sha256s


def test_a_menu_goes_in_both_languages_and_the_books_name_what_is_left_too_short(tmp_path: Path) -> None:
    english = [f"{MENU}\n\nThe page number {'abcdefghij'[i]} says something of its own about words." for i in range(5)]
    chinese = [f"{MENU_ZH}\n{'甲乙丙丁戊'[i]}页说的是它自己的事情，与其他各页都不相同。" for i in range(5)]
    inputs = [ingested(tmp_path, [*english, MENU], "en"), ingested(tmp_path, [*chinese, MENU_ZH], "zh")]
    dataset = run(tmp_path / "d", *inputs, options=[*sets(mode="all", min_letters_left=40), "--materialize"])
    assert dataset.books == {
        "en": Books(6, 5, {"repeated_lines": 1}),
        "zh": Books(6, 5, {"repeated_lines": 1}),
    }
    texts = {row["text"] for row in dataset.table("surviving").to_pylist()}
    assert texts == {text.split("\n")[-1] for text in english + chinese}
    (first, second) = sorted(dataset.table("ledger").to_pylist(), key=lambda row: row["source"])
    assert (first["score"], first["threshold"], first["detail"]) == (0.0, 40.0, "1 of 1 lines are repeated")
    assert second["locator"] == "5" and second["kept_id"] is None
    frequent = dataset.table("frequent").to_pylist()
    assert {(row["occurrences"], row["text"]) for row in frequent} == {(6, MENU), (6, MENU_ZH)}


def test_first_keeps_the_first_in_document_order_and_dates_are_alike(tmp_path: Path) -> None:
    body = "This page alone holds these many words, {} and no other page does so at all."
    texts = [f"Posted on {i + 1}/12/20{i}{i}, by the Editor\n{body.format('abcdefgh'[i])}" for i in range(8)]
    source = ingested(tmp_path, texts, shard_bytes=400)
    before = [row["text"] for row in rows_of(Dataset.open(str(source)))]
    dataset = run(tmp_path / "d", source, options=sets(min_letters_left=20))
    after = [row["text"] for row in rows_of(dataset)]
    assert len(dataset.keys()) >= 2
    assert after == [before[0], *(text.split("\n")[1] for text in before[1:])]


def test_numbers_alone_are_nobodys_repetition(tmp_path: Path) -> None:
    texts = [f"{word} has some words and then a table\n12.5 | 20{i}{i} | 7,3{i}1\n2021-0{i}-01" for i, word in
             enumerate(["alpha", "beta", "gamma"])]  # fmt: skip
    source = ingested(tmp_path, texts)
    dataset = run(tmp_path / "d", source, options=sets(mode="all", units__min_letters=1))
    assert [row["text"] for row in rows_of(dataset)] == [row["text"] for row in rows_of(Dataset.open(str(source)))]
    assert dataset.manifests[0].facts == {"lines": 9, "dropped": 0, "dropped_bytes": 0, "repeated": 0}
    assert not dataset.has("frequent") and len(dataset.table("ledger")) == 0


def test_only_survivors_of_the_input_are_counted(tmp_path: Path) -> None:
    source = ingested(tmp_path, [MENU, f"{MENU}\nOnly this one line is its own, and it is long enough to be kept."])
    first = run(tmp_path / "d", source, options=sets(mode="all", min_letters_left=30))
    again = run(tmp_path / "e", tmp_path / "d", options=sets(mode="all", min_letters_left=30))
    assert first.books == {"s": Books(2, 1, {"repeated_lines": 1})} and again.books == {"s": Books(1, 1)}
    assert rows_of(again) == [row for row in rows_of(first) if row["text"].startswith("Only")]


def test_outputs_of_two_corpora_are_read_as_one(tmp_path: Path) -> None:
    outputs = [tmp_path / "out-a", tmp_path / "out-b"]
    for output, source in zip(outputs, "ab", strict=True):
        run(output, ingested(tmp_path, [MENU, MENU, f"{MENU} {source}"], source))
    assert Dataset.open(*map(str, outputs)).table("frequent").num_rows == 2


def test_an_input_without_documents_gives_an_empty_output(tmp_path: Path) -> None:
    source = ingested(tmp_path, [MENU, MENU])
    gone = run(tmp_path / "d", source, options=sets(mode="all"))
    assert gone.books == {"s": Books(2, 0, {"repeated_lines": 2})}
    assert run(tmp_path / "e", tmp_path / "d").books == {"s": Books(0, 0)}


def test_rounds_cover_every_range_once_within_the_memory() -> None:
    for entries, memory in ((0, 0), (10, 0), (10**9, 0), (10**7, 50_000_000), (10**8, 16 << 20), (7, 1)):
        rounds = plan_rounds(entries, memory)
        covered = [number for one in rounds for number in range(one.first, one.last)]
        ranges = rounds[0].ranges
        assert covered == list(range(ranges))
        if memory:
            widest = max(one.last - one.first for one in rounds)
            assert widest == 1 or entries * ENTRY_BYTES * SHUFFLE * widest / ranges <= memory


def test_counts_of_equal_hashes_add_up_and_the_smallest_place_stays() -> None:
    big = (1 << 64) - 1
    entries = count_units(
        np.array([big, 5, big, 0, 5], np.uint64), np.array([4, 3, 2, 9, 8]), np.array([1, 2, 3, 4, 5])
    )
    assert entries.to_pydict() == {"hash": [0, 5, big], "count": [4, 7, 4], "place": [9, 3, 2]}
    empty = count_units(np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, np.int64))
    assert len(empty) == 0


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("max_repeats=0", "max_repeats is at least 1; got 0"),
        ("units.span=0", "span is at least 1; got 0"),
        ("mode=last", "mode"),
    ],
)
def test_a_wrong_setting_is_a_clear_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: str, message: str
) -> None:
    argv = ["--input", str(tmp_path), "--output", str(tmp_path / "d"), "--set", setting]
    assert lines.main(argv) == 1
    assert message in capsys.readouterr().err
    assert LinesConfig().mode == "first"
