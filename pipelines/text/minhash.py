"""MinHash signatures, band hashes, bottom-k sketches, and the Jaccard similarity that they measure.

Every function takes sets of 32-bit shingle hashes in the layout of an Arrow list column: flat values and row offsets,
distinct and ascending in each row, as `pipelines.text.shingles.shingle_hashes` gives them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np

from pipelines.text.shingles import fmix64, sort_distinct

EMPTY = 0xFFFFFFFF


@dataclass(frozen=True)
class MinHashConfig:
    """How near-duplicates are found: 14 bands of 8 rows find 92 % of the pairs at 0.8 (datatrove's defaults).

    sketch_size: shingles of a document that verification compares; where both documents have no more, it is exact.
    """

    bands: int = 14
    rows: int = 8
    seed: int = 1
    sketch_size: int = 1024

    def __post_init__(self) -> None:
        """Raise ValueError where a size is not positive or the seed is not a 32-bit number."""
        if min(self.bands, self.rows, self.sketch_size) < 1:
            raise ValueError(f"bands, rows and sketch_size are at least 1; got {self}")
        if not 0 <= self.seed < 1 << 32:
            raise ValueError(f"seed is a number from 0 to 2^32 - 1; got {self.seed}")

    @property
    def num_perm(self) -> int:
        """Permutations of a signature: bands × rows."""
        return self.bands * self.rows


def s_curve(similarity: float, bands: int, rows: int) -> float:
    """Compute the probability that a pair of this Jaccard similarity shares a band: 1 - (1 - s^rows)^bands.

    Source: Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, 3.4.2.
    """
    return 1.0 - (1.0 - similarity**rows) ** bands


def permutations(num_perm: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw the multipliers (odd) and increments, uint32, of datasketch 2.0's scheme 'affine32' for this seed."""
    generator = np.random.RandomState(seed)  # its stream is frozen by NumPy's policy (NEP 19)
    factors = generator.randint(0, 1 << 31, num_perm, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    return factors, generator.randint(0, 1 << 32, num_perm, dtype=np.uint32)


def signatures(hashes: np.ndarray, offsets: np.ndarray, num_perm: int, seed: int = 1) -> np.ndarray:
    """Compute the MinHash signature of every set: uint32[len(offsets) - 1, num_perm].

    Equal, bit for bit, to datasketch.MinHash(num_perm, seed, scheme="affine32", hashfunc=shingle_hash).hashvalues. The
    signature of an empty set is EMPTY throughout: all empty sets look alike, so leave them out of the banding.
    """
    factors, increments = permutations(num_perm, seed)
    return _signatures(_uint32(hashes), _int64(offsets), factors, increments)


def band_hashes(signatures: np.ndarray, bands: int, rows: int, first: int = 0, last: int | None = None) -> np.ndarray:
    """Hash every band of every signature: uint64[bands, n]; documents that agree in all rows of a band share its hash.

    The band's number goes into the hash: two bands with equal rows have different hashes. first, last: only bands from
    `first` up to `last`. Raises ValueError where a signature is not bands × rows long.
    """
    if signatures.ndim != 2 or signatures.shape[1] != bands * rows:
        raise ValueError(f"expected signatures of {bands} × {rows} values; got an array of shape {signatures.shape}")
    return _band_hashes(np.ascontiguousarray(signatures, np.uint32), first, bands if last is None else last, rows)


def sketches(hashes: np.ndarray, offsets: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Keep the k smallest mixed hashes of every set, ascending: (values uint32, offsets int64), laid out as the input.

    The mix is a bijection other than the one in the signatures, so that a sketch measures what they only guessed.
    A set of at most k hashes is kept whole. Raises ValueError where k < 1.
    """
    if k < 1:
        raise ValueError(f"a sketch keeps at least one hash; got k={k}")
    return _sketches(_uint32(hashes), _int64(offsets), k)


def _uint32(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, np.uint32)


def _int64(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, np.int64)


# numba widens uint32 arithmetic to 64 bits, so every product below is cut back to 32


@numba.njit(nogil=True, cache=True, inline="always")
def _fmix32(x: np.uint32) -> np.uint32:
    x = np.uint32(x ^ (x >> np.uint32(16)))
    x = np.uint32(x * np.uint32(0x85EBCA6B))
    x = np.uint32(x ^ (x >> np.uint32(13)))
    x = np.uint32(x * np.uint32(0xC2B2AE35))
    return np.uint32(x ^ (x >> np.uint32(16)))


@numba.njit(nogil=True, cache=True, inline="always")
def mix32(x: np.uint32) -> np.uint32:
    """Mix 32 bits for the sketches: the bijection 'lowbias32' (Wellons, hash-prospector)."""
    x = np.uint32(x ^ (x >> np.uint32(16)))
    x = np.uint32(x * np.uint32(0x7FEB352D))
    x = np.uint32(x ^ (x >> np.uint32(15)))
    x = np.uint32(x * np.uint32(0x846CA68B))
    return np.uint32(x ^ (x >> np.uint32(16)))


@numba.njit(nogil=True, cache=True)
def _signatures(hashes: np.ndarray, offsets: np.ndarray, factors: np.ndarray, increments: np.ndarray) -> np.ndarray:
    sets, perms = offsets.shape[0] - 1, factors.shape[0]
    out = np.full((sets, perms), np.uint32(EMPTY), np.uint32)
    for i in range(sets):
        row = out[i]
        for p in range(offsets[i], offsets[i + 1]):
            x = _fmix32(hashes[p])
            for j in range(perms):  # the loop that the compiler vectorises
                row[j] = min(row[j], np.uint32(factors[j] * x + increments[j]))
    return out


@numba.njit(nogil=True, cache=True)
def _band_hashes(signatures: np.ndarray, first: int, last: int, rows: int) -> np.ndarray:
    count = signatures.shape[0]
    out = np.empty((last - first, count), np.uint64)
    for i in range(count):
        for band in range(first, last):
            state = fmix64(np.uint64(band + 1))
            for j in range(band * rows, (band + 1) * rows):
                state = fmix64(state ^ np.uint64(signatures[i, j]))
            out[band - first, i] = state
    return out


@numba.njit(nogil=True, cache=True)
def _sketches(hashes: np.ndarray, offsets: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    sets = offsets.shape[0] - 1
    ends = np.zeros(sets + 1, np.int64)
    longest = np.int64(0)
    for i in range(sets):
        length = offsets[i + 1] - offsets[i]
        ends[i + 1] = ends[i] + min(length, k)
        longest = max(longest, length)
    values = np.empty(ends[sets], np.uint32)
    mixed, scratch = np.empty(longest, np.uint32), np.empty(longest, np.uint32)
    for i in range(sets):
        length = offsets[i + 1] - offsets[i]
        for j in range(length):
            mixed[j] = mix32(hashes[offsets[i] + j])
        sort_distinct(mixed[:length], scratch)
        values[ends[i] : ends[i + 1]] = mixed[: ends[i + 1] - ends[i]]
    return values, ends


@numba.njit(nogil=True, cache=True)
def jaccard(a: np.ndarray, count_a: int, b: np.ndarray, count_b: int, k: int) -> tuple[float, float]:
    """Measure the Jaccard similarity of two sets from their sketches: (similarity, standard error), float64.

    a, b: sketches of size k, uint32, ascending; count_a, count_b: sizes of the whole sets. Where neither count exceeds
    k the similarity is exact and the error 0. Else it is the share of the k smallest values of the union that both sets
    hold (bottom-k sketch: Broder 1997; Cohen and Kaplan 2007), never above the ratio of the counts. Its error is that
    of k draws without replacement from the union, with one success and one failure added (Laplace), so it is never 0.
    Two empty sets have similarity 0: nothing speaks for their being copies. Compiled; kernels may call it.
    """
    exact = count_a <= k and count_b <= k
    limit = a.shape[0] + b.shape[0] if exact else k
    i, j, seen, shared = 0, 0, 0, 0
    while seen < limit and (i < a.shape[0] or j < b.shape[0]):
        if j == b.shape[0] or (i < a.shape[0] and a[i] < b[j]):
            i += 1
        elif i == a.shape[0] or b[j] < a[i]:
            j += 1
        else:
            i += 1
            j += 1
            shared += 1
        seen += 1
    if seen == 0:
        return 0.0, 0.0
    if exact:
        return shared / seen, 0.0
    similarity = min(shared / seen, min(count_a, count_b) / max(count_a, count_b))
    share = (shared + 1.0) / (seen + 2.0)
    union = max((count_a + count_b) / (1.0 + similarity), seen + 1.0)
    return similarity, math.sqrt(share * (1.0 - share) / seen * (union - seen) / (union - 1.0))
