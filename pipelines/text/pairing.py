"""Pairs of text pieces for next-sentence prediction: half of them real neighbours, half from two documents. Pure.

Devlin et al., "BERT", NAACL 2019. A label that lengths give away teaches nothing: a second that is exchanged goes for
one of about the same length, of the same source where there is one.
"""

from __future__ import annotations

import numba
import numpy as np

from pipelines.text.packing import Segments, cut, mix, pack
from schemas.packed import ALONE, RANDOM_NEXT, REAL_NEXT, SECOND

PAIR_SPECIALS = 3  # [CLS] A [SEP] B [SEP]
SHORTEST = 8  # tokens; a text below this is no two pieces
_CHOICE = 0x9E37_79B9_7F4A_7C15  # added to the seed: the choice of pairs and the order of rows are unrelated


def pieces(offsets: np.ndarray, word_start: np.ndarray, seq_len: int) -> Segments:
    """Cut documents into pairs of neighbours that fit a row, and what is too short for two: each token once, in order.

    A piece has at most (seq_len - 3) // 2 tokens. A longer document gives full pieces, cut as `packing.cut` does, while
    more than two are left; what is left, or a short document, is cut before the word nearest to its middle. It stays
    alone where it has fewer than 8 tokens, or no word begins in its middle half.
    """
    whole = cut(offsets, word_start, (seq_len - PAIR_SPECIALS) // 2)
    count = np.bincount(whole.documents, minlength=len(offsets) - 1)
    number = np.arange(len(whole.starts)) - np.repeat(np.cumsum(count) - count, count)  # of each piece in its document
    tail = number >= 2 * ((np.repeat(count, count) - 1) // 2)
    starts = whole.starts[tail & (number % 2 == 0)]
    documents = whole.documents[tail & (number % 2 == 0)]
    ends = offsets[1:][documents]
    middle = _middles(starts, ends, word_start, (seq_len - PAIR_SPECIALS) // 2)
    halved = middle > 0
    codes = np.where(number[~tail] % 2, SECOND, REAL_NEXT).astype(np.int8)
    kinds = np.where(halved, REAL_NEXT, ALONE).astype(np.int8)
    parts = [
        (whole.starts[~tail], whole.lengths[~tail], whole.documents[~tail], codes),
        (starts, np.where(halved, middle, ends) - starts, documents, kinds),
        (middle[halved], (ends - middle)[halved], documents[halved], np.full(int(halved.sum()), SECOND, np.int8)),
    ]
    found = Segments(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    return found.take(np.argsort(found.starts, kind="stable"))


@numba.njit(nogil=True, cache=True)
def _middles(starts: np.ndarray, ends: np.ndarray, word_start: np.ndarray, room: int) -> np.ndarray:
    """Where to cut each text: at the word start nearest to its middle, the first of two; 0 where there is none."""
    out = np.zeros(len(starts), np.int64)
    for i in range(len(starts)):
        length = ends[i] - starts[i]
        if length < SHORTEST:
            continue
        middle = starts[i] + length // 2
        least, most = (
            max(starts[i] + (length + 3) // 4, ends[i] - room),
            min(ends[i] - (length + 3) // 4, starts[i] + room),
        )
        for away in range(length):
            if least <= middle - away <= most and word_start[middle - away]:
                out[i] = middle - away
                break
            if least <= middle + away <= most and word_start[middle + away]:
                out[i] = middle + away
                break
    return out


def exchange_seconds(segments: Segments, sources: np.ndarray, seed: int) -> Segments:
    """Give half of the pairs a second from another document: the seconds of these pairs change places among them.

    segments: of `pieces`. sources: int64, by document. Exactly floor(n / 2) of n pairs are exchanged, by a seeded hash
    of their number; fewer only where documents forbid it: the pairs of one document can be at most half of those that
    are exchanged (else some second must meet its own document), so n pairs of which one document has c allow 2 (n - c)
    at most, and one document alone none. Each token stays in exactly one segment.
    """
    assert segments.next_sentence is not None
    first = np.flatnonzero(segments.next_sentence == REAL_NEXT)
    chosen = first[_choose(segments.documents[first], seed)]
    chosen = chosen[np.lexsort([chosen, segments.lengths[chosen + 1], sources[segments.documents[chosen]]])]
    given = chosen[_derange(segments.documents[chosen])] + 1
    order = np.arange(len(segments.starts))
    order[chosen + 1] = given
    found = segments.take(order)
    assert found.next_sentence is not None
    codes = found.next_sentence.copy()
    codes[chosen] = RANDOM_NEXT
    return Segments(found.starts, found.lengths, found.documents, codes)


def _choose(documents: np.ndarray, seed: int) -> np.ndarray:
    """Choose the pairs to exchange, by the document of each: int64, ascending; of no document more than half."""
    count = np.bincount(documents)
    wanted = min(len(documents) // 2, 2 * (len(documents) - int(count.max(initial=0))))
    wanted -= int(np.minimum(count, wanted // 2).sum() < wanted)  # an odd number may not be had, the even one below is
    order = np.argsort(mix(np.arange(len(documents), dtype=np.uint64), seed + _CHOICE), kind="stable")
    by_document = order[np.argsort(documents[order], kind="stable")]
    rank = np.empty(len(order), np.int64)  # of each pair among those of its document
    rank[by_document] = np.arange(len(order)) - np.repeat(np.cumsum(count) - count, count)
    return np.sort(order[rank[order] < wanted // 2][:wanted])


@numba.njit(nogil=True, cache=True)
def _derange(documents: np.ndarray) -> np.ndarray:
    """Permute places so that none keeps its document, and each gets a near one: int64.

    Each place takes the next one's. Where that is its own document's, it swaps with the nearest place for which the
    swap is right on both sides. There is one: a document has at most half of the n places, so the places that hold it
    and those that were given it are at most n - 1 together, this one being both. A swap makes no new conflict.
    """
    n = len(documents)
    given = np.roll(np.arange(n), -1)
    for i in range(n):
        own = documents[i]
        if documents[given[i]] != own:
            continue
        for away in range(1, n):
            for j in (i - away, i + away):
                if 0 <= j < n and documents[j] != own and documents[given[j]] != own:
                    given[i], given[j] = given[j], given[i]
                    break
            if documents[given[i]] != own:
                break
    return given


def pack_pairs(segments: Segments, seq_len: int) -> np.ndarray:
    """Assign each segment to a row, both of a pair to one, by best fit: row numbers, int64."""
    assert segments.next_sentence is not None
    unit = np.cumsum(segments.heads) - 1
    return pack(np.bincount(unit, segments.lengths + segments.heads + 1).astype(np.int64), seq_len)[unit]
