"""Texts are read from the very datasets that an index was made of, by shard and id; excerpts harm no terminal."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.core.dataset import Dataset
from pipelines.core.identity import record_id
from pipelines.core.texts import document_sets, excerpt, texts
from schemas.base import SchemaError

Decide = Callable[..., Path]
DOCUMENTS = [("a-0", "s", "one", "first"), ("a-0", "s", "two", "second"), ("b-0", "s", "three", "第三")]


def roots(found: list[Dataset]) -> list[str]:
    return [root for one in found for root in one.roots]


def test_inputs_are_found_beside_the_dataset_and_one_level_below(tmp_path: Path, decided: Decide) -> None:
    dedupe = Dataset.open(str(decided(tmp_path, DOCUMENTS, [], [])))
    assert roots(document_sets(dedupe)) == [str(tmp_path / "clean")]
    shutil.move(tmp_path / "clean", tmp_path / "data/clean")
    assert roots(document_sets(dedupe)) == [str(tmp_path / "data/clean")]
    shutil.move(tmp_path / "data", tmp_path / "far/data")
    assert document_sets(dedupe) == []


def test_relative_paths_are_looked_for_from_here(
    tmp_path: Path, decided: Decide, monkeypatch: pytest.MonkeyPatch
) -> None:
    decided(tmp_path, DOCUMENTS, [], [])
    monkeypatch.chdir(tmp_path)
    assert [Path(root).resolve() for root in roots(document_sets(Dataset.open("dedupe")))] == [tmp_path / "clean"]


def test_what_changed_since_it_was_read_is_no_input_unless_it_is_named(tmp_path: Path, decided: Decide) -> None:
    dedupe = Dataset.open(str(decided(tmp_path, DOCUMENTS, [], [])))
    decided(tmp_path / "more", [("c-0", "s", "four", "other")], [], [])
    given = [str(tmp_path / "clean"), str(tmp_path / "more/clean")]
    assert roots(document_sets(dedupe, given)) == given[:1]
    assert roots(document_sets(dedupe, given[1:])) == given[1:]
    manifest = tmp_path / "clean/_meta/manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"stage": "ingest"}))
    assert document_sets(dedupe) == []
    with pytest.raises(SchemaError, match="has no documents/"):
        document_sets(dedupe, [str(tmp_path / "dedupe")])


def test_texts_are_read_by_shard_and_id(tmp_path: Path, decided: Decide) -> None:
    decided(tmp_path, DOCUMENTS, [], [])
    one, two, three = (record_id("s", name) for name in ("one", "two", "three"))
    documents = [Dataset.open(str(tmp_path / "clean"))]
    assert texts(documents, {"a-0": [two, two], "b-0": [three, one]}) == {two: "second", three: "第三"}
    assert texts(documents, {"z-0": [one]}) == {} and texts([], {"a-0": [one]}) == {}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\n\t b\u3000c ", "a b c"),
        ("x" * 5, "x" * 5),
        ("x" * 6, "x" * 5 + "…"),
        ("一二三四五六", "一二三四五…"),
        ("a" + " " * 30 + "b", "a…"),
        ("\x1b[31mred", " [31mred"[1:6] + "…"),
        ("ab\u202ecd", "ab cd"),
        ("", ""),
    ],
)
def test_an_excerpt_is_one_line_that_moves_no_cursor(text: str, shown: str) -> None:
    assert excerpt(text, 5) == shown
