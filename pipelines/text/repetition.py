"""How much a text repeats itself: lines, paragraphs and n-grams of words, as Gopher measures them, in compiled code.

Gopher (Rae et al. 2021, table A1); counted as datatrove 0.10.1 does in gopher_repetition_filter.py. All shares are of
the characters of the text, but those of lines and paragraphs, which are also given by number.
"""

from __future__ import annotations

import numba
import numpy as np

from pipelines.text.shingles import fmix64
from pipelines.text.tokens import SPACE, hash_codes

DOCS = {
    "dup_line_frac": "lines that repeat an earlier one / lines (parted by one or more line feeds)",
    "dup_para_frac": "paragraphs that repeat an earlier one / paragraphs (parted by two or more line feeds)",
    "dup_line_char_frac": "characters in lines that repeat an earlier one / characters",
    "dup_para_char_frac": "characters in paragraphs that repeat an earlier one / characters",
    **{
        f"top_{n}_gram": f"characters in all copies of the most frequent {n}-gram of tokens / characters"
        for n in (2, 3, 4)
    },
    **{f"dup_{n}_gram": f"characters in {n}-grams of tokens that occurred before / characters" for n in range(5, 11)},
}
_FIRST_TOP, _LAST_TOP, _FIRST_DUP, _LAST_DUP = 2, 4, 5, 10
_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64
_INVERSE = pow(_BASE, -1, 1 << 64)
_NEWLINE = 10


@numba.njit(nogil=True, cache=True)
def table_size(entries: int) -> int:
    """The size of a hash table for so many entries: a power of two, at most half full."""
    size = 4
    while size < 2 * entries:
        size *= 2
    return size


@numba.njit(nogil=True, cache=True, inline="always")
def _find(table: np.ndarray, value: np.uint64, mask: np.uint64) -> np.uint64:
    """The slot of a value that is not 0: where it stands, or the free one where it belongs."""
    slot = value & mask
    while table[slot] != np.uint64(0) and table[slot] != value:
        slot = (slot + np.uint64(1)) & mask
    return slot


@numba.njit(nogil=True, cache=True)
def repeated_parts(codes, first, last, breaks, table):  # type: ignore[no-untyped-def]
    """Cut codes[first:last] at runs of at least `breaks` line feeds: (parts, repeated ones, characters in those).

    table: uint64 scratch, of table_size(line feeds + 1) at least.
    """
    size = table_size(_count(codes, first, last) + 1)
    table[:size] = np.uint64(0)
    mask = np.uint64(size - 1)
    parts, repeated, chars = 0, 0, 0
    start, at = first, first
    while True:
        run = 0
        while at + run < last and codes[at + run] == _NEWLINE:
            run += 1
        if at >= last or run >= breaks:
            value = max(hash_codes(codes, start, at), np.uint64(1))
            slot = _find(table, value, mask)
            parts += 1
            if table[slot] == value:
                repeated += 1
                chars += at - start
            table[slot] = value
            if at >= last:
                return parts, repeated, chars
            at += run
            start = at
        else:
            at += max(run, 1)


@numba.njit(nogil=True, cache=True)
def _count(codes: np.ndarray, first: int, last: int) -> int:
    found = 0
    for i in range(first, last):
        found += codes[i] == _NEWLINE
    return found


@numba.njit(nogil=True, cache=True)
def _top(sums, powers, lengths, count, n, table, counts):  # type: ignore[no-untyped-def]
    """Characters in all copies of the most frequent n-gram, of equally frequent ones the one that comes first."""
    grams = count - n + 1
    if grams < 1:
        return 0
    size = table_size(grams)
    table[:size] = np.uint64(0)
    counts[:size] = 0
    mask, most, slots = np.uint64(size - 1), 0, np.uint64(0)
    for i in range(grams):
        value = max(fmix64((sums[i + n] - sums[i]) * powers[i]), np.uint64(1))
        slot = _find(table, value, mask)
        table[slot] = value
        counts[slot] += 1
        most = max(most, counts[slot])
    for i in range(grams):  # the first n-gram with that count; texts have few different ones of it
        value = max(fmix64((sums[i + n] - sums[i]) * powers[i]), np.uint64(1))
        slots = _find(table, value, mask)
        if counts[slots] == most:
            return most * (lengths[i + n] - lengths[i] + n - 1)
    return 0


@numba.njit(nogil=True, cache=True)
def _repeated(sums, powers, lengths, count, n, table):  # type: ignore[no-untyped-def]
    """Characters in n-grams that occurred before; after one of them the search goes on behind it."""
    grams = count - n + 1
    if grams < 1:
        return 0
    size = table_size(grams)
    table[:size] = np.uint64(0)
    mask = np.uint64(size - 1)
    at, chars = 0, 0
    while at < grams:
        value = max(fmix64((sums[at + n] - sums[at]) * powers[at]), np.uint64(1))
        slot = _find(table, value, mask)
        if table[slot] == value:
            chars += lengths[at + n] - lengths[at]
            at += n
        else:
            table[slot] = value
            at += 1
    return chars


@numba.njit(nogil=True, cache=True)
def measure_repetition(codes, size, kinds, starts, ends, hashes, count, scratch, out):  # type: ignore[no-untyped-def]
    """Measure the signals of DOCS, in that order, into out: float64[13].

    codes[:size]: the text. starts, ends, hashes: of its tokens, `count` of them. scratch: (table uint64, counts int32,
    sums uint64, powers uint64, lengths int64), of table_size(size + 1), and size + 1 for the last three.
    """
    table, counts, sums, powers, lengths = scratch
    first, last = int(0), size
    while first < last and kinds[codes[first]] & SPACE:
        first += 1
    while last > first and kinds[codes[last - 1]] & SPACE:
        last -= 1
    lines, line_repeats, line_chars = repeated_parts(codes, int(0), size, int(1), table)
    paras, para_repeats, para_chars = repeated_parts(codes, first, last, int(2), table)
    out[0], out[1] = line_repeats / lines, para_repeats / paras
    whole = max(size, 1)
    out[2], out[3] = line_chars / whole, para_chars / whole
    sums[0], lengths[0] = np.uint64(0), 0
    power, inverse = np.uint64(1), np.uint64(1)
    for i in range(count):  # sums of hash × base^i: an n-gram's is a difference, times the inverse of its base^i
        powers[i] = inverse
        sums[i + 1] = sums[i] + hashes[i] * power
        lengths[i + 1] = lengths[i] + ends[i] - starts[i]
        power *= np.uint64(_BASE)
        inverse *= np.uint64(_INVERSE)
    for n in range(_FIRST_TOP, _LAST_TOP + 1):
        out[4 + n - _FIRST_TOP] = _top(sums, powers, lengths, count, n, table, counts) / whole
    for n in range(_FIRST_DUP, _LAST_DUP + 1):
        out[7 + n - _FIRST_DUP] = _repeated(sums, powers, lengths, count, n, table) / whole
