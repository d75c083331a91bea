import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.base import SchemaError
from schemas.manifest import MANIFEST_PATH
from trainer.data import PackedDataset, schedule, shuffled

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
    assert got.source.tolist() == expected[5]["sources"] + expected[0]["sources"]
    assert got.bytes.tolist() == expected[5]["byte_lens"] + expected[0]["byte_lens"]


def test_opening_a_dataset_allocates_no_memory_for_its_rows(packed: Path) -> None:
    before = pa.total_allocated_bytes()
    dataset = PackedDataset(packed, "train")
    assert pa.total_allocated_bytes() - before < 4096
    assert not any(batch.tokens.flags.owndata or batch.words.flags.owndata for batch in dataset._batches)


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
    rows, epochs = schedule(np.arange(35), 10, seed=4)
    assert epochs.tolist() == [0] * 10 + [1] * 10 + [2] * 10 + [3] * 5
    for epoch in range(3):
        assert sorted(rows[epochs == epoch].tolist()) == list(range(10))
    pieces = [schedule(np.arange(first, first + 5), 10, seed=4)[0] for first in range(0, 35, 5)]
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
