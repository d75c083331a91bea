import itertools
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.base import SchemaError
from schemas.manifest import MANIFEST_PATH
from trainer.data import DataConfig, PackedDataset, prefetch, read_batches
from trainer.order import Schedule

MakePacked = Callable[..., Path]


def stored(packed: Path, table: str) -> list[dict[str, object]]:
    """All rows of a table through the other reading of a sealed stream."""
    paths = sorted((packed / table).glob("*.arrow"))
    return [row for path in paths for row in pa.ipc.open_stream(path.read_bytes()).read_all().to_pylist()]


def test_rows_come_back_as_stored_in_any_order_across_batches_and_shards(packed: Path) -> None:
    expected, dataset = stored(packed, "train"), PackedDataset(packed, "train")
    assert len(dataset) == len(expected) == 40
    order = np.random.default_rng(3).permutation(40)
    got = dataset.rows(order)
    assert got.input_ids.tolist() == [expected[i]["input_ids"] for i in order]
    assert got.word_start.tolist() == [expected[i]["word_start"] for i in order]
    assert got.row_ids.tolist() == [expected[i]["row_id"] for i in order]
    assert got.lens.sum() == 40 * 64
    assert got.lens[~got.padding].tolist() == [n for i in order for n in expected[i]["seq_lens"]]


def test_documents_stand_in_the_order_of_segments(packed: Path) -> None:
    expected, dataset = stored(packed, "validation"), PackedDataset(packed, "validation")
    got = dataset.documents(np.array([5, 0]))
    assert got["id"].to_pylist() == expected[5]["doc_ids"] + expected[0]["doc_ids"]
    assert got["source"].to_pylist() == expected[5]["sources"] + expected[0]["sources"]
    assert got["bytes"].to_pylist() == expected[5]["byte_lens"] + expected[0]["byte_lens"]


def test_opening_a_dataset_allocates_no_memory_for_its_rows(packed: Path) -> None:
    before = pa.total_allocated_bytes()
    dataset = PackedDataset(packed, "train")
    assert pa.total_allocated_bytes() - before < 4096
    assert not any(shard.bytes.flags.owndata for shard in dataset._shards)


def test_token_counts_are_those_of_all_rows(packed: Path) -> None:
    tokens = Counter(token for row in stored(packed, "train") for token in row["input_ids"])
    assert PackedDataset(packed, "train").token_counts().tolist() == [tokens[i] for i in range(128)]


def test_a_directory_without_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match=r"no dataset directory.*manifest\.json"):
        PackedDataset(tmp_path, "train")


def test_a_newer_manifest_is_refused(make_packed: MakePacked) -> None:
    root = make_packed()
    text = (root / MANIFEST_PATH).read_text()
    (root / MANIFEST_PATH).write_text(text.replace('"format_version": [\n  1', '"format_version": [\n  9'))
    with pytest.raises(SchemaError, match="install a newer Gristmill"):
        PackedDataset(root, "train")


def test_an_unknown_table_is_named_with_those_that_exist(packed: Path) -> None:
    with pytest.raises(SchemaError, match=r"'test'; its tables: train, validation"):
        PackedDataset(packed, "test")


@pytest.mark.parametrize("facts", [{"seq_len": 32}, {"vocab_size": 100_000}])
def test_shards_that_disagree_with_the_manifest_are_refused(make_packed: MakePacked, facts: dict[str, int]) -> None:
    with pytest.raises(SchemaError, match="input_ids is"):
        PackedDataset(make_packed(**facts), "train")


def test_token_ids_beyond_the_vocabulary_are_refused(make_packed: MakePacked) -> None:
    root = make_packed(vocab_size=64)
    dataset = PackedDataset(root, "train")
    with pytest.raises(SchemaError, match=rf"^{re.escape(str(root))}: token id 1\d\d in 'train' of 64 ids"):
        dataset.rows(np.arange(40))


def test_a_truncated_shard_is_refused(make_packed: MakePacked) -> None:
    root = make_packed()
    path = root / "train/shard-00001.arrow"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SchemaError, match=r"shard-00001\.arrow is missing or not of"):
        PackedDataset(root, "train")


