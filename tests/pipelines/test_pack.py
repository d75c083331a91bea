"""Tokenizer and pack as commands, over a small sharded corpus in English and Chinese."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pyarrow as pa
import pytest
from transformers import AutoTokenizer

from pipelines import ingest, pack, shard, tokenizer
from pipelines.core.config import ConfigError
from pipelines.core.dataset import Dataset
from pipelines.core.identity import record_id
from pipelines.core.rowhash import RowHash
from pipelines.core.splits import split_batches, splits
from pipelines.pack import PackConfig, pack_window
from pipelines.text.packing import Tokens, join, packed_batch
from pipelines.text.sentencepiece import Tokenizer
from pipelines.tokenizer import TokenizerConfig, cut
from schemas.base import SchemaError
from schemas.packed import ALONE, CLS_ID, MASK_ID, RANDOM_NEXT, REAL_NEXT, SECOND, SEP_ID, validate

CHINESE = "天地玄黃宇宙洪荒日月盈昃辰宿列張寒來暑往秋收冬藏我们的语言学习程序设计北京大学在中国今天天气很好"
POEMS = {
    f"poem-{i}": "，".join(CHINESE[(i * k) % 40 : (i * k) % 40 + 7] for k in range(1, 9)) + "。" for i in range(300)
}
ONE = ["--workers", "1"]
SETTINGS = ["--set", "vocab_size=1500", "--set", "sample_bytes=300000"]


def bytes_of(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ingest/, shards/, tokenizer/ and packed/ of two sources; two documents of `en` are white space only or empty."""
    root = tmp_path_factory.mktemp("work")
    corpora = {"en": topics | {"blank": " \n"}, "zh": POEMS}
    for source, texts in corpora.items():
        lines = [json.dumps({"id": name, "text": text}) for name, text in texts.items()]
        (root / f"{source}.jsonl").write_text("\n".join(lines), encoding="utf-8")
        raw = ["--input", str(root / f"{source}.jsonl"), "--source", source, "--id-field", "id"]
        assert ingest.main([*raw, "--output", str(root / "ingest" / source), *ONE]) == 0
    settings = ["--set", "shard_bytes=200000", "--set", "splits={train: 0.8, validation: 0.2}"]
    assert shard.main(["--input", str(root / "ingest/*"), "--output", str(root / "shards"), *settings, *ONE]) == 0
    shards = ["--input", str(root / "shards")]
    assert tokenizer.main([*shards, "--output", str(root / "tokenizer"), *SETTINGS, *ONE]) == 0
    model = ["--tokenizer", str(root / "tokenizer"), "--set", "seq_len=64"]
    assert pack.main([*shards, *model, "--output", str(root / "packed"), *ONE]) == 0
    return root


def test_the_tokenizer_directory_opens_in_transformers_with_equal_ids(work: Path) -> None:
    theirs = AutoTokenizer.from_pretrained(work / "tokenizer")
    ours = Tokenizer((work / "tokenizer/tokenizer.model").read_bytes())
    for text in [*list(topics.values())[:5], *list(POEMS.values())[:20]]:
        assert theirs(text, add_special_tokens=False).input_ids == ours.encode(pa.array([text])).ids.tolist()
    assert theirs.mask_token_id == MASK_ID


def test_the_report_says_what_was_trained_and_measured(work: Path) -> None:
    report = json.loads((work / "tokenizer/report.json").read_text(encoding="utf-8"))
    assert report["vocab_size"] == 1500
    assert report["measured_on"] == "validation"
    assert 250_000 < report["sample_bytes"] <= 300_000
    assert report["round_trip_rate"] == 1.0
    assert report["unknown_rate"] == 0.0
    assert set(report["sources"]) == {"en", "zh"}
    assert {"latin", "han", "common"} <= set(report["scripts"])
    assert 1 < report["scripts"]["latin"]["fertility"] < 4
    manifest = Dataset.open(str(work / "tokenizer")).manifests[0]
    assert manifest.facts["vocab_size"] == 1500
    assert manifest.books["en"].kept == len(topics) + 1


