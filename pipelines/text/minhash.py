"""MinHash signatures, band hashes, bottom-k sketches, and the Jaccard similarity that they measure.

Every function takes sets of 32-bit shingle hashes in the layout of an Arrow list column: flat values and row offsets,
distinct and ascending in each row, as `pipelines.text.shingles.shingle_hashes` gives them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numba
import numpy as np
import pyarrow as pa

from pipelines.text.shingles import check_size, fmix64, hash_tables, most_shingles, sort_distinct, text_hashes
from pipelines.text.unicode import utf8

EMPTY = 0xFFFFFFFF
_MOST_PERMUTATIONS, _LARGEST_SKETCH = 4096, 1 << 20  # more is a slip of the keyboard: 16 kB and 4 MB a document


@dataclass(frozen=True)
class MinHashConfig:
    """How near-duplicates are found: 14 bands of 8 rows (datatrove's defaults), cut twice: 98.6 % of the pairs at 0.8.

    cuts: how often a signature is cut into bands: once, as the peers do (that finds 92 %), or a second time across the
    first, which costs no further signing. target: choose bands and rows so that the share `recall` of the pairs of this
    similarity is found in one cut, with at most `most_permutations` of them (see `choose_bands`); bands, rows and cuts
    are then ignored. sketch_size: shingles of a document that verification compares; where both documents have no
    more, it is exact.
    """

    bands: int = 14
    rows: int = 8
    cuts: int = 2
    target: float | None = None
    recall: float = 0.98
    most_permutations: int = 128
    seed: int = 1
    sketch_size: int = 1024

    def __post_init__(self) -> None:
        """Raise ValueError where a size is not positive or the seed is not a 32-bit number."""
        if min(self.bands, self.rows, self.sketch_size, self.most_permutations) < 1:
            raise ValueError("bands, rows, sketch_size and most_permutations are at least 1")
        if max(self.num_perm, self.most_permutations) > _MOST_PERMUTATIONS or self.sketch_size > _LARGEST_SKETCH:
            raise ValueError(
                f"at most {_MOST_PERMUTATIONS:,} permutations (bands × rows) and a sketch_size of {_LARGEST_SKETCH:,}"
            )
        if self.cuts not in (1, 2):
            raise ValueError(f"cuts is 1 or 2; got {self.cuts}")
        if not 0 < self.recall < 1:
            raise ValueError(f"recall is a share above 0 and below 1; got {self.recall}")
        if not 0 <= self.seed < 1 << 32:
            raise ValueError(f"seed is a number from 0 to 2^32 - 1; got {self.seed}")
        if self.target is not None:
            bands, rows = choose_bands(self.target, self.recall, self.most_permutations)
            object.__setattr__(self, "bands", bands)
            object.__setattr__(self, "rows", rows)
            object.__setattr__(self, "cuts", 1)

    @property
    def num_perm(self) -> int:
        """Permutations of a signature: bands × rows."""
        return self.bands * self.rows

    @property
    def all_bands(self) -> int:
        """Bands of all cuts; with one band, or bands of one row, a second cut would only repeat the first."""
        return self.bands * (1 if min(self.bands, self.rows) == 1 else self.cuts)

    def s_curve(self, similarity: float) -> float:
        """Compute the probability that a pair of this Jaccard similarity is compared."""
        twice = self.all_bands > self.bands
        return (s_curve_of_two_cuts if twice else s_curve)(similarity, self.bands, self.rows)


def s_curve(similarity: float, bands: int, rows: int) -> float:
    """Compute the probability that a pair of this Jaccard similarity shares a band: 1 - (1 - s^rows)^bands.

    Source: Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, 3.4.2.
    """
    return 1.0 - (1.0 - similarity**rows) ** bands


def s_curve_of_two_cuts(similarity: float, bands: int, rows: int) -> float:
    """Compute the probability that a pair of this Jaccard similarity shares a band of either cut.

    Both cuts look at the same rows, so they miss together where few rows agree. For each number m of rows that agree,
    P(m, one cut finds nothing) is a coefficient of a polynomial; given m, the cuts are taken as independent (14 × 8:
    within 0.003 of drawing rows at random; 2 × 2: 0.04).
    """
    if not 0 < similarity < 1:
        return float(similarity >= 1)
    m = np.arange(rows + 1)
    ways = np.array([math.lgamma(rows + 1) - math.lgamma(one + 1) - math.lgamma(rows - one + 1) for one in m])
    agree = np.exp(ways + m * math.log(similarity) + (rows - m) * math.log1p(-similarity))
    short = agree * (m < rows)  # a band that is not full
    each, none = np.ones(1), np.ones(1)
    for _ in range(bands):
        each, none = np.convolve(each, agree), np.convolve(none, short)
    return max(0.0, 1.0 - float(np.sum(none * np.divide(none, each, out=np.zeros_like(none), where=each > 0))))


def choose_bands(target: float, recall: float, most: int) -> tuple[int, int]:
    """Choose (bands, rows) of at most `most` permutations: of those that find the share `recall` of the pairs at
    similarity `target`, the one that compares the fewest pairs below it, were all similarities as frequent.

    ValueError where no setting reaches that.
    """
    if not (0 < target <= 1 and 0 < recall < 1):
        raise ValueError(f"target and recall are above 0, target at most 1, recall below; got {target} and {recall}")
    steps = np.linspace(0, target, 257)
    best = None
    for rows in range(1, most + 1):
        for bands in range(1, most // rows + 1):
            if s_curve(target, bands, rows) >= recall:
                below = float(np.mean(1.0 - (1.0 - steps**rows) ** bands))
                best = min(best or (below, bands * rows, bands, rows), (below, bands * rows, bands, rows))
                break  # more bands of as many rows only compare more
    if best is None:
        raise ValueError(f"{most} permutations cannot find {recall:.2%} of the pairs at {target}; allow more")
    return best[2], best[3]


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


class Signed(NamedTuple):
    """signatures: uint32[n, num_perm]. counts: uint32[n], distinct shingles. sketches: values uint32, offsets int64."""

    signatures: np.ndarray
    counts: np.ndarray
    values: np.ndarray
    offsets: np.ndarray


def sign(texts: pa.Array, shingle_size: int, config: MinHashConfig) -> Signed:
    """Compute signatures and sketches of texts in one pass: those of `signatures` and `sketches` on `shingle_hashes`.

    Raises ValueError where shingle_size < 1.
    """
    check_size(shingle_size)
    data, offsets = utf8(texts)
    drawn = permutations(config.num_perm, config.seed)
    return Signed(*_sign(data, offsets, *hash_tables(), shingle_size, *drawn, config.sketch_size))


def band_hashes(signatures: np.ndarray, bands: int, rows: int, first: int = 0, last: int | None = None) -> np.ndarray:
    """Hash every band of every signature: uint64[bands, n]; documents that agree in all rows of a band share its hash.

    The band's number goes into the hash: two bands with equal rows have different hashes. first, last: only bands from
    `first` up to `last`; those from `bands` on are of the second cut, which takes row r of band b, in the order of
    (r, b), `rows` at a time. Raises ValueError where a signature is not bands × rows long.
    """
    if signatures.ndim != 2 or signatures.shape[1] != bands * rows:
        raise ValueError(f"expected signatures of {bands} × {rows} values; got an array of shape {signatures.shape}")
    last = bands if last is None else last
    signatures = np.ascontiguousarray(signatures, np.uint32).view()
    signatures.flags.writeable = False  # as those of an index that is mapped: the kernel is compiled once for both
    return _band_hashes(signatures, first, band_places(bands, rows, first, last))


def band_places(bands: int, rows: int, first: int, last: int) -> np.ndarray:
    """Where in a signature the rows of the bands from `first` up to `last` stand: int64[last - first, rows]."""
    along = np.arange(bands * rows).reshape(bands, rows)
    return np.concatenate([along, along.T.reshape(bands, rows)])[first:last]


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
def _minima(hashes: np.ndarray, factors: np.ndarray, increments: np.ndarray, row: np.ndarray) -> None:
    n, perms = hashes.shape[0], factors.shape[0]
    whole = n - n % 4
    for p in range(0, whole, 4):  # four at a time: a value of the row is loaded and stored once for them
        a, b = _fmix32(hashes[p]), _fmix32(hashes[p + 1])
        c, d = _fmix32(hashes[p + 2]), _fmix32(hashes[p + 3])
        for j in range(perms):  # the loop that the compiler vectorises
            f, i = factors[j], increments[j]
            ab = min(np.uint32(f * a + i), np.uint32(f * b + i))
            cd = min(np.uint32(f * c + i), np.uint32(f * d + i))
            row[j] = min(row[j], min(ab, cd))
    for p in range(whole, n):
        x = _fmix32(hashes[p])
        for j in range(perms):
            row[j] = min(row[j], np.uint32(factors[j] * x + increments[j]))


@numba.njit(nogil=True, cache=True)
def _signatures(hashes: np.ndarray, offsets: np.ndarray, factors: np.ndarray, increments: np.ndarray) -> np.ndarray:
    sets = offsets.shape[0] - 1
    out = np.full((sets, factors.shape[0]), np.uint32(EMPTY), np.uint32)
    for i in range(sets):
        _minima(hashes[offsets[i] : offsets[i + 1]], factors, increments, out[i])
    return out


@numba.njit(nogil=True, cache=True)
def _sign(data, offsets, info, fold, quick, size, factors, increments, k):  # type: ignore[no-untyped-def]
    sets, longest = offsets.shape[0] - 1, most_shingles(offsets)
    signed = np.full((sets, factors.shape[0]), np.uint32(EMPTY), np.uint32)
    counts, ends = np.zeros(sets, np.uint32), np.zeros(sets + 1, np.int64)
    bound = np.int64(0)
    for i in range(sets):
        bound += min((offsets[i + 1] - offsets[i]) // 2 + 1, k)
    values = np.empty(bound, np.uint32)
    hashes, scratch, ring = np.empty(longest, np.uint32), np.empty(longest, np.uint32), np.empty(size, np.uint64)
    for i in range(sets):
        used = text_hashes(data, offsets[i], offsets[i + 1], info, fold, quick, size, ring, hashes)
        _minima(hashes[:used], factors, increments, signed[i])
        for j in range(used):
            hashes[j] = mix32(hashes[j])
        counts[i] = sort_distinct(hashes[:used], scratch)
        ends[i + 1] = ends[i] + min(np.int64(counts[i]), k)
        values[ends[i] : ends[i + 1]] = hashes[: ends[i + 1] - ends[i]]
    return signed, counts, values[: ends[sets]].copy(), ends


@numba.njit(nogil=True, cache=True, inline="always")
def band_hash(signature: np.ndarray, band: int, places: np.ndarray) -> np.uint64:
    """Hash one band of one signature, in compiled code; places: int64[rows], see `band_places`."""
    state, whole = fmix64(np.uint64(band + 1)), len(places) - len(places) % 2
    for p in range(0, whole, 2):  # two values to a word: half the mixing
        low, high = np.uint64(signature[places[p]]), np.uint64(signature[places[p + 1]])
        state = fmix64(state ^ (low | high << np.uint64(32)))
    if whole < len(places):
        state = fmix64(state ^ np.uint64(signature[places[whole]]))
    return state


@numba.njit(nogil=True, cache=True)
def _band_hashes(signatures: np.ndarray, first: int, places: np.ndarray) -> np.ndarray:
    out = np.empty((len(places), len(signatures)), np.uint64)
    for i in range(len(signatures)):
        for k in range(len(places)):
            out[k, i] = band_hash(signatures[i], first + k, places[k])
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
