"""Verify that two images are copies of one another, from their thumbnails alone.

Grey values of 32 × 32 cells correlate well between any two objects before a white wall, so they only say where to look:
at which view of one image the other lies, and how it must be shifted and scaled to fit best. What decides is the detail
there: the values less their local mean, after one image was given the other's tones (its histogram: that undoes
brightness, contrast, gamma and clipping). A copy keeps its detail, other photographs of the same thing do not.

What covers a part of a copy, a watermark box, spoils that; there the finer hash must agree, and the detail of the three
quarters of the area that agree best. The limits were measured on Caltech 101: see docs/images-dedupe.md.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from pipelines.images.hashing import WORDS, bit_count
from pipelines.images.views import FULL, SIDE, greys, integral

NOT_SIMILAR, CORRELATED, COVERED = 0, 1, 2
COARSE = 16  # cells of a side, where views are compared to find the one that fits
CELLS = 32  # of a side, where detail is compared
SCALE = 4  # parts of a grey level
_LEVELS = 255 * SCALE + 1
_GATE = 0.8  # least correlation of grey values that is looked into; copies were above 0.87
_DETAIL_GATES = (0.5, 0.75)  # least correlation of detail before the search for the best fit, and half way
_STEPS = (164, 82, 41, 20)  # of the search for the best fit, in 1/256 pixel: 0.64 pixel at first; the last is on CELLS
_MOVES = 6  # at most, with one step
_GAIN = 1e-5
_LEAST_SIDE = FULL // 2
_REACH = 2  # cells around one that its local mean is of
_BLOCK, _BLOCKS = 4, CELLS // 4  # cells of a block's side, blocks of a side
_LEFT_OUT = _BLOCKS * _BLOCKS // 4  # blocks that may be covered


class Limits(NamedTuple):
    """What a copy must reach. correlation: of the detail. hash_distance: most bits of 256 that differ where a part is
    covered. uncovered: correlation of the detail of the other parts there.
    """

    correlation: float
    hash_distance: int
    uncovered: float


def coarse_views(thumbnails: np.ndarray, views: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Make what `compare` looks at first: grey values uint8[n, views, 256], and sum and spread float64[n, views, 2].

    thumbnails: uint8[n, 4096]. views: see `pipelines.images.views.view_table`.
    """
    return _coarse(thumbnails, views)  # type: ignore[no-any-return]


