"""How well two images agree in detail: in grey values less the mean around them, once their tones are made the same.

Grey values correlate well between any two objects before a white wall. Detail does not. One image is given the other's
histogram, which undoes brightness, contrast, gamma and clipping, and is blurred or sharpened to match it, by least
squares on its detail and the mean of that over 3 × 3. What remains differs everywhere a little in a copy, by what an
encoder or a scaling did; in another photograph of the same thing it differs much in a few places. So two numbers say
how well they agree: the correlation, and how much the worst four of 64 blocks contribute to the difference.

The outermost cells take no part: where a copy has a frame, they hold some of it.
"""

from __future__ import annotations

import numba
import numpy as np

CELLS = 32  # of a side
SCALE = 4  # parts of a grey level
RING = 1  # cells at each side that take no part
_LEVELS = 255 * SCALE + 1
_REACH = 2  # cells around one that its local mean is of
_BLOCK, _BLOCKS = 4, CELLS // 4  # cells of a block's side, blocks of a side
_WORST = 4  # blocks whose share of the difference counts
_BOX = 20  # blocks that a watermark may cover, with the detail that it spoils around it
# Share of the detail that is beside the box: of photographs under a watermark 0.35 to 0.9, of nine in ten that are on
# a mat of twice their size 0.33 or less.
_BESIDE = 0.35
_NOTHING = 1e-6  # squares of detail below this are what rounding leaves of one colour
_SHARPEN, _BLUR = -0.4, 4.0  # most that the mean of 3 × 3 weighs, for each unit of the detail itself


