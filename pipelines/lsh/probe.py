"""Know which hashes new documents have, in a few bits each: what old documents need not shuffle."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass

import numba
import numpy as np

from pipelines.core import files
from pipelines.core.shards import write_bytes
from pipelines.text.minhash import band_hash

_BITS = 32  # for each hash: one in 32 others is taken for one that is held
_LARGEST = 33  # log2 of the most bits: 1 GiB


def _offset(band: int) -> np.uint64:
    return np.uint64(0x9E3779B97F4A7C15 * (band + 2) & (1 << 64) - 1)  # Knuth 6.4: each band has its own


# The lower bits of a hash are free: ranges are cut by the upper ones.


@numba.njit(nogil=True, cache=True, inline="always")
def _is_set(bits: np.ndarray, hash_: np.uint64, offset: np.uint64, mask: np.uint64) -> bool:
    place = (hash_ + offset) & mask
    return (bits[place >> np.uint64(3)] >> np.uint8(place & np.uint64(7))) & np.uint8(1) != 0


@numba.njit(nogil=True, cache=True)
def _may_hold(bits: np.ndarray, hashes: np.ndarray, offset: np.uint64, mask: np.uint64) -> np.ndarray:
    found = np.empty(len(hashes), np.bool_)
    for i in range(len(hashes)):
        found[i] = _is_set(bits, hashes[i], offset, mask)
    return found


@numba.njit(nogil=True, cache=True)
def _bands_held(bits, signatures, taking, first, offsets, rows, mask):  # type: ignore[no-untyped-def]
    most, count = len(signatures) * len(offsets), 0
    bands, hashes, places = np.empty(most, np.int64), np.empty(most, np.uint64), np.empty(most, np.int64)
    for i in range(len(signatures)):
        if taking[i]:
            for k in range(len(offsets)):
                hash_ = band_hash(signatures[i], first + k, rows)
                if _is_set(bits, hash_, offsets[k], mask):
                    bands[count], hashes[count], places[count] = first + k, hash_, i
                    count += 1
    return bands[:count], hashes[:count], places[:count]


@numba.njit(nogil=True, cache=True)
def _put(bits: np.ndarray, hashes: np.ndarray, offset: np.uint64, mask: np.uint64) -> None:
    for i in range(len(hashes)):
        place = (hashes[i] + offset) & mask
        bits[place >> np.uint64(3)] |= np.uint8(1) << np.uint8(place & np.uint64(7))


@dataclass(frozen=True)
class Probe:
    """A Bloom filter of one function over (band, hash), in a file that every worker reads."""

    path: str
    log2_bits: int

    def may_hold(self, band: int, hashes: np.ndarray) -> np.ndarray:
        """Whether each hash may be one of those put in: bool[n]; never False for one that was."""
        return _may_hold(_bits(self.path), hashes, _offset(band), np.uint64((1 << self.log2_bits) - 1))

    def bands_held(
        self, signatures: np.ndarray, taking: np.ndarray, bands: range, rows: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Hash the bands of signatures and keep those of which `may_hold` is true.

        signatures: uint32[n, permutations]. taking: bool[n], the rows to look at. Returns band int64[m], hash uint64[m]
        and row int64[m] of each, by ascending row.
        """
        offsets = np.array([_offset(band) for band in bands], np.uint64)
        mask = np.uint64((1 << self.log2_bits) - 1)
        return _bands_held(_bits(self.path), signatures, taking, bands.start, offsets, rows, mask)  # type: ignore[no-any-return]


@functools.lru_cache(maxsize=1)
def _bits(path: str) -> np.ndarray:
    if files.is_local(path):
        return np.asarray(np.memmap(path, np.uint8, "r"))
    with files.open_read(path) as source:
        return np.frombuffer(source.read(), np.uint8)


class ProbeWriter:
    """Collect hashes for a Probe; memory: 4 bytes for each expected hash, at most 1 GiB."""

    def __init__(self, expected: int) -> None:
        self._log2_bits = min(_LARGEST, max(10, (max(1, expected) * _BITS - 1).bit_length()))
        self._bits = np.zeros(1 << (self._log2_bits - 3), np.uint8)

    def add(self, band: int, hashes: np.ndarray) -> None:
        """Put in the hashes of one band: uint64[n]."""
        _put(self._bits, hashes, _offset(band), np.uint64((1 << self._log2_bits) - 1))

    def write(self, folder: str) -> Probe:
        """Write the filter into a folder, under a name of its content (workers keep it by name)."""
        path = files.join(folder, f"probe-{hashlib.sha256(self._bits.data).hexdigest()}.bin")
        write_bytes(path, self._bits.tobytes())
        return Probe(path, self._log2_bits)
