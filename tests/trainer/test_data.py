import itertools
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
from trainer.data import DataConfig, PackedDataset, Schedule, prefetch, read_batches, shuffled

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


@given(st.integers(1, 400), st.integers(0, 2**63), st.integers(0, 5))
def test_shuffled_is_a_permutation(size: int, seed: int, epoch: int) -> None:
    assert sorted(shuffled(np.arange(size), size, seed, epoch).tolist()) == list(range(size))


def test_shuffled_moves_rows_and_differs_between_seeds_and_epochs() -> None:
    orders = [shuffled(np.arange(1000), 1000, seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    for order in orders:
        assert abs(np.corrcoef(order, np.arange(1000))[0, 1]) < 0.1
    assert all((a != b).mean() > 0.99 for a, b in itertools.pairwise(orders))


def test_shuffled_is_the_same_order_for_ever() -> None:
    # a change here makes every checkpoint resume on other rows
    assert shuffled(np.arange(8), 10, seed=1, epoch=2).tolist() == [8, 6, 9, 2, 4, 3, 1, 5]


def test_schedule_visits_every_row_once_an_epoch_however_it_is_cut() -> None:
    rows, epochs = Schedule(10, 4)(np.arange(35))
    assert epochs.tolist() == [0] * 10 + [1] * 10 + [2] * 10 + [3] * 5
    for epoch in range(3):
        assert sorted(rows[epochs == epoch].tolist()) == list(range(10))
    pieces = [Schedule(10, 4)(np.arange(first, first + 5))[0] for first in range(0, 35, 5)]
    assert np.concatenate(pieces).tolist() == rows.tolist()


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
    dataset = PackedDataset(make_packed(vocab_size=64), "train")
    with pytest.raises(SchemaError, match="of 64 ids"):
        dataset.rows(np.arange(40))


def test_a_truncated_shard_is_refused(make_packed: MakePacked) -> None:
    root = make_packed()
    path = root / "train/shard-00001.arrow"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SchemaError, match=r"shard-00001\.arrow is missing or not of"):
        PackedDataset(root, "train")


@given(st.integers(1, 300), st.integers(1, 20), st.integers(0, 3))
def test_the_order_in_blocks_is_a_permutation_too(size: int, block: int, epoch: int) -> None:
    rows, _ = Schedule(size, 3, block=block)(np.arange(size) + epoch * size)
    assert sorted(rows.tolist()) == list(range(size))


def test_blocks_are_read_in_windows_of_sixteen() -> None:
    rows, _ = Schedule(10_000, 1, block=10)(np.arange(10_000))
    for first in range(0, 10_000, 160):
        assert len(set((rows[first : first + 160] // 10).tolist())) == min(16, (10_000 - first) // 10)
    assert abs(np.corrcoef(rows, np.arange(10_000))[0, 1]) < 0.1


@given(st.lists(st.floats(0, 4), min_size=1, max_size=60), st.integers(0, 3))
def test_a_weighted_row_comes_as_often_as_its_weight_and_never_twice_with_one_draw(
    weights: list[float], epoch: int
) -> None:
    if sum(weights) < 0.6:
        return
    schedule = Schedule(len(weights), 7, weights=np.array(weights))
    rows, draws = schedule(np.arange(schedule.size) + epoch * schedule.size)
    counts = np.bincount(rows, minlength=len(weights))
    scale = schedule.size / sum(weights)  # an epoch has a whole number of rows
    assert all(abs(n - w * scale) < 1 + 1e-6 for n, w in zip(counts, weights, strict=True))
    assert len(set(zip(rows.tolist(), draws.tolist(), strict=True))) == schedule.size


def test_over_epochs_a_half_weight_brings_all_rows() -> None:
    schedule = Schedule(100, 7, weights=np.full(100, 0.5))
    assert schedule.size == 50
    assert len(set(schedule(np.arange(50 * 20))[0].tolist())) == 100


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


def test_weights_that_leave_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="no row to train on"):
        Schedule(3, 0, weights=np.zeros(3))


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
    batches = [np.arange(first, first + rows) for first in range(0, 90 // rows * rows, rows)]
    count = 0
    for positions, (numbers, draws, got) in zip(
        batches, read_batches(dataset, order, iter(batches), ahead), strict=True
    ):
        expected, epochs = order(positions)
        assert numbers.tolist() == expected.tolist() and draws.tolist() == epochs.tolist()
        one = dataset.rows(numbers)
        for name in ("input_ids", "word_start", "row_ids", "lens", "padding", "next_sentence"):
            assert np.array_equal(getattr(got, name), getattr(one, name)), name
        count += 1
    assert count == len(batches)