def test_weights_by_source_are_means_by_tokens(packed: Path) -> None:
    dataset = PackedDataset(packed, "train")
    assert dataset.weights(DataConfig()) is None
    got = dataset.weights(DataConfig(weights={"新闻": 3.0, "books": 0.5}))
    for row, weight in zip(stored(packed, "train"), got, strict=True):
        each = [{"新闻": 3.0, "books": 0.5}[source] for source in row["sources"]]
        assert weight == pytest.approx(np.average(each, weights=row["seq_lens"]))
    with pytest.raises(ValueError, match=r"data\.weights names 'poems'; the sources of 'train': books, 新闻"):
        dataset.weights(DataConfig(weights={"poems": 1.0}))


def test_directories_are_mixed_and_their_rows_have_other_masks(packed: Path, make_packed: MakePacked) -> None:
    both = PackedDataset([packed, packed], "train")
    assert len(both) == 80
    one, two = both.rows(np.arange(40)), both.rows(np.arange(40, 80))
    assert np.array_equal(one.input_ids, two.input_ids)
    assert not set(one.row_ids.tolist()) & set(two.row_ids.tolist())
    assert np.array_equal(both.weights(DataConfig(mix=(1.0, 0.25))), np.repeat([1.0, 0.25], 40))
    assert (
        both.sha256() != PackedDataset(packed, "train").sha256() == PackedDataset(packed, "train").manifests[0].sha256()
    )
    with pytest.raises(ValueError, match="3 weights for 2 --data directories"):
        both.weights(DataConfig(mix=(1.0, 2.0, 3.0)))
    with pytest.raises(SchemaError, match="pack them alike"):
        PackedDataset([packed, make_packed(vocab_size=127)], "train")
    with pytest.raises(SchemaError, match=r"pack them alike: .*tokenizer abababababab"):
        PackedDataset([packed, make_packed("other", tokenizer="ab" * 32)], "train")


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_prefetch_keeps_order_and_raises_what_the_iterator_raises(depth: int) -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise ValueError("row 5")

    got = []
    with pytest.raises(ValueError, match="row 5"):
        for item in prefetch(items(), depth):
            got.append(item)
    assert got == [0, 1, 2, 3, 4]


def test_prefetch_ends_its_thread_when_the_consumer_leaves() -> None:
    before = threading.active_count()
    items = prefetch(itertools.count(), 2)
    assert next(items) == 0 and threading.active_count() == before + 1
    items.close()
    assert threading.active_count() == before


@given(st.integers(1, 9), st.integers(1, 60))
def test_reading_ahead_gives_the_rows_of_every_batch(packed: Path, rows: int, ahead: int) -> None:
    dataset = PackedDataset(packed, "train")
    order = Schedule(len(dataset), 5)
    batches = [np.arange(first, min(first + rows, 90)) for first in range(0, 90, rows)]  # the last may be shorter
    count = 0
    for positions, (numbers, draws, got) in zip(
        batches, read_batches(dataset, order, iter(batches), ahead), strict=True
    ):
        expected, epochs = order(positions)
        assert numbers.tolist() == expected.tolist() and draws.tolist() == epochs.tolist()
        one = dataset.rows(numbers)
        for name in one._fields:
            assert np.array_equal(getattr(got, name), getattr(one, name)), name
        assert got.cu_seqlens.tolist() == [0, *itertools.accumulate(got.lens.tolist())]
        count += 1
    assert count == len(batches)


def test_a_damaged_shard_is_named_before_arrow_follows_it_out_of_the_file(make_packed: MakePacked) -> None:
    root = make_packed()
    path = root / "train/shard-00000.arrow"
    whole = bytearray(path.read_bytes())
    batch = pa.ipc.open_file(pa.BufferReader(bytes(whole))).get_batch(0)
    offsets = batch.column("doc_ids").buffers()[1].to_pybytes()
    for at in find_all(bytes(whole), offsets):
        whole[at + 4 : at + 8] = (1 << 30).to_bytes(4, "little")
    path.write_bytes(whole)
    dataset = PackedDataset(root, "train")
    with pytest.raises(SchemaError, match=r"shard-00000\.arrow is damaged \(record batch 0: .*pack it again"):
        dataset.documents(np.arange(2))
    assert len(dataset.documents(np.arange(7, 9)))  # the next record batch is as it was


def find_all(whole: bytes, part: bytes) -> list[int]:
    found = [whole.find(part)]
    while found[-1] >= 0:
        found.append(whole.find(part, found[-1] + 1))
    return found[:-1]


def test_a_shard_of_other_bytes_is_named(make_packed: MakePacked) -> None:
    root = make_packed()
    path = root / "train/shard-00001.arrow"
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(SchemaError, match=r"shard-00001\.arrow is damaged .*pack it again"):
        PackedDataset(root, "train")
