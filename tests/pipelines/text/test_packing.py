import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.text.masking import MaskConfig
from pipelines.text.packing import Rows, Segments, Tokens, arrange, cut, pack, packed_batch, top_up
from schemas.packed import CLS_ID, PAD_ID, SEP_ID, validate

LENGTHS = st.lists(st.integers(1, 40), max_size=120)


def best_fit_decreasing(lengths: list[int], capacity: int) -> list[int]:
    """By definition: the fullest row that has room; of equally full ones the one that was touched last."""
    free: list[int] = []
    touched: list[int] = []
    rows = [0] * len(lengths)
    for turn, item in enumerate(sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))):
        fitting = [row for row in range(len(free)) if free[row] >= lengths[item]]
        if fitting:
            row = min(fitting, key=lambda row: (free[row], -touched[row]))
        else:
            row = len(free)
            free.append(capacity)
            touched.append(turn)
        free[row] -= lengths[item]
        touched[row] = turn
        rows[item] = row
    return rows


@given(LENGTHS, st.integers(40, 70))
def test_packing_is_best_fit_decreasing(lengths: list[int], capacity: int) -> None:
    assert pack(np.array(lengths, np.int64), capacity).tolist() == best_fit_decreasing(lengths, capacity)


def test_packing_by_hand() -> None:
    assert pack(np.array([4, 8, 1, 4, 2, 1]), 10).tolist() == [1, 0, 0, 1, 1, 0]


@pytest.mark.parametrize("lengths", [[0], [11], [5, -1]])
def test_lengths_that_no_row_holds_are_an_error(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match="do not fit rows"):
        pack(np.array(lengths), 10)


@pytest.mark.parametrize("capacity", [1, 2, 3, 63, 64, 65, 8192])
def test_any_capacity_works(capacity: int) -> None:
    lengths = np.arange(1, capacity + 1)
    rows = pack(lengths, capacity)
    assert np.bincount(rows, lengths).max() <= capacity
    assert pack(np.array([], np.int64), capacity).tolist() == []


