"""Cut texts where no token can cross, and find equal spans: kernels over the UTF-8 of a whole Arrow array.

No piece of our models crosses from one span to the next (see pipelines.text.sentencepiece.WHITESPACE_PIECES), so the
ids of a text are those of its spans, end to end.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

_LINE_FEED, _BLANK = 0x0A, 0x20
_FNV_OFFSET, _FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)  # FNV-1a, RFC 9923


@numba.njit(nogil=True, cache=True, inline="always")
def _edge(data: np.ndarray, at: int) -> Any:
    """Say whether a token must end before data[at]: at a space after something else, on both sides of line feeds."""
    before, after = data[at - 1], data[at]
    return (after == _BLANK and before != _BLANK) or ((before == _LINE_FEED) != (after == _LINE_FEED))


@numba.njit(nogil=True, cache=True)
def segments(data: np.ndarray, offsets: np.ndarray, limit: int, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut texts of more than `limit` bytes at the last edge within the limit, or else at the next one.

    A stretch of `longest` bytes without an edge is cut between two characters. Returns (edges, first), int64: span j is
    data[edges[j]:edges[j + 1]]; text i is the spans first[i] to first[i + 1] - 1.
    """
    edges = [np.int64(offsets[0])]
    first = np.zeros(len(offsets), np.int64)
    for i in range(len(offsets) - 1):
        at, end = offsets[i], offsets[i + 1]
        while end - at > limit:
            cut = at + limit
            while cut > at and not _edge(data, cut):
                cut -= 1
            if cut == at:
                cut, last = at + limit, min(end, at + longest)
                while cut < last and not _edge(data, cut):
                    cut += 1
                while cut < end and data[cut] & 0xC0 == 0x80:
                    cut -= 1
            if cut >= end:
                break
            edges.append(np.int64(cut))
            at = cut
        if end > edges[-1]:
            edges.append(np.int64(end))
        first[i + 1] = len(edges) - 1
    return np.array(edges), first


@numba.njit(nogil=True, cache=True)
def words(data: np.ndarray, offsets: np.ndarray, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut texts at every edge, and at a character after `longest` bytes without one; returns what `segments` does."""
    edges = np.empty(offsets[-1] - offsets[0] + 1, np.int64)
    edges[0] = offsets[0]
    count = 0
    first = np.zeros(len(offsets), np.int64)
    for i in range(len(offsets) - 1):
        end = offsets[i + 1]
        for at in range(offsets[i] + 1, end):
            if _edge(data, at) or (at - edges[count] >= longest and data[at] & 0xC0 != 0x80):
                count += 1
                edges[count] = at
        if end > edges[count]:
            count += 1
            edges[count] = end
        first[i + 1] = count
    return edges[: count + 1].copy(), first


@numba.njit(nogil=True, cache=True)
def unique(data: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number the distinct spans in order of appearance: (a span of each number, the number of each span), int64."""
    size = 16
    while size < 2 * len(edges):
        size *= 2
    table = np.full(size, -1, np.int64)
    of_number = np.empty(len(edges), np.int64)
    numbers = np.empty(len(edges) - 1, np.int64)
    count = 0
    for j in range(len(edges) - 1):
        start, length = edges[j], edges[j + 1] - edges[j]
        key = _FNV_OFFSET
        for at in range(start, start + length):
            key = (key ^ np.uint64(data[at])) * _FNV_PRIME
        slot = np.int64((key ^ key >> np.uint64(32)) & np.uint64(size - 1))
        while table[slot] >= 0:
            other = of_number[table[slot]]
            if edges[other + 1] - edges[other] == length and _equal(data, edges[other], start, length):
                break
            slot = (slot + 1) & (size - 1)
        if table[slot] < 0:
            table[slot] = count
            of_number[count] = j
            count += 1
        numbers[j] = table[slot]
    return of_number[:count].copy(), numbers


@numba.njit(nogil=True, cache=True, inline="always")
def _equal(data: np.ndarray, a: int, b: int, length: int) -> bool:
    for k in range(length):  # noqa: SIM110 - numba has no all()
        if data[a + k] != data[b + k]:
            return False
    return True


@numba.njit(nogil=True, cache=True)
def gather(values: np.ndarray, begins: np.ndarray, ends: np.ndarray, numbers: np.ndarray, total: int) -> np.ndarray:
    """Lay values[begins[n]:ends[n]] for each n of `numbers` end to end; `total` is their length."""
    out = np.empty(total, values.dtype)
    at = 0
    for n in numbers:
        for k in range(begins[n], ends[n]):
            out[at] = values[k]
            at += 1
    return out
