"""Decontaminate: what holds evaluation items goes, by document or by span; the report is by benchmark."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines import decontaminate, dedupe, ingest, shard
from pipelines.core.dataset import Dataset
from pipelines.decontaminate import cut
from schemas.manifest import Books

ONE = ["--workers", "1"]
QUESTION = "Which of the following planets of the solar system has the largest number of known moons today"
POEM = "床前明月光疑是地上霜举头望明月低头思故乡"
FILL = "The weather was fine that day and many people went out to the park near the river. "


def write(path: Path, texts: list[str], field: str = "text") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"id": i, field: text}) + "\n" for i, text in enumerate(texts)))
    return path


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Documents: clean, with a question, with a poem, with too little of a question (12 words)."""
    half = " ".join(QUESTION.split()[:12])
    texts = [
        FILL * 3,
        FILL * 3 + QUESTION.upper() + "? " + FILL,
        f"诗云：{POEM[:5]}，{POEM[5:]}。" + "好" * 40,
        half + ". " + FILL,
    ]
    path = write(tmp_path / "docs.jsonl", texts)
    argv = ["--input", str(path), "--source", "s", "--id-field", "id", "--output", str(tmp_path / "in"), *ONE]
    assert ingest.main(argv) == 0
    return tmp_path / "in"


@pytest.fixture
def evaluation(tmp_path: Path) -> list[str]:
    """Two benchmarks, of three items."""
    quiz = write(tmp_path / "eval" / "quiz.jsonl", [QUESTION + "?", "too short to match"])
    return [str(quiz), str(write(tmp_path / "eval" / "poems.v1.jsonl", [POEM]))]


def run(corpus: Path, evaluation: list[str], output: Path, *options: str) -> Dataset:
    argv = ["--input", str(corpus), "--evaluation", *evaluation, "--output", str(output), *ONE, *options]
    assert decontaminate.main(argv) == 0
    return Dataset.open(str(output))


def test_documents_that_hold_an_item_go_with_the_name_of_its_benchmark(
    corpus: Path, evaluation: list[str], tmp_path: Path
) -> None:
    found = run(corpus, evaluation, tmp_path / "out", "--materialize")
    rows = [(r["locator"], r["reason"], r["score"]) for r in found.table("ledger").to_pylist()]
    # 17 words have 5 n-grams of 13, and 20 characters have 8
    assert sorted(rows) == [("1", "overlap_quiz", 5.0), ("2", "overlap_poems", 8.0)]
    assert found.books == {"s": Books(4, 2, {"overlap_quiz": 1, "overlap_poems": 1})}
    assert sorted(found.table("surviving")["locator"].to_pylist()) == ["0", "3"]
    facts = found.manifests[0].facts
    assert facts["benchmarks"] == {
        "poems": {"items": 1, "too_short": 0, "items_found": 1, "items_mostly_found": 1}
        | {"documents": 1, "documents_removed": 1},
        "quiz": {"items": 2, "too_short": 1, "items_found": 1, "items_mostly_found": 1}
        | {"documents": 1, "documents_removed": 1},
    }


def test_spans_are_cut_and_the_rest_of_the_document_stays(corpus: Path, evaluation: list[str], tmp_path: Path) -> None:
    found = run(corpus, evaluation, tmp_path / "out", "--set", "mode=spans")
    texts = {row["locator"]: row["text"] for row in found.table("documents").to_pylist()}
    assert texts["1"] == (FILL * 3).rstrip() + " ? " + FILL
    assert texts["2"] == "诗云： 。" + "好" * 40
    before = {row["locator"]: row["text"] for row in Dataset.open(str(corpus)).table("documents").to_pylist()}
    assert texts["0"] == before["0"] and texts["3"] == before["3"]
    assert found.books == {"s": Books(4, 4)}


def test_a_document_that_is_mostly_contamination_goes_whole(
    corpus: Path, evaluation: list[str], tmp_path: Path
) -> None:
    found = run(corpus, evaluation, tmp_path / "out", "--set", "mode=spans", "--set", "max_cut=0.3")
    (row,) = found.table("ledger").to_pylist()
    assert row["locator"] == "2" and row["threshold"] == pytest.approx(0.3)
    assert row["score"] == pytest.approx(63 / 195)  # 20 characters and a comma of 65, three bytes each


