"""Shard: every survivor is written once (or as its weight says), in an order and a split that its id alone decides."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipelines import clean, dedupe, ingest, shard
from pipelines.core.config import ConfigError
from pipelines.core.dataset import Dataset
from pipelines.core.identity import mixed64, record_id
from pipelines.core.shards import verify_shard
from pipelines.shard import ShardConfig, copies, plan_batch, plan_rows, sampled_out, shard_counts, split_numbers
from schemas.document import DOCUMENT
from schemas.ledger import LEDGER
from schemas.manifest import Books

ONE = ["--workers", "1"]
SPLITS = ["--set", "splits={train: 0.6, validation: 0.2, test: 0.2}"]
NO_CLUSTERS = pa.table({"id": pa.array([], pa.binary(16)), "cluster_id": pa.array([], pa.binary(16))})


def ingested(root: Path, texts: list[str], source: str = "s", shard_bytes: int = 1 << 20) -> Path:
    path, output = root / f"{source}.jsonl", root / f"ingest-{source}-{shard_bytes}"
    path.write_text("".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in enumerate(texts)), encoding="utf-8")
    options = ["--set", f"shard_bytes={shard_bytes}", "--set", f"read.batch_bytes={min(shard_bytes, 1 << 20)}"]
    argv = ["--input", str(path), "--source", source, "--id-field", "id", "--output", str(output)]
    assert ingest.main([*argv, *options, *ONE]) == 0
    return output


def run(output: Path, *inputs: Path, options: list[str] | None = None, decisions: Path | None = None) -> Dataset:
    argv = [arg for path in inputs for arg in ("--input", str(path))]
    argv += ["--decisions", str(decisions)] if decisions else []
    assert shard.main([*argv, "--output", str(output), *SPLITS, *ONE, *(options or [])]) == 0
    dataset = Dataset.open(str(output))
    for one in dataset.manifests[0].shards:
        verify_shard(str(output), one)
    for table in dataset.tables():
        (LEDGER if table == "ledger" else DOCUMENT).validate(dataset.table(table))
    return dataset


def written(dataset: Dataset) -> dict[str, list[str]]:
    """split → locators in the order of its shards."""
    splits = [table for table in dataset.tables() if table != "ledger"]
    return {split: dataset.table(split)["locator"].to_pylist() for split in splits}


def texts(count: int, size: int = 60) -> list[str]:
    rng = random.Random(count)
    return [" ".join(f"w{rng.randrange(10**6)}" for _ in range(rng.randrange(size // 2, size))) for _ in range(count)]


def ids(count: int) -> pa.Array:
    return pa.array([record_id("s", str(i)) for i in range(count)], pa.binary(16))


def matrix(count: int) -> np.ndarray:
    return np.frombuffer(b"".join(ids(count).to_pylist()), np.uint8).reshape(-1, 16)


def batch(count: int, source: str = "s") -> pa.RecordBatch:
    columns = {"id": ids(count), "source": [source] * count, "locator": [str(i) for i in range(count)]}
    return pa.RecordBatch.from_pydict(columns)


# --- the plan --------------------------------------------------------------------------------------------------------


def test_splits_have_their_shares_and_are_a_function_of_the_id() -> None:
    config = ShardConfig(splits={"train": 0.9, "validation": 0.1})
    numbers = split_numbers(matrix(20_000), config)
    assert abs((numbers == 0).mean() - 0.9) < 0.01 and set(numbers.tolist()) == {0, 1}
    assert (split_numbers(matrix(20_000)[500:600], config) == numbers[500:600]).all()
    other = split_numbers(matrix(20_000), ShardConfig(seed=1, splits=config.splits))
    assert 0.15 < (other != numbers).mean() < 0.21  # 2 × 0.9 × 0.1: another seed is another, unrelated split


def test_growing_a_split_moves_records_only_into_it() -> None:
    small = split_numbers(matrix(5000), ShardConfig(splits={"train": 0.8, "validation": 0.2}))
    large = split_numbers(matrix(5000), ShardConfig(splits={"train": 0.9, "validation": 0.1}))
    assert (large[small == 0] == 0).all()


def test_records_of_one_cluster_fall_on_one_side() -> None:
    config = ShardConfig(splits={"train": 0.5, "validation": 0.5})
    given = batch(1000)
    heads = given.column("id").take(pa.array(np.arange(1000) // 10 * 10))
    plan = plan_batch(given, pa.table({"id": given.column("id"), "cluster_id": heads}), config)
    assert (plan.split.reshape(100, 10) == plan.split[::10, None]).all() and 0.3 < plan.split.mean() < 0.7
    some = pa.table({"id": given.column("id")[5:6], "cluster_id": given.column("id")[7:8]})
    alone = plan_batch(given, NO_CLUSTERS, config).split
    mixed = plan_batch(given, some, config).split
    assert mixed[5] == alone[7] and (np.delete(mixed, 5) == np.delete(alone, 5)).all()


def test_weights_write_whole_copies_and_a_share_of_one_more() -> None:
    weights = np.repeat([0.0, 0.25, 1.0, 1.5, 3.0], 4000)
    times = copies(matrix(20_000), weights, ShardConfig()).reshape(5, 4000)
    assert [sorted(set(row.tolist())) for row in times] == [[0], [0, 1], [1], [1, 2], [3]]
    assert abs(times[1].mean() - 0.25) < 0.03 and abs(times[3].mean() - 1.5) < 0.03
    more = copies(matrix(4000), np.full(4000, 0.5), ShardConfig())
    less = copies(matrix(4000), np.full(4000, 0.25), ShardConfig())
    assert (less <= more).all(), "a record that a smaller weight keeps, a larger one keeps too"


def test_every_copy_has_its_own_place_and_the_ledger_names_who_has_none() -> None:
    config = ShardConfig(weights={"s": 1.5}, splits={"train": 1.0})
    plan = plan_batch(batch(100), NO_CLUSTERS, config)
    assert plan.order.shape == (100, 2) and len(np.unique(plan.order)) == 200
    rows = [row for _, part in plan_rows(plan, 3, np.arange(100), {"train": 4}) for row in part.to_pylist()]
    assert Counter(row["row"] for row in rows) == dict(enumerate(plan.copies.tolist()))
    assert {row["shard"] for row in rows} == {3}
    half = ShardConfig(weights={"s": 0.5}, splits={"train": 1.0})
    gone = sampled_out(batch(100), plan_batch(batch(100), NO_CLUSTERS, half), half)
    LEDGER.validate(pa.Table.from_batches([gone]))
    assert 20 < len(gone) < 80 and set(gone.column("reason").to_pylist()) == {"sampled_out"}
    assert all(row["score"] >= row["threshold"] == 0.5 for row in gone.to_pylist())


def test_a_weight_above_one_repeats_records_of_the_first_split_alone() -> None:
    config = ShardConfig(weights={"s": 2.5}, splits={"train": 0.5, "validation": 0.5})
    plan = plan_batch(batch(400), NO_CLUSTERS, config)
    assert set(plan.copies[plan.split == 0].tolist()) == {2, 3}
    assert set(plan.copies[plan.split == 1].tolist()) == {1}


def test_the_order_within_an_output_shard_is_a_range_of_the_hash() -> None:
    config = ShardConfig(splits={"train": 1.0})
    plan = plan_batch(batch(1000), NO_CLUSTERS, config)
    parts = dict(plan_rows(plan, 0, np.arange(1000), {"train": 8}))
    assert sorted(parts) == [f"train/{i:05d}" for i in range(8)]
    for name, part in parts.items():
        assert {int(order) * 8 >> 64 for order in part.column("order").to_pylist()} == {int(name[-5:])}
        assert 80 < len(part) < 180
    assert (np.sort(plan.order[:, 0]) == np.sort(mixed64(matrix(1000), "order 0 copy 0"))).all()


def test_an_empty_batch_has_an_empty_plan() -> None:
    plan = plan_batch(batch(0), NO_CLUSTERS, ShardConfig())
    assert list(plan_rows(plan, 0, np.arange(0), {"train": 2})) == []


def test_shard_counts_follow_the_bytes() -> None:
    config = ShardConfig(shard_bytes=100, splits={"train": 0.8, "test": 0.2})
    assert shard_counts(1000, config) == {"train": 8, "test": 2} and shard_counts(0, config) == {"train": 1, "test": 1}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"splits": {}}, "add up to 1"),
        ({"splits": {"train": 0.5}}, "add up to 1"),
        ({"splits": {"train": 1.5, "test": -0.5}}, "add up to 1"),
        ({"splits": {"ledger": 1.0}}, "plain names"),
        ({"splits": {"_meta": 1.0}}, "plain names"),
        ({"splits": {"../x": 1.0}}, "plain names"),
        ({"weights": {"s": -1.0}}, "must not be negative"),
        ({"weights": {"s": float("nan")}}, "must not be negative"),
        ({"weights": {"s": float("inf")}}, "must not be negative"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ShardConfig(**changes)


# --- the stage -------------------------------------------------------------------------------------------------------


def test_every_survivor_is_written_once_with_its_content(tmp_path: Path) -> None:
    made = texts(400)
    source = ingested(tmp_path, made, shard_bytes=10_000)
    dataset = run(tmp_path / "d", source, options=["--set", "shard_bytes=20000"])
    found = written(dataset)
    assert sorted((name for split in found.values() for name in split), key=int) == [str(i) for i in range(400)]
    rows = [row for split in found for row in dataset.table(split).to_pylist()]
    assert {row["locator"]: row["text"] for row in rows} == {str(i): text for i, text in enumerate(made)}
    originals = {row["id"]: row for row in Dataset.open(str(source)).table("documents").to_pylist()}
    assert all(originals[row["id"]] == row for row in rows)
    assert dataset.books == {"s": Books(400, 400)} and not dataset.has("ledger")
    assert found["train"] != sorted(found["train"], key=int), "shuffled"
    sizes = [one.text_bytes for one in dataset.of("train")]
    assert len(sizes) > 3 and max(sizes) < 2 * min(sizes), "even"


def test_the_output_does_not_depend_on_how_the_input_was_sharded_nor_on_workers(tmp_path: Path) -> None:
    made = texts(300)
    whole, cut = ingested(tmp_path, made), ingested(tmp_path, made, shard_bytes=5000)
    options = ["--set", "shard_bytes=15000", "--set", "weights={s: 1.5}"]
    one = run(tmp_path / "a", whole, options=options)
    two = run(tmp_path / "b", cut, options=options)
    three = run(tmp_path / "c", cut, options=[*options, "--workers", "3"])
    assert len(Dataset.open(str(cut)).keys()) > 10
    assert one.of("train") == two.of("train") == three.of("train") and len(one.of("train")) > 2
    assert one.of("test") == two.of("test") and two.sha256s == three.sha256s


def test_decisions_are_applied_and_every_removal_is_in_the_ledger(tmp_path: Path) -> None:
    made = ["The quick brown fox jumps over the lazy dog, and then it sleeps " + t for t in texts(60, 20)]
    letters = str.maketrans("0123456789", "abcdefghij")
    made = [text.translate(letters) for text in made]
    source = ingested(tmp_path, ["tiny", *made, made[0], made[1]], shard_bytes=3000)
    loose = ["--set", "filters.min_words=3", "--set", "filters.max_mean_word_length=30"]
    assert clean.main(["--input", str(source), "--output", str(tmp_path / "clean"), *loose, *ONE]) == 0
    cleaned = ["--input", str(tmp_path / "clean")]
    assert dedupe.main([*cleaned, "--output", str(tmp_path / "dedupe"), *ONE]) == 0
    dataset = run(
        tmp_path / "d",
        tmp_path / "clean",
        decisions=tmp_path / "dedupe",
        options=["--set", "weights={s: 0.5}", "--set", "splits={all: 1.0}"],
    )
    books = dataset.books["s"]
    assert books.records_in == 62 and books.removed["exact_duplicate"] == 2 and books.balance() == 0
    ledger = dataset.table("ledger").to_pylist()
    kept = set(written(dataset)["all"])
    gone = [row["locator"] for row in ledger]
    assert len(gone) == len(set(gone)) == sum(books.removed.values()) and kept.isdisjoint(gone)
    assert kept | set(gone) == {str(i) for i in range(1, 63)}, "what clean removed is no record of this stage"
    assert {row["stage"] for row in ledger} == {"dedupe", "shard"}


def test_weights_repeat_records_and_the_books_say_so(tmp_path: Path) -> None:
    one, two = ingested(tmp_path, texts(50), "one"), ingested(tmp_path, texts(40), "two")
    settings = ["--set", "weights={one: 3, two: 0}", "--set", "splits={train: 0.8, test: 0.2}"]
    dataset = run(tmp_path / "d", one, two, options=settings)
    train, test = (Counter(dataset.table(split)["id"].to_pylist()) for split in ("train", "test"))
    assert len(train) + len(test) == 50 and set(train.values()) == {3} and set(test.values()) == {1}
    assert dataset.books["one"] == Books(50, 50, repeated=2 * len(train))
    assert dataset.books["two"] == Books(40, 0, {"sampled_out": 40})


def test_a_weight_for_a_source_that_is_not_there_is_a_clear_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = ingested(tmp_path, ["one"])
    argv = ["--input", str(source), "--output", str(tmp_path / "d"), "--set", "weights={wiki: 2}", *ONE]
    assert shard.main(argv) == 1
    assert "weights name wiki; the input holds: s" in capsys.readouterr().err and not (tmp_path / "d").exists()


def test_decisions_about_another_input_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = texts(20)
    old, new = ingested(tmp_path, made), ingested(tmp_path, [*made, made[0]], shard_bytes=999)
    assert dedupe.main(["--input", str(old), "--output", str(tmp_path / "dedupe"), *ONE]) == 0
    argv = ["--input", str(new), "--decisions", str(tmp_path / "dedupe"), "--output", str(tmp_path / "d"), *ONE]
    assert shard.main(argv) == 1
    assert "the decisions were made about another version of the input" in capsys.readouterr().err
    assert not (tmp_path / "d").exists()


def test_decisions_of_two_runs_one_against_the_other_are_applied_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = texts(20)
    old, new = ingested(tmp_path, [*made, made[0]], "old"), ingested(tmp_path, [made[1], "new words", made[2]], "new")
    first, second = str(tmp_path / "d1"), str(tmp_path / "d2")
    assert dedupe.main(["--input", str(old), "--output", first, *ONE]) == 0
    assert dedupe.main(["--input", str(new), "--against", first, "--output", second, *ONE]) == 0
    argv = ["--input", str(old), str(new), "--output", str(tmp_path / "d"), *SPLITS, *ONE, "--decisions"]
    assert shard.main([*argv, second]) == 1
    message = capsys.readouterr().err
    assert f"no decisions are about {old}" in message and "add the run" in message
    assert shard.main([*argv, first, second]) == 0
    dataset = Dataset.open(str(tmp_path / "d"))
    assert dataset.books == {
        "new": Books(3, 1, {"exact_duplicate": 2}),
        "old": Books(21, 20, {"exact_duplicate": 1}),
    }


def test_the_ledger_of_another_input_under_the_right_name_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = texts(20)
    source = ingested(tmp_path, [*made, made[0]])
    assert dedupe.main(["--input", str(source), "--output", str(tmp_path / "dedupe"), *ONE]) == 0
    other = ingested(tmp_path, [made[3], made[3]], "other")
    assert dedupe.main(["--input", str(other), "--output", str(tmp_path / "wrong"), *ONE]) == 0
    (ledger,) = (tmp_path / "dedupe/ledger").iterdir()
    (wrong,) = (tmp_path / "wrong/ledger").iterdir()
    ledger.write_bytes(wrong.read_bytes())
    argv = ["--input", str(source), "--decisions", str(tmp_path / "dedupe"), "--output", str(tmp_path / "d"), *ONE]
    assert shard.main(argv) == 1
    assert "is not the shard that the manifest names" in capsys.readouterr().err and not (tmp_path / "d").exists()


def test_a_split_that_no_record_falls_into_is_there_and_empty(tmp_path: Path) -> None:
    dataset = run(tmp_path / "d", ingested(tmp_path, ["one"]))
    found = written(dataset)
    assert sorted(found) == ["test", "train", "validation"] and sorted(map(len, found.values())) == [0, 0, 1]


def test_the_directory_holds_what_hugging_face_needs_and_nothing_else(tmp_path: Path) -> None:
    dataset = run(tmp_path / "d", ingested(tmp_path, texts(30)))
    files = {path.relative_to(tmp_path / "d").as_posix() for path in (tmp_path / "d").rglob("*") if path.is_file()}
    state = {f"{split}/{name}" for split in written(dataset) for name in ("state.json", "dataset_info.json")}
    shards = {one.path for one in dataset.manifests[0].shards}
    assert files == {"README.md", "dataset_dict.json", "_meta/manifest.json"} | state | shards


def test_real_text_in_two_languages_goes_through_whole(
    tmp_path: Path, real_records: Callable[..., list[dict[str, Any]]]
) -> None:
    sources: list[Path] = []
    expected: dict[tuple[str, str], str] = {}
    for name, source in (("wikipedia_en.jsonl.zst", "en"), ("wikipedia_zh.jsonl.zst", "zh")):
        made = [record["text"] for record in real_records(name, 200)]
        expected |= {(source, str(i)): text for i, text in enumerate(made)}
        sources.append(ingested(tmp_path, made, source, shard_bytes=100_000))
    dataset = run(tmp_path / "d", *sources, options=["--set", "shard_bytes=200000", "--workers", "2"])
    rows = [row for split in written(dataset) for row in dataset.table(split).to_pylist()]
    assert {(row["source"], row["locator"]): row["text"] for row in rows} == expected and len(rows) == 400