def test_the_same_bytes_from_other_shards_workers_and_runs(work: Path, tmp_path: Path) -> None:
    """A sample by hash cannot depend on how its input is sharded; nothing may depend on the workers."""
    settings = ["--set", "shard_bytes=70000", "--set", "splits={train: 0.8, validation: 0.2}"]
    assert shard.main(["--input", str(work / "ingest/*"), "--output", str(tmp_path / "s"), *settings, *ONE]) == 0
    for inputs, mode in ((work / "shards", "threads"), (tmp_path / "s", "inline")):
        out = tmp_path / f"t-{mode}"
        arguments = ["--input", str(inputs), "--output", str(out), "--workers", "3", "--mode", mode]
        assert tokenizer.main([*arguments, *SETTINGS]) == 0
        same, other = bytes_of(work / "tokenizer"), bytes_of(out)
        names = set(same) if inputs == work / "shards" else set(same) - {"_meta/manifest.json"}
        assert {name: other[name] for name in names} == {name: same[name] for name in names}
    arguments = ["--input", str(work / "shards"), "--tokenizer", str(work / "tokenizer"), "--set", "seq_len=64"]
    assert pack.main([*arguments, "--output", str(tmp_path / "p"), "--workers", "3"]) == 0
    assert bytes_of(tmp_path / "p") == bytes_of(work / "packed")


def test_every_document_is_in_the_rows_of_its_split_token_by_token(work: Path) -> None:
    packed, documents = Dataset.open(str(work / "packed")), Dataset.open(str(work / "shards"))
    model = Tokenizer((work / "tokenizer/tokenizer.model").read_bytes())
    for split in ("train", "validation"):
        table = packed.table(split)
        validate(table, 64, 1500)
        found: dict[bytes, list[tuple[list[int], int]]] = {}
        for row in table.select(["input_ids", "seq_lens", "doc_ids", "byte_lens"]).to_pylist():
            at = 0
            for length, document, size in zip(row["seq_lens"], row["doc_ids"], row["byte_lens"], strict=True):
                ids = row["input_ids"][at : at + length]
                assert (ids[0], ids[-1]) == (CLS_ID, SEP_ID)
                assert len(model.decode(np.array(ids[1:-1])).encode(errors="replace")) > 0
                found.setdefault(document, []).append((ids[1:-1], size))
                at += length
        texts = documents.table(split, columns=["id", "text"]).to_pylist()
        assert set(found) == {one["id"] for one in texts}
        for one in texts:
            whole = model.encode(pa.array([one["text"]])).ids.tolist()
            parts = [ids for ids, _ in found[one["id"]]]
            assert sorted(token for part in parts for token in part) == sorted(whole)
            assert all("".join(map(chr, part)) in "".join(map(chr, whole)) for part in parts)
            assert sum(size for _, size in found[one["id"]]) == len(one["text"].encode())


def test_rows_are_full_marked_and_numbered(work: Path) -> None:
    packed = Dataset.open(str(work / "packed"))
    facts = packed.manifests[0].facts
    assert facts["fill"] >= 0.99
    assert facts["splits"] == ["train", "validation"]
    table = packed.table("train")
    ids = table["row_id"].to_numpy()
    assert (
        len(set(ids.tolist())) == len(ids) == packed.of("train")[0].rows + sum(s.rows for s in packed.of("train")[1:])
    )
    assert set((ids >> 32).tolist()) == set(range(len(packed.of("train"))))
    marks = np.array(table["word_start"].to_pylist())
    tokens = np.array(table["input_ids"].to_pylist())
    assert not marks[tokens < 5].any()
    assert 0.2 < marks[tokens >= 5].mean() < 0.9
    filled = sum(map(sum, table["seq_lens"].to_pylist())) / tokens.size
    assert filled == pytest.approx((tokens > 0).mean())
    chinese = [i for i, sources in enumerate(table["sources"].to_pylist()) if set(sources) == {"zh"}]
    assert chinese
    assert marks[chinese].any(axis=1).all()


