"""The brute-force judge of dedupe is right on hand-built cases, and finds the stage right on English and Chinese."""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines import dedupe, ingest
from pipelines.text.shingles import shingles
from pipelines.text.shingles import tokens as our_tokens

pytest.importorskip("scipy", reason="the judge multiplies sparse matrices: install the extra 'dev'")
pytest.importorskip("regex", reason="the judge cuts tokens with regex: install the extra 'dev'")
sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))  # scripts, which import each other by name
import dedupe_quality
import judge
from judge import Recall, Truth, examine, find_truth, recall, shingle_sets, tokens

Record = dict[str, Any]


# --- tokens and shingles ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't STOP, co-operate_now!", ["don", "t", "stop", "co", "operate", "now"]),
        ("我爱GDP增长6.5％", ["我", "爱", "gdp", "增", "长", "6", "5"]),
        ("スーパーｶﾞ〇", ["ス", "ー", "パ", "ー", "ｶ", "ﾞ", "〇"]),
        ("กำลังดี ខ្មែរ", ["ก", "ำ", "ลั", "ง", "ดี", "ខ្", "មែ", "រ"]),
        ("한국어 हिन्दी", ["한국어", "हिन्दी"]),
        ("Straße ẞ İ ﬅ", ["straße", "ß", "İ", "ﬆ"]),
        ("co\u00adop葛\U000e0100 \u0301 ❤\ufe0f", ["coop", "葛"]),
        ("", []),
    ],
)
def test_tokens_by_script(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected


def test_characters_that_this_python_knows_are_cut_and_folded_as_the_stage_does() -> None:
    codes = [*range(0x3400), *range(0x3400, sys.maxunicode + 1, 11)]  # beyond, long runs of characters are alike
    known = [chr(code) for code in codes if unicodedata.category(chr(code)) not in ("Cn", "Cs", "Co")]
    texts = [f"A{char}B中{char}" for char in known]
    assert len(texts) > 20_000
    assert [text for text in texts if tokens(text) != our_tokens(text)] == []


def named_sets(texts: list[str]) -> list[int]:
    return np.diff(shingle_sets(texts).indptr).tolist()


def test_a_set_counts_each_shingle_once_and_none_crosses_two_texts() -> None:
    assert named_sets(["a b c d e f", "", "x", "a a a a a a a a", "...", "天地玄黄宇宙", "p q r s"]) == [
        2,
        0,
        1,
        1,
        0,
        2,
        1,
    ]
    assert named_sets([]) == [] and named_sets(["", "!"]) == [0, 0]


def test_a_short_text_is_one_shingle_that_equals_only_itself() -> None:
    truth = find_truth([b"a", b"b", b"c", b"d"], ["a b c", "A, b: c", "a b c d", "b c"])
    assert list(zip(truth.left, truth.right, truth.similarity, strict=True)) == [(0, 1, 1.0)]


def similar(texts: list[str], floor: float) -> dict[tuple[int, int], float]:
    sets = [set(shingles(text)) for text in texts]
    found = {}
    for j, right in enumerate(sets):
        for i, left in enumerate(sets[:j]):
            shared = len(left & right)
            if shared and shared / len(left | right) >= floor:
                found[i, j] = shared / len(left | right)
    return found


@pytest.mark.parametrize("block", [1, 20_000_000])
def test_all_pairs_of_real_texts_are_those_of_python_sets(
    monkeypatch: pytest.MonkeyPatch, real_records: Callable[..., list[Record]], block: int
) -> None:
    manual = real_records("documentation_versions.jsonl.zst", 3300)
    pages = [page["text"] for page in manual if "/Microsoft.PowerShell.Host/" in page["id"]]
    poems = [record["text"] for record in real_records("poetry_zh.jsonl.zst", 40)]
    texts = [*pages, *poems, *poems[:3], "", "one"]
    monkeypatch.setattr(judge, "_BLOCK_PAIRS", block)
    truth = find_truth([bytes([i]) for i in range(len(texts))], texts, floor=0.3)
    pairs = zip(truth.left.tolist(), truth.right.tolist(), truth.similarity.tolist(), strict=True)
    assert {(i, j): s for i, j, s in pairs} == similar(texts, 0.3)
    assert len(truth.left) > 3
    assert truth.measure(truth.left, truth.right).tolist() == truth.similarity.tolist()
    assert truth.measure(np.array([len(texts) - 2]), np.array([len(texts) - 2])).tolist() == [0.0]


# --- recall -----------------------------------------------------------------------------------------------------------


def truth_of(count: int, pairs: dict[tuple[int, int], float], order: list[int] | None = None) -> Truth:
    left, right = (np.array([pair[side] for pair in pairs], np.int64) for side in (0, 1))
    sets = shingle_sets([str(i) for i in range(count)])
    return Truth(sets, left, right, np.array(list(pairs.values())), 0.5, np.array(order or range(count), np.int64))


def kept(*flags: int) -> np.ndarray:
    return np.array(flags, bool)


def test_of_two_kept_twins_one_is_missed() -> None:
    assert recall(truth_of(3, {(0, 1): 0.8}), kept(1, 1, 1), 0.8) == Recall(0, 1)
    assert recall(truth_of(3, {(0, 1): 0.8}), kept(1, 1, 1), 0.81) == Recall(0, 0)


def test_a_removed_record_is_found_where_a_twin_is_kept() -> None:
    one = truth_of(4, {(0, 1): 0.9, (1, 2): 0.9, (0, 3): 0.7})
    assert recall(one, kept(1, 0, 1, 0), 0.9) == Recall(1, 0)  # 3 has no twin at 0.9
    assert recall(one, kept(1, 0, 1, 0), 0.7) == Recall(2, 0)
    assert recall(one, kept(0, 0, 0, 1), 0.9) == Recall(0, 0)  # removed for one another: `examine` says so, not recall


def test_a_kept_star_costs_its_points_or_its_centre_by_who_is_longer() -> None:
    star = {(0, 1): 0.9, (0, 2): 0.9, (0, 3): 0.9}
    assert recall(truth_of(4, star), kept(1, 1, 1, 1), 0.9) == Recall(0, 3)
    assert recall(truth_of(4, star, [1, 0, 2, 3]), kept(1, 1, 1, 1), 0.9) == Recall(0, 1)
    assert Recall(3, 1).share == 0.75 and Recall(0, 0).share == 1.0


def test_no_recall_below_what_was_compared() -> None:
    with pytest.raises(ValueError, match=r"below 0\.5"):
        recall(truth_of(2, {(0, 1): 0.9}), kept(1, 1), 0.4)


def test_longer_texts_come_first_then_smaller_ids() -> None:
    assert find_truth([b"c", b"a", b"b"], ["xx", "xx", "xxx"]).order.tolist() == [2, 1, 0]


# --- the ledger -------------------------------------------------------------------------------------------------------

IDS = [b"a", b"b", b"c", b"d"]
TEXTS = ["a b c d e f g h", "a b c d e f g h", "a b c d e f g h i", "z"]  # shingles: 4, 4, 5, 1; c to a is 4 / 5


def row(gone: bytes, to: bytes, similarity: float, error: float = 0.0, reason: str = "near_duplicate") -> Record:
    return {
        "id": gone,
        "kept_id": to,
        "reason": reason,
        "similarity": similarity,
        "similarity_error": error,
        "locator": gone.decode(),
    }


def findings(*rows: Record, threshold: float = 0.7) -> judge.Findings:
    return examine(find_truth(IDS, TEXTS), IDS, TEXTS, rows, threshold)[1]


def test_a_true_ledger_has_no_fault() -> None:
    rows = [row(b"b", b"a", 1.0, reason="exact_duplicate"), row(b"c", b"a", 0.8)]
    staying, found = examine(find_truth(IDS, TEXTS), IDS, TEXTS, rows, 0.7)
    assert staying.tolist() == [True, False, False, True]
    assert found.faults == [] and (found.exact, found.near, found.estimated) == (1, 1, 0)
    assert (found.below, found.lowest, found.inexact, found.furthest) == (0, 0.8, 0, 0.0)


def test_an_estimate_is_judged_by_its_error() -> None:
    found = findings(row(b"c", b"a", 0.9, 0.05), row(b"d", b"a", 0.75, 0.25))
    assert found.faults == [] and found.estimated == 2 and found.sigmas.tolist() == pytest.approx([2.0, 3.0])
    assert (found.estimated_below, found.estimated_lowest) == (1, 0.0)


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ([row(b"c", b"a", 0.8)], r"1 removals below 0\.9, the lowest at 0\.8"),
        ([row(b"c", b"a", 0.8, 0.1)], r"1 rows say themselves that they are below 0\.9"),
        ([row(b"b", b"a", 1.0), row(b"c", b"b", 0.95, 0.1)], "1 rows name a record that is not kept"),
        ([row(b"c", b"?", 0.95)], "1 rows name a record that is not kept"),
        ([row(b"b", b"a", 1.0), row(b"b", b"a", 1.0)], "removed twice, or was never there"),
        ([row(b"?", b"a", 1.0)], "removed twice, or was never there"),
        ([row(b"c", b"a", 1.0, reason="exact_duplicate")], "exact duplicate of another text"),
    ],
)
def test_every_false_claim_is_a_fault(rows: list[Record], fault: str) -> None:
    assert any(re.search(fault, one) for one in findings(*rows, threshold=0.9).faults)


