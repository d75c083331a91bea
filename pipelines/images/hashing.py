"""Difference hashes of the views of an image, and how much its grey values differ at all.

A bit of a difference hash says whether a cell of a grid is brighter than the one left of it (Krawetz 2013, "Kind of
like that"; imagehash's `dhash`). Here it must be brighter by more than a grey level, else the bits of an area of one
colour would be noise of the encoder.
"""

from __future__ import annotations

import numba
import numpy as np

from pipelines.images.views import FLIP, SIDE, areas, border, integral, read_only, whole_box

MARGIN = 1  # grey levels
BANDS, BAND_BITS = 4, 16  # of a 64-bit hash: two rows of its grid each, so that what covers a part leaves others whole
WORDS = 4  # of a 256-bit hash


def difference_hashes(thumbnails: np.ndarray, views: np.ndarray) -> np.ndarray:
    """Hash each view of each image to 64 bits: uint64[n, views].

    thumbnails: uint8[n, 4096]. views: see `pipelines.images.views.view_table`, flips after the whole, in order. The
    grid has 9 × 8 cells; the first bit, of the upper left cells, is the most significant.
    """
    return _hash_views(read_only(thumbnails), views)  # type: ignore[no-any-return]


def fine_hashes(thumbnails: np.ndarray) -> np.ndarray:
    """Hash each whole image to 256 bits, from a grid of 17 × 16 cells: uint64[n, 4]."""
    return _hash_fine(read_only(thumbnails))  # type: ignore[no-any-return]


def deviations(thumbnails: np.ndarray) -> np.ndarray:
    """The standard deviation of each thumbnail's grey values: float32[n]."""
    size = SIDE * SIDE
    sums, squares = _moments(read_only(thumbnails))
    return (np.sqrt((size * squares - sums**2).astype(np.float64)) / size).astype(np.float32)  # type: ignore[no-any-return]


@numba.njit(nogil=True, cache=True)
def _moments(thumbnails):  # type: ignore[no-untyped-def]
    """The sums of the values of each thumbnail, and of their squares: int64[n] each."""
    sums, squares = np.empty(len(thumbnails), np.int64), np.empty(len(thumbnails), np.int64)
    for i in range(len(thumbnails)):
        values, sum_, square = thumbnails[i], np.int32(0), np.int32(0)
        for k in range(len(values)):
            value = np.int32(values[k])
            sum_, square = np.int32(sum_ + value), np.int32(square + value * value)  # 4096 · 255²: below 2^28
        sums[i], squares[i] = sum_, square
    return sums, squares


def band_keys(hashes: np.ndarray, band: int) -> np.ndarray:
    """Turn hashes so that the bits of a band are the upper 16: uint64 of the same shape."""
    shift = np.uint64(BAND_BITS * band)
    return hashes << shift | hashes >> np.uint64((64 - BAND_BITS * band) % 64)


@numba.njit(nogil=True, cache=True)
def _bits(cells, box, words, doubt):  # type: ignore[no-untyped-def]
    """Write the bits, and how far each is from being the other one, in grey levels: float64[bits]."""
    left, top, right, bottom = box[0], box[1], box[2], box[3]
    rows, columns = cells.shape
    bit = 0
    for word in range(len(words)):
        words[word] = 0
    for i in range(rows):
        height = border(top, bottom, i + 1, rows) - border(top, bottom, i, rows)
        for j in range(columns - 1):
            here, middle = border(left, right, j, columns), border(left, right, j + 1, columns)
            wide, next_wide = middle - here, border(left, right, j + 2, columns) - middle
            # Cells differ in width by a 256th of a pixel: means are compared as fractions, in whole numbers.
            difference = cells[i, j + 1] * wide - cells[i, j] * next_wide
            limit = MARGIN * wide * next_wide * height
            if difference > limit:
                words[bit >> 6] |= np.uint64(1) << np.uint64(63 - (bit & 63))
            doubt[bit] = abs(difference - limit) / (wide * next_wide * height)
            bit += 1


@numba.njit(nogil=True, cache=True)
def _hash_views(thumbnails, views):  # type: ignore[no-untyped-def]
    count, kinds = thumbnails.shape[0], views.shape[0]
    out = np.empty((count, kinds), np.uint64)
    sums, cells = np.empty((SIDE + 1, SIDE + 1), np.int32), np.empty((8, 9), np.int64)
    words, doubt, least = np.empty(1, np.uint64), np.empty(64, np.float64), np.empty(64, np.float64)
    for i in range(count):
        turned = -1
        for v in range(kinds):
            if views[v, FLIP] > 0:
                out[i, v] = out[i, 0] ^ _least_certain(least)
                continue
            if views[v, 4] != turned:
                turned = views[v, 4]
                integral(thumbnails[i], turned, sums)
            areas(sums, views[v], cells)
            _bits(cells, views[v], words, doubt)
            out[i, v] = words[0]
            if v == 0:
                for bit in range(64):
                    least[bit] = doubt[bit]
    return out


@numba.njit(nogil=True, cache=True)
def _least_certain(doubt):  # type: ignore[no-untyped-def]
    """The least certain bit of each band, which is then taken for certain."""
    mask = np.uint64(0)
    for band in range(BANDS):
        first = BAND_BITS * band
        bit = first + np.argmin(doubt[first : first + BAND_BITS])
        doubt[bit] = np.inf
        mask |= np.uint64(1) << np.uint64(63 - bit)
    return mask


@numba.njit(nogil=True, cache=True)
def _hash_fine(thumbnails):  # type: ignore[no-untyped-def]
    count = thumbnails.shape[0]
    out = np.empty((count, WORDS), np.uint64)
    sums, cells = np.empty((SIDE + 1, SIDE + 1), np.int32), np.empty((16, 17), np.int64)
    doubt, box = np.empty(256, np.float64), whole_box()
    for i in range(count):
        integral(thumbnails[i], int(0), sums)
        areas(sums, box, cells)
        _bits(cells, box, out[i], doubt)
    return out


@numba.njit(nogil=True, cache=True, inline="always")
def bit_count(word: np.uint64) -> int:
    """Count the bits of a word that are set (Warren: Hacker's Delight, 5-1), in compiled code."""
    word = word - (word >> np.uint64(1) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + (word >> np.uint64(2) & np.uint64(0x3333333333333333))
    word = word + (word >> np.uint64(4)) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return int(word * np.uint64(0x0101010101010101) >> np.uint64(56))


@numba.njit(nogil=True, cache=True)
def share_band(a: np.uint64, b: np.uint64) -> bool:
    """Whether two hashes agree in all bits of some band, in compiled code."""
    differing = a ^ b
    low = np.uint64((1 << BAND_BITS) - 1)
    for band in range(BANDS):  # noqa: SIM110  numba compiles no generator in any()
        if differing >> np.uint64(BAND_BITS * band) & low == 0:
            return True
    return False
