"""Thumbnails for tests, and views of them by exact fractions."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np

from pipelines.images.views import UNIT, read_only


def thumbnails(seed: int, count: int = 1) -> np.ndarray:
    """Random pictures with something in them: sums of waves, uint8[count, 4096]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:64, :64] / 64
    out = []
    for _ in range(count):
        waves = rng.uniform(-9, 9, (12, 2)), rng.uniform(0, 7, 12), rng.uniform(1, 9, 12)
        picture = sum(a * np.sin(fy * y + fx * x + p) for (fy, fx), p, a in zip(*waves, strict=True))
        picture = picture + rng.normal(0, 2, (64, 64))
        out.append(np.interp(picture, (picture.min(), picture.max()), (0, 255)).astype(np.uint8).reshape(-1))
    return read_only(np.array(out))


def turned(thumbnail: np.ndarray, turn: int) -> np.ndarray:
    image = thumbnail.reshape(64, 64)
    return np.rot90(np.fliplr(image) if turn >= 4 else image, turn % 4)


def plain_means(thumbnail: np.ndarray, view: np.ndarray, rows: int, columns: int) -> list[list[Fraction]]:
    """The mean of each cell of a grid over a view, exactly, from weights of pixels."""
    image, (left, top, right, bottom) = turned(thumbnail, int(view[4])).astype(object), map(int, view[:4])

    def weights(first: int, last: int, parts: int) -> np.ndarray:
        borders = [first + (last - first) * i // parts for i in range(parts + 1)]
        return np.array(
            [
                [max(0, min(b, UNIT * (k + 1)) - max(a, UNIT * k)) for k in range(64)]
                for a, b in itertools.pairwise(borders)
            ],
            object,
        )

    down, across = weights(top, bottom, rows), weights(left, right, columns)
    sums = down @ image @ across.T
    sizes = down.sum(axis=1)[:, None] * across.sum(axis=1)[None, :]
    return [[Fraction(int(sums[i, j]), int(sizes[i, j])) for j in range(columns)] for i in range(rows)]
