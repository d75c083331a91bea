"""Views and hashes of images: kernels equal plain code that does the same pixel by pixel."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.images.hashing import band_keys, bit_count, deviations, difference_hashes, fine_hashes, share_band
from pipelines.images.views import FULL, areas, greys, integral, pictures, view_table, wholes

from .thumbnails import plain_means, thumbnails

VIEWS = view_table((0.02, 0.10, 0.18), corners=True, sides=True, orientations=True)


def plain_hash(thumbnail: np.ndarray, view: np.ndarray, rows: int, columns: int) -> int:
    means = plain_means(thumbnail, view, rows, columns)
    bits = "".join("1" if row[j + 1] - row[j] > 1 else "0" for row in means for j in range(columns - 1))
    return int(bits, 2)


@pytest.mark.parametrize("number", range(len(VIEWS)))
def test_hashes_of_every_view_equal_exact_fractions(number: int) -> None:
    images = thumbnails(number, 2)
    hashes = difference_hashes(images, VIEWS)
    assert hashes.shape == (2, len(VIEWS)) and len(VIEWS) == 1 + 3 + 8 + 20 + 7
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
    sums, cells, values = np.empty((65, 65), np.int32), np.empty((5, 6), np.int64), np.empty((5, 6), np.int32)
    integral(image, turn, sums)
    assert sums[64, 64] == image.astype(int).sum()
    greys(sums, view, 4, cells, values)
    means = plain_means(image, view, 5, 6)
    assert [[int(4 * mean + Fraction(1, 2)) for mean in row] for row in means] == values.tolist()
    again = np.empty_like(cells)
    areas(sums, view, again)
    assert (again == cells).all()


def test_sums_of_the_brightest_image_do_not_overflow() -> None:
    sums, cells = np.empty((65, 65), np.int32), np.empty((1, 1), np.int64)
    white = np.full(4096, 255, np.uint8)
    integral(white, 0, sums)
    for right in (FULL, FULL - 1):
        areas(sums, np.array([0, 0, right, FULL]), cells)
        assert cells[0, 0] == 255 * right * FULL
    assert deviations(white[None]).tolist() == [0.0]


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


def test_flips_are_the_hash_of_the_whole_with_the_least_certain_bit_of_each_band_flipped() -> None:
    views = view_table((0.1,), flips=3)
    assert wholes(views).tolist() == [True, False, True, True, True] and len(pictures(views)) == 2
    image = thumbnails(6)
    whole, _, *flipped = (int(one) for one in difference_hashes(image, views)[0])
    means = plain_means(image[0], views[0], 8, 9)
    doubt = [abs(row[j + 1] - row[j] - 1) for row in means for j in range(8)]
    for band in range(4):
        order = sorted(range(16 * band, 16 * band + 16), key=lambda bit: doubt[bit])
        for number, one in enumerate(flipped):
            bits = [bit for bit in range(16 * band, 16 * band + 16) if (whole ^ one) >> (63 - bit) & 1]
            assert bits == [order[number]]