def test_a_phrase_of_many_documents_is_no_contamination(tmp_path: Path, evaluation: list[str]) -> None:
    path = write(tmp_path / "docs.jsonl", [f"{i} {QUESTION} {FILL}" for i in range(3)] + [FILL + POEM])
    argv = ["--input", str(path), "--source", "s", "--id-field", "id", "--output", str(tmp_path / "in"), *ONE]
    assert ingest.main(argv) == 0
    found = run(tmp_path / "in", evaluation, tmp_path / "out", "--set", "common=2")
    assert found.table("ledger")["reason"].to_pylist() == ["overlap_poems"]
    assert found.manifests[0].facts["common_ngrams"] == 5
    found = run(tmp_path / "in", evaluation, tmp_path / "out", "--set", "common=null")
    assert len(found.table("ledger")) == 4


def test_the_bytes_are_the_same_for_any_number_of_workers(corpus: Path, evaluation: list[str], tmp_path: Path) -> None:
    one = run(corpus, evaluation, tmp_path / "one")
    two = run(corpus, evaluation[::-1], tmp_path / "two", "--workers", "2")
    assert one.sha256s == two.sha256s


def test_fields_of_a_record_are_one_item(tmp_path: Path, corpus: Path) -> None:
    path = tmp_path / "eval.jsonl"
    words = QUESTION.split()
    record = {"question": " ".join(words[:9]), "choices": [" ".join(words[9:]), "no"], "label": 1}
    path.write_text(json.dumps(record) + "\n")
    found = run(corpus, [str(path)], tmp_path / "out", "--set", "fields=[question, choices]")
    assert found.table("ledger")["locator"].to_pylist() == ["1"]


@pytest.mark.parametrize(
    ("lines", "options", "message"),
    [
        ('{"text": 5}\n', [], "eval.jsonl@0: text_not_a_string"),
        ('{"question": "x"}\n', [], "field 'text' is absent or null; mend the evaluation set"),
        ("", [], "eval.jsonl holds no record"),
        ('{"text": "x"}\n', ["--set", "n=0"], "at least 1"),
        ('{"text": "x"}\n', ["--set", "mode=lines"], "'documents' or 'spans'"),
    ],
)
def test_what_cannot_work_is_a_clear_error(
    lines: str, options: list[str], message: str, tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "eval.jsonl").write_text(lines)
    argv = ["--input", str(corpus), "--evaluation", str(tmp_path / "eval.jsonl"), "--output", str(tmp_path / "out")]
    assert decontaminate.main([*argv, *ONE, *options]) == 1
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_cut_joins_what_is_left_with_a_space() -> None:
    assert cut("one two three", [(4, 7)]) == ("one three", 3 / 13)
    assert cut("天地玄黄", [(0, 6)]) == ("玄黄", 0.5)
    assert cut("all", [(0, 3)]) == ("", 1.0)
    assert cut("one\n\ntwo\nthree x", [(5, 8)])[0] == "one\n\n\nthree x"
    assert cut("ab cd ef", [(0, 2), (3, 5)])[0] == "ef"


def test_shard_applies_the_decisions_of_dedupe_and_decontaminate_together(
    corpus: Path, evaluation: list[str], tmp_path: Path
) -> None:
    run(corpus, evaluation, tmp_path / "decontaminate")
    argv = ["--input", str(corpus), "--output", str(tmp_path / "dedupe"), *ONE, "--set", "threshold=0.01"]
    assert dedupe.main([*argv, "--set", "minhash.bands=112", "--set", "minhash.rows=1"]) == 0
    both = [str(tmp_path / name) for name in ("dedupe", "decontaminate")]
    removed = {row["locator"] for path in both for row in Dataset.open(path).table("ledger").to_pylist()}
    argv = ["--input", str(corpus), "--decisions", *both, "--output", str(tmp_path / "shards"), *ONE]
    assert shard.main([*argv, "--set", "splits={train: 1.0}"]) == 0
    kept = Dataset.open(str(tmp_path / "shards"))
    assert {"1", "2"} < removed and set(kept.table("train")["locator"].to_pylist()) == {"0", "1", "2", "3"} - removed
    assert sum(kept.books["s"].removed.values()) == len(removed)  # a record that both remove counts once


def test_another_evaluation_set_in_one_process_and_output_is_not_mistaken_for_the_first(
    corpus: Path, evaluation: list[str], tmp_path: Path
) -> None:
    assert len(run(corpus, evaluation[:1], tmp_path / "out").table("ledger")) == 1
    assert run(corpus, evaluation[1:], tmp_path / "out").table("ledger")["reason"].to_pylist() == ["overlap_poems"]
