"""Pack token sequences into rows of fixed length: cut, best fit decreasing, seeded order, Arrow rows. Pure.

Best fit decreasing: Johnson, "Near-optimal bin packing algorithms", MIT 1973; for training rows: Ding et al.,
"Fewer Truncations Improve Language Modeling", ICML 2024 (arXiv 2404.10830).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
import pyarrow as pa

from pipelines.text.masking import MaskConfig, static_masks
from schemas.packed import CLS_ID, PAD_ID, SECOND, SEP_ID, packed_record, token_type

SPECIALS = 2  # [CLS] and [SEP] of each segment; the second of a pair has no [CLS]
# How far before the end of a row a cut looks for the start of a word: at most this many tokens and this part of a row,
# lest short rows stay empty for it. Measured: less than one slot of 512 is left empty.
_LOOK_BACK, _LOOK_BACK_PART = 16, 32
_SMALLEST_GAP = 4  # tokens; shorter pieces of a document are not worth their two special tokens


@dataclass(frozen=True)
class Segments:
    """Runs of tokens that stand in one row each: int64 arrays of one length.

    starts, lengths: tokens, without specials. documents: number of the document that each is from. next_sentence: the
    codes of schemas.packed, int8, where segments are paired; the second of a pair then comes right after its first.
    """

    starts: np.ndarray
    lengths: np.ndarray
    documents: np.ndarray
    next_sentence: np.ndarray | None = None

    @property
    def heads(self) -> np.ndarray:
        """Whether each segment begins with [CLS]: bool; all do but the seconds of pairs."""
        return np.ones(len(self.starts), np.bool_) if self.next_sentence is None else self.next_sentence != SECOND

    def take(self, chosen: np.ndarray) -> Segments:
        """Gather segments by number."""
        codes = None if self.next_sentence is None else self.next_sentence[chosen]
        return Segments(self.starts[chosen], self.lengths[chosen], self.documents[chosen], codes)


@dataclass(frozen=True)
class Rows:
    """Which segments stand in which row: row i holds segments[offsets[i]:offsets[i + 1]], in this order. int64."""

    segments: np.ndarray
    offsets: np.ndarray


@dataclass(frozen=True)
class Tokens:
    """Tokens of many documents, end to end: document i is ids[offsets[i]:offsets[i + 1]].

    By token: ids, word_start (bool), and byte_offsets (int64, one more; of pipelines.text.sentencepiece.Tokenizer).
    """

    ids: np.ndarray
    word_start: np.ndarray
    byte_offsets: np.ndarray
    offsets: np.ndarray


def join(parts: Sequence[Tokens]) -> Tokens:
    """Lay the tokens of several groups of documents end to end; at least one group."""
    before = np.cumsum([0, *(len(part.ids) for part in parts)])
    covered = np.cumsum([0, *(part.byte_offsets[-1] for part in parts)])
    return Tokens(
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.word_start for part in parts]),
        _chain([part.byte_offsets + base for part, base in zip(parts, covered, strict=False)]),
        _chain([part.offsets + base for part, base in zip(parts, before, strict=False)]),
    )


def _chain(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Join offsets, each of which begins with the last of the one before it."""
    return np.concatenate([parts[0], *(part[1:] for part in parts[1:])])


def cut(offsets: np.ndarray, word_start: np.ndarray, room: int) -> Segments:
    """Cut documents into segments of at most `room` tokens; every token is in exactly one segment, in order.

    A document that fits is one segment, an empty one gives none. A longer one gives full segments and a rest; a full
    segment ends before the last word that starts within its last tokens (16, or 1/32 of the room if less), or after
    `room` tokens where none does.
    """
    starts, documents = _cut(offsets, word_start, room)
    ends = np.append(starts[1:], offsets[-1] if len(offsets) else 0)
    return Segments(starts, ends - starts, documents)