@numba.njit(nogil=True, cache=True)
def _coarse(thumbnails, views):  # type: ignore[no-untyped-def]
    count, kinds = thumbnails.shape[0], views.shape[0]
    out, moments = np.empty((count, kinds, COARSE * COARSE), np.uint8), np.empty((count, kinds, 2), np.float64)
    sums, cells = np.empty((SIDE + 1, SIDE + 1), np.int64), np.empty((COARSE, COARSE), np.int64)
    values = np.empty((COARSE, COARSE), np.int32)
    for i in range(count):
        turned = -1
        for v in range(kinds):
            if views[v, 4] != turned:
                turned = views[v, 4]
                integral(thumbnails[i], turned, sums)
            greys(sums, views[v, 0], views[v, 1], views[v, 2], views[v, 3], 1, cells, values)
            total, squares = np.int64(0), np.int64(0)
            for k in range(COARSE * COARSE):
                value = values[k // COARSE, k % COARSE]
                out[i, v, k] = value
                total += value
                squares += value * value
            moments[i, v, 0] = total
            moments[i, v, 1] = np.sqrt(np.float64(COARSE * COARSE * squares - total * total))
    return out, moments


@numba.njit(nogil=True, cache=True)
def _agree(a, moments_a, b, moments_b):  # type: ignore[no-untyped-def]
    """Correlation of two coarse views; 0 where one has a single value."""
    product = np.int32(0)
    for k in range(a.shape[0]):
        product += np.int32(a[k]) * np.int32(b[k])
    spread = moments_a[1] * moments_b[1]
    return (a.shape[0] * product - moments_a[0] * moments_b[0]) / spread if spread > 0 else 0.0


@numba.njit(nogil=True, cache=True)
def _best_view(whole, whole_moments, views, moments):  # type: ignore[no-untyped-def]
    """The view that correlates best with a whole image, and that correlation."""
    best, found = 0, -2.0
    for v in range(views.shape[0]):
        value = _agree(whole, whole_moments, views[v], moments[v])
        if value > found:
            best, found = v, value
    return best, found


@numba.njit(nogil=True, cache=True)
def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of grey values: int32[32, 32] each."""
    size = np.int64(a.size)
    sum_a, sum_b, aa, bb, ab = np.int64(0), np.int64(0), np.int64(0), np.int64(0), np.int64(0)
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            x, y = np.int64(a[i, j]), np.int64(b[i, j])
            sum_a += x
            sum_b += y
            aa += x * x
            bb += y * y
            ab += x * y
    spread = np.sqrt(np.float64(size * aa - sum_a * sum_a)) * np.sqrt(np.float64(size * bb - sum_b * sum_b))
    return np.float64(size * ab - sum_a * sum_b) / spread if spread > 0 else 0.0


@numba.njit(nogil=True, cache=True)
def _fit(whole, sums, box, steps, cells, tried):  # type: ignore[no-untyped-def]
    """Move the borders of a box until what it holds fits a whole image best: a fine grid wants fine steps."""
    trial, moved = box.copy(), box.copy()
    greys(sums, box[0], box[1], box[2], box[3], SCALE, cells, tried)
    found = _correlation(whole, tried)
    for step in steps:
        for _ in range(_MOVES):
            best = found + _GAIN
            for move in range(12):  # each border both ways, and the whole area four ways
                _move(box, move, step, trial)
                if _inside(trial):
                    greys(sums, trial[0], trial[1], trial[2], trial[3], SCALE, cells, tried)
                    value = _correlation(whole, tried)
                    if value > best:
                        best, found = value, value
                        moved[:] = trial
            if best != found:
                break
            box[:] = moved


@numba.njit(nogil=True, cache=True)
def _move(box, move, step, out):  # type: ignore[no-untyped-def]
    out[:] = box
    by = step if move % 2 else -step
    if move < 8:
        out[move // 2] += by
    else:
        axis = (move - 8) // 2
        out[axis] += by
        out[axis + 2] += by


@numba.njit(nogil=True, cache=True)
def _inside(box):  # type: ignore[no-untyped-def]
    for axis in range(2):
        if box[axis] < 0 or box[axis + 2] > FULL or box[axis + 2] - box[axis] < _LEAST_SIDE:
            return False
    return True


@numba.njit(nogil=True, cache=True)
def _toned(a, b, out):  # type: ignore[no-untyped-def]
    """Give the values of one image the histogram of another: a value becomes the mean of those of the same ranks."""
    have, give = np.zeros(_LEVELS, np.int64), np.zeros(_LEVELS, np.int64)
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            have[a[i, j]] += 1
            give[b[i, j]] += 1
    becomes = np.zeros(_LEVELS, np.float64)
    level, left = 0, give[0]
    for value in range(_LEVELS):
        wanted, total = have[value], np.int64(0)
        while wanted > 0:
            while left == 0:
                level += 1
                left = give[level]
            taken = min(wanted, left)
            total += taken * level
            wanted -= taken
            left -= taken
        if have[value] > 0:
            becomes[value] = total / have[value]
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            out[i, j] = becomes[a[i, j]]


@numba.njit(nogil=True, cache=True)
def _detail(values, out):  # type: ignore[no-untyped-def]
    """Subtract from each value the mean of the 5 × 5 around it; at the edge the last row and column are repeated."""
    size = values.shape[0]
    across = np.empty((size, size), np.float64)
    for i in range(size):
        for j in range(size):
            total = 0.0
            for k in range(-_REACH, _REACH + 1):
                total += values[i, min(max(j + k, 0), size - 1)]
            across[i, j] = total
    for i in range(size):
        for j in range(size):
            total = 0.0
            for k in range(-_REACH, _REACH + 1):
                total += across[min(max(i + k, 0), size - 1), j]
            out[i, j] = values[i, j] - total / ((2 * _REACH + 1) * (2 * _REACH + 1))


@numba.njit(nogil=True, cache=True)
def _fitted_detail(own, whole, sums, start, cells):  # type: ignore[no-untyped-def]
    """Correlation of detail of a whole image and a view that was made to fit; -1 where that is not worth the search.

    own, sums: integrals of the whole image and of the other one. whole: grey values of the former.
    """
    fitted = np.empty((CELLS, CELLS), np.int32)
    greys(sums, start[0], start[1], start[2], start[3], SCALE, cells, fitted)
    if detail_correlation(whole, fitted) < _DETAIL_GATES[0]:
        return -1.0
    box = start.copy()
    few, few_cells = np.empty((COARSE, COARSE), np.int32), np.empty((COARSE, COARSE), np.int64)
    greys(own, 0, 0, FULL, FULL, SCALE, few_cells, few)
    _fit(few, sums, box, _STEPS[:-1], few_cells, np.empty((COARSE, COARSE), np.int32))
    greys(sums, box[0], box[1], box[2], box[3], SCALE, cells, fitted)
    if detail_correlation(whole, fitted) < _DETAIL_GATES[1]:
        return -1.0
    _fit(whole, sums, box, _STEPS[-1:], cells, fitted)
    greys(sums, box[0], box[1], box[2], box[3], SCALE, cells, fitted)
    return detail_correlation(whole, fitted)


@numba.njit(nogil=True, cache=True)
def _cosine(a, b):  # type: ignore[no-untyped-def]
    ab, aa, bb = 0.0, 0.0, 0.0
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            ab += a[i, j] * b[i, j]
            aa += a[i, j] * a[i, j]
            bb += b[i, j] * b[i, j]
    return ab / (np.sqrt(aa) * np.sqrt(bb)) if aa > 0 and bb > 0 else 0.0


@numba.njit(nogil=True, cache=True)
def detail_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of the detail of two images, each given the other's tones in turn, the better of the two.

    a, b: int32[32, 32], grey values × 4. 0 where one has no detail.
    """
    plain, toned = np.empty(a.shape, np.float64), np.empty(a.shape, np.float64)
    other = np.empty(a.shape, np.float64)
    best = -1.0
    for one, two in ((a, b), (b, a)):
        _toned(one, two, other)
        _detail(other, toned)
        for i in range(two.shape[0]):
            for j in range(two.shape[1]):
                other[i, j] = two[i, j]
        _detail(other, plain)
        best = max(best, _cosine(toned, plain))
    return best


@numba.njit(nogil=True, cache=True)
def uncovered_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of the detail of two images in those three quarters of their 8 × 8 blocks that agree best.

    a, b: int32[32, 32], grey values × 4. 0 where one has no detail.
    """
    detail_a, detail_b = np.empty(a.shape, np.float64), np.empty(a.shape, np.float64)
    _detail(a.astype(np.float64), detail_a)
    _detail(b.astype(np.float64), detail_b)
    blocks = np.zeros((_BLOCKS * _BLOCKS, 3), np.float64)
    for i in range(CELLS):
        for j in range(CELLS):
            block = blocks[i // _BLOCK * _BLOCKS + j // _BLOCK]
            block[0] += detail_a[i, j] * detail_b[i, j]
            block[1] += detail_a[i, j] * detail_a[i, j]
            block[2] += detail_b[i, j] * detail_b[i, j]
    aa, bb = blocks[:, 1].sum(), blocks[:, 2].sum()
    if aa <= 0 or bb <= 0:
        return 0.0
    differs = blocks[:, 1] / aa + blocks[:, 2] / bb - 2 * blocks[:, 0] / (np.sqrt(aa) * np.sqrt(bb))
    rest = blocks[np.argsort(differs, kind="mergesort")[: len(differs) - _LEFT_OUT]]
    aa, bb = rest[:, 1].sum(), rest[:, 2].sum()
    return rest[:, 0].sum() / (np.sqrt(aa) * np.sqrt(bb)) if aa > 0 and bb > 0 else 0.0


@numba.njit(nogil=True, cache=True)
def hash_distance(a: np.ndarray, b: np.ndarray) -> int:
    """Count the bits in which two 256-bit hashes differ, in compiled code."""
    distance = 0
    for word in range(WORDS):
        distance += bit_count(a[word] ^ b[word])
    return distance


@numba.njit(nogil=True, cache=True)
def compare(a, b, data, views, limits):  # type: ignore[no-untyped-def]
    """Compare two images: (NOT_SIMILAR, CORRELATED or COVERED, similarity), in compiled code.

    a, b: their rows in `data`: thumbnails uint8[n, 4096], fine hashes uint64[n, 4], and both arrays of `coarse_views`.
    limits: Limits. The similarity is the correlation of the detail, or where a part is covered the share of equal bits
    of the fine hash. It does not depend on which of the two is named first.
    """
    thumbnails, fine, coarse, moments = data
    view_b, fits_b = _best_view(coarse[a, 0], moments[a, 0], coarse[b], moments[b])
    view_a, fits_a = _best_view(coarse[b, 0], moments[b, 0], coarse[a], moments[a])
    distance = hash_distance(fine[a], fine[b])
    if max(fits_a, fits_b) < _GATE and distance > limits[1]:
        return NOT_SIMILAR, 0.0
    sums_a, sums_b = np.empty((SIDE + 1, SIDE + 1), np.int64), np.empty((SIDE + 1, SIDE + 1), np.int64)
    cells = np.empty((CELLS, CELLS), np.int64)
    whole_a, whole_b = np.empty((CELLS, CELLS), np.int32), np.empty((CELLS, CELLS), np.int32)
    for row, sums, whole in ((a, sums_a, whole_a), (b, sums_b, whole_b)):
        integral(thumbnails[row], 0, sums)
        greys(sums, 0, 0, FULL, FULL, SCALE, cells, whole)
    best = detail_correlation(whole_a, whole_b)
    if best >= limits[0]:
        return CORRELATED, best
    if max(fits_a, fits_b) >= _GATE:
        turned = np.empty((SIDE + 1, SIDE + 1), np.int64)
        if fits_b >= fits_a:
            integral(thumbnails[b], views[view_b, 4], turned)
            best = max(best, _fitted_detail(sums_a, whole_a, turned, views[view_b, :4], cells))
        if fits_a >= fits_b:
            integral(thumbnails[a], views[view_a, 4], turned)
            best = max(best, _fitted_detail(sums_b, whole_b, turned, views[view_a, :4], cells))
        if best >= limits[0]:
            return CORRELATED, best
    if distance <= limits[1] and uncovered_correlation(whole_a, whole_b) >= limits[2]:
        return COVERED, 1.0 - distance / (64 * WORDS)
    return NOT_SIMILAR, 0.0


@numba.njit(nogil=True, cache=True)
def compare_pairs(left, right, data, views, limits):  # type: ignore[no-untyped-def]
    """Compare pairs of rows: int64[n] of what `compare` finds, and float64[n] similarities."""
    found, similarity = np.empty(len(left), np.int64), np.empty(len(left), np.float64)
    for k in range(len(left)):
        found[k], similarity[k] = compare(left[k], right[k], data, views, limits)
    return found, similarity
