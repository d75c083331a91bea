"""`gristmill near`: what it finds is what a comparison with every document finds, and it says what became of each."""

from __future__ import annotations

import io
import json
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipelines import near
from pipelines.core.dataset import Dataset
from pipelines.core.identity import record_id
from pipelines.text.minhash import MinHashConfig
from pipelines.text.shingles import shingle_hashes, shingles

Decide = Callable[..., Path]
WORDS = [f"word{i}" for i in range(104)]  # 100 shingles
PAGE = " ".join(WORDS)
EDITED = " ".join([*WORDS[:-1], "other"])  # 99 shingles shared of 101
POEM = "净客之名从此有。多谢风流，飞驭陪尊酒。持此一卮同劝后。愿花长在人长寿。"
VARIANT = "寿客之名从此有。多谢风流，飞驭陪尊酒。持此一卮同劝后。愿花长在人长寿。"  # one of 26 shingles differs
DOCUMENTS = [
    ("a-0", "web", "page", PAGE),
    ("a-0", "web", "edited", EDITED),
    ("a-0", "web", "unlike", " ".join(reversed(WORDS))),
    ("b-0", "诗", "poem", VARIANT),
    ("b-0", "诗", "signs", "!?"),
    ("b-0", "诗", "other signs", "?!"),
]
REMOVED = [("edited", "page", 99 / 101)]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, decided: Decide) -> Path:
    return decided(tmp_path_factory.mktemp("near"), DOCUMENTS, REMOVED, [["page", "edited"]])


