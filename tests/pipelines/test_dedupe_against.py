"""Dedupe against what is there already: earlier runs and other corpora are compared with, and never touched."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines import dedupe, ingest
from pipelines.core.dataset import Dataset
from pipelines.core.identity import record_id
from pipelines.core.runners import RunOptions
from pipelines.core.stage import Report, StageRun
from pipelines.lsh.config import DedupeConfig
from pipelines.lsh.texts import Texts

Record = dict[str, Any]
ONE = ["--workers", "1"]


def ingested(root: Path, name: str, texts: dict[str, str], shard_bytes: int = 1 << 20) -> Path:
    root.mkdir(exist_ok=True)
    path, output = root / f"{name}.jsonl", root / f"ingest-{name}"
    path.write_text("".join(json.dumps({"id": key, "text": text}) + "\n" for key, text in texts.items()))
    argv = ["--input", str(path), "--source", name, "--id-field", "id", "--output", str(output), *ONE]
    options = ["--set", f"shard_bytes={shard_bytes}", "--set", f"read.batch_bytes={shard_bytes}"]
    assert ingest.main([*argv, *options]) == 0
    return output


def run(output: Path, inputs: list[Path], *options: str, against: list[Path] | None = None) -> Dataset:
    argv = ["--input", *map(str, inputs), "--output", str(output), *ONE, *options]
    argv += ["--against", *map(str, against)] if against else []
    assert dedupe.main(argv) == 0
    return Dataset.open(str(output))


def removed(dataset: Dataset) -> dict[str, tuple[bytes, str, float]]:
    if not dataset.has("ledger"):
        return {}
    rows = dataset.table("ledger").to_pylist()
    return {row["locator"]: (row["kept_id"], row["reason"], row["similarity"]) for row in rows}


def words(seed: int, count: int = 60) -> list[str]:
    rng = random.Random(seed)
    return [f"w{rng.randrange(10**6)}" for _ in range(count)]


def edited(seed: int, *positions: int, mark: str = "x") -> str:
    return " ".join(mark + str(i) if i in positions else word for i, word in enumerate(words(seed)))


POEM = "床前明月光疑是地上霜举头望明月低头思故乡" * 2
OLD = {"a": edited(1), "b": edited(2), "b2": edited(2, 3), "c": edited(3), "字": POEM}
NEW = {
    "a-copy": edited(1),
    "b-near": edited(2, 30),
    "d": edited(4),
    "d-longer": edited(4) + " and more",
    "汉": POEM + "啊",
}


def test_an_earlier_run_keeps_its_place_and_every_later_removal_names_one_of_its_survivors(tmp_path: Path) -> None:
    old, new = ingested(tmp_path, "old", OLD, 200), ingested(tmp_path, "new", NEW)
    first = run(tmp_path / "d1", [old])
    assert set(removed(first)) == {"b2"}
    for path in old.glob("documents/*"):
        path.unlink()  # the old text is not read
    second = run(tmp_path / "d2", [new], "--materialize", against=[tmp_path / "d1"])
    gone = removed(second)
    assert gone["a-copy"] == (record_id("old", "a"), "exact_duplicate", 1.0)
    assert gone["b-near"][:2] == (record_id("old", "b"), "near_duplicate") and gone["b-near"][2] > 0.8
    assert gone["汉"][:2] == (record_id("old", "字"), "near_duplicate")
    assert gone["d"][:2] == (record_id("new", "d-longer"), "near_duplicate") and len(gone) == 4
    assert second.table("surviving")["locator"].to_pylist() == ["d-longer"]
    assert len(second.table("index")) == 5, "the index holds the new documents alone"
    manifest = second.manifests[0]
    assert manifest.books["new"].records_in == 5 and list(manifest.books) == ["new"]
    assert manifest.facts["against"] == first.sha256s
    clusters = {row["id"]: row for row in second.table("clusters").to_pylist()}
    assert set(clusters) == {record_id("new", name) for name in NEW}
    assert clusters[record_id("new", "a-copy")]["cluster_size"] == 2


def test_three_runs_in_a_row_find_what_the_first_one_kept(tmp_path: Path) -> None:
    parts = [ingested(tmp_path, f"p{i}", {"x": edited(7, i), "y": edited(20 + i)}) for i in range(3)]
    run(tmp_path / "d0", parts[:1])
    run(tmp_path / "d1", parts[1:2], against=[tmp_path / "d0"])
    last = removed(run(tmp_path / "d2", parts[2:], against=[tmp_path / "d0", tmp_path / "d1"]))
    assert list(last) == ["x"] and last["x"][0] == record_id("p0", "x")


def test_documents_of_another_corpus_are_signed_for_the_comparison(tmp_path: Path) -> None:
    old, new = ingested(tmp_path, "old", OLD), ingested(tmp_path, "new", NEW)
    dataset = run(tmp_path / "d", [new], "--set", "within=false", against=[old])
    gone = removed(dataset)
    assert set(gone) == {"a-copy", "b-near", "汉"}, "within=false leaves the corpus's own duplicates alone"
    assert {kept for kept, *_ in gone.values()} <= {record_id("old", name) for name in OLD}
    assert {shard.table for shard in dataset.manifests[0].shards} == {"index", "ledger", "clusters"}
    exact = run(tmp_path / "e", [new], "--set", "near=false", against=[old])
    assert set(removed(exact)) == {"a-copy"}


def test_shards_without_documents_are_compared_too(tmp_path: Path) -> None:
    old, new, none = (ingested(tmp_path, name, texts) for name, texts in (("old", OLD), ("new", NEW), ("none", {})))
    run(tmp_path / "d1", [old])
    expected = removed(run(tmp_path / "d2", [new], against=[tmp_path / "d1"]))
    assert removed(run(tmp_path / "d3", [new, none], against=[tmp_path / "d1"])) == expected
    assert removed(run(tmp_path / "d4", [none], against=[tmp_path / "d1"])) == {}
    assert removed(run(tmp_path / "d5", [new], against=[tmp_path / "d1", none])) == expected


@pytest.mark.parametrize("stars", [False, True])
def test_rounds_and_stars_change_no_byte(tmp_path: Path, stars: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = ingested(tmp_path, "old", OLD, 200), ingested(tmp_path, "new", NEW, 200)
    labels: list[str] = []
    plain_pipeline = StageRun.pipeline

    def noted(stage: StageRun, label: str, *rest: Any) -> list[Report]:
        labels.append(label)
        return plain_pipeline(stage, label, *rest)

    monkeypatch.setattr(StageRun, "pipeline", noted)
    for within, against in ((True, []), (False, [str(old)])):
        inputs, config = [str(new)] if against else [str(old), str(new)], DedupeConfig(within=within)
        for name in ("plain", "cut"):
            labels.clear()
            memory = 1200 if name == "cut" and not stars else 1 << 30
            monkeypatch.setattr(dedupe, "_NODE_BYTES", 1 << 40 if name == "cut" and stars else 12)
            options = RunOptions(workers=1, mode="inline", memory=memory)
            dedupe.run(inputs, str(tmp_path / name), config, options, against=against)
        assert sum(label.startswith("link") for label in labels) + (not against) >= (1 if stars else 3)
        assert any(label.startswith("stars") for label in labels) == stars
        assert ("write" in labels) == (not stars), "verdicts that are too many for a shuffle go through files"
        plain, cut = (Dataset.open(str(tmp_path / name)).manifests[0] for name in ("plain", "cut"))
        assert plain.to_json() == cut.to_json()


def test_what_cannot_be_compared_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = ingested(tmp_path, "old", OLD), ingested(tmp_path, "new", NEW)
    run(tmp_path / "d1", [old])
    argv = ["--input", str(new), "--output", str(tmp_path / "d2"), *ONE, "--against"]
    assert dedupe.main([*argv, str(tmp_path / "d1"), "--set", "minhash.seed=2"]) == 1
    assert "was signed with" in capsys.readouterr().err
    assert dedupe.main([*argv, str(new)]) == 1 and "removed for themselves" in capsys.readouterr().err
    assert dedupe.main([*argv, str(tmp_path / "absent")]) == 1
    assert "is not a dataset directory" in capsys.readouterr().err
    (shard,) = (tmp_path / "d1/index").iterdir()
    shard.write_bytes(shard.read_bytes()[:-8])
    assert dedupe.main([*argv, str(tmp_path / "d1")]) == 1
    message = capsys.readouterr().err
    assert f"{shard} has" in message and "write the dataset again" in message
    assert not (tmp_path / "d2").exists()


def test_an_input_is_not_compared_with_an_earlier_run_over_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = ingested(tmp_path, "old", OLD), ingested(tmp_path, "new", NEW)
    run(tmp_path / "d1", [old, new])
    argv = ["--output", str(tmp_path / "d2"), *ONE, "--against", str(tmp_path / "d1"), "--input"]
    assert dedupe.main([*argv, str(old)]) == 1 and "removed for themselves" in capsys.readouterr().err
    again = ingested(tmp_path, "old", OLD | {"more": "some other words"})  # another manifest, the same records
    assert dedupe.main([*argv, str(again)]) == 1
    assert "of source 'old' is in the input and in what --against names" in capsys.readouterr().err
    assert not (tmp_path / "d2").exists()


def test_one_process_may_run_twice_against_other_things(tmp_path: Path) -> None:
    old = ingested(tmp_path, "old", {f"o{i}": edited(100 + i) for i in range(60)})
    few = ingested(tmp_path, "few", {"x": edited(100)})
    many = ingested(tmp_path, "many", {f"m{i}": edited(100 + i) for i in range(60)})
    for source, expected in ((few, 1), (many, 60), (few, 1)):
        assert len(removed(run(tmp_path / "d", [source], against=[old]))) == expected


def test_a_pattern_may_match_indexes_and_documents(tmp_path: Path) -> None:
    ingested(tmp_path, "old", {"a": edited(1)})
    run(tmp_path / "ingest-index", [ingested(tmp_path / "elsewhere", "other", {"b": edited(2)})])
    new = ingested(tmp_path / "elsewhere", "new", {"a": edited(1), "b": edited(2), "c": edited(3)})
    assert set(removed(run(tmp_path / "d", [new], against=[tmp_path / "ingest-*"]))) == {"a", "b"}


def test_settings_that_would_do_nothing_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--input", str(ingested(tmp_path, "old", OLD)), "--output", str(tmp_path / "d"), *ONE, "--set"]
    assert dedupe.main([*argv, "within=false"]) == 1
    assert "compares with --against alone" in capsys.readouterr().err
    assert dedupe.main([*argv, "sources=[Old]"]) == 1
    assert "sources names Old; the input holds: old" in capsys.readouterr().err


def test_a_source_that_loses_more_than_the_ceiling_fails_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = ingested(tmp_path, "old", OLD)
    argv = ["--input", str(old), "--output", str(tmp_path / "d"), *ONE, "--set"]
    assert dedupe.main([*argv, "max_removed=0.1"]) == 1
    message = capsys.readouterr().err
    assert "source 'old': 1 of 5 records would be removed (near_duplicate: 1)" in message and "10.0%" in message
    assert not (tmp_path / "d").exists()
    assert dedupe.main([*argv, "max_removed=0.2"]) == 0


def test_hot_buckets_are_named_with_one_of_their_documents(tmp_path: Path) -> None:
    texts = {f"t{i}": edited(5, i) for i in range(12)} | {"other": edited(6)}
    facts = run(tmp_path / "d", [ingested(tmp_path, "s", texts)], "--set", "bucket_cap=3").manifests[0].facts
    assert facts["largest_bucket"] == facts["hottest"][0]["documents"] >= 4
    assert facts["hot_buckets"] >= len(facts["hottest"]) > 0
    ids = {record_id("s", name).hex() for name in texts} - {record_id("s", "other").hex()}
    assert {one["example"] for one in facts["hottest"]} <= ids


def test_stars_and_memory_agree_on_real_pages_and_poems(
    tmp_path: Path, real_records: Callable[..., list[Record]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pages, poems = real_records("documentation_versions.jsonl.zst", 1500), real_records("poetry_zh.jsonl.zst", 6000)
    inputs = [
        ingested(tmp_path, name, {record["id"]: record["text"] for record in records}, 1 << 19)
        for name, records in (("pages", pages), ("poems", poems))
    ]
    plain = run(tmp_path / "plain", inputs).manifests[0]
    monkeypatch.setattr(dedupe, "_NODE_BYTES", 1 << 40)
    stars = run(tmp_path / "stars", inputs).manifests[0]
    assert sum(sum(books.removed.values()) for books in plain.books.values()) > 50
    assert plain.to_json() == stars.to_json()


@pytest.mark.parametrize(
    ("bands", "rows", "cuts"),
    [(14, 8, 2), (14, 8, 1), (20, 1, 2), (3, 7, 2), (2, 2, 2)],
)
def test_old_documents_that_the_probe_turns_away_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bands: int, rows: int, cuts: int
) -> None:
    rng = random.Random(bands)
    texts = {f"{i}": " ".join(words(i, rng.choice([1, 4, 5, 6, 40, 90]))) for i in range(120)} | {"empty": "..."}
    new = {}
    for i in range(70):
        tokens = texts[str(rng.randrange(120))].split()
        for _ in range(rng.choice([0, 0, 1, 2, 5])):
            tokens[rng.randrange(len(tokens))] = f"n{i}"
        new[f"n{i}"] = " ".join(tokens)
    olds = [ingested(tmp_path, name, dict(list(texts.items())[part::2]), 1500) for part, name in enumerate("ab")]
    settings = ["minhash.bands", bands, "minhash.rows", rows, "minhash.cuts", cuts]
    options = [f"--set={name}={value}" for name, value in zip(settings[::2], settings[1::2], strict=True)]
    indexes = [run(tmp_path / f"d-{old.name}", [old], *options) for old in olds]
    assert min(len(index.keys("index")) for index in indexes) > 3
    source, against = ingested(tmp_path, "new", {**new, "empty": "..."}), [Path(index.roots[0]) for index in indexes]
    asked = run(tmp_path / "asked", [source], *options, against=against)
    monkeypatch.setattr(Texts, "probe", lambda *_: None)
    every = run(tmp_path / "every", [source], *options, against=against)
    assert asked.books == every.books and len(removed(asked)) > 10
    for table in ("ledger", "clusters"):
        assert asked.table(table).equals(every.table(table))
