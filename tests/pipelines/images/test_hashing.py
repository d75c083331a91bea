"""Views, hashes and the comparison of images: kernels equal plain code that does the same pixel by pixel."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.images.compare import (
    CORRELATED,
    COVERED,
    NOT_SIMILAR,
    Limits,
    coarse_views,
    compare,
    detail_correlation,
    uncovered_correlation,
)
from pipelines.images.hashing import band_keys, bit_count, deviations, difference_hashes, fine_hashes, share_band
from pipelines.images.views import FULL, UNIT, areas, greys, integral, view_table

LIMITS = Limits(0.95, 24, 0.98)
VIEWS = view_table((0.02, 0.10, 0.18), corners=True, orientations=True)


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
    return np.array(out)


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


def plain_hash(thumbnail: np.ndarray, view: np.ndarray, rows: int, columns: int) -> int:
    means = plain_means(thumbnail, view, rows, columns)
    bits = "".join("1" if row[j + 1] - row[j] > 1 else "0" for row in means for j in range(columns - 1))
    return int(bits, 2)


@pytest.mark.parametrize("number", range(len(VIEWS)))
def test_hashes_of_every_view_equal_exact_fractions(number: int) -> None:
    images = thumbnails(number, 2)
    hashes = difference_hashes(images, VIEWS)
    assert hashes.shape == (2, len(VIEWS)) and len(VIEWS) == 1 + 3 + 8 + 7
    for i in range(2):
        assert int(hashes[i, number]) == plain_hash(images[i], VIEWS[number], 8, 9)


def test_fine_hashes_equal_exact_fractions() -> None:
    images = thumbnails(5, 2)
    words = fine_hashes(images)
    for i in range(2):
        joined = int("".join(f"{int(word):064b}" for word in words[i]), 2)
        assert joined == plain_hash(images[i], VIEWS[0], 16, 17)


@given(st.integers(0, 99), st.integers(0, FULL // 2 - 1), st.integers(0, FULL // 2 - 1), st.integers(0, 7))
def test_grey_values_of_any_area_equal_exact_fractions(seed: int, left: int, top: int, turn: int) -> None:
    view = np.array([left, top, FULL - top // 3, FULL - left // 2, turn])
    image = thumbnails(seed)[0]
    sums, cells, values = np.empty((65, 65), np.int64), np.empty((5, 6), np.int64), np.empty((5, 6), np.int32)
    integral(image, turn, sums)
    assert sums[64, 64] == image.astype(int).sum()
    greys(sums, *view[:4], 4, cells, values)
    means = plain_means(image, view, 5, 6)
    assert [[int(4 * mean + Fraction(1, 2)) for mean in row] for row in means] == values.tolist()
    again = np.empty_like(cells)
    areas(sums, *view[:4], again)
    assert (again == cells).all()


def test_one_colour_has_no_bits_and_no_deviation() -> None:
    flat = np.full((1, 4096), 200, np.uint8)
    assert not difference_hashes(flat, VIEWS).any() and not fine_hashes(flat).any()
    assert deviations(flat).tolist() == [0.0]
    half = np.repeat([0, 255], 2048).astype(np.uint8)[None]
    assert deviations(half).tolist() == [127.5]


def test_cells_that_are_brighter_by_one_grey_level_set_no_bit_and_by_more_do() -> None:
    for step, row in ((1, 0), (3, 0b00011000)):  # the step is in the middle of a cell: half of it on either side
        picture = np.full((64, 64), 100, np.uint8)
        picture[:, 32:] += step
        assert int(difference_hashes(picture.reshape(1, -1), VIEWS)[0, 0]) == int.from_bytes(bytes([row] * 8))


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 3))
def test_bits_and_bands_equal_plain_arithmetic(a: int, b: int, band: int) -> None:
    assert bit_count(np.uint64(a)) == a.bit_count()
    parts = [(a >> shift & 0xFFFF, b >> shift & 0xFFFF) for shift in (48, 32, 16, 0)]
    assert share_band(np.uint64(a), np.uint64(b)) == any(x == y for x, y in parts)
    keys = band_keys(np.array([a, b], np.uint64), band)
    assert [int(key) >> 48 for key in keys] == list(parts[band])
    assert bit_count(keys[0] ^ keys[1]) == (a ^ b).bit_count()


# --- the comparison ---------------------------------------------------------------------------------------------------


def compared(a: np.ndarray, b: np.ndarray) -> tuple[int, float]:
    images = np.array([a.reshape(-1), b.reshape(-1)])
    data = (images, fine_hashes(images), *coarse_views(images, VIEWS))
    (how, similarity), turned = (compare(i, 1 - i, data, VIEWS, LIMITS) for i in (0, 1))
    assert (how, similarity) == turned, "the order must not matter"
    return int(how), float(similarity)


def shrunk(image: np.ndarray, view: np.ndarray) -> np.ndarray:
    """A view as a picture of its own."""
    means = plain_means(image, view, 32, 32)
    return np.repeat(np.repeat(np.array([[round(mean) for mean in row] for row in means], np.uint8), 2, 0), 2, 1)


def test_views_are_found_and_others_are_not() -> None:
    first, other = thumbnails(1)[0], thumbnails(2)[0]
    assert compared(first, first) == (CORRELATED, pytest.approx(1, abs=1e-12))
    assert compared(first, other) == (NOT_SIMILAR, 0.0)
    for view in VIEWS:
        how, similarity = compared(first, shrunk(first, view))
        assert how == CORRELATED and similarity >= 0.95, view


def test_tones_do_not_matter() -> None:
    image = thumbnails(3)[0]
    for changed in (np.minimum(image * 1.4, 255), image * 0.6, 255 * (image / 255) ** 0.6, image // 8 * 8):
        assert compared(image, changed.astype(np.uint8))[0] == CORRELATED


def test_a_box_over_a_part_is_seen_through_and_a_larger_one_is_not() -> None:
    image = thumbnails(4)[0].reshape(64, 64)
    small, large = image.copy(), image.copy()
    small[46:58, 36:60], large[20:60, 10:60] = 255, 255
    how, similarity = compared(image, small)
    distance = sum(
        int(a ^ b).bit_count() for a, b in zip(*(fine_hashes(x.reshape(1, -1))[0] for x in (image, small)), strict=True)
    )
    assert (how, similarity) == (COVERED, 1 - distance / 256) and 0 < distance <= 24
    assert compared(image, large)[0] == NOT_SIMILAR


def test_what_has_no_detail_is_like_nothing() -> None:
    flat = np.full((32, 32), 400, np.int32)
    textured = np.random.default_rng(0).integers(0, 1020, (32, 32)).astype(np.int32)
    assert detail_correlation(flat, textured) == detail_correlation(flat, flat) == 0
    assert uncovered_correlation(flat, textured) == 0
    assert 1 - 1e-12 < uncovered_correlation(textured, textured) <= 1
    assert compared(np.full(4096, 9, np.uint8), np.full(4096, 9, np.uint8))[0] != CORRELATED
