"""Whether two images are copies: what was done to the copy does not matter, and what is shown does."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.images.compare import CORRELATED, COVERED, NOT_SIMILAR, Limits, coarse_views, compare, resemble
from pipelines.images.hashing import fine_hashes
from pipelines.images.views import read_only, view_table

from .thumbnails import plain_means, thumbnails

LIMITS = Limits(0.95, 0.009, 24, 0.98)
VIEWS = view_table((0.02, 0.06, 0.18), corners=True, orientations=True, flips=2)


def compared(a: np.ndarray, b: np.ndarray, limits: Limits = LIMITS, views: np.ndarray = VIEWS) -> tuple[int, float]:
    images = read_only(np.array([a.reshape(-1), b.reshape(-1)]))
    data = (images, fine_hashes(images), *coarse_views(images, views))
    (how, similarity), turned = (compare(i, 1 - i, data, views, limits) for i in (0, 1))
    assert (how, similarity) == turned, "the order must not matter"
    return int(how), float(similarity)


@pytest.mark.parametrize(("top", "bottom"), [(0, 8), (8, 0), (4, 4)])
def test_bars_at_one_side_or_two_are_found_where_such_views_are_asked_for(top: int, bottom: int) -> None:
    views = view_table((0.06,), sides=True)
    for seed in range(5, 10):
        image = thumbnails(seed)[0].reshape(64, 64)
        barred = np.zeros((72, 64), np.uint8)
        barred[top : 72 - bottom] = image
        assert compared(image, squeezed(barred), views=views)[0] == CORRELATED
        across = np.ascontiguousarray(squeezed(barred).T)
        assert compared(np.ascontiguousarray(image.T), across, views=views)[0] == CORRELATED


def squeezed(picture: np.ndarray) -> np.ndarray:
    """Squeeze a picture into 64 × 64 by areas; what stands in it may end inside a pixel."""

    def weights(size: int) -> np.ndarray:
        rows = [
            [max(0, min(size * (i + 1), 64 * (k + 1)) - max(size * i, 64 * k)) for k in range(size)] for i in range(64)
        ]
        return np.array(rows) / size

    return np.rint(weights(picture.shape[0]) @ picture @ weights(picture.shape[1]).T).astype(np.uint8)


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


@pytest.mark.parametrize("level", [0, 255])
def test_a_frame_of_any_brightness_does_not_matter(level: int) -> None:
    for seed in range(5, 15):
        image = thumbnails(seed)[0].reshape(64, 64)
        framed = np.full((72, 72), level, np.uint8)
        framed[4:68, 4:68] = image
        assert compared(image, squeezed(framed))[0] == CORRELATED, seed


def test_a_picture_that_differs_in_one_place_is_another_one() -> None:
    image = thumbnails(4)[0].reshape(64, 64)
    other = image.copy()
    other[28:38, 28:38] = thumbnails(7)[0].reshape(64, 64)[28:38, 28:38]  # a 40th of it: a number, a smile
    loose = Limits(0.8, 2.0, 0, 1.0)
    assert compared(image, other, loose)[0] == CORRELATED
    assert compared(image, other, loose._replace(local_change=LIMITS.local_change)) == (NOT_SIMILAR, 0.0)


def test_whatever_is_similar_resembles() -> None:
    pictures = np.concatenate([thumbnails(seed) for seed in range(6)])
    pictures = read_only(np.concatenate([pictures, (pictures * 0.7).astype(np.uint8)]))
    data = (pictures, fine_hashes(pictures), *coarse_views(pictures, VIEWS))
    found = 0
    for a in range(len(pictures)):
        for b in range(a):
            if compare(a, b, data, VIEWS, LIMITS)[0] != NOT_SIMILAR:
                assert resemble(a, b, data, LIMITS)
                found += 1
    assert found