def test_an_exact_similarity_that_is_not_the_true_one_is_counted() -> None:
    found = findings(row(b"c", b"a", 0.75))
    assert found.inexact == 1 and found.furthest == pytest.approx(0.05) and not found.faults


# --- real corpora -----------------------------------------------------------------------------------------------------


def test_the_stage_removes_nothing_wrongly_and_finds_what_it_should(
    tmp_path: Path, real_records: Callable[..., list[Record]]
) -> None:
    pages = real_records("documentation_versions.jsonl.zst", 9603)
    modules = ("Microsoft.PowerShell.Security", "Microsoft.WSMan.Management", "mm", "scsi")
    records = [page for page in pages if page["id"].split("/")[-2] in modules]
    poems = real_records("poetry_zh.jsonl.zst", 72_563)
    lines = Counter(line for poem in poems for line in poem["text"].split("\n"))
    records += [poem for poem in poems if any(lines[line] > 1 for line in poem["text"].split("\n"))]
    records += real_records("wikipedia_zh.jsonl.zst", 1000)
    distinct = {record["id"]: {"id": record["id"], "text": record["text"]} for record in records}
    path = tmp_path / "real.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in distinct.values()), encoding="utf-8")
    one = ["--workers", "1"]
    arguments = ["--input", str(path), "--source", "real", "--id-field", "id", "--output", str(tmp_path / "ingest")]
    assert ingest.main([*arguments, *one]) == 0
    assert dedupe.main(["--input", str(tmp_path / "ingest"), "--output", str(tmp_path / "dedupe"), *one]) == 0
    corpus = dedupe_quality.documents(tmp_path / "ingest")
    assert len(corpus.ids) == len(distinct)
    judged = dedupe_quality.judge_output(corpus, tmp_path / "dedupe", 0.7)
    assert judged.findings.faults == [] and judged.findings.inexact == 0
    assert min(judged.findings.exact, judged.findings.near, judged.findings.estimated) > 50
    assert np.mean(judged.findings.sigmas > 3) < 0.02
    for threshold, target in dedupe_quality.TARGETS.items():
        assert judged.recalls[threshold].share >= target
