"""Clean: texts are repaired, a removal names its rule and its numbers, and tables stay row for row side by side."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines import clean, ingest
from pipelines.clean_config import CleanConfig
from pipelines.clean_texts import Texts, signals_of
from pipelines.core.dataset import Dataset
from pipelines.core.identity import content_hash, record_id
from pipelines.core.shards import verify_shard
from pipelines.text.language import LanguageConfig
from pipelines.text.pii import PiiConfig
from pipelines.text.prepare import Given
from schemas.document import DOCUMENT
from schemas.ledger import LEDGER
from schemas.manifest import Books

ONE = ["--workers", "1"]
ENGLISH = "The quick brown fox jumps over the lazy dog, and then it sleeps. " * 4
CHINESE = "天地玄黄，宇宙洪荒。日月盈昃，辰宿列张。寒来暑往，秋收冬藏。"
CHINESE += "闰余成岁，律吕调阳。云腾致雨，露结为霜。金生丽水。"


def batch(*texts: str) -> pa.RecordBatch:
    rows = [
        {
            "id": record_id("s", str(i)),
            "source": "s",
            "locator": str(i),
            "path": "a",
            "text": text,
            "content_hash": content_hash(text.encode()),
        }
        for i, text in enumerate(texts)
    ]
    return pa.RecordBatch.from_pylist(rows, schema=DOCUMENT.schema)


def clean_batch(given: pa.RecordBatch, config: CleanConfig) -> tuple[pa.RecordBatch, pa.RecordBatch, pa.RecordBatch]:
    tables, removed, dead = clean.clean_batch(given, Texts(config))
    assert not len(dead)
    return tables["documents"], tables["signals"], removed


def ingested(root: Path, texts: list[str], source: str = "s") -> Path:
    path = root / f"{source}.jsonl"
    path.write_text("".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in enumerate(texts)), encoding="utf-8")
    options = ["--id-field", "id", "--set", "shard_bytes=5000", "--set", "read.batch_bytes=2000", *ONE]
    argv = ["--input", str(path), "--source", source, "--output", str(root / f"ingest-{source}"), *options]
    assert ingest.main(argv) == 0
    return root / f"ingest-{source}"


def run(output: Path, *inputs: Path, options: list[str] | None = None) -> Dataset:
    argv = [arg for path in inputs for arg in ("--input", str(path))]
    assert clean.main([*argv, "--output", str(output), *ONE, *(options or [])]) == 0
    dataset = Dataset.open(str(output))
    for shard in dataset.manifests[0].shards:
        verify_shard(str(output), shard)
    DOCUMENT.validate(dataset.table("documents"))
    signals_of(CleanConfig()).validate(dataset.table("signals"))
    LEDGER.validate(dataset.table("ledger"))
    return dataset


def test_a_batch_is_repaired_measured_and_judged() -> None:
    config = CleanConfig(filters={"min_chars": 50, "min_words": 5})
    broken = "cafe\u0301\u00a0\u200bwith\x00 nulls " + ENGLISH
    given = batch(broken, "short", CHINESE, "")
    documents, signals, removed = clean_batch(given, config)
    texts = documents.column("text").to_pylist()
    assert texts[0].startswith("café with nulls The quick") and texts[2] == CHINESE
    assert documents.column("content_hash").to_pylist() == [content_hash(text.encode()) for text in texts]
    for name in ("id", "source", "locator", "path", "metadata"):
        assert documents.column(name) == given.column(name)
    assert signals.column("id") == given.column("id") and signals.column("chars")[2].as_py() == len(CHINESE)
    rows = removed.to_pylist()
    assert [(row["locator"], row["reason"], row["score"], row["threshold"]) for row in rows] == [
        ("1", "min_chars", 5.0, 50.0),
        ("3", "min_chars", 0.0, 50.0),
    ]
    assert all(row["action"] == "removed" and row["stage"] == "clean" for row in rows)


def test_the_first_rule_that_fails_is_the_reason() -> None:
    config = CleanConfig(filters={"min_chars": 10, "min_words": 30})
    _, _, removed = clean_batch(batch("one two", "one two three four"), config)
    assert removed.column("reason").to_pylist() == ["min_chars", "min_words"]


def test_nothing_is_removed_where_every_rule_is_off() -> None:
    documents, _, removed = clean_batch(batch("", "x", "5 5 5"), CleanConfig(profile=("none",)))
    assert len(documents) == 3 and len(removed) == 0


def test_an_empty_batch_stays_a_batch() -> None:
    assert [len(part) for part in clean_batch(batch(), CleanConfig())] == [0, 0, 0]


def test_tables_stay_row_for_row_and_books_are_exact(tmp_path: Path) -> None:
    texts = [ENGLISH + str(i) if i % 3 else "tiny" for i in range(120)]
    dataset = run(tmp_path / "d", ingested(tmp_path, texts), options=["--materialize"])
    assert len(dataset.keys()) > 3
    for key in dataset.keys("documents"):
        assert dataset.table("documents", key)["id"].to_pylist() == dataset.table("signals", key)["id"].to_pylist()
        gone = set(dataset.table("ledger", key)["id"].to_pylist())
        kept = [row for row in dataset.table("documents", key).to_pylist() if row["id"] not in gone]
        assert dataset.table("surviving", key).to_pylist() == kept
    assert dataset.books == {"s": Books(120, 80, {"min_chars": 40})}
    assert dataset.content_bytes() == sum(len(text.encode()) for text in dataset.table("documents")["text"].to_pylist())


def test_cleaning_twice_sees_only_the_survivors(tmp_path: Path) -> None:
    texts = [ENGLISH + str(i) if i % 3 else "tiny" for i in range(30)]
    first = run(tmp_path / "d", ingested(tmp_path, texts))
    second = run(tmp_path / "e", tmp_path / "d", options=["--set", "filters.min_chars=270"])
    assert second.books["s"].records_in == first.books["s"].kept == 20
    assert set(second.table("ledger")["reason"].to_pylist()) == {"min_chars"}
    assert set(second.table("documents")["id"].to_pylist()).isdisjoint(first.table("ledger")["id"].to_pylist())


def test_several_corpora_are_cleaned_as_one_dataset_in_any_order(tmp_path: Path) -> None:
    one, two = ingested(tmp_path, [ENGLISH, "x"], "en"), ingested(tmp_path, [CHINESE, "字", "句"], "zh")
    dataset, again = run(tmp_path / "d", one, two), run(tmp_path / "e", two, one)
    assert dataset.books == {"en": Books(2, 1, {"min_chars": 1}), "zh": Books(3, 1, {"min_chars": 2})}
    assert dataset.sha256s == again.sha256s


def test_compressed_shards_hold_the_same_rows(tmp_path: Path) -> None:
    source = ingested(tmp_path, [ENGLISH + str(i) for i in range(50)])
    plain, small = run(tmp_path / "d", source), run(tmp_path / "e", source, options=["--set", "compression=zstd"])
    assert [s.row_hash for s in plain.of("documents")] == [s.row_hash for s in small.of("documents")]
    assert sum(s.bytes for s in small.of("documents")) < sum(s.bytes for s in plain.of("documents"))


def test_what_is_no_dataset_is_a_clear_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "raw").mkdir()
    assert clean.main(["--input", str(tmp_path / "raw"), "--output", str(tmp_path / "d"), *ONE]) == 1
    assert "is not a dataset directory: it has no _meta/manifest.json" in capsys.readouterr().err
    assert not (tmp_path / "d").exists()


def test_a_shard_that_was_damaged_fails_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = ingested(tmp_path, [ENGLISH])
    (shard,) = (source / "documents").iterdir()
    shard.write_bytes(shard.read_bytes()[:-20])
    assert clean.main(["--input", str(source), "--output", str(tmp_path / "d"), *ONE]) == 1
    assert "is not a complete shard" in capsys.readouterr().err and not (tmp_path / "d").exists()


def test_a_whole_shard_that_is_not_the_one_that_the_manifest_names_fails_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = ingested(tmp_path, [ENGLISH + str(i) for i in range(80)])
    first, *_, last = sorted((source / "documents").iterdir())
    first.write_bytes(last.read_bytes())  # fewer rows
    assert clean.main(["--input", str(source), "--output", str(tmp_path / "d"), *ONE]) == 1
    assert "is not the shard that the manifest names" in capsys.readouterr().err
    assert not (tmp_path / "d").exists()


def test_real_text_in_two_languages_keeps_most_and_accounts_for_all(
    tmp_path: Path, real_records: Callable[..., list[dict[str, Any]]]
) -> None:
    sources = []
    for name, source in (("wikipedia_en.jsonl.zst", "en"), ("wikipedia_zh.jsonl.zst", "zh")):
        sources.append(ingested(tmp_path, [record["text"] for record in real_records(name, 300)], source))
    dataset = run(tmp_path / "d", *sources, options=["--workers", "2"])
    for source in ("en", "zh"):
        books = dataset.books[source]
        rows = [row for row in dataset.table("ledger").to_pylist() if row["source"] == source]
        assert books.records_in == 300 and books.balance() == 0 and books.kept > 150
        assert Counter(row["reason"] for row in rows) == books.removed
        for row in rows:
            low = row["reason"].startswith("min_")
            assert row["score"] < row["threshold"] if low else row["score"] > row["threshold"]


def test_other_limits_decide_anew_on_the_same_signals_and_give_the_bytes_of_a_whole_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = ingested(tmp_path, [ENGLISH + str(i) if i % 3 else "tiny" for i in range(60)])
    first = run(tmp_path / "d", source)
    limits = ["--set", "filters.min_chars=270", "--set", "filters.max_digit_ratio=null", "--materialize"]
    whole = run(tmp_path / "e", source, options=limits)
    monkeypatch.setattr(clean, "clean_shard", None)  # nothing is repaired or measured again
    again = run(tmp_path / "d", source, options=limits)
    assert again.sha256s == whole.sha256s != first.sha256s


@pytest.mark.parametrize(
    "options", [["--set", "normalize.form=NFKC"], ["--set", "profile=[fineweb]"], ["--set", "compression=zstd"]]
)
def test_what_changes_text_or_signals_is_a_whole_run(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = ingested(tmp_path, [ENGLISH + str(i) for i in range(5)])
    run(tmp_path / "d", source)
    monkeypatch.setattr(clean, "decide_shard", None)
    argv = ["--input", str(source), "--output", str(tmp_path / "d"), *ONE, *options]
    assert clean.main(argv) == 0


@pytest.mark.parametrize(
    ("ceiling", "passes"),
    [("s=0.3", False), ("s=0.4", True), ("*=0.3", False), ("s/min_chars=0.3", False), ("*/min_words=0.3", True)],
)
def test_more_than_a_ceiling_fails_and_writes_nothing(
    ceiling: str, passes: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = ingested(tmp_path, [ENGLISH + str(i) if i % 3 else "tiny" for i in range(9)])
    key, share = ceiling.split("=")
    options = ["--set", f"ceilings={{'{key}': {share}}}", *ONE]
    assert clean.main(["--input", str(source), "--output", str(tmp_path / "d"), *options]) == (0 if passes else 1)
    assert (tmp_path / "d").exists() == passes
    if not passes:
        assert "source 's': 3 of 9 records would be removed" in capsys.readouterr().err


def test_a_ceiling_about_nothing_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = ingested(tmp_path, [ENGLISH])
    for key in ("other", "s/min_nothing"):
        options = ["--set", f"ceilings={{'{key}': 0.5}}", *ONE]
        assert clean.main(["--input", str(source), "--output", str(tmp_path / "d"), *options]) == 1
        assert f"ceilings: '{key}' is none of the sources (s)" in capsys.readouterr().err


def test_personal_data_is_replaced_and_counted_or_its_document_removed() -> None:
    mail = "Write to jane.doe@example.com or call +1 650-253-0000. " + ENGLISH
    config = CleanConfig(pii=PiiConfig(mode="redact", modes={"phone": "report", "iban": "none"}), profile=("none",))
    documents, signals, removed = clean_batch(batch(mail, ENGLISH), config)
    assert documents.column("text")[0].as_py().startswith("Write to [EMAIL] or call +1 650-253-0000.")
    assert signals.column("pii_email").to_pylist() == [1.0, 0.0] and signals.column("pii_phone").to_pylist() == [
        1.0,
        0.0,
    ]
    assert "pii_iban" not in signals.schema.names and len(removed) == 0
    _, _, removed = clean_batch(batch(mail, ENGLISH), CleanConfig(pii=PiiConfig(mode="drop")))
    assert [(row["locator"], row["reason"], row["score"]) for row in removed.to_pylist()] == [
        ("0", "max_pii_email", 1.0)
    ]


def test_languages_are_measured_and_only_those_to_keep_stay() -> None:
    config = CleanConfig(language=LanguageConfig(keep=("zh",)), profile=("none",), measure=("scripts",))
    _, signals, removed = clean_batch(batch(ENGLISH, CHINESE), config)
    assert signals.column("language").to_pylist() == ["en", "zh"] and signals.column("script_han")[1].as_py() == 1.0
    assert removed.column("reason").to_pylist() == ["min_language_fit"] and removed.column("locator").to_pylist() == [
        "0"
    ]
    _, signals, removed = clean_batch(batch(ENGLISH), CleanConfig(language=LanguageConfig(min_confidence=1.0)))
    assert removed.column("reason").to_pylist() in ([], ["min_language_confidence"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["edits=[c5_lines]"], "unknown edit 'c5_lines'; known: html_entities"),
        (["profile=[refinedweb]"], "add it to edits"),
        (["measure=[words]"], "unknown group of signals 'words'"),
        (["filters.max_pii_email=0"], "needs pii.mode"),
        (["ceilings={'s': 2}"], "s is a share from 0 to 1"),
        (["pii.mode=hash"], "GRISTMILL_PII_KEY"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_is_read(
    settings: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = ingested(tmp_path, [ENGLISH])
    options = [arg for setting in settings for arg in ("--set", setting)]
    assert clean.main(["--input", str(source), "--output", str(tmp_path / "d"), *ONE, *options]) == 1
    assert message in capsys.readouterr().err


def test_a_list_of_bad_words_removes_what_holds_one_and_another_list_is_a_whole_run(tmp_path: Path) -> None:
    source = ingested(tmp_path, [ENGLISH, ENGLISH + "Something vile. ", CHINESE + "很坏。"])
    words = tmp_path / "words.txt"
    words.write_text("vile\n坏\n")
    options = ["--set", f"bad_words={words}"]
    found = run(tmp_path / "d", source, options=options)
    assert found.books["s"].removed == {"max_bad_words": 2}
    words.write_text("nothing\n")
    assert run(tmp_path / "d", source, options=options).books["s"].removed == {}
    words.write_bytes(b"\xff\xff")
    argv = ["--input", str(source), "--output", str(tmp_path / "e"), *ONE, *options]
    assert clean.main(argv) == 1


def test_another_key_for_digests_is_a_whole_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = ingested(tmp_path, [ENGLISH + "Write to jane.doe@example.com."])
    texts = []
    for key in ("one", "two"):
        monkeypatch.setenv("GRISTMILL_PII_KEY", key)
        texts += run(tmp_path / "d", source, options=["--set", "pii.mode=hash"]).table("documents")["text"].to_pylist()
    assert "[EMAIL:" in texts[0] and texts[0] != texts[1]


def test_decisions_on_shards_of_many_batches_are_those_of_a_whole_run(tmp_path: Path) -> None:
    # documents/ and signals/ are cut into batches of other numbers of rows
    texts = [ENGLISH * (20 + i % 7) + str(i) if i % 3 else f"tiny {i}" for i in range(3000)]
    path = tmp_path / "big.jsonl"
    path.write_text("".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in enumerate(texts)), encoding="utf-8")
    argv = ["--input", str(path), "--source", "s", "--id-field", "id", "--output", str(tmp_path / "big"), *ONE]
    assert ingest.main(argv) == 0
    measure = ["--set", "measure=[gopher, repetition, fineweb]"]
    first = run(tmp_path / "d", tmp_path / "big", options=measure)
    batches = [first.open_shard(t, first.keys(t)[0]).num_record_batches for t in ("documents", "signals")]
    assert batches[0] > 1 and batches[0] != batches[1]
    limits = [*measure, "--set", "filters.max_chars=6000", "--materialize"]
    whole, again = (run(tmp_path / name, tmp_path / "big", options=limits) for name in ("e", "d"))
    assert again.sha256s == whole.sha256s and again.books["s"].removed["max_chars"] > 0


def test_other_languages_to_keep_decide_anew_on_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = ingested(tmp_path, [ENGLISH, CHINESE * 2])
    measure = ["--set", "measure=[language]", "--set", "profile=[none]"]
    run(tmp_path / "d", source, options=[*measure, "--set", "language.keep=[en]"])
    monkeypatch.setattr(clean, "clean_shard", None)
    kept = run(tmp_path / "d", source, options=[*measure, "--set", "language.keep=[zh]"])
    assert kept.table("ledger")["locator"].to_pylist() == ["0"]


def test_a_damaged_earlier_output_is_replaced_by_a_whole_run(tmp_path: Path) -> None:
    source = ingested(tmp_path, [ENGLISH + str(i) for i in range(5)])
    first = run(tmp_path / "d", source)
    shard = tmp_path / "d" / first.of("signals")[0].path
    shard.write_bytes(shard.read_bytes()[:-5] + b"12345")
    assert run(tmp_path / "d", source).sha256s == first.sha256s


def test_character_references_are_replaced_before_the_repair() -> None:
    config = CleanConfig(edits=("html_entities",), profile=("none",))
    documents, _, _ = clean_batch(batch("caf&Atilde;&copy;&nbsp;&nbsp;noir&#8203; " + ENGLISH), config)
    assert documents.column("text")[0].as_py().startswith("café noir The quick")


def test_a_limit_on_the_fit_without_languages_to_keep_is_one_on_the_confidence() -> None:
    config = CleanConfig(profile=("none",), filters={"min_language_fit": 0.01})
    _, _, removed = clean_batch(batch(ENGLISH, "5 5 5"), config)
    assert removed.column("locator").to_pylist() == ["1"]


def test_limits_of_ones_own_take_the_place_of_rules_that_settings_bring() -> None:
    pii = PiiConfig(mode="drop")
    asked = {rule.name: rule.limit for rule in CleanConfig(pii=pii, filters={"max_pii_email": 2}).rules}
    assert asked["max_pii_email"] == 2.0 and asked["max_pii_iban"] == 0.0
    names = [rule.name for rule in CleanConfig(pii=pii, filters={"max_pii_email": None}).rules]
    assert "max_pii_email" not in names and len(set(names)) == len(names)


def test_keys_that_differ_beyond_their_beginning_are_told_apart() -> None:
    assert Given(b"k" * 64 + b"1").digest() != Given(b"k" * 64 + b"2").digest() != Given().digest()
