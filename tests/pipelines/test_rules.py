"""`gristmill rules`: what rules would remove, alone and in order, is what clean removes with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines import clean, ingest, rules
from pipelines.core.dataset import Dataset
from schemas.base import SchemaError

ONE = ["--workers", "1"]
GOOD = "The committee met on Tuesday to discuss the new proposal, and most of its members were in favour of it. "
CHINESE = "委员会星期二开会讨论了新提案，大多数成员表示赞成，但也有人提出了不同意见，会议决定下周继续讨论。"


@pytest.fixture(scope="module")
def cleaned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output of clean over two sources."""
    root = tmp_path_factory.mktemp("rules")
    for source, texts in {"en": [GOOD * 3, "tiny", "tiny " * 6, GOOD * 2], "zh": [CHINESE, "短", CHINESE * 2]}.items():
        path = root / f"{source}.jsonl"
        path.write_text("".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in enumerate(texts)))
        argv = ["--input", str(path), "--source", source, "--id-field", "id", "--output", str(root / source), *ONE]
        assert ingest.main(argv) == 0
    output = root / "clean"
    options = ["--set", "profile=[default, gopher]", *ONE]
    assert clean.main(["--input", str(root / "en"), str(root / "zh"), "--output", str(output), *options]) == 0
    return output


def run(cleaned: Path, *options: str) -> list[str]:
    config = rules.load(rules.CleanConfig, "clean", None, list(options))
    return rules.run([str(cleaned)], config, examples=1)


def test_says_what_each_rule_removes_alone_and_in_order_by_source_with_an_example(cleaned: Path) -> None:
    told = run(cleaned, "filters.min_chars=6", "profile=[none]", "filters.min_words=30")
    assert told[0] == "7 documents"
    assert told[2].split() == ["min_chars", "6", "2", "2", "28.57%"]
    assert told[3].split() == ["en:", "1", "(25.00%),", "zh:", "1", "(33.33%)"]
    assert told[4].split() == ["4", "1", "tiny"]
    assert told[5].split() == ["min_words", "30", "3", "1", "14.29%"]
    assert told[6].split() == ["en:", "1", "(25.00%)"]
    assert told[-1] == "4 of 7 documents are kept (57.14%)"


def test_what_it_says_is_what_clean_does(cleaned: Path) -> None:
    told = {
        line.split()[0]: int(line.split()[3]) for line in run(cleaned, "profile=[default, gopher]") if line[0] == "m"
    }
    books = Dataset.open(str(cleaned)).books
    removed: dict[str, int] = {}
    for one in books.values():
        for rule, count in one.removed.items():
            removed[rule] = removed.get(rule, 0) + count
    assert {rule: count for rule, count in told.items() if count} == removed


def test_a_signal_that_was_not_measured_is_a_clear_error(cleaned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rules.main([str(cleaned), "--set", "filters.min_c4_lines=3"]) == 1
    assert "needs the signal 'c4_lines', which was not measured" in capsys.readouterr().err


def test_without_rules_everything_is_kept(cleaned: Path) -> None:
    assert run(cleaned, "profile=[none]")[-1] == "7 of 7 documents are kept (100.00%)"


def test_languages_to_keep_and_ceilings_count(tmp_path: Path, cleaned: Path) -> None:
    output = tmp_path / "measured"
    inputs = [str(cleaned.parent / source) for source in ("en", "zh")]
    argv = ["--input", *inputs, "--output", str(output), "--set", "measure=language", "--set", "profile=none", *ONE]
    assert clean.main(argv) == 0
    told = run(output, "profile=none", "language.keep=zh", "ceilings={'*': 0.5}")
    assert told[2].split()[:2] == ["min_language_fit", "1e-09"] and told[2].split()[3] == "4"
    assert "a ceiling would be passed: source 'en': 4 of 4 records" in told[-1]
    with pytest.raises(SchemaError, match=r"min_language_fit.*not measured in .*clean"):
        run(cleaned, "language.keep=zh")
