"""Verify that two images are copies of one another, from their thumbnails alone.

The detail of 16 × 16 cells, grey values less the mean around them, says which view of one image the other may be; this
view is shifted and scaled until it fits best, and then the detail of 32 × 32 cells decides (see
`pipelines.images.detail`). A copy keeps its detail, other photographs of the same thing do not.

A box over a part of a copy, a watermark, spoils that; there the finer hash must agree, and the detail beside the box.
The limits were measured on Caltech 101: see docs/images-dedupe.md.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from pipelines.images.detail import CELLS, RING, SCALE, detail_agreement, uncovered_agreement
from pipelines.images.hashing import WORDS, bit_count
from pipelines.images.views import FULL, SIDE, greys, integral, pictures, read_only, whole_box

NOT_SIMILAR, CORRELATED, COVERED = 0, 1, 2
COARSE = 16  # cells of a side, where views are compared to find the one that fits
_GATE = 0.8  # least correlation of coarse detail; copies were above 0.87, 95 % of the other candidates below 0.73
# The same of fine detail before the search for the best fit (copies: 0.62), and half way (copies: 0.93).
_DETAIL_GATES = (0.6, 0.9)
_STEPS = (164, 82, 41, 20)  # of the search for the best fit, in 1/256 pixel: 0.64 pixel at first
_MOVES = 6  # at most, with one step
_GAIN = 1e-5
_LEAST_SIDE = FULL // 2
_BESIDE = 4  # beside a box, tones and place are the same: so much less of the detail may differ there than elsewhere


class Limits(NamedTuple):
    """What a copy must reach. correlation: of the detail. local_change: most that the worst four of 64 blocks may
    contribute to what differs. hash_distance: most bits of 256 that differ where a box covers a part. uncovered:
    correlation of the detail beside it.
    """

    correlation: float
    local_change: float
    hash_distance: int
    uncovered: float


def coarse_views(thumbnails: np.ndarray, views: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Make what `compare` looks at first: the detail of views, int16[n, views, 256], and its norm, float64[n, views].

    thumbnails: uint8[n, 4096]. views: see `pipelines.images.views.view_table`; flips are left out. The detail is nine
    times a grey value less the 3 × 3 around it.
    """
    return _coarse(read_only(thumbnails), pictures(views))  # type: ignore[no-any-return]


@numba.njit(nogil=True, cache=True)
def _coarse(thumbnails, views):  # type: ignore[no-untyped-def]
    count, kinds = thumbnails.shape[0], views.shape[0]
    out, norms = np.empty((count, kinds, COARSE * COARSE), np.int16), np.empty((count, kinds), np.float64)
    sums, cells = np.empty((SIDE + 1, SIDE + 1), np.int32), np.empty((COARSE, COARSE), np.int64)
    values, across = np.empty((COARSE, COARSE), np.int32), np.empty((COARSE + 2, COARSE), np.int32)
    for i in range(count):
        turned = -1
        for v in range(kinds):
            if views[v, 4] != turned:
                turned = views[v, 4]
                integral(thumbnails[i], turned, sums)
            greys(sums, views[v], int(1), cells, values)
            squares = np.int64(0)
            for y in range(COARSE + 2):
                row = values[min(max(y - 1, 0), COARSE - 1)]  # at the edge the last row and column are repeated
                for x in range(1, COARSE - 1):
                    across[y, x] = row[x - 1] + row[x] + row[x + 1]
                across[y, 0] = 2 * row[0] + row[1]
                across[y, COARSE - 1] = row[COARSE - 2] + 2 * row[COARSE - 1]
            for y in range(COARSE):
                for x in range(COARSE):
                    value = 9 * values[y, x] - across[y, x] - across[y + 1, x] - across[y + 2, x]
                    out[i, v, y * COARSE + x] = value
                    squares += np.int64(value) * value
            norms[i, v] = np.sqrt(np.float64(squares))
    return out, norms


