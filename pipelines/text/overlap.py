"""N-gram overlap with texts that a model will be tested on: compiled, over whole Arrow arrays.

Tokens are those of `pipelines.text.shingles`: words where scripts have spaces between them, characters elsewhere, case
folded, punctuation aside. An item shorter than n tokens is one n-gram of them all, if it has `shortest`.
Source of 13 tokens: GPT-3 (Brown et al. 2020, appendix C).
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
import pyarrow as pa

from pipelines.text.shingles import fmix64, hash_tables
from pipelines.text.unicode import Class, decode, utf8

_LETTER, _DIGIT, _MARK = np.uint16(Class.LETTER), np.uint16(Class.DIGIT), np.uint16(Class.MARK)
_CHARACTER, _FORMAT = np.uint16(Class.CHARACTER), np.uint16(Class.FORMAT)
_NONE, _WORD, _SINGLE = 0, 1, 2
_BASE = 0x5851F42D4C957F2D  # odd, so that it has an inverse modulo 2^64
_INVERSE = pow(_BASE, -1, 1 << 64)


class Grams(NamedTuple):
    """The n-grams of evaluation items.

    hashes: uint64, distinct, ascending; items, offsets: the items of n-gram i are items[offsets[i]:offsets[i + 1]],
    int64. lengths: int64, the lengths in tokens that occur. counts: int64, distinct n-grams of each item; 0 where it is
    too short.
    """

    hashes: np.ndarray
    items: np.ndarray
    offsets: np.ndarray
    lengths: np.ndarray
    counts: np.ndarray


class Matches(NamedTuple):
    """N-grams found in texts, by text and place, int64 each: row, index in Grams.hashes, first byte and end of it."""

    rows: np.ndarray
    grams: np.ndarray
    starts: np.ndarray
    ends: np.ndarray


def grams_of(items: pa.Array, n: int, shortest: int) -> Grams:
    """Collect the n-grams of evaluation items, a string or large_string array. ValueError where n or shortest < 1."""
    if min(n, shortest) < 1:
        raise ValueError(f"n and shortest are at least 1; got {n} and {shortest}")
    data, offsets = utf8(items)
    hashes, owners, lengths = _item_grams(data, offsets, hash_tables(), n, min(shortest, n))
    pairs = np.unique(np.stack([hashes.view(np.int64), owners]), axis=1)
    order = np.lexsort([pairs[1], pairs[0].view(np.uint64)])
    hashes, owners = pairs[0].view(np.uint64)[order], pairs[1][order]
    distinct, first = np.unique(hashes, return_index=True)
    counts = np.bincount(owners, minlength=len(items)).astype(np.int64)
    return Grams(distinct, owners, np.append(first, len(hashes)).astype(np.int64), np.unique(lengths), counts)


def find(texts: pa.Array, grams: Grams) -> Matches:
    """Find the n-grams of evaluation items in texts, a string or large_string array."""
    data, offsets = utf8(texts)
    table, places = _table(grams.hashes)
    return Matches(*_find(data, offsets, hash_tables(), grams.lengths, table, places))


def merge(starts: np.ndarray, ends: np.ndarray) -> list[tuple[int, int]]:
    """Join overlapping or touching spans."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(zip(starts.tolist(), ends.tolist(), strict=True)):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _table(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An open hash table: hashes uint64 (0 is free), and the index of each, int64."""
    size = 16
    while size < 2 * len(hashes):
        size *= 2
    return _fill(hashes, size)