@numba.njit(nogil=True, cache=True)
def _cut(offsets: np.ndarray, word_start: np.ndarray, room: int) -> tuple[np.ndarray, np.ndarray]:
    starts, documents = [np.int64(0) for _ in range(0)], [np.int64(0) for _ in range(0)]
    for i in range(len(offsets) - 1):
        at, end = offsets[i], offsets[i + 1]
        while at < end:
            starts.append(at)
            documents.append(np.int64(i))
            at = _stop(word_start, at, end, room, min(_LOOK_BACK, room // _LOOK_BACK_PART))
    return np.array(starts, np.int64), np.array(documents, np.int64)


@numba.njit(nogil=True, cache=True, inline="always")
def _stop(word_start: np.ndarray, at: int, end: int, room: int, look_back: int) -> int:
    """Where a segment of at most `room` tokens from `at` ends: at `end`, before a word, or where the room does."""
    stop = at + room
    if stop >= end:
        return end
    for p in range(stop, stop - look_back, -1):
        if word_start[p]:
            return p
    return stop


def pack(lengths: np.ndarray, capacity: int) -> np.ndarray:
    """Assign each length to a row of `capacity` slots by best fit decreasing: row numbers, int64, from 0.

    Longest first, equal lengths by index; each goes where the least room is left that still holds it.
    O(n log capacity). Raises ValueError where a length is not in 1..capacity.
    """
    lengths = np.ascontiguousarray(lengths, np.int64)
    if len(lengths) and not 1 <= lengths.min() <= lengths.max() <= capacity:
        raise ValueError(f"lengths from {lengths.min()} to {lengths.max()} do not fit rows of 1 to {capacity} slots")
    return _best_fit(lengths, np.argsort(-lengths, kind="stable"), capacity)


@numba.njit(nogil=True, cache=True)
def _best_fit(lengths: np.ndarray, order: np.ndarray, capacity: int) -> np.ndarray:
    """Keep rows in a stack per number of free slots, and a binary tree over those numbers: which are not empty."""
    leaves = 1
    while leaves < capacity + 1:
        leaves *= 2
    filled = np.zeros(2 * leaves, np.bool_)
    head = np.full(capacity + 1, -1, np.int64)  # of each stack: a row
    below = np.full(len(lengths), -1, np.int64)  # the row under this one in its stack
    row_of = np.empty(len(lengths), np.int64)
    rows = 0
    for item in order:
        length = lengths[item]
        free = _first_at_least(filled, leaves, length)
        if free < 0:
            row, free = rows, capacity
            rows += 1
        else:
            row = head[free]
            head[free] = below[row]
            if head[free] < 0:
                _set(filled, leaves, free, False)
        row_of[item] = row
        rest = free - length
        if rest:
            if head[rest] < 0:
                _set(filled, leaves, rest, True)
            below[row] = head[rest]
            head[rest] = row
    return row_of


@numba.njit(nogil=True, cache=True)
def _first_at_least(filled: np.ndarray, leaves: int, value: int) -> int:
    """The smallest leaf >= value that is set, or -1."""
    node = leaves + value
    if filled[node]:
        return value
    while node > 1:  # up to the first subtree on the right that holds a leaf
        if node % 2 == 0 and filled[node + 1]:
            node += 1
            while node < leaves:  # and down to its leftmost
                node = 2 * node if filled[2 * node] else 2 * node + 1
            return node - leaves
        node //= 2
    return -1


@numba.njit(nogil=True, cache=True)
def _set(filled: np.ndarray, leaves: int, value: int, state: bool) -> None:
    node = leaves + value
    filled[node] = state
    while node > 1:
        node //= 2
        filled[node] = filled[2 * node] or filled[2 * node + 1]


def top_up(
    segments: Segments, row_of: np.ndarray, word_start: np.ndarray, capacity: int, min_fill: float
) -> tuple[Segments, np.ndarray]:
    """Cut further segments where rows are filled to less than `min_fill`: returns new (segments, row numbers).

    Where many documents are a little longer than half a row, no packing of whole documents fills the rows. Then the
    emptiest rows are dissolved, as many as min_fill asks for; their segments, cut at words, go into the largest gaps
    of the others; what finds no gap is packed by itself. Segments stay in the order of their tokens.
    """
    lengths = segments.lengths + SPECIALS
    count = int(row_of.max()) + 1 if len(row_of) else 0
    spare = count - int(lengths.sum() / (min_fill * capacity)) if min_fill else 0
    if spare <= 0 or spare >= count:
        return segments, row_of
    free = capacity - np.bincount(row_of, lengths, count).astype(np.int64)
    by_gap = np.argsort(-free, kind="stable")
    rank = np.empty(count, np.int64)
    rank[by_gap] = np.arange(count)
    loose = rank[row_of] < spare
    gaps = by_gap[spare:]
    gaps = gaps[free[gaps] >= SPECIALS + _SMALLEST_GAP]
    starts, pieces, documents, rows = _fill_gaps(
        segments.starts[loose],
        segments.lengths[loose],
        segments.documents[loose],
        gaps,
        free[gaps] - SPECIALS,
        word_start,
    )
    homeless = rows < 0
    rows[homeless] = count + pack(pieces[homeless] + SPECIALS, capacity)
    kept = ~loose
    starts = np.concatenate([segments.starts[kept], starts])
    order = np.argsort(starts, kind="stable")
    lengths = np.concatenate([segments.lengths[kept], pieces])[order]
    documents = np.concatenate([segments.documents[kept], documents])[order]
    rows = np.concatenate([row_of[kept], rows])[order]
    return Segments(starts[order], lengths, documents), np.unique(rows, return_inverse=True)[1]


@numba.njit(nogil=True, cache=True)
def _fill_gaps(
    starts: np.ndarray,
    lengths: np.ndarray,
    documents: np.ndarray,
    gaps: np.ndarray,
    rooms: np.ndarray,
    word_start: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Lay segments into the rows `gaps`, a piece each: (starts, lengths, documents, rows), row -1 without a gap."""
    limit = len(starts) + len(gaps)
    out = np.empty((4, limit), np.int64)
    count = gap = 0
    for i in range(len(starts)):
        at, end = starts[i], starts[i] + lengths[i]
        while at < end:
            stop, row = end, np.int64(-1)
            if gap < len(gaps):
                stop, row = _stop(word_start, at, end, rooms[gap], min(_LOOK_BACK, rooms[gap] // 4)), gaps[gap]
                gap += 1
            out[0, count], out[1, count], out[2, count], out[3, count] = at, stop - at, documents[i], row
            count += 1
            at = stop
    return out[0, :count].copy(), out[1, :count].copy(), out[2, :count].copy(), out[3, :count].copy()


def arrange(row_of: np.ndarray, seed: int) -> Rows:
    """Order rows by a seeded hash of their number, lest they be sorted by length; segments stay in their order."""
    count = int(row_of.max()) + 1 if len(row_of) else 0
    place = np.empty(count, np.int64)
    place[np.argsort(mix(np.arange(count, dtype=np.uint64), seed), kind="stable")] = np.arange(count)
    placed = place[row_of]
    offsets = np.zeros(count + 1, np.int64)
    np.cumsum(np.bincount(placed, minlength=count), out=offsets[1:])
    return Rows(np.argsort(placed, kind="stable"), offsets)


def mix(values: np.ndarray, seed: int) -> np.ndarray:
    """SplitMix64 (Steele et al., OOPSLA 2014) of each value, from the state `seed`."""
    z = (values + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed % (1 << 64))
    z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return z ^ z >> np.uint64(31)


def packed_batch(
    tokens: Tokens,
    segments: Segments,
    rows: Rows,
    ids: pa.Array,
    sources: pa.Array,
    *,
    seq_len: int,
    vocab_size: int,
    first_row: int,
    masks: MaskConfig | None = None,
) -> pa.RecordBatch:
    """Make the Arrow rows of schemas.packed. ids, sources: by document. first_row: row_id of the first row."""
    chosen = segments.take(rows.segments)
    codes, heads = chosen.next_sentence, chosen.heads
    record = packed_record(seq_len, vocab_size, static_masks=masks is not None, pairs=codes is not None)
    input_ids, word_start = _fill(
        tokens.ids, tokens.word_start, chosen.starts, chosen.lengths, heads, rows.offsets, seq_len
    )
    covered = tokens.byte_offsets[chosen.starts + chosen.lengths] - tokens.byte_offsets[chosen.starts]
    documents = pa.array(chosen.documents)
    row_ids = np.arange(first_row, first_row + len(input_ids), dtype=np.uint64)
    columns: dict[str, pa.Array] = {
        "row_id": pa.array(row_ids),
        "input_ids": pa.array(input_ids.ravel(), token_type(vocab_size)),
        "word_start": pa.array(word_start.ravel()),
        "seq_lens": pa.array((chosen.lengths + heads + 1).astype(np.uint16)),
        "doc_ids": ids.take(documents),
        "sources": sources.take(documents),
        "byte_lens": pa.array(covered.astype(np.uint32)),
    }
    if codes is not None:
        columns["next_sentence"] = pa.array(codes)
    if masks is not None:
        masked, labels = static_masks(input_ids, word_start, row_ids, vocab_size, masks)
        columns |= {"masked_input_ids": pa.array(masked.ravel()), "labels": pa.array(labels.ravel())}
    offsets = pa.array(rows.offsets.astype(np.int32))
    arrays = []
    for wanted in record.schema:
        values = columns[wanted.name]
        if pa.types.is_fixed_size_list(wanted.type):
            values = pa.FixedSizeListArray.from_arrays(values, type=wanted.type)
        elif pa.types.is_list(wanted.type):
            values = pa.ListArray.from_arrays(offsets, values, type=wanted.type)
        arrays.append(values)
    return pa.RecordBatch.from_arrays(arrays, schema=record.schema)


@numba.njit(nogil=True, cache=True)
def _fill(
    ids: np.ndarray,
    word_start: np.ndarray,
    starts: np.ndarray,
    lengths: np.ndarray,
    heads: np.ndarray,
    offsets: np.ndarray,
    seq_len: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Write [CLS] (if `heads`) tokens [SEP] of each segment, then [PAD]: (input_ids, word_start) of [rows, seq_len]."""
    out = np.full((len(offsets) - 1, seq_len), PAD_ID, ids.dtype)
    marks = np.zeros((len(offsets) - 1, seq_len), np.bool_)
    for row in range(len(offsets) - 1):
        at = 0
        for j in range(offsets[row], offsets[row + 1]):
            if heads[j]:
                out[row, at] = CLS_ID
                at += 1
            for k in range(lengths[j]):
                out[row, at + k] = ids[starts[j] + k]
                marks[row, at + k] = word_start[starts[j] + k]
            at += lengths[j] + 1
            out[row, at - 1] = SEP_ID
    return out, marks