def test_documents_without_a_token_are_in_the_ledger(tmp_path: Path, work: Path) -> None:
    lines = [json.dumps({"id": name, "text": text}) for name, text in (("empty", ""), ("full", "the name"))]
    (tmp_path / "x.jsonl").write_text("\n".join(lines), encoding="utf-8")
    raw = ["--input", str(tmp_path / "x.jsonl"), "--source", "x", "--id-field", "id"]
    assert ingest.main([*raw, "--output", str(tmp_path / "i"), *ONE]) == 0
    arguments = ["--input", str(tmp_path / "i"), "--tokenizer", str(work / "tokenizer"), *ONE]
    assert pack.main([*arguments, "--output", str(tmp_path / "p")]) == 0
    packed = Dataset.open(str(tmp_path / "p"))
    books = packed.manifests[0].books["x"]
    kept = {record_id("x", "full")}
    assert {one for row in packed.table("documents")["doc_ids"].to_pylist() for one in row} == kept
    assert (books.records_in, books.removed) == (2, {"no_tokens": 1})
    row = packed.table("ledger").to_pylist()[0]
    assert (row["id"], row["reason"], row["stage"]) == (record_id("x", "empty"), "no_tokens", "pack")


def test_static_masks_are_written_when_asked_for(work: Path, tmp_path: Path) -> None:
    arguments = ["--input", str(work / "shards"), "--tokenizer", str(work / "tokenizer"), "--set", "seq_len=64", *ONE]
    settings = ["--set", "static_masks=true", "--set", "masks.ratio=0.2"]
    assert pack.main([*arguments, *settings, "--output", str(tmp_path / "p")]) == 0
    table = Dataset.open(str(tmp_path / "p")).table("train")
    validate(table, 64, 1500)
    plain = Dataset.open(str(work / "packed")).table("train")
    assert table["input_ids"].equals(plain["input_ids"])
    labels, ids = np.array(table["labels"].to_pylist()), np.array(table["input_ids"].to_pylist())
    assert 0.17 < (labels >= 0).sum() / (ids >= 5).sum() <= 0.21


def test_rows_without_pairs_are_those_that_were_written_before_there_were_any() -> None:
    """The hash is that of the version before `pairs`; whoever changes it changes everybody's data."""
    offsets = np.cumsum(np.append(0, np.arange(120) * 37 % 97))
    at = np.arange(offsets[-1])
    tokens = Tokens(
        (5 + at * 7919 % 95).astype(np.uint16), at * 31 % 3 == 0, np.append(0, np.cumsum(1 + at % 4)), offsets
    )
    ids, sources = pa.array([i.to_bytes(16, "big") for i in range(120)], pa.binary(16)), pa.array(["en", "诗"] * 60)
    segments, rows = pack_window(tokens, sources, 3, PackConfig(seq_len=64))
    batch = packed_batch(tokens, segments, rows, ids, sources, seq_len=64, vocab_size=100, first_row=5)
    found = RowHash(batch.schema)
    found.update(batch)
    assert found.hexdigest() == "aee171efc91e7b42b00e3b2ebe3329b3"


def test_pairs_hold_every_token_once_and_half_of_them_are_real(work: Path, tmp_path: Path) -> None:
    arguments = ["--input", str(work / "shards"), "--tokenizer", str(work / "tokenizer"), "--set", "seq_len=64"]
    assert pack.main([*arguments, "--pairs", "--output", str(tmp_path / "p"), *ONE]) == 0
    assert pack.main([*arguments, "--set", "pairs=true", "--output", str(tmp_path / "q"), "--workers", "3"]) == 0
    assert bytes_of(tmp_path / "p") == bytes_of(tmp_path / "q")
    packed = Dataset.open(str(tmp_path / "p"))
    facts, plain = packed.manifests[0].facts, Dataset.open(str(work / "packed")).manifests[0].facts
    assert facts["tokens"] == plain["tokens"] and not {"pairs", "real_pairs"} & set(plain)
    assert "next_sentence" in (tmp_path / "p/README.md").read_text(encoding="utf-8")
    model = Tokenizer((work / "tokenizer/tokenizer.model").read_bytes())
    texts = Dataset.open(str(work / "shards"))
    pairs = real = filled = rows = 0
    for split in ("train", "validation"):
        table = packed.table(split)
        validate(table, 64, 1500)
        found: dict[bytes, list[int]] = {}
        for row in table.to_pylist():
            at, kinds, ids = 0, row["next_sentence"], row["doc_ids"]
            for i, (length, kind) in enumerate(zip(row["seq_lens"], kinds, strict=True)):
                part = row["input_ids"][at : at + length]
                assert CLS_ID not in part[1:] and (part[0] == CLS_ID) == (kind != SECOND)
                found.setdefault(ids[i], []).extend(token for token in part if token not in (CLS_ID, SEP_ID))
                if kind in (REAL_NEXT, RANDOM_NEXT):
                    assert kinds[i + 1] == SECOND and (ids[i] == ids[i + 1]) == (kind == REAL_NEXT)
                at += length
            pairs, real = pairs + kinds.count(SECOND), real + kinds.count(REAL_NEXT)
            filled, rows = filled + at, rows + 1
            assert len(kinds) == 2 * kinds.count(SECOND) + kinds.count(ALONE)
        for one in texts.table(split, columns=["id", "text"]).to_pylist():
            assert sorted(found.pop(one["id"])) == sorted(model.encode(pa.array([one["text"]])).ids.tolist())
        assert not found
    assert (facts["pairs"], facts["real_pairs"], facts["fill"]) == (pairs, real, filled / (64 * rows))
    assert 0 <= real - (pairs - real) <= len(packed.of("train") + packed.of("validation"))
    assert facts["fill"] > 0.95