@numba.njit(nogil=True, cache=True)
def _fill(hashes: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    table, places = np.zeros(size, np.uint64), np.zeros(size, np.int64)
    for i in range(len(hashes)):
        slot = hashes[i] & np.uint64(size - 1)
        while table[slot] != np.uint64(0):
            slot = (slot + np.uint64(1)) & np.uint64(size - 1)
        table[slot], places[slot] = hashes[i], i
    return table, places


@numba.njit(nogil=True, cache=True)
def _tokens(data, at, end, hash_tables, hashes, starts, ends):  # type: ignore[no-untyped-def]
    """Hash the tokens of data[at:end], uint64, with the bytes they span; returns how many there are."""
    info, fold = hash_tables[0], hash_tables[1]
    count, state = 0, _NONE
    while at < end:
        code, width = decode(data, at, end)
        kind = info[code] & np.uint16(15)
        part = (kind == _LETTER) | (kind == _DIGIT)
        if kind == _FORMAT:
            at += width
            continue
        if (state == _WORD and part) or (state != _NONE and kind == _MARK):
            hashes[count - 1] = (hashes[count - 1] ^ np.uint64(fold[code])) * np.uint64(0x9E3779B97F4A7C15)
            ends[count - 1] = at + width
        elif part or kind == _CHARACTER:
            state = _WORD if part else _SINGLE
            hashes[count] = (np.uint64(0x243F6A8885A308D3) ^ np.uint64(fold[code])) * np.uint64(0x9E3779B97F4A7C15)
            starts[count], ends[count] = at, at + width
            count += 1
        else:
            state = _NONE
        at += width
    return count


@numba.njit(nogil=True, cache=True)
def _sums(hashes, count, sums, powers):  # type: ignore[no-untyped-def]
    """Prepare the hash of any run of tokens: sums of mixed hash × base^i, and the inverse of base^i."""
    power, inverse = np.uint64(1), np.uint64(1)
    sums[0] = np.uint64(0)
    for i in range(count):
        powers[i] = inverse
        sums[i + 1] = sums[i] + fmix64(hashes[i]) * power
        power *= np.uint64(_BASE)
        inverse *= np.uint64(_INVERSE)


@numba.njit(nogil=True, cache=True, inline="always")
def _gram(sums: np.ndarray, powers: np.ndarray, first: int, length: int) -> np.uint64:
    """Hash a run of tokens; never 0, which marks a free slot."""
    value = fmix64((sums[first + length] - sums[first]) * powers[first] + np.uint64(length))
    return max(value, np.uint64(1))


@numba.njit(nogil=True, cache=True)
def _longest(offsets: np.ndarray) -> int:
    longest = 0
    for row in range(len(offsets) - 1):
        longest = max(longest, offsets[row + 1] - offsets[row])
    return longest


@numba.njit(nogil=True, cache=True)
def _item_grams(data, offsets, hash_tables, n, shortest):  # type: ignore[no-untyped-def]
    most = _longest(offsets) + 1
    hashes, starts, ends = np.empty(most, np.uint64), np.empty(most, np.int64), np.empty(most, np.int64)
    sums, powers = np.empty(most + 1, np.uint64), np.empty(most + 1, np.uint64)
    rows = len(offsets) - 1
    bound = offsets[rows] - offsets[0] + rows
    found, owners, lengths = np.empty(bound, np.uint64), np.empty(bound, np.int64), np.empty(bound, np.int64)
    used = 0
    for row in range(rows):
        count = _tokens(data, offsets[row], offsets[row + 1], hash_tables, hashes, starts, ends)
        if count < shortest:
            continue
        length = min(n, count)
        _sums(hashes, count, sums, powers)
        for first in range(count - length + 1):
            found[used], owners[used], lengths[used] = _gram(sums, powers, first, length), row, length
            used += 1
    return found[:used].copy(), owners[:used].copy(), lengths[:used].copy()


@numba.njit(nogil=True, cache=True)
def _find(data, offsets, hash_tables, lengths, table, places):  # type: ignore[no-untyped-def]
    most = _longest(offsets) + 1
    hashes, starts, ends = np.empty(most, np.uint64), np.empty(most, np.int64), np.empty(most, np.int64)
    sums, powers = np.empty(most + 1, np.uint64), np.empty(most + 1, np.uint64)
    mask, used = np.uint64(len(table) - 1), 0
    out = np.empty((4, 64), np.int64)
    for row in range(len(offsets) - 1):
        count = _tokens(data, offsets[row], offsets[row + 1], hash_tables, hashes, starts, ends)
        _sums(hashes, count, sums, powers)
        for k in range(len(lengths)):
            length = lengths[k]
            for first in range(count - length + 1):
                value = _gram(sums, powers, first, length)
                slot = value & mask
                while table[slot] != np.uint64(0) and table[slot] != value:
                    slot = (slot + np.uint64(1)) & mask
                if table[slot] == value:
                    if used == out.shape[1]:
                        wider = np.empty((4, 2 * used), np.int64)
                        wider[:, :used] = out
                        out = wider
                    out[0, used], out[1, used] = row, places[slot]
                    out[2, used] = starts[first] - offsets[row]
                    out[3, used] = ends[first + length - 1] - offsets[row]
                    used += 1
    return out[0, :used].copy(), out[1, :used].copy(), out[2, :used].copy(), out[3, :used].copy()
