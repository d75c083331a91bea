"""Tokens, shingles and their 32-bit hashes: what two documents must share to be near-duplicates.

Tokens: maximal runs of letters, digits and marks, case folded. A letter of a script without spaces between words (Han,
Hiragana, Katakana, Thai, Lao, Khmer, Myanmar) is a token by itself, with the marks that follow it, and ends the run
before it. Format characters (soft hyphen, joiners, variation selectors) are ignored, and so is a mark that follows no
token.

`tokens`, `shingles` and `shingle_hash` are the definition, in plain Python; `shingle_hashes` gives the same, fast.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numba
import numpy as np
import pyarrow as pa

from pipelines.text.unicode import Class, decode, tables, utf8

SIZE = 5

# 64-bit odd multipliers: 2^64 / golden ratio (Knuth 6.4) for characters, the FNV-derived one of PCG64 for tokens
_SEED, _CHARACTER, _TOKEN = 0x243F6A8885A308D3, 0x9E3779B97F4A7C15, 0x5851F42D4C957F2D
_FMIX_1, _FMIX_2 = 0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53  # fmix64 of MurmurHash3 (Appleby)
_MASK = (1 << 64) - 1

_LETTER, _DIGIT, _MARK = np.uint16(Class.LETTER), np.uint16(Class.DIGIT), np.uint16(Class.MARK)
_CHARACTER_CLASS, _FORMAT = np.uint16(Class.CHARACTER), np.uint16(Class.FORMAT)
_NO_TOKEN, _WORD, _SINGLE = 0, 1, 2


def tokens(text: str) -> list[str]:
    """Split a text into its tokens, case folded (simple folding, so no character becomes two)."""
    classes, fold = tables().classes, tables().fold
    found: list[str] = []
    state = _NO_TOKEN
    for char in text:
        kind = classes[ord(char)]
        if kind == Class.FORMAT:
            continue
        folded = chr(fold[ord(char)])
        if kind == Class.CHARACTER or (kind in (Class.LETTER, Class.DIGIT) and state != _WORD):
            found.append(folded)
            state = _SINGLE if kind == Class.CHARACTER else _WORD
        elif kind in (Class.LETTER, Class.DIGIT) or (kind == Class.MARK and state != _NO_TOKEN):
            found[-1] += folded
        else:
            state = _NO_TOKEN
    return found


def shingles(text: str, size: int = SIZE) -> list[str]:
    """List the shingles of a text in order, repeats included: `size` consecutive tokens joined by a space.

    A text of fewer tokens is one shingle of them all; a text without tokens has none. Raises ValueError where size < 1.
    """
    check_size(size)
    words = tokens(text)
    return [" ".join(words[i : i + size]) for i in range(max(len(words) - size + 1, 1))] if words else []


def shingle_hash(shingle: str | bytes) -> int:
    """Hash a shingle (tokens joined by a space; bytes are UTF-8) to 32 bits.

    This is the `hashfunc` with which datasketch gives the signatures of `pipelines.text.minhash`.
    """
    total = 0
    for token in (shingle.decode() if isinstance(shingle, bytes) else shingle).split(" "):
        state = _SEED
        for char in token:
            state = (state ^ ord(char)) * _CHARACTER & _MASK
        total = (total * _TOKEN + _fmix(state)) & _MASK
    return _fmix(total) >> 32


def shingle_hashes(texts: pa.Array, size: int = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """Hash the shingles of every text of a string or large_string array; a null has none.

    Returns (hashes uint32, offsets int64 of length len + 1): the distinct hashes of text i, ascending, are
    hashes[offsets[i]:offsets[i + 1]]. Raises ValueError where size < 1.
    """
    check_size(size)
    data, offsets = utf8(texts)
    hashes, ends = _shingle_hashes(data, offsets, *hash_tables(), size)
    return hashes[: ends[-1]].copy(), ends


def check_size(size: int) -> None:
    """Raise ValueError where a shingle would have no token."""
    if size < 1:
        raise ValueError(f"a shingle has at least one token; got size={size}")


def _fmix(x: int) -> int:
    x = (x ^ x >> 33) * _FMIX_1 & _MASK
    x = (x ^ x >> 33) * _FMIX_2 & _MASK
    return x ^ x >> 33


@numba.njit(nogil=True, cache=True, inline="always")
def fmix64(x: np.uint64) -> np.uint64:
    """Mix 64 bits: the bijective finalizer of MurmurHash3."""
    x = (x ^ (x >> np.uint64(33))) * np.uint64(_FMIX_1)
    x = (x ^ (x >> np.uint64(33))) * np.uint64(_FMIX_2)
    return x ^ (x >> np.uint64(33))


@numba.njit(nogil=True, cache=True)
def sort_distinct(values: np.ndarray, scratch: np.ndarray) -> int:
    """Sort uint32 hashes in place, move the distinct ones to the front, and count them.

    scratch: uint32, at least as long as values. Quick where the values are spread evenly, as hashes are, and right
    for all others.
    """
    n = values.shape[0]
    if n < 2:
        return n
    if n <= 1 << 16:
        if n > 48:
            _near_places(values, scratch)
        for i in range(1, n):
            value, j = values[i], i
            while j > 0 and values[j - 1] > value:
                values[j] = values[j - 1]
                j -= 1
            values[j] = value
    else:
        _radix_sort(values, scratch)
    count = 1
    for i in range(1, n):
        if values[i] != values[count - 1]:
            values[count] = values[i]
            count += 1
    return count


@numba.njit(nogil=True, cache=True)
def _near_places(values: np.ndarray, scratch: np.ndarray) -> None:
    """Put values into the order of their upper bits, about two to a bucket; an insertion sort has little left to do."""
    n, bits = values.shape[0], 4
    while bits < 12 and (1 << (bits + 1)) < n:
        bits += 1
    shift = np.uint32(32 - bits)
    starts = np.zeros((1 << bits) + 1, np.int32)
    for i in range(n):
        starts[(values[i] >> shift) + 1] += 1
    for bucket in range(1 << bits):
        starts[bucket + 1] += starts[bucket]
    for i in range(n):
        bucket = values[i] >> shift
        scratch[starts[bucket]] = values[i]
        starts[bucket] += 1
    values[:] = scratch[:n]


@numba.njit(nogil=True, cache=True)
def _radix_sort(values: np.ndarray, scratch: np.ndarray) -> None:
    n = values.shape[0]
    counts = np.zeros((4, 256), np.int64)
    for i in range(n):
        value = values[i]
        for digit in range(4):
            counts[digit, (value >> np.uint32(8 * digit)) & np.uint32(255)] += 1
    source, target = values, scratch
    for digit in range(4):
        start = 0
        for bucket in range(256):
            held = counts[digit, bucket]
            counts[digit, bucket] = start
            start += held
        for i in range(n):
            bucket = (source[i] >> np.uint32(8 * digit)) & np.uint32(255)
            target[counts[digit, bucket]] = source[i]
            counts[digit, bucket] += 1
        source, target = target, source  # four passes: the last one fills `values`


@numba.njit(nogil=True, cache=True, inline="always")
def _close(token, count, slot, used, total, ring, oldest, size, out):  # type: ignore[no-untyped-def]
    """Add a finished token to the polynomial over the last `size` ones, dropping the one that leaves it; hash them."""
    mixed = fmix64(token)
    total = total * np.uint64(_TOKEN) + mixed - ring[slot] * oldest
    ring[slot] = mixed
    slot = slot + 1 if slot + 1 < size else 0
    count += 1
    if count >= size:
        out[used] = np.uint32(fmix64(total) >> np.uint64(32))
        used += 1
    return count, slot, used, total


class HashTables(NamedTuple):
    """What a kernel needs to hash shingles. ascii: uint64[256], what a letter or digit below 128 folds to, else 0."""

    info: np.ndarray
    fold: np.ndarray
    ascii: np.ndarray


@functools.cache
def hash_tables() -> HashTables:
    """Make the tables, read-only."""
    info, fold = tables().info, tables().fold
    quick = np.zeros(256, np.uint64)
    part = np.isin(info[:128] & 15, (int(_LETTER), int(_DIGIT)))
    quick[:128][part] = fold[:128][part]
    quick.flags.writeable = False
    return HashTables(info, fold, quick)


@numba.njit(nogil=True, cache=True)
def most_shingles(offsets: np.ndarray) -> np.int64:
    """The most shingles that any text can have: a token takes two bytes (ASCII: itself and what ends it) or more."""
    longest = np.int64(0)
    for row in range(offsets.shape[0] - 1):
        longest = max(longest, (offsets[row + 1] - offsets[row]) // 2 + 1)  # the last one may end with the text
    return longest


@numba.njit(nogil=True, cache=True)
def text_hashes(data, at, end, info, fold, quick, size, ring, out):  # type: ignore[no-untyped-def]
    """Hash the shingles of the text data[at:end] into `out`, repeats included, and count them.

    info, fold, quick: see HashTables. ring: uint64[size], scratch. out: uint32, see `most_shingles`.
    """
    oldest = np.uint64(1)  # _TOKEN ** size
    for i in range(size):
        oldest *= np.uint64(_TOKEN)
        ring[i] = np.uint64(0)
    total, token, count, slot, used, state = np.uint64(0), np.uint64(0), 0, 0, 0, _NO_TOKEN
    while at < end:
        byte = data[at]
        letter = quick[byte]
        if byte < 128:  # most bytes of most texts; no mark, format character or single letter is among them
            at += 1
            if letter == 0:
                if state != _NO_TOKEN:
                    count, slot, used, total = _close(token, count, slot, used, total, ring, oldest, size, out)
                    state = _NO_TOKEN
                continue
            if state != _WORD:
                if state == _SINGLE:
                    count, slot, used, total = _close(token, count, slot, used, total, ring, oldest, size, out)
                token, state = np.uint64(_SEED), _WORD
            token = (token ^ letter) * np.uint64(_CHARACTER)
            while at < end:
                letter = quick[data[at]]
                if letter == 0:
                    break
                token = (token ^ letter) * np.uint64(_CHARACTER)
                at += 1
            continue
        code, width = decode(data, at, end)
        kind, folded = info[code] & np.uint16(15), np.uint64(fold[code])
        at += width
        if kind == _FORMAT:
            continue
        part = (kind == _LETTER) | (kind == _DIGIT)
        if (state == _WORD and part) or (state != _NO_TOKEN and kind == _MARK):
            token = (token ^ folded) * np.uint64(_CHARACTER)
            continue
        if state != _NO_TOKEN:
            count, slot, used, total = _close(token, count, slot, used, total, ring, oldest, size, out)
        state = _NO_TOKEN
        if part or kind == _CHARACTER_CLASS:
            state = _WORD if part else _SINGLE
            token = (np.uint64(_SEED) ^ folded) * np.uint64(_CHARACTER)
    if state != _NO_TOKEN:
        count, slot, used, total = _close(token, count, slot, used, total, ring, oldest, size, out)
    if 0 < count < size:
        out[used] = np.uint32(fmix64(total) >> np.uint64(32))
        used += 1
    return used


@numba.njit(nogil=True, cache=True)
def _shingle_hashes(data, offsets, info, fold, quick, size):  # type: ignore[no-untyped-def]
    rows = offsets.shape[0] - 1
    hashes = np.empty((offsets[rows] - offsets[0]) // 2 + rows, np.uint32)
    scratch, ring = np.empty(most_shingles(offsets), np.uint32), np.empty(size, np.uint64)
    ends = np.zeros(rows + 1, np.int64)
    for row in range(rows):
        first = ends[row]
        used = text_hashes(data, offsets[row], offsets[row + 1], info, fold, quick, size, ring, hashes[first:])
        ends[row + 1] = first + sort_distinct(hashes[first : first + used], scratch)
    return hashes, ends
