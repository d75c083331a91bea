"""The manifest: canonical, strict, and refused where it is newer or points outside its dataset."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.base import SchemaError
from schemas.manifest import Books, Manifest, Shard, parse

counts = st.dictionaries(st.sampled_from(["min_chars", "近似重复", "x"]), st.integers(0, 10**12))
books = st.builds(Books, st.integers(0, 10**12), st.integers(0, 10**12), counts, counts, st.integers(0, 99))
shard = st.builds(
    Shard,
    path=st.from_regex(r"[a-z]{1,9}/shard-[0-9]{5}\.arrow", fullmatch=True),
    table=st.sampled_from(["documents", "train"]),
    rows=st.integers(0, 2**40),
    bytes=st.integers(0, 2**50),
    sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
    row_hash=st.text("0123456789abcdef", min_size=32, max_size=32),
    first_id=st.none() | st.just("00" * 16),
    text_bytes=st.integers(0, 2**50),
)
manifests = st.builds(
    Manifest,
    stage=st.just("clean"),
    config=st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.text(max_size=5), max_size=4),
    versions=st.just({"pyarrow": "25.0.1"}),
    inputs=st.lists(st.just("ab" * 32), max_size=2),
    shards=st.lists(shard, max_size=4, unique_by=lambda s: s.path),
    books=st.dictionaries(st.sampled_from(["wiki", "维基"]), books),
)


@given(manifests)
def test_a_manifest_survives_being_written_and_read(manifest: Manifest) -> None:
    again = parse(manifest.to_json())
    assert again.to_json() == manifest.to_json()
    assert again.sha256() == manifest.sha256()
    assert again.books == manifest.books and sorted(again.shards) == sorted(manifest.shards)


@given(manifests, st.randoms(use_true_random=False))
def test_the_identity_does_not_depend_on_the_order_of_shards_or_sources(manifest: Manifest, rng: Any) -> None:
    shards, sources = list(manifest.shards), list(manifest.books.items())
    rng.shuffle(shards)
    rng.shuffle(sources)
    other = Manifest(
        manifest.stage, manifest.config, manifest.versions, manifest.inputs, shards, dict(sources), manifest.facts
    )
    assert other.sha256() == manifest.sha256()


def raw(**changes: Any) -> bytes:
    manifest = Manifest("clean", {}, {}, [], [Shard("documents/a.arrow", "documents", 1, 2, "aa", "bb")], {})
    return json.dumps(json.loads(manifest.to_json()) | changes).encode()


def test_books_balance_only_where_nothing_is_missing() -> None:
    assert Books(10, 4, {"a": 1, "b": 2}, {"c": 3}, repeated=7).balance() == 0
    assert Books(10, 4, {"a": 1}, {}).balance() == 5
    assert Books(1, 2).balance() == -1


def test_a_newer_major_version_is_refused_and_a_newer_minor_one_read() -> None:
    with pytest.raises(SchemaError, match=r"m has format version 2\.0; this Gristmill reads up to 1\.x"):
        parse(raw(format_version=[2, 0]), "m")
    assert parse(raw(format_version=[1, 9])).format_version == (1, 9)


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"not json",
        b"[]",
        b"5",
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        raw(format_version=[]),
        raw(format_version=[1]),
        raw(format_version="new"),
        raw(shards=[{"path": "a"}]),
        raw(shards=5),
        raw(books={"wiki": {"records_in": 1, "kept": 1, "lost": 1}}),
        raw(books=[]),
    ],
)
def test_what_is_no_manifest_is_refused_and_named(broken: bytes) -> None:
    with pytest.raises(SchemaError, match="here"):
        parse(broken, "here")


@pytest.mark.parametrize("path", ["/etc/passwd", "../other/documents/a.arrow", "documents/../../a", "..\\a"])
def test_a_shard_outside_the_dataset_is_refused(path: str) -> None:
    shard = {"path": path, "table": "documents", "rows": 1, "bytes": 1, "sha256": "", "row_hash": ""}
    with pytest.raises(SchemaError, match="no path inside the dataset"):
        parse(raw(shards=[shard]))


def test_tables_and_their_shards_are_sorted() -> None:
    shards = [Shard(f"{t}/{i}.arrow", t, 0, 0, "", "") for t in ("ledger", "documents") for i in (2, 0, 1)]
    manifest = Manifest("clean", {}, {}, [], shards, {})
    assert manifest.tables() == ["documents", "ledger"]
    assert [s.path for s in manifest.of("ledger")] == ["ledger/0.arrow", "ledger/1.arrow", "ledger/2.arrow"]
