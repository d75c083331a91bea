"""Large inputs from real text: same bytes each time, unique ids, copies unlike each other but alike inside."""

import importlib.util
import json
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest

_PATH = Path(__file__).resolve().parents[2] / "benchmarks" / "corpora.py"


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmarks_corpora", _PATH)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


corpora = _load()
ENGLISH = "The quick brown fox jumps over the lazy dog; THE QUICK fox sleeps in 1999."
CHINESE = "天地玄黃，宇宙洪荒。日月盈昃，辰宿列張。"


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    rows = [{"id": f"c/{i}", "text": f"{ENGLISH} {CHINESE} {ENGLISH.lower()}"} for i in range(40)]
    monkeypatch.setattr(corpora, "records", lambda names=(), limit=None: iter(rows[:limit]))
    return rows


def test_copy_zero_is_the_text_and_ids_are_unique(texts: list[dict[str, str]]) -> None:
    found = list(corpora.copies(["c"], 3))
    assert found[:40] == texts
    assert len({record["id"] for record in found}) == 120
    assert found[40]["id"] == "c/0#1"


def test_same_arguments_same_records_and_another_seed_others(texts: list[dict[str, str]]) -> None:
    assert list(corpora.copies(["c"], 2)) == list(corpora.copies(["c"], 2))
    assert list(corpora.copies(["c"], 2)) != list(corpora.copies(["c"], 2, seed=1))


def test_a_copy_keeps_length_case_digits_and_duplicates_inside_it(texts: list[dict[str, str]]) -> None:
    vocabulary = corpora.Vocabulary(record["text"] for record in texts)
    one, two = (corpora.Replacement(vocabulary, 0, number) for number in (1, 2))
    text = f"{ENGLISH} {CHINESE}"
    assert one.rewrite(text) == one.rewrite(text) != two.rewrite(text)
    assert len(one.rewrite(text).encode()) == len(text.encode())
    assert one.rewrite(text).split()[:2] == [
        word.capitalize() if i == 0 else word for i, word in enumerate(one.rewrite("the quick").split())
    ]
    assert " 1999." in one.rewrite(ENGLISH)


def test_every_letter_of_a_script_without_spaces_is_replaced(texts: list[dict[str, str]]) -> None:
    replacement = corpora.Replacement(corpora.Vocabulary([CHINESE]), 0, 1)
    changed = replacement.rewrite(CHINESE)
    assert [a == b for a, b in zip(CHINESE, changed, strict=True)] == [char in "，。" for char in CHINESE]
    assert set(changed) == set(CHINESE)


def test_a_light_edit_changes_at_most_a_few_words() -> None:
    text = " ".join(f"{a}{b}{c}" for a in "bcdfgh" for b in "aeiou" for c in "klmnprst")
    replacement = corpora.Replacement(corpora.Vocabulary([text]), 0, 1)
    shares = []
    for seed in range(60):
        edited = replacement.edit(text, random.Random(seed)).split()
        shares.append(sum(a != b for a, b in zip(text.split(), edited, strict=True)) / len(edited))
    assert max(shares) <= 0.12
    assert 5 <= shares.count(0) <= 30  # a quarter is unchanged


def test_short_documents_are_sentences_within_the_bounds(texts: list[dict[str, str]]) -> None:
    found = list(corpora.short_documents(["c"], 200, least=15, most=100))
    assert len(found) == len({record["id"] for record in found}) == 200
    assert all(15 <= len(record["text"].encode()) <= 100 for record in found)


def test_parts_hold_all_records_and_sizes_are_of_the_text(tmp_path: Path) -> None:
    rows = [{"id": str(i), "text": "天" * i} for i in range(5)]
    assert corpora.write(iter(rows), tmp_path / "in", 2) == (5, 30)
    parts = [[json.loads(line) for line in path.open("rb")] for path in sorted((tmp_path / "in").iterdir())]
    assert parts == [rows[::2], rows[1::2]]