@numba.njit(nogil=True, cache=True)
def detail_agreement(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Correlation of the detail of two images, and the share of their worst four blocks in what differs.

    a, b: int32[32, 32], grey values × 4. Each is given the other's tones and sharpness in turn; the better correlation
    counts. The share is of the detail: 0 where they are equal, at most 2. (0, 0) where one has no detail.
    """
    inner_a, inner_b = a[RING : CELLS - RING, RING : CELLS - RING], b[RING : CELLS - RING, RING : CELLS - RING]
    size = CELLS - 2 * RING
    toned, fitted = np.empty((size, size), np.float64), np.empty((size, size), np.float64)
    given, plain = np.empty((size, size), np.float64), np.empty((size, size), np.float64)
    blocks = np.empty((_BLOCKS * _BLOCKS, 3), np.float64)
    best, worst = -1.0, 0.0
    for turn in range(2):
        one, two = (inner_a, inner_b) if turn == 0 else (inner_b, inner_a)
        _toned(one, two, toned)
        _copy(two, given)  # as floats: each kernel below is compiled for one type of array
        _detail(toned, fitted)
        _detail(given, plain)
        _sharpened(fitted, plain)
        _block_sums(fitted, plain, blocks)
        found = _cosine(blocks)
        if found > best:
            best, worst = found, _worst_blocks(blocks)
    return best, worst


@numba.njit(nogil=True, cache=True)
def _copy(values, out):  # type: ignore[no-untyped-def]
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            out[i, j] = values[i, j]


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
def _box(values, reach, out):  # type: ignore[no-untyped-def]
    """Write the mean of the values around each; at the edge the last row and column are repeated."""
    size, wide = values.shape[0], 2 * reach + 1
    row, across = np.empty(size + 2 * reach, np.float64), np.empty((size + 2 * reach, size), np.float64)
    for i in range(size + 2 * reach):
        source, target = values[min(max(i - reach, 0), size - 1)], across[i]
        for j in range(reach):
            row[j], row[reach + size + j] = source[0], source[size - 1]
        for j in range(size):
            row[reach + j] = source[j]
        for j in range(size):
            target[j] = row[j]
        for k in range(1, wide):  # whole rows at a time, which the compiler turns into vector instructions
            for j in range(size):
                target[j] += row[j + k]
    for i in range(size):
        target = out[i]
        for j in range(size):
            target[j] = across[i, j]
        for k in range(1, wide):
            for j in range(size):
                target[j] += across[i + k, j]
        for j in range(size):
            target[j] /= wide * wide


@numba.njit(nogil=True, cache=True)
def _detail(values, out):  # type: ignore[no-untyped-def]
    """Subtract from each value the mean of the 5 × 5 around it."""
    _box(values, _REACH, out)
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            out[i, j] = values[i, j] - out[i, j]


@numba.njit(nogil=True, cache=True)
def _sharpened(a, b):  # type: ignore[no-untyped-def]
    """Blur or sharpen detail `a`, in place, until it fits `b` best; leave it where nothing sensible fits."""
    size = a.shape[0]
    smooth = np.empty((size, size), np.float64)
    _box(a, 1, smooth)
    aa, as_, ss, ab, sb = 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(size):
        for j in range(size):
            x, s, y = a[i, j], smooth[i, j], b[i, j]
            aa += x * x
            as_ += x * s
            ss += s * s
            ab += x * y
            sb += s * y
    own, mean = ab * ss - sb * as_, sb * aa - ab * as_  # the solution, times the determinant
    if own <= 0 or aa * ss - as_ * as_ <= 1e-9 * aa * ss:
        return
    weight = min(max(mean / own, _SHARPEN), _BLUR)
    for i in range(size):
        for j in range(size):
            a[i, j] += weight * smooth[i, j]


@numba.njit(nogil=True, cache=True)
def _block_sums(a, b, blocks):  # type: ignore[no-untyped-def]
    """Write for each block of cells the sums of a × b, a × a and b × b; without the ring, outer blocks have fewer."""
    ring = (CELLS - a.shape[0]) // 2
    blocks[:] = 0
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            block = blocks[(i + ring) // _BLOCK * _BLOCKS + (j + ring) // _BLOCK]
            block[0] += a[i, j] * b[i, j]
            block[1] += a[i, j] * a[i, j]
            block[2] += b[i, j] * b[i, j]


@numba.njit(nogil=True, cache=True)
def _totals(blocks):  # type: ignore[no-untyped-def]
    ab, aa, bb = 0.0, 0.0, 0.0
    for k in range(len(blocks)):
        ab += blocks[k, 0]
        aa += blocks[k, 1]
        bb += blocks[k, 2]
    return ab, aa, bb


@numba.njit(nogil=True, cache=True)
def _cosine(blocks):  # type: ignore[no-untyped-def]
    ab, aa, bb = _totals(blocks)
    return min(1.0, ab / (np.sqrt(aa) * np.sqrt(bb))) if min(aa, bb) > _NOTHING else 0.0


@numba.njit(nogil=True, cache=True)
def _worst_blocks(blocks):  # type: ignore[no-untyped-def]
    """What the worst blocks contribute to half the squared difference of two details that are scaled to norm 1."""
    _, aa, bb = _totals(blocks)
    if min(aa, bb) <= _NOTHING:
        return 0.0
    differing = np.empty(len(blocks), np.float64)
    for k in range(len(blocks)):
        differing[k] = blocks[k, 1] / aa + blocks[k, 2] / bb - 2 * blocks[k, 0] / (np.sqrt(aa) * np.sqrt(bb))
    differing.sort()
    total = 0.0
    for k in range(_WORST):
        total += differing[len(blocks) - 1 - k]
    return max(0.0, total / 2)


@numba.njit(nogil=True, cache=True)
def uncovered_agreement(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Agreement of the detail of two images beside the box, of at most 20 of the 8 × 8 blocks, that hides most.

    a, b: int32[32, 32], grey values × 4. The correlation and the share of the worst four blocks, as `detail_agreement`
    gives them, of all blocks beside the box; (0, 0) where one has no detail, or both have most of it under the box: two
    photographs on the same wide mat agree beside them. Tones and sharpness are taken as they are: what they would be
    fitted to has the box in it.
    """
    detail_a, detail_b = np.empty(a.shape, np.float64), np.empty(a.shape, np.float64)
    blocks = np.empty((_BLOCKS * _BLOCKS, 3), np.float64)
    _detail(a.astype(np.float64), detail_a)
    _detail(b.astype(np.float64), detail_b)
    _block_sums(detail_a, detail_b, blocks)
    beside = _best_beside(blocks)
    (_, all_a, all_b), (_, beside_a, beside_b) = _totals(blocks), _totals(beside)
    if beside_a < _BESIDE * all_a and beside_b < _BESIDE * all_b:
        return 0.0, 0.0
    return _cosine(beside), _worst_blocks(beside)


@numba.njit(nogil=True, cache=True)
def _best_beside(blocks):  # type: ignore[no-untyped-def]
    """The sums of the blocks beside that box without which the others agree best: those inside are 0."""
    sums = np.zeros((_BLOCKS + 1, _BLOCKS + 1, 3), np.float64)  # of all blocks above and left
    for i in range(_BLOCKS):
        for j in range(_BLOCKS):
            for k in range(3):
                value = blocks[i * _BLOCKS + j, k]
                sums[i + 1, j + 1, k] = value + sums[i, j + 1, k] + sums[i + 1, j, k] - sums[i, j, k]
    beside, best, box = np.empty((1, 3), np.float64), -1.0, (0, 0, 0, 0)
    for top in range(_BLOCKS):
        for left in range(_BLOCKS):
            for high in range(1, _BLOCKS - top + 1):
                for wide in range(1, min(_BLOCKS - left, _BOX // high) + 1):
                    low, right = top + high, left + wide
                    for k in range(3):
                        inside = sums[low, right, k] - sums[top, right, k] - sums[low, left, k] + sums[top, left, k]
                        beside[0, k] = sums[_BLOCKS, _BLOCKS, k] - inside
                    found = _cosine(beside)
                    if found > best:
                        best, box = found, (top, left, low, right)
    out = blocks.copy()
    for i in range(box[0], box[2]):
        for j in range(box[1], box[3]):
            out[i * _BLOCKS + j] = 0
    return out