@given(st.lists(st.integers(0, 250), max_size=5), st.integers(1, 120), st.data())
def test_cutting_keeps_every_token_once_in_order(sizes: list[int], room: int, data: st.DataObject) -> None:
    offsets = np.cumsum([0, *sizes])
    marks = np.array(data.draw(st.lists(st.booleans(), min_size=sum(sizes), max_size=sum(sizes))), np.bool_)
    segments = cut(offsets, marks, room)
    ends = segments.starts + segments.lengths
    tokens = [t for a, b in zip(segments.starts, ends, strict=True) for t in range(a, b)]
    assert tokens == list(range(sum(sizes)))
    assert all(0 < length <= room for length in segments.lengths)
    for start, end, document in zip(segments.starts, ends, segments.documents, strict=True):
        assert offsets[document] <= start < end <= offsets[document + 1]
        if end < offsets[document + 1]:  # cut at the last word start of the last tokens, else as late as possible
            later = [p for p in range(start + room, start + room - min(16, room // 32), -1) if marks[p]]
            assert end == (later[0] if later else start + room)


def test_a_cut_looks_back_for_a_word_but_not_far() -> None:
    marks = np.zeros(2000, np.bool_)
    marks[[0, 496, 1000]] = True
    assert cut(np.array([0, 2000]), marks, 512).starts.tolist() == [0, 512, 1024, 1536]
    marks[[497, 1003]] = True
    assert cut(np.array([0, 2000]), marks, 512).starts.tolist() == [0, 497, 1003, 1515]
    assert cut(np.array([0, 130]), np.ones(130, np.bool_), 62).starts.tolist() == [0, 62, 124]


def test_top_up_reaches_the_wanted_fill_and_keeps_every_token() -> None:
    sizes = [300 + (i * 37) % 150 for i in range(500)]  # more than half of a row each: no two fit together
    offsets = np.cumsum([0, *sizes])
    marks = np.arange(offsets[-1]) % 3 == 0
    segments = cut(offsets, marks, 510)
    rows = pack(segments.lengths + 2, 512)
    assert (segments.lengths + 2).sum() / (512 * (rows.max() + 1)) < 0.75
    more, rows = top_up(segments, rows, marks, 512, 0.95)
    slots = np.bincount(rows, more.lengths + 2)
    assert slots.max() <= 512
    assert slots.min() > 0
    assert slots.sum() / (512 * len(slots)) >= 0.95
    assert np.array_equal(np.cumsum(more.lengths), np.append(more.starts[1:], offsets[-1]))
    assert np.array_equal(more.documents, np.searchsorted(offsets, more.starts, side="right") - 1)
    inner = more.starts[~np.isin(more.starts, offsets)]
    assert marks[inner].all()


@given(LENGTHS, st.floats(0.5, 1.0))
def test_top_up_never_loses_a_token_or_overfills_a_row(lengths: list[int], min_fill: float) -> None:
    offsets = np.cumsum([0, *lengths])
    marks = np.ones(offsets[-1], np.bool_)
    segments = cut(offsets, marks, 40)
    before = pack(segments.lengths + 2, 42)
    more, rows = top_up(segments, before, marks, 42, min_fill)
    assert np.array_equal(np.cumsum(more.lengths), np.append(more.starts[1:], offsets[-1])[: len(more.starts)])
    if len(rows):
        slots = np.bincount(rows, more.lengths + 2)
        assert slots.max() <= 42
        assert slots.min() > 0


def test_rows_that_are_full_enough_are_left_alone() -> None:
    segments = Segments(np.array([0, 8]), np.array([8, 8]), np.array([0, 1]))
    same, rows = top_up(segments, np.array([0, 1]), np.ones(16, np.bool_), 10, 0.99)
    assert same is segments
    assert rows.tolist() == [0, 1]


def test_rows_are_in_a_seeded_order_that_is_not_that_of_their_lengths() -> None:
    lengths = np.repeat(np.arange(100, 20, -1), 5)
    row_of = pack(lengths, 100)
    first, again, other = (arrange(row_of, seed) for seed in (1, 1, 2))
    assert np.array_equal(first.segments, again.segments)
    assert not np.array_equal(first.segments, other.segments)
    assert sorted(first.segments) == list(range(len(lengths)))
    sizes = [len(part) for part in np.split(first.segments, first.offsets[1:-1])]
    assert sorted(sizes) == sorted(np.bincount(row_of))
    assert abs(np.corrcoef(np.arange(len(sizes)), sizes)[0, 1]) < 0.2
    for part in np.split(first.segments, first.offsets[1:-1]):
        assert len(set(row_of[part])) == 1
        assert sorted(part) == list(part)


def test_rows_are_ordered_by_splitmix64() -> None:
    def mixed(row: int, seed: int) -> int:
        z = ((row + 1) * 0x9E3779B97F4A7C15 + seed) % (1 << 64)
        z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) % (1 << 64)
        z = ((z ^ z >> 27) * 0x94D049BB133111EB) % (1 << 64)
        return z ^ z >> 31

    assert arrange(np.arange(8), 0).segments.tolist() == [2, 4, 6, 5, 1, 7, 0, 3]
    for seed in (1, (1 << 64) - 1):
        expected = sorted(range(100), key=lambda row: mixed(row, seed))
        assert arrange(np.arange(100), seed).segments.tolist() == expected


def example(masks: MaskConfig | None = None) -> pa.RecordBatch:
    tokens = Tokens(
        ids=np.array([10, 11, 12, 20, 30, 31, 32, 33], np.uint16),
        word_start=np.array([1, 0, 1, 1, 1, 1, 0, 1], np.bool_),
        byte_offsets=np.array([0, 3, 4, 10, 11, 12, 15, 18, 20]),
        offsets=np.array([0, 3, 4, 8]),
    )
    segments = Segments(np.array([0, 3, 4]), np.array([3, 1, 4]), np.array([0, 1, 2]))
    rows = Rows(np.array([2, 0, 1]), np.array([0, 1, 3]))
    ids, sources = pa.array([bytes([i]) * 16 for i in range(3)], pa.binary(16)), pa.array(["en", "zh", "en"])
    return packed_batch(tokens, segments, rows, ids, sources, seq_len=8, vocab_size=100, first_row=7 << 32, masks=masks)


def test_packed_rows_by_hand() -> None:
    batch = example()
    validate(pa.Table.from_batches([batch]), 8, 100)
    assert batch.to_pylist() == [
        {
            "row_id": 7 << 32,
            "input_ids": [CLS_ID, 30, 31, 32, 33, SEP_ID, PAD_ID, PAD_ID],
            "seq_lens": [6],
            "word_start": [False, True, True, False, True, False, False, False],
            "doc_ids": [bytes([2]) * 16],
            "sources": ["en"],
            "byte_lens": [9],
        },
        {
            "row_id": (7 << 32) + 1,
            "input_ids": [CLS_ID, 10, 11, 12, SEP_ID, CLS_ID, 20, SEP_ID],
            "seq_lens": [5, 3],
            "word_start": [False, True, False, True, False, False, True, False],
            "doc_ids": [bytes([0]) * 16, bytes([1]) * 16],
            "sources": ["en", "zh"],
            "byte_lens": [10, 1],
        },
    ]


def test_static_masks_stand_beside_the_ids() -> None:
    batch = example(MaskConfig(ratio=0.5))
    validate(pa.Table.from_batches([batch]), 8, 100)
    assert batch.column("input_ids").to_pylist() == example().column("input_ids").to_pylist()
    for row in batch.to_pylist():
        for token, masked, label in zip(row["input_ids"], row["masked_input_ids"], row["labels"], strict=True):
            assert label in (token, -100)
            assert masked == token or label == token
    assert any(label >= 0 for row in batch.column("labels").to_pylist() for label in row)


def test_no_rows_and_many_windows() -> None:
    empty = packed_batch(
        Tokens(np.empty(0, np.uint16), np.empty(0, np.bool_), np.zeros(1, np.int64), np.zeros(1, np.int64)),
        cut(np.zeros(1, np.int64), np.empty(0, np.bool_), 6),
        arrange(np.empty(0, np.int64), 0),
        pa.array([], pa.binary(16)),
        pa.array([], pa.string()),
        seq_len=8,
        vocab_size=100,
        first_row=0,
    )
    assert len(empty) == 0
    validate(pa.Table.from_batches([empty]), 8, 100)


@given(LENGTHS.filter(bool))
def test_rows_hold_every_token_of_every_document(lengths: list[int]) -> None:
    offsets = np.cumsum([0, *lengths])
    total = int(offsets[-1])
    tokens = Tokens(
        np.arange(5, 5 + total, dtype=np.uint16), np.ones(total, np.bool_), np.arange(total + 1) * 2, offsets
    )
    segments = cut(offsets, tokens.word_start, 14)
    rows = arrange(pack(segments.lengths + 2, 16), 3)
    ids = pa.array([i.to_bytes(16, "big") for i in range(len(lengths))], pa.binary(16))
    sources = pa.array(["x"] * len(lengths))
    batch = packed_batch(tokens, segments, rows, ids, sources, seq_len=16, vocab_size=10_000, first_row=0)
    validate(pa.Table.from_batches([batch]), 16, 10_000)
    found: dict[bytes, list[int]] = {}
    for row in batch.to_pylist():
        at = 0
        for length, document, size in zip(row["seq_lens"], row["doc_ids"], row["byte_lens"], strict=True):
            part = row["input_ids"][at : at + length]
            assert (part[0], part[-1], size) == (CLS_ID, SEP_ID, 2 * (length - 2))
            found.setdefault(document, []).extend(part[1:-1])
            at += length
        assert not any(row["input_ids"][at:])
    for number, (a, b) in enumerate(itertools.pairwise(offsets)):
        assert sorted(found[number.to_bytes(16, "big")]) == list(range(5 + a, 5 + b))
