"""Tokens, shingles and their 32-bit hashes: what two documents must share to be near-duplicates.

Tokens: maximal runs of letters, digits and marks, case folded. A letter of a script without spaces between words (Han,
Hiragana, Katakana, Thai, Lao, Khmer, Myanmar) is a token by itself, with the marks that follow it, and ends the run
before it. Format characters (soft hyphen, joiners, variation selectors) are ignored, and so is a mark that follows no
token.

`tokens`, `shingles` and `shingle_hash` are the definition, in plain Python; `shingle_hashes` gives the same, fast.
"""

from __future__ import annotations

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
    _check_size(size)
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
    _check_size(size)
    data, offsets = utf8(texts)
    hashes, ends = _shingle_hashes(data, offsets, tables().info, tables().fold, size)
    return hashes[: ends[-1]].copy(), ends


def _check_size(size: int) -> None:
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
    """Sort uint32 values in place, move the distinct ones to the front, and count them.

    scratch: uint32, at least as long as values.
    """
    n = values.shape[0]
    if n < 2:
        return n
    if n <= 48:  # where the fixed cost of four radix passes is more than an insertion sort
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
def _push(token: np.uint64, count: int, total: np.uint64, ring: np.ndarray, oldest: np.uint64) -> np.uint64:
    """Add a token to the polynomial over the last len(ring) tokens and drop the one that leaves it."""
    slot = count % ring.shape[0]
    total = total * np.uint64(_TOKEN) + token - ring[slot] * oldest
    ring[slot] = token
    return total


@numba.njit(nogil=True, cache=True)
def _shingle_hashes(
    data: np.ndarray, offsets: np.ndarray, info: np.ndarray, fold: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    rows = offsets.shape[0] - 1
    # a token takes two bytes (ASCII: itself and what ends it) or more; the last one may end with the text
    bound, longest = np.int64(0), np.int64(0)
    for row in range(rows):
        length = (offsets[row + 1] - offsets[row]) // 2 + 1
        bound += length
        longest = max(longest, length)
    hashes, scratch = np.empty(bound, np.uint32), np.empty(longest, np.uint32)
    ends = np.zeros(rows + 1, np.int64)
    ring = np.zeros(size, np.uint64)
    oldest = np.uint64(1)  # _TOKEN ** size
    for _ in range(size):
        oldest *= np.uint64(_TOKEN)
    used = np.int64(0)
    for row in range(rows):
        at, end, first = offsets[row], offsets[row + 1], used
        ring[:] = np.uint64(0)
        total, token, count, state = np.uint64(0), np.uint64(0), 0, _NO_TOKEN
        while at <= end:
            kind, folded = np.uint16(0), np.uint64(0)  # past the end: a separator that closes the last token
            if at < end:
                code, width = decode(data, at, end)
                kind, folded = info[code] & np.uint16(15), np.uint64(fold[code])
                at += width
                if kind == _FORMAT:
                    continue
            else:
                at += 1
            part = (kind == _LETTER) | (kind == _DIGIT)
            if (state == _WORD and part) or (state != _NO_TOKEN and kind == _MARK):
                token = (token ^ folded) * np.uint64(_CHARACTER)
                continue
            if state != _NO_TOKEN:
                total = _push(fmix64(token), count, total, ring, oldest)
                count += 1
                if count >= size:
                    hashes[used] = np.uint32(fmix64(total) >> np.uint64(32))
                    used += 1
            state = _NO_TOKEN
            if part or kind == _CHARACTER_CLASS:
                state = _WORD if part else _SINGLE
                token = (np.uint64(_SEED) ^ folded) * np.uint64(_CHARACTER)
        if 0 < count < size:
            hashes[used] = np.uint32(fmix64(total) >> np.uint64(32))
            used += 1
        used = first + sort_distinct(hashes[first:used], scratch)
        ends[row + 1] = used
    return hashes, ends
