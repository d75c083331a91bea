"""Pairs: every token once, half of the seconds from elsewhere, none from its own document, no label in the lengths."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.text.packing import Segments, Tokens, arrange, packed_batch
from pipelines.text.pairing import SHORTEST, _derange, exchange_seconds, pack_pairs, pieces
from schemas.packed import ALONE, CLS_ID, PAD_ID, RANDOM_NEXT, REAL_NEXT, SECOND, SEP_ID, validate


def cut_into(sizes: list[int], seq_len: int, every: int = 1) -> Segments:
    """Pieces of documents in which a word begins every so many tokens."""
    offsets = np.cumsum([0, *sizes])
    starts = np.repeat(offsets[:-1], sizes)
    return pieces(offsets, (np.arange(offsets[-1]) - starts) % every == 0, seq_len)


def codes(segments: Segments) -> np.ndarray:
    assert segments.next_sentence is not None
    return segments.next_sentence


def test_documents_are_cut_by_hand() -> None:
    """Rows of 43 slots, pieces of 20: 7 tokens stay alone; 9 are cut at 4; 105 give four and 25 in halves."""
    found = cut_into([7, 0, 9, 105], 43)
    assert found.lengths.tolist() == [7, 4, 5, 20, 20, 20, 20, 12, 13]
    assert found.documents.tolist() == [0, 2, 2, 3, 3, 3, 3, 3, 3]
    assert codes(found).tolist() == [ALONE, *[REAL_NEXT, SECOND] * 4]
    assert found.starts.tolist() == [0, 7, 11, 16, 36, 56, 76, 96, 108]


def test_a_text_is_cut_at_the_word_nearest_to_its_middle_or_stays_alone() -> None:
    marks = np.zeros(20, np.bool_)
    marks[[0, 7, 14]] = True
    offsets = np.array([0, 20])
    assert pieces(offsets, marks, 43).lengths.tolist() == [7, 13]  # 7 is three away from 10, 14 is four
    marks[13] = True
    assert pieces(offsets, marks, 43).lengths.tolist() == [7, 13]  # as near: the first of the two
    marks[7] = False
    assert pieces(offsets, marks, 43).lengths.tolist() == [13, 7]
    assert pieces(offsets, marks, 27).lengths.tolist() == [20]  # pieces have 12 at most, and a word begins at 13
    marks[12] = True
    assert pieces(offsets, marks, 27).lengths.tolist() == [12, 8]
    marks[[12, 13, 14]] = False
    marks[4] = True  # outside the middle half
    assert codes(pieces(offsets, marks, 43)).tolist() == [ALONE]


@pytest.mark.parametrize("seq_len", [8, 11, 40, 64])
@given(st.lists(st.integers(0, 150), max_size=12), st.data())
def test_pieces_hold_every_token_once_in_order_and_fit(seq_len: int, sizes: list[int], data: st.DataObject) -> None:
    offsets = np.cumsum([0, *sizes])
    marks = np.array(data.draw(st.lists(st.booleans(), min_size=sum(sizes), max_size=sum(sizes))), np.bool_)
    found = pieces(offsets, marks, seq_len)
    ends = found.starts + found.lengths
    assert [t for a, b in zip(found.starts, ends, strict=True) for t in range(a, b)] == list(range(sum(sizes)))
    assert (found.documents == np.searchsorted(offsets, found.starts, side="right") - 1).all()
    alone = codes(found) == ALONE
    assert (found.lengths[~alone] <= (seq_len - 3) // 2).all() and (found.lengths[alone] <= seq_len - 2).all()
    first = np.flatnonzero(codes(found) == REAL_NEXT)
    assert (codes(found)[first + 1] == SECOND).all() and 2 * len(first) + alone.sum() == len(found.starts)
    assert (found.documents[first] == found.documents[first + 1]).all()
    for i in np.flatnonzero(alone):
        middle = marks[found.starts[i] + (found.lengths[i] + 3) // 4 : ends[i] - (found.lengths[i] + 3) // 4 + 1]
        fits = found.lengths[i] <= (seq_len - 3) // 2  # a longer one has fewer places for its cut
        assert found.lengths[i] < SHORTEST or not (middle.any() and fits)


PAIRS = st.lists(st.integers(0, 6), max_size=40)  # the document of each pair


def most(documents: list[int]) -> int:
    """By definition: the greatest number up to half, of which a choice exists that no document fills beyond half."""
    count = Counter(documents)
    fits = (m for m in range(len(documents) // 2, -1, -1) if sum(min(c, m // 2) for c in count.values()) >= m)
    return next(fits)


def pairs_of(documents: list[int]) -> Segments:
    """Two pieces of 5 to 9 tokens for each pair, by ascending document."""
    owner = np.repeat(np.sort(np.array(documents, np.int64)), 2)
    lengths = 5 + np.arange(len(owner)) * 3 % 5
    kinds = np.tile(np.array([REAL_NEXT, SECOND], np.int8), len(documents))
    return Segments(np.cumsum(lengths) - lengths, lengths, owner, kinds)


@given(PAIRS, st.integers(0, 3))
def test_half_of_the_pairs_get_a_second_from_another_document(documents: list[int], seed: int) -> None:
    before = pairs_of(documents)
    after = exchange_seconds(before, np.arange(7) % 2, seed)
    first = np.flatnonzero(codes(before) == REAL_NEXT)
    random, real = first[codes(after)[first] == RANDOM_NEXT], first[codes(after)[first] == REAL_NEXT]
    assert len(random) == most(documents) and len(random) + len(real) == len(documents)
    assert (after.documents[random] != after.documents[random + 1]).all()
    assert (after.starts[real + 1] == before.starts[real + 1]).all()
    assert (codes(after)[first + 1] == SECOND).all()
    assert (after.starts[first] == before.starts[first]).all()
    for name in ("starts", "lengths", "documents"):
        assert sorted(getattr(after, name)) == sorted(getattr(before, name))
    assert np.array_equal(after.starts, exchange_seconds(before, np.arange(7) % 2, seed).starts)


def test_the_number_of_exchanged_pairs_is_exactly_half_where_documents_allow() -> None:
    for count, expected in ((2, 0), (3, 0), (4, 2), (5, 2), (101, 50), (1000, 500)):
        after = exchange_seconds(pairs_of(list(range(count))), np.zeros(count, np.int64), 1)
        assert (codes(after) == RANDOM_NEXT).sum() == expected, count
    alone = exchange_seconds(pairs_of([0] * 50), np.zeros(1, np.int64), 1)
    assert not (codes(alone) == RANDOM_NEXT).any()
    one_large = exchange_seconds(pairs_of([0] * 50 + list(range(1, 11))), np.zeros(11, np.int64), 1)
    assert (codes(one_large) == RANDOM_NEXT).sum() == 20  # ten of the large one, one of each other


def test_the_seed_chooses_the_pairs() -> None:
    before = pairs_of(list(range(200)))
    chosen = [codes(exchange_seconds(before, np.zeros(200, np.int64), seed))[::2] for seed in (1, 1, 2)]
    assert np.array_equal(chosen[0], chosen[1])
    assert 70 < (chosen[0] == chosen[2]).sum() < 130


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30))
def test_a_place_never_keeps_its_document(documents: list[int]) -> None:
    owner = np.array(documents)
    if max(Counter(documents).values()) * 2 > len(documents):
        return
    given_ = _derange(owner)
    assert sorted(given_) == list(range(len(documents)))
    assert (owner[given_] != owner).all()


def test_lengths_and_sources_do_not_give_the_label_away() -> None:
    """The difference of a pair's lengths is spread alike, real or not, and seconds are of their first's source."""
    rng = np.random.default_rng(0)
    found = cut_into(rng.integers(8, 900, 4000).tolist(), 128, 2)
    sources = np.arange(4000) % 3
    after = exchange_seconds(found, sources, 5)
    first = np.flatnonzero((codes(after) != SECOND) & (codes(after) != ALONE))
    random = codes(after)[first] == RANDOM_NEXT
    gap = after.lengths[first] - after.lengths[first + 1]
    for size in range(-4, 5):
        assert abs((gap[random] == size).mean() - (gap[~random] == size).mean()) < 0.05
    assert (np.abs(gap[random]) > 4).sum() <= 3  # from source to source
    total = after.lengths[first] + after.lengths[first + 1]
    assert abs(total[random].mean() - total[~random].mean()) < 1
    same = sources[after.documents[first]] == sources[after.documents[first + 1]]
    assert (~same[random]).sum() <= 3


def test_both_pieces_of_a_pair_stand_in_one_row_and_rows_are_full() -> None:
    found = cut_into(np.random.default_rng(1).integers(1, 400, 3000).tolist(), 128)
    rows = pack_pairs(found, 128)
    used = np.bincount(rows, found.lengths + np.where(codes(found) == SECOND, 1, 2))
    assert used.max() <= 128 and used.sum() / (128 * len(used)) > 0.96
    second = np.flatnonzero(codes(found) == SECOND)
    assert (rows[second] == rows[second - 1]).all()
    assert pack_pairs(cut_into([], 128), 128).tolist() == []


def test_rows_of_pairs_by_hand() -> None:
    """天地玄黃 and 宇宙 are one document, cut between them; its second is exchanged with another's."""
    tokens = Tokens(
        ids=np.array([10, 11, 12, 13, 20, 21, 22, 30], np.uint16),
        word_start=np.array([1, 0, 1, 0, 1, 0, 1, 1], np.bool_),
        byte_offsets=np.array([0, 3, 6, 9, 12, 13, 14, 15, 18]),
        offsets=np.array([0, 4, 7, 8]),
    )
    kinds = np.array([REAL_NEXT, SECOND, RANDOM_NEXT, SECOND, ALONE], np.int8)
    segments = Segments(np.array([0, 2, 4, 4, 7]), np.array([2, 2, 1, 2, 1]), np.array([0, 0, 0, 1, 2]), kinds)
    ids = pa.array([bytes([i]) * 16 for i in range(3)], pa.binary(16))
    sources = pa.array(["诗", "en", "en"])
    rows = arrange(np.array([0, 0, 1, 1, 1]), 0)
    batch = packed_batch(tokens, segments, rows, ids, sources, seq_len=10, vocab_size=100, first_row=0)
    validate(pa.Table.from_batches([batch]), 10, 100)
    found = {tuple(row["next_sentence"]): row for row in batch.to_pylist()}
    real = found[REAL_NEXT, SECOND]
    assert real["input_ids"] == [CLS_ID, 10, 11, SEP_ID, 12, 13, SEP_ID, *[PAD_ID] * 3]
    assert real["word_start"] == [False, True, False, False, True, False, False, False, False, False]
    assert (real["seq_lens"], real["byte_lens"], real["sources"]) == ([4, 3], [6, 6], ["诗", "诗"])
    other = found[RANDOM_NEXT, SECOND, ALONE]
    assert other["input_ids"] == [CLS_ID, 20, SEP_ID, 20, 21, SEP_ID, CLS_ID, 30, SEP_ID, PAD_ID]
    assert (other["seq_lens"], other["byte_lens"]) == ([3, 3, 3], [1, 2, 3])
    assert other["doc_ids"] == [bytes([0]) * 16, bytes([1]) * 16, bytes([2]) * 16]