@numba.njit(nogil=True, cache=True)
def _agree(a, norm_a, b, norm_b):  # type: ignore[no-untyped-def]
    """Correlation of the detail of two coarse views; 0 where one has none."""
    product = np.int32(0)  # of at most 256 × 2040²: below 2^31
    for k in range(a.shape[0]):
        product += np.int32(a[k]) * np.int32(b[k])
    norm = norm_a * norm_b
    return product / norm if norm > 0 else 0.0


@numba.njit(nogil=True, cache=True)
def _best_view(whole, norm, views, norms):  # type: ignore[no-untyped-def]
    """The view that correlates best with a whole image, and that correlation."""
    best, found = 0, -2.0
    for v in range(views.shape[0]):
        value = _agree(whole, norm, views[v], norms[v])
        if value > found:
            best, found = v, value
    return best, found


@numba.njit(nogil=True, cache=True)
def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of the grey values inside the ring: int32[16, 16] or int32[32, 32] each."""
    inner = a.shape[0] - 2 * RING
    size = np.int64(inner * inner)
    # Sums are of at most 30² products of 1020²: below 2^30, and 32 bits go through vector instructions.
    sum_a, sum_b, aa, bb, ab = np.int32(0), np.int32(0), np.int32(0), np.int32(0), np.int32(0)
    for i in range(RING, RING + inner):
        one, other = a[i], b[i]
        for j in range(RING, RING + inner):
            x, y = one[j], other[j]
            sum_a, sum_b = np.int32(sum_a + x), np.int32(sum_b + y)
            aa, bb, ab = np.int32(aa + x * x), np.int32(bb + y * y), np.int32(ab + x * y)
    all_a, all_b = np.int64(sum_a), np.int64(sum_b)
    spread = np.sqrt(np.float64(size * aa - all_a * all_a)) * np.sqrt(np.float64(size * bb - all_b * all_b))
    return np.float64(size * ab - all_a * all_b) / spread if spread > 0 else 0.0


@numba.njit(nogil=True, cache=True)
def _fit(whole, sums, box, first, last, cells, tried):  # type: ignore[no-untyped-def]
    """Move the borders of a box until what it holds fits a whole image best, with steps `first` to `last`."""
    trial, moved = box.copy(), box.copy()
    greys(sums, box, int(SCALE), cells, tried)
    found = _correlation(whole, tried)
    for number in range(first, last):
        step = _STEPS[number]
        for _ in range(_MOVES):
            best = found + _GAIN
            for move in range(12):  # each border both ways, and the whole area four ways
                _move(box, move, step, trial)
                if _inside(trial):
                    greys(sums, trial, int(SCALE), cells, tried)
                    value = _correlation(whole, tried)
                    if value > best:
                        best, found = value, value
                        _copy(trial, moved)
            if best != found:
                break
            _copy(moved, box)


@numba.njit(nogil=True, cache=True)
def _copy(box, out):  # type: ignore[no-untyped-def]
    for k in range(4):  # compiles in a tenth of the time of `out[:] = box`, which can fail and then says why
        out[k] = box[k]


@numba.njit(nogil=True, cache=True)
def _move(box, move, step, out):  # type: ignore[no-untyped-def]
    _copy(box, out)
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
def _fitted(own, whole, sums, start, cells, limits):  # type: ignore[no-untyped-def]
    """Correlation of the detail of a whole image and a view that is made to fit; -1 where that is not good enough.

    own, sums: integrals of the whole image and of the other one. whole: grey values of the former. It is fitted until
    it is good enough, and no longer.
    """
    fitted, box = np.empty((CELLS, CELLS), np.int32), start.copy()
    few, few_cells = np.empty((COARSE, COARSE), np.int32), np.empty((COARSE, COARSE), np.int64)
    greys(own, whole_box(), int(SCALE), few_cells, few)
    tried, last, good = np.empty((COARSE, COARSE), np.int32), len(_STEPS) - 1, -1.0
    for stage in range(3):  # as it is, fitted on few cells, and on all: a loop, since compilers copy what is called
        if stage > 0:
            first, grid, room, trial = (0, few, few_cells, tried) if stage == 1 else (last, whole, cells, fitted)
            _fit(grid, sums, box, first, last if stage == 1 else last + 1, room, trial)
        greys(sums, box, int(SCALE), cells, fitted)
        found = detail_agreement(whole, fitted)
        good = _accepted(found, limits[0], limits[1])
        if good >= 0 or stage == 2 or found[0] < _DETAIL_GATES[stage]:
            break
    return good


@numba.njit(nogil=True, cache=True)
def hash_distance(a: np.ndarray, b: np.ndarray) -> int:
    """Count the bits in which two 256-bit hashes differ, in compiled code."""
    distance = 0
    for word in range(WORDS):
        distance += bit_count(a[word] ^ b[word])
    return distance


@numba.njit(nogil=True, cache=True)
def resemble(a, b, data, limits):  # type: ignore[no-untyped-def]
    """Whether `compare` would look closer at two images: a quick test that what it finds similar always passes."""
    _, fine, coarse, norms = data
    if hash_distance(fine[a], fine[b]) <= limits[2]:
        return True
    if _best_view(coarse[a, 0], norms[a, 0], coarse[b], norms[b])[1] >= _GATE:
        return True
    return _best_view(coarse[b, 0], norms[b, 0], coarse[a], norms[a])[1] >= _GATE


@numba.njit(nogil=True, cache=True)
def compare(a, b, data, views, limits):  # type: ignore[no-untyped-def]
    """Compare two images: (NOT_SIMILAR, CORRELATED or COVERED, similarity), in compiled code.

    a, b: their rows in `data`: thumbnails uint8[n, 4096] (read-only, or it is compiled anew), fine hashes uint64[n, 4],
    and both arrays of `coarse_views`.
    limits: Limits. The similarity is the correlation of the detail, or where a part is covered the share of equal bits
    of the fine hash. It does not depend on which of the two is named first.
    """
    thumbnails, fine, coarse, norms = data
    view_b, fits_b = _best_view(coarse[a, 0], norms[a, 0], coarse[b], norms[b])
    view_a, fits_a = _best_view(coarse[b, 0], norms[b, 0], coarse[a], norms[a])
    distance = hash_distance(fine[a], fine[b])
    if max(fits_a, fits_b) < _GATE and distance > limits[2]:
        return NOT_SIMILAR, 0.0
    sums_a, sums_b = np.empty((SIDE + 1, SIDE + 1), np.int32), np.empty((SIDE + 1, SIDE + 1), np.int32)
    cells = np.empty((CELLS, CELLS), np.int64)
    whole_a, whole_b = np.empty((CELLS, CELLS), np.int32), np.empty((CELLS, CELLS), np.int32)
    box = whole_box()
    integral(thumbnails[a], int(0), sums_a)
    integral(thumbnails[b], int(0), sums_b)
    greys(sums_a, box, int(SCALE), cells, whole_a)
    greys(sums_b, box, int(SCALE), cells, whole_b)
    best = _accepted(detail_agreement(whole_a, whole_b), limits[0], limits[1])
    if best < 0 and max(fits_a, fits_b) >= _GATE:
        turned = np.empty((SIDE + 1, SIDE + 1), np.int32)
        for turn in range(2):
            fits, rest = (fits_b, fits_a) if turn == 0 else (fits_a, fits_b)
            if fits >= rest:
                own, whole, other = (sums_a, whole_a, b) if turn == 0 else (sums_b, whole_b, a)
                view = views[view_b if turn == 0 else view_a]
                integral(thumbnails[other], view[4], turned)
                best = max(best, _fitted(own, whole, turned, view[:4], cells, limits))
    if best >= 0:
        return CORRELATED, best
    if distance <= limits[2] and _accepted(uncovered_agreement(whole_a, whole_b), limits[3], limits[1] / _BESIDE) >= 0:
        return COVERED, 1.0 - distance / (64 * WORDS)
    return NOT_SIMILAR, 0.0


@numba.njit(nogil=True, cache=True)
def _accepted(agreement, least, most):  # type: ignore[no-untyped-def]
    """The correlation, where both it and what differs locally are good enough; else -1."""
    return agreement[0] if agreement[0] >= least and agreement[1] <= most else -1.0