def asked(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, Any]:
    assert near.main([*argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_twins_come_with_their_similarity_and_what_became_of_them(
    index: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = asked(capsys, PAGE, "--index", str(index))
    assert (found["characters"], found["shingles"], found["compared"], found["total"]) == (len(PAGE), 100, 6, 2)
    page, edited = found["near"]
    assert page == {
        "id": record_id("web", "page").hex(), "source": "web", "locator": "page", "index": str(index),
        "similarity": 1.0, "error": 0.0, "exact": True, "removed": None, "kept_id": None, "excerpt": None,
    }  # fmt: skip
    assert (edited["locator"], edited["similarity"], edited["exact"]) == ("edited", 99 / 101, False)
    assert (edited["removed"], edited["kept_id"]) == ("near_duplicate", page["id"])


def test_a_chinese_text_is_compared_by_characters(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    documents = str(index.parent / "clean")
    found = asked(capsys, POEM, "--index", str(index), "--documents", documents)
    assert found["shingles"] == 26
    assert [(one["source"], one["similarity"], one["excerpt"]) for one in found["near"]] == [("诗", 25 / 27, VARIANT)]


def test_the_answer_is_told_to_people_too(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert near.main([PAGE, "--index", str(index), "--top", "1", "--documents", str(index.parent / "clean")]) == 0
    head, measured, decision, text, more = capsys.readouterr().out.splitlines()
    assert head.startswith(
        f"2 near this text ({len(PAGE)} characters, 100 distinct shingles) at a similarity of 0.7 or"
    )
    assert (measured, more) == ("  1.0000 equal content  web  page", "  … and 1 more (--top)")
    assert decision == f"    {record_id('web', 'page').hex()}  kept" and text.startswith("    word0 word1")
    assert near.main([EDITED, "--index", str(index), "--threshold", "0.99"]) == 0
    assert f"removed (near_duplicate) for {record_id('web', 'page').hex()}" in capsys.readouterr().out


def test_nothing_near_is_no_error_and_is_said(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert near.main(["what nobody has ever written here", "--index", str(index)]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("nothing is near this text") and "0.7 or more among 6 documents" in shown


def test_a_text_without_words_is_near_to_equal_content_alone(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = asked(capsys, "!?", "--index", str(index))
    assert [(one["locator"], one["similarity"], one["exact"]) for one in found["near"]] == [("signs", 1.0, True)]
    assert near.main(["...", "--index", str(index)]) == 0
    assert "has no letter or digit" in capsys.readouterr().out


def test_the_text_comes_from_a_file_or_from_standard_input(
    index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "poem.txt").write_text(POEM, encoding="utf-8")
    from_file = asked(capsys, "--file", str(tmp_path / "poem.txt"), "--index", str(index))
    for argv in (["-"], ["--file", "-"]):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(POEM.encode())))
        assert asked(capsys, *argv, "--index", str(index)) == from_file
    assert [one["locator"] for one in from_file["near"]] == ["poem"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["x", "--index", "{clean}"], "has no index/"),
        (["x", "--index", "{clean}/nowhere"], "is not a dataset directory"),
        (["--file", "{clean}/nowhere", "--index", "{index}"], "No such file"),
        (["--file", "{latin}", "--index", "{index}"], "is not UTF-8"),
    ],
)
def test_what_cannot_be_read_is_an_error(
    index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    (tmp_path / "latin").write_bytes("é".encode("latin-1"))
    places = {"index": index, "clean": index.parent / "clean", "latin": tmp_path / "latin"}
    assert near.main([one.format(**places) for one in argv]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("argv", [[], ["x"], ["x", "--file", "y", "--index", "z"], ["x", "--index", "z", "--top", "0"]])
def test_a_wrong_command_line_ends_with_2(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        near.main(argv)
    assert stop.value.code == 2


def test_several_indexes_are_answered_together(
    index: Path, tmp_path: Path, decided: Decide, capsys: pytest.CaptureFixture[str]
) -> None:
    other = decided(tmp_path, [("c-0", "new", "later", EDITED)], [("later", "page", 99 / 101)], [["later", "page"]], 16)
    found = asked(capsys, EDITED, "--index", str(index), str(other))
    assert found["compared"] == 7 and found["total"] == 3
    assert sorted(one["locator"] for one in found["near"][:2]) == ["edited", "later"]
    assert found["near"][2]["locator"] == "page"


def test_a_sketch_that_is_not_the_whole_set_gives_an_error_with_the_similarity(
    tmp_path: Path, decided: Decide, capsys: pytest.CaptureFixture[str]
) -> None:
    root = decided(tmp_path, DOCUMENTS[:2], [], [], 16)
    edited = asked(capsys, PAGE, "--index", str(root))["near"][1]
    assert edited["similarity"] >= 15 / 16 and 0 < edited["error"] < 0.1
    assert near.main([PAGE, "--index", str(root)]) == 0
    assert f"{edited['similarity']:.4f} ± {edited['error']:.4f}  web" in capsys.readouterr().out


def test_a_shared_band_is_enough_however_low_the_estimate() -> None:
    one = near.Query(MinHashConfig(), np.arange(112, dtype=np.uint32), np.arange(9, dtype=np.uint32), 9, b"")
    signed = np.full((4, 112), 1000, np.uint32)
    signed[0, 8:16] = one.signature[8:16]  # one whole band: estimate 8/112
    signed[1, 4:12] = one.signature[4:12]  # as many, across two bands
    signed[2, :70] = signed[3, :70] = one.signature[:70]
    signed[2:, ::8] = 1000  # no whole band, estimate 61/112 = 0.545; 0.7 less four standard errors is 0.527
    signed[3, 1:36:8] = 1000  # estimate 56/112
    assert near.candidates(signed, np.full(4, 9), one, 0.7).tolist() == [True, False, True, False]
    assert not near.candidates(signed, np.zeros(4, int), one, 0.7).any()


def test_real_texts_are_near_to_what_brute_force_says(
    tmp_path: Path, decided: Decide, real_records: Callable[..., list[dict[str, Any]]]
) -> None:
    pages: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in real_records("documentation_versions.jsonl.zst", 3200):
        pages["/".join(record["id"].split("/")[-2:])].append(record)
    manual = [record for name in sorted(pages) if len(pages[name]) >= 4 for record in pages[name]][:200]
    texts = {str(record["id"]): record["text"][:5000] for record in manual + real_records("poetry_zh.jsonl.zst", 600)}
    documents = [(f"s-{i % 3}", "s", name, text) for i, (name, text) in enumerate(texts.items())]
    root = decided(tmp_path, documents, [], [], 1 << 20)
    names = list(texts)
    hashes, offsets = shingle_hashes(pa.array(list(texts.values())))
    sets = {name: set(hashes[offsets[i] : offsets[i + 1]].tolist()) for i, name in enumerate(names)}
    dataset, several = Dataset.open(str(root)), 0
    for name in names[::16]:
        assert len(sets[name]) == len(set(shingles(texts[name])))
        expected = {}
        for other in names:
            shared = len(sets[name] & sets[other])
            similarity = shared / len(sets[name] | sets[other]) if shared else 0.0
            if similarity >= 0.7:
                expected[other] = similarity
        found, total = near.search(texts[name], dataset, 0.7, 1000)
        assert {match.locator: match.similarity for match in found} == pytest.approx(expected)
        assert total == len(expected)
        several += total > 1
    assert several >= 8