def test_small_windows_keep_every_document(work: Path, tmp_path: Path) -> None:
    arguments = ["--input", str(work / "shards"), "--tokenizer", str(work / "tokenizer"), "--set", "seq_len=64", *ONE]
    assert pack.main([*arguments, "--set", "window_bytes=1", "--output", str(tmp_path / "p")]) == 0
    one, other = (Dataset.open(str(path)).manifests[0] for path in (work / "packed", tmp_path / "p"))
    assert one.facts["tokens"] == other.facts["tokens"]
    assert one.books == other.books


def test_tokens_of_batches_are_those_of_the_whole(work: Path) -> None:
    model = Tokenizer((work / "tokenizer/tokenizer.model").read_bytes())
    texts = pa.array([*list(topics.values())[:6], "", *list(POEMS.values())[:6]])
    whole = pack.encode(texts, model)
    parts = join([pack.encode(texts[a:b], model) for a, b in ((0, 3), (3, 3), (3, 10), (10, 13))])
    for name in ("ids", "word_start", "byte_offsets", "offsets"):
        assert np.array_equal(getattr(whole, name), getattr(parts, name)), name


def test_splits_are_those_of_shard_or_the_surviving_documents(work: Path) -> None:
    assert splits(Dataset.open(str(work / "shards"))) == ["train", "validation"]
    ingested = Dataset.open(str(work / "ingest/*"))
    assert splits(ingested) == ["documents"]
    key = ingested.keys("documents")[0]
    assert sum(len(batch) for batch in split_batches(ingested, "documents", key, ["id"])) > 0
    with pytest.raises(SchemaError, match="no documents"):
        splits(Dataset.open(str(work / "tokenizer")))


def test_wrong_uses_are_explained(work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shards, out = ["--input", str(work / "shards")], ["--output", str(tmp_path / "o"), *ONE]
    assert pack.main([*shards, "--tokenizer", str(work / "shards"), *out]) == 1
    assert "not of the tokenizer" in capsys.readouterr().err
    assert tokenizer.main([*shards, "--set", "weights={french: 2}", *out]) == 1
    assert "french" in capsys.readouterr().err
    assert tokenizer.main([*shards, "--set", "vocab_sise=8000", *out]) == 1
    assert "vocab_sise" in capsys.readouterr().err
    assert tokenizer.main([*shards, "--set", "weights={en: 0, zh: 0}", *out]) == 1
    assert "no text to train" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("wrong", [{"seq_len": 4}, {"seq_len": 70_000}, {"window_bytes": 0}, {"min_fill": 1.0}])
def test_settings_of_pack_are_checked(wrong: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        PackConfig(**wrong)


@pytest.mark.parametrize("wrong", [{"sample_bytes": 0}, {"balance": 2.0}, {"weights": {"a": -1.0}}, {"max_length": 0}])
def test_settings_of_tokenizer_are_checked(wrong: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        TokenizerConfig(**wrong)


def test_long_documents_are_cut_between_characters() -> None:
    assert cut("天地玄黃", 7) == "天地"
    assert cut("天地玄黃", 12) == "天地玄黃"
    assert cut("abc", 100) == "abc"
    assert cut("🙂🙂", 7) == "🙂"
