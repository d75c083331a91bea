"""Pillow's `resize`, bit for bit, at less than half of its time.

Pillow's loops take one sample at a time. Here both directions are weighted sums of whole rows, which a compiler turns
into vector instructions; for the horizontal direction the picture is transposed first. All sums are Pillow's: whole
numbers, horizontally first, 8 bits between the two. So the result depends neither on the processor nor on which of
the two made it.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from PIL import Image

from pipelines.images.pixels import pixels

Box = tuple[float, float, float, float]
_Weights = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]

_BITS = 22  # of a weight after the point: PRECISION_BITS of Pillow's Resample.c
_BOX, _HAMMING, _BILINEAR, _BICUBIC, _LANCZOS = (
    int(Image.Resampling[name]) for name in ("BOX", "HAMMING", "BILINEAR", "BICUBIC", "LANCZOS")
)
_SUPPORT = {_BOX: 0.5, _HAMMING: 1.0, _BILINEAR: 1.0, _BICUBIC: 2.0, _LANCZOS: 3.0}
_054, _046 = float(np.float32(0.54)), float(np.float32(0.46))  # single precision in Pillow too
# Kernels have their signatures, so that they are compiled, or taken from numba's cache, when this is imported: in the
# sandbox that is before its limits of time and memory hold.
_READ_ONLY = numba.types.Array(numba.uint8, 2, "C", readonly=True)


def resize(
    image: Image.Image, size: tuple[int, int], kind: Image.Resampling, box: Box | None, gap: float
) -> Image.Image:
    """Do as image.resize(size, kind, box, gap), for L and RGB; gap: shrink by whole numbers first, to so many times it.

    kind: not NEAREST.
    """
    box, number = box or (0, 0, *image.size), int(kind)  # as an enum, numba takes longer to tell its type than to run
    scale = (box[2] - box[0]) / size[0], (box[3] - box[1]) / size[1]
    x, y = (max(1, int(one / gap)) for one in scale)
    if x > 1 or y > 1:
        margin = [(_SUPPORT[kind] - 0.5) * one for one in scale]
        left, top = (max(0, int(box[one] - margin[one])) for one in (0, 1))
        right, bottom = (min(image.size[one], math.ceil(box[2 + one] + margin[one])) for one in (0, 1))
        image = image.reduce((x, y), (left, top, right, bottom))
        box = (box[0] - left) / x, (box[1] - top) / y, (box[2] - left) / x, (box[3] - top) / y
    left, top, right, bottom = np.array(box, np.float32).tolist()
    if image.size == size and (left, top, right, bottom) == (0, 0, *size):
        return image.copy()
    made = _resized(pixels(image).T, size, (left, top, right, bottom), number)
    return Image.frombytes(image.mode, size, made, "raw", "L" if image.mode == "L" else "RGBX")


def squeeze(
    columns: npt.NDArray[np.uint8], height: int, size: tuple[int, int], kind: Image.Resampling
) -> npt.NDArray[np.uint8]:
    """Resize grey values without shrinking by whole numbers first: uint8, row by row.

    columns: uint8[width, height or more], see `pixels.grey_columns`.
    """
    across = _sum_rows(columns, _weights(len(columns), 0.0, float(len(columns)), size[0], int(kind)))
    return _sum_rows(across.T[:height], _weights(height, 0.0, float(height), size[1], int(kind)))


def _resized(columns: npt.NDArray[Any], size: tuple[int, int], box: Box, kind: int) -> npt.NDArray[Any]:
    (left, top, right, bottom), (width, height) = box, columns.shape
    if (left, right, size[0]) != (0, width, width):
        columns = _sum_rows(columns, _weights(width, left, right, size[0], kind))
    rows = columns.T
    if (top, bottom, size[1]) != (0, height, height):
        rows = _sum_rows(rows, _weights(height, top, bottom, size[1], kind))
    return np.ascontiguousarray(rows)


def _sum_rows(values: npt.NDArray[Any], weights: _Weights) -> npt.NDArray[Any]:
    rows = np.ascontiguousarray(values)
    out = np.empty((len(weights[0]), rows.shape[1]), rows.dtype)
    _weigh(rows.view(np.uint8), *weights, out.view(np.uint8))
    return out


@functools.lru_cache(maxsize=256)
def _weights(size: int, first: float, last: float, out: int, kind: int) -> _Weights:
    """Which rows of `size` make each of `out`: the first row, and weights of all that follow; zeros fill up."""
    scale = float(np.float32(last) - np.float32(first)) / out  # in single precision
    support = _SUPPORT[kind] * max(scale, 1.0)
    starts, weights = np.empty(out, np.int32), np.zeros((out, math.ceil(support) * 2 + 1), np.int32)
    _find_weights(size, first, scale, kind, support, starts, weights)
    return starts, weights


@numba.njit("float64(int64, float64)", nogil=True, cache=True)
def _filter(kind: int, x: float) -> float:
    x = abs(x)
    if kind == _BOX:
        return 1.0
    if kind == _BILINEAR:
        return max(1.0 - x, 0.0)
    if kind == _BICUBIC:  # a = -0.5
        if x < 1.0:
            return (1.5 * x - 2.5) * x * x + 1.0
        return (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5 if x < 2.0 else 0.0
    if x == 0.0:
        return 1.0
    if kind == _HAMMING:
        x *= math.pi
        return math.sin(x) / x * (_054 + _046 * math.cos(x)) if x < math.pi else 0.0
    third, x = x / 3.0 * math.pi, x * math.pi
    return math.sin(x) / x * (math.sin(third) / third) if third < math.pi else 0.0


@numba.njit("void(int64, float64, float64, int64, float64, int32[::1], int32[:, ::1])", nogil=True, cache=True)
def _find_weights(
    size: int,
    first: float,
    scale: float,
    kind: int,
    support: float,
    starts: npt.NDArray[np.int32],
    weights: npt.NDArray[np.int32],
) -> None:
    """precompute_coeffs and normalize_coeffs_8bpc of Resample.c."""
    inverse = 1.0 / max(scale, 1.0)
    values = np.empty(weights.shape[1])
    for at in range(len(starts)):
        centre = first + (at + 0.5) * scale
        start = max(int(centre - support + 0.5), 0)
        count = min(int(centre + support + 0.5), size) - start
        total = 0.0
        for tap in range(count):
            distance = (tap + start - centre + 0.5) * inverse
            inside = kind != _BOX or -0.5 < distance <= 0.5
            values[tap] = _filter(kind, distance) if inside else 0.0
            total += values[tap]
        starts[at] = start
        for tap in range(count):
            value = (values[tap] / total if total != 0.0 else values[tap]) * (1 << _BITS)
            weights[at, tap] = int(value - 0.5) if value < 0.0 else int(value + 0.5)


@numba.njit(numba.void(_READ_ONLY, numba.int32[::1], numba.int32[:, ::1], numba.uint8[:, ::1]), nogil=True, cache=True)
def _weigh(
    rows: npt.NDArray[np.uint8],
    starts: npt.NDArray[np.int32],
    weights: npt.NDArray[np.int32],
    out: npt.NDArray[np.uint8],
) -> None:
    """out[i] = sum of rows[starts[i] + j] · weights[i, j], rounded and clipped."""
    sums = np.empty(rows.shape[1], np.int32)
    for at in range(len(out)):
        sums[:] = 1 << (_BITS - 1)
        for tap in range(min(weights.shape[1], len(rows) - starts[at])):
            weight, row = weights[at, tap], rows[starts[at] + tap]
            if weight != 0:
                for column in range(len(row)):
                    sums[column] += np.int32(np.int32(row[column]) * weight)
        target = out[at]
        for column in range(len(target)):
            target[column] = min(max(sums[column] >> _BITS, 0), 255)
