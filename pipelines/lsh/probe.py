"""Know which buckets new documents have, in a few bits each: what old documents need not shuffle.

Each band has a filter of its own. That of the content is asked by the hash; those of signatures by a key of the first
rows of the band, which costs a fraction of its hash: nearly all old documents are turned away by that.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numba
import numpy as np

from pipelines.core import files
from pipelines.core.shards import write_bytes
from pipelines.text.minhash import band_hash

_BITS = 32  # for each hash: one in 32 others is taken for one that is held
_LARGEST = 33  # log2 of the most bits of all bands: 1 GiB
_KEY_ROWS = 4  # documents on other subjects agree in two rows often enough to pass a filter of thousands
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: Knuth 6.4


@numba.njit(nogil=True, cache=True, inline="always")
def _key(signature: np.ndarray, places: np.ndarray) -> np.uint64:
    key = np.uint64(0)
    for p in range(min(len(places), _KEY_ROWS)):
        key = (key ^ np.uint64(signature[places[p]])) * _MULTIPLIER
    return key >> np.uint64(64 - _LARGEST)


@numba.njit(nogil=True, cache=True)
def _keys(signatures: np.ndarray, places: np.ndarray) -> np.ndarray:
    out = np.empty(len(signatures), np.uint64)
    for i in range(len(signatures)):
        out[i] = _key(signatures[i], places)
    return out


@numba.njit(nogil=True, cache=True, inline="always")
def _is_set(bits: np.ndarray, hash_: np.uint64, mask: np.uint64) -> bool:
    place = hash_ & mask  # the lower bits of a hash are free: ranges are cut by the upper ones
    return (bits[place >> np.uint64(3)] >> np.uint8(place & np.uint64(7))) & np.uint8(1) != 0


@numba.njit(nogil=True, cache=True)
def _may_hold(bits: np.ndarray, hashes: np.ndarray, mask: np.uint64) -> np.ndarray:
    found = np.empty(len(hashes), np.bool_)
    for i in range(len(hashes)):
        found[i] = _is_set(bits, hashes[i], mask)
    return found


@numba.njit(nogil=True, cache=True)
def _bands_held(bits, signatures, taking, start, first, places, mask, hashes, nodes, counts):  # type: ignore[no-untyped-def]
    for i in range(len(signatures)):
        if taking[i]:
            for k in range(len(places)):
                if _is_set(bits[k], _key(signatures[i], places[k]), mask):
                    hashes[k, counts[k]] = band_hash(signatures[i], first + k, places[k])
                    nodes[k, counts[k]] = start + i
                    counts[k] += 1


@numba.njit(nogil=True, cache=True)
def _put(bits: np.ndarray, hashes: np.ndarray, mask: np.uint64) -> None:
    for i in range(len(hashes)):
        place = hashes[i] & mask
        bits[place >> np.uint64(3)] |= np.uint8(1) << np.uint8(place & np.uint64(7))


class Held:
    """What a Probe let through of at most `most` signatures, in some bands.

    places: of the bands, see `pipelines.text.minhash.band_places`.
    """

    def __init__(self, bands: range, places: np.ndarray, most: int) -> None:
        self.bands, self.places = bands, places
        self.hashes, self.nodes = np.empty((len(bands), most), np.uint64), np.empty((len(bands), most), np.int64)
        self.counts = np.zeros(len(bands), np.int64)

    def __iter__(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yield each band with its hashes, uint64[m], and nodes, int64[m], in the order of arrival."""
        for k, count in enumerate(self.counts.tolist()):
            yield self.bands[k], self.hashes[k, :count], self.nodes[k, :count]


@dataclass(frozen=True)
class Probe:
    """A Bloom filter of one function for each band from `first` on, in a file that every worker reads."""

    path: str
    first: int
    log2_bits: int

    @property
    def _mask(self) -> np.uint64:
        return np.uint64((1 << self.log2_bits) - 1)

    def _of(self, bands: range) -> np.ndarray:
        return _bits(self.path).reshape(-1, 1 << (self.log2_bits - 3))[bands.start - self.first :][: len(bands)]

    def may_hold(self, band: int, hashes: np.ndarray) -> np.ndarray:
        """Whether each hash may be one of those put in: bool[n]; never False for one that was."""
        return _may_hold(self._of(range(band, band + 1))[0], hashes, self._mask)

    def collect(self, signatures: np.ndarray, taking: np.ndarray, start: int, held: Held) -> None:
        """Hash those bands of signatures that may be one of those put in, and add them to `held`.

        signatures: uint32[n, permutations]. taking: bool[n], the rows to look at. start: node number of the first row.
        """
        bits, first = self._of(held.bands), held.bands.start
        kept = (held.hashes, held.nodes, held.counts)
        _bands_held(bits, signatures, taking, start, first, held.places, self._mask, *kept)


@functools.lru_cache(maxsize=1)
def _bits(path: str) -> np.ndarray:
    if files.is_local(path):
        return np.asarray(np.memmap(path, np.uint8, "r"))
    with files.open_read(path) as source:
        return np.frombuffer(source.read(), np.uint8)


class ProbeWriter:
    """Collect what a Probe knows; expected: documents. Memory: 4 to 8 bytes for each band of each, at most 1 GiB."""

    def __init__(self, expected: int, bands: range) -> None:
        most = _LARGEST - (len(bands) - 1).bit_length()
        self._first, self._log2_bits = bands.start, min(most, max(10, (max(1, expected) * _BITS - 1).bit_length()))
        self._bits = np.zeros((len(bands), 1 << (self._log2_bits - 3)), np.uint8)

    def add(self, band: int, hashes: np.ndarray) -> None:
        """Put in the hashes of one band: uint64[n]."""
        _put(self._bits[band - self._first], hashes, np.uint64((1 << self._log2_bits) - 1))

    def add_signed(self, signatures: np.ndarray, bands: range, places: np.ndarray) -> None:
        """Put in what `collect` asks for; signatures: uint32[n, permutations]."""
        for band, of_band in zip(bands, places, strict=True):
            self.add(band, _keys(signatures, of_band))

    def write(self, folder: str) -> Probe:
        """Write the filter into a folder, under a name of its content (workers keep it by name)."""
        path = files.join(folder, f"probe-{hashlib.sha256(self._bits.data).hexdigest()}.bin")
        write_bytes(path, self._bits.tobytes())
        return Probe(path, self._first, self._log2_bits)
