"""Views of an image: the whole of it, crops and turned copies, each an area of one small grey thumbnail.

Two images show the same thing where the whole of one looks like a view of the other. The borders of areas lie on a grid
of 1/256 pixel and their sums are whole numbers, so that all that is made of them is the same on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence

import numba
import numpy as np

from schemas.image import THUMBNAIL_SIDE

SIDE = THUMBNAIL_SIDE
UNIT = 256  # parts of a pixel that a border can lie on
FULL = SIDE * UNIT
CORNERS = (0.05, 0.10)  # of both sides that corner crops leave away
ONE_SIDE, TWO_SIDES = (0.05, 0.10, 0.15), (0.04, 0.08, 0.125, 0.17)  # of a side: at one end, and at both ends
FLIP = 5  # the column of a view that says which bit is flipped
_COLUMNS = 6  # of an array of views: left, top, right, bottom, turn, flip


def view_table(
    crops: Sequence[float],
    *,
    corners: bool = False,
    sides: bool = False,
    orientations: bool = False,
    flips: int = 0,
) -> np.ndarray:
    """List views: int64[n, 6] of left, top, right and bottom in 1/256 pixel, the turn before that, and the flip.

    crops: shares of a side that centred crops leave away at each end. corners: four crops for each of CORNERS, which
    leave away that share of both sides at the other end. sides: four for each of ONE_SIDE, which leave away that share
    at one side alone, and two for each of TWO_SIDES, which do so left and right or above and below. orientations: the
    other seven of the eight. The first view is the whole. turn: 0 to 3 quarter turns against the clock, 4 to 7 mirrored
    (left for right) before them. flips: so many times the whole again, at the end; number n has that bit of each band
    flipped in its hash that is the n-th least certain (Lv et al. 2007, "Multi-Probe LSH").
    """
    views = [(0, 0, FULL, FULL, 0, 0)]
    for share in crops:
        away = round(share * FULL)
        views.append((away, away, FULL - away, FULL - away, 0, 0))
    for share in CORNERS if corners else ():
        away = round(share * FULL)
        views += [(left, top, left + FULL - away, top + FULL - away, 0, 0) for top in (0, away) for left in (0, away)]
    views += _side_views() if sides else []
    views += [(0, 0, FULL, FULL, turn, 0) for turn in (range(1, 8) if orientations else ())]
    views += [(0, 0, FULL, FULL, 0, flip) for flip in range(1, flips + 1)]
    return np.array(views, np.int64).reshape(-1, _COLUMNS)


def _side_views() -> list[tuple[int, int, int, int, int, int]]:
    views = []
    for share in ONE_SIDE:
        away = round(share * FULL)
        views += [(away, 0, FULL, FULL, 0, 0), (0, away, FULL, FULL, 0, 0)]
        views += [(0, 0, FULL - away, FULL, 0, 0), (0, 0, FULL, FULL - away, 0, 0)]
    for share in TWO_SIDES:
        away = round(share * FULL)
        views += [(away, 0, FULL - away, FULL, 0, 0), (0, away, FULL, FULL - away, 0, 0)]
    return views


def read_only(array: np.ndarray) -> np.ndarray:
    """View an array as one that cannot be written, as those of a mapped file are: kernels are compiled once for both.

    A kernel takes seconds to compile, and is compiled again for every type of its arguments.
    """
    view = array.view()
    view.flags.writeable = False
    return view


def pictures(views: np.ndarray) -> np.ndarray:
    """Those of the views that differ in what they show: all but the flips."""
    return views[views[:, FLIP] == 0]


def wholes(views: np.ndarray) -> np.ndarray:
    """Which views show the whole image, as it stands: bool[n]."""
    return (views[:, :FLIP] == views[0, :FLIP]).all(axis=1)  # type: ignore[no-any-return]


@numba.njit(nogil=True, cache=True)
def integral(thumbnail: np.ndarray, turn: int, sums: np.ndarray) -> None:
    """Write the sums of all pixels above and left of each corner of a turned thumbnail: int32[65, 65].

    thumbnail: uint8[4096], row by row.
    """
    last = SIDE - 1
    mirrored, quarters = turn >= 4, turn % 4
    for x in range(SIDE + 1):
        sums[0, x] = 0
    for y in range(SIDE):
        row = np.int32(0)
        sums[y + 1, 0] = 0
        for x in range(SIDE):
            # where the pixel (y, x) of the turned image stands in the mirrored one: as numpy's rot90
            if quarters == 0:
                from_y, from_x = y, x
            elif quarters == 1:
                from_y, from_x = x, last - y
            elif quarters == 2:
                from_y, from_x = last - y, last - x
            else:
                from_y, from_x = last - x, y
            if mirrored:
                from_x = last - from_x
            row += thumbnail[from_y * SIDE + from_x]
            sums[y + 1, x + 1] = sums[y, x + 1] + row


@numba.njit(nogil=True, cache=True)
def whole_box() -> np.ndarray:
    """The whole image as a box, in compiled code: int64[4]."""
    box = np.zeros(4, np.int64)
    box[2], box[3] = FULL, FULL
    return box


@numba.njit(nogil=True, cache=True, inline="always")
def border(first: int, last: int, number: int, parts: int) -> int:
    """The place of one of the borders that cut [first, last) into equal parts, on the grid."""
    return first + (last - first) * number // parts


@numba.njit(nogil=True, cache=True)
def areas(sums, box, out):  # type: ignore[no-untyped-def]
    """Write the sums of a grid of cells over an area, in 1/65536 of a pixel: int64[rows, columns].

    box: int64, left, top, right and bottom in 1/256 pixel, as a view begins.
    The integral of an image whose pixels are squares of one value is linear in each direction inside a pixel, so four
    corners give the sum under a border at any place, exactly.
    """
    left, top, right, bottom = box[0], box[1], box[2], box[3]
    rows, columns = out.shape
    line = np.empty(SIDE + 2, np.int32)  # the sums above one border, and the last of them once more
    before, here = np.zeros(columns + 1, np.int64), np.empty(columns + 1, np.int64)
    # Places are unsigned: a negative one would count from the end, which takes longer to rule out than to look up.
    at, along = np.empty(columns + 1, np.uint32), np.empty(columns + 1, np.int64)
    for j in range(columns + 1):
        place = border(left, right, j, columns)
        at[j], along[j] = place >> 8, place & 255
    for i in range(rows + 1):
        y = border(top, bottom, i, rows)
        upper, lower = sums[y >> 8], sums[min((y >> 8) + 1, SIDE)]
        down, up = np.int32(y & 255), np.int32(UNIT - (y & 255))
        for x in range(SIDE + 1):  # below 2^28: 64² · 255 · 256
            line[x] = np.int32(upper[x] * up) + np.int32(lower[x] * down)
        line[SIDE + 1] = line[SIDE]
        for j in range(columns + 1):
            here[j] = line[at[j]] * (UNIT - along[j]) + line[at[j] + np.uint32(1)] * along[j]
        if i > 0:
            for j in range(columns):
                out[i - 1, j] = here[j + 1] - here[j] - before[j + 1] + before[j]
        before, here = here, before


@numba.njit(nogil=True, cache=True)
def greys(sums, box, scale, cells, out):  # type: ignore[no-untyped-def]
    """Write the mean grey values of a grid of cells over an area, times `scale`, rounded: int32[rows, columns].

    box: as for `areas`. cells: int64 of the same shape, for the sums.
    """
    left, top, right, bottom = box[0], box[1], box[2], box[3]
    rows, columns = out.shape
    areas(sums, box, cells)
    widths = np.empty(columns, np.int64)
    for j in range(columns):
        widths[j] = border(left, right, j + 1, columns) - border(left, right, j, columns)
    for i in range(rows):
        height = border(top, bottom, i + 1, rows) - border(top, bottom, i, rows)
        for j in range(columns):
            # Both are below 2^53, and the quotient is further from a whole number than it is rounded: exact, and faster
            # than to divide whole numbers.
            size = height * widths[j]
            out[i, j] = np.int32(np.float64(2 * scale * cells[i, j] + size) / np.float64(2 * size))
