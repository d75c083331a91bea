"""Signals: measured properties of an image, from which rules decide; all but the sizes are of its 64×64 thumbnail.

The thumbnail is the whole image squeezed to a square, so that images of any size are measured alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from schemas.image import THUMBNAIL_SIDE

DOCS = {
    "width": "pixels, turned upright",
    "height": "pixels, turned upright",
    "short_side": "the smaller of width and height",
    "pixels": "width × height",
    "aspect": "longer side / shorter side",
    "bytes": "of the file as it was read",
    "frames": "of an animation; 1 for a still image",
    "brightness": "mean grey, 0 is black and 1 is white",
    "brightness_5": "grey that 5 % of the image do not reach; near 1 of a washed-out image",
    "brightness_99": "grey that 99 % of the image do not pass; near 0 of a black one",
    "contrast": "standard deviation of the grey values, in levels of 256; 0 of a blank image",
    "entropy": "of the histogram of grey values, in bits: 0…8",
    "flat_ratio": "share of the most frequent grey value",
    "sharpness": "standard deviation of the edges (Laplacian, 3×3), in levels of 256; low of a blurred image",
}
SIGNALS: tuple[str, ...] = tuple(DOCS)
_CHUNK = 512  # thumbnails measured at a time: 512 × 4,096 values of 4 bytes


def signals(thumbnails: np.ndarray, sizes: Sequence[tuple[int, int, int, int]]) -> dict[str, np.ndarray]:
    """Measure images: SIGNALS → float64[n].

    thumbnails: uint8[n, 64, 64]. sizes: (width, height, bytes, frames) of each image as it was read, turned upright.
    """
    width, height, size, frames = np.array(sizes, np.float64).reshape(-1, 4).T
    measured = {
        "width": width,
        "height": height,
        "short_side": np.minimum(width, height),
        "pixels": width * height,
        "aspect": np.maximum(width, height) / np.minimum(width, height),
        "bytes": size,
        "frames": frames,
    }
    parts = [_of_thumbnails(thumbnails[i : i + _CHUNK]) for i in range(0, max(1, len(thumbnails)), _CHUNK)]
    return measured | {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _of_thumbnails(thumbnails: np.ndarray) -> dict[str, np.ndarray]:
    count, area = len(thumbnails), THUMBNAIL_SIDE * THUMBNAIL_SIDE
    cells = thumbnails.reshape(count, area).astype(np.int64) + 256 * np.arange(count)[:, None]
    histogram = np.bincount(cells.ravel(), minlength=256 * count).reshape(count, 256)
    share, reached = histogram / area, np.cumsum(histogram, axis=1)
    levels = np.arange(256)
    mean = share @ levels
    return {
        "brightness": mean / 255,
        "brightness_5": _percentile(reached, 0.05 * area) / 255,
        "brightness_99": _percentile(reached, 0.99 * area) / 255,
        "contrast": np.sqrt(np.maximum(share @ levels**2 - mean**2, 0)),
        # A sum of non-negative terms that may come out as -0.0.
        "entropy": np.abs(-(share * np.log2(np.where(share > 0, share, 1))).sum(axis=1)),
        "flat_ratio": share.max(axis=1, initial=0),
        "sharpness": _edges(thumbnails).reshape(count, (THUMBNAIL_SIDE - 2) ** 2).std(axis=1),
    }


def _percentile(reached: np.ndarray, pixels: float) -> np.ndarray:
    """The first grey level that at least so many pixels do not pass: int64[n]."""
    return (reached >= pixels).argmax(axis=1) if len(reached) else np.zeros(0, np.int64)


def _edges(grey: np.ndarray) -> np.ndarray:
    """Convolve with -1 around 8, as Pillow's FIND_EDGES does, cut to 0…255: float32[n, 62, 62]."""
    wide = grey.astype(np.float32)
    rows = wide[:, :-2] + wide[:, 1:-1] + wide[:, 2:]
    around = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    return np.clip(9 * wide[:, 1:-1, 1:-1] - around, 0, 255)
