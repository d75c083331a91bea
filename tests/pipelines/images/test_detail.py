"""Agreement in detail: the kernels equal plain numpy, and their limits mean what they say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.images.detail import detail_agreement, uncovered_agreement

from .thumbnails import thumbnails


def values(seed: int) -> np.ndarray:
    """Grey values × 4 of 32 × 32 cells."""
    return np.ascontiguousarray(thumbnails(seed)[0].reshape(64, 64)[::2, ::2].astype(np.int32) * 4)


def box(image: np.ndarray, reach: int) -> np.ndarray:
    padded = np.pad(image, reach, mode="edge")
    size = len(image)
    shifts = range(2 * reach + 1)
    return np.mean([padded[i : i + size, j : j + size] for i in shifts for j in shifts], axis=0)


def toned(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """The histogram of the second for the first: values of equal rank are averaged."""
    order, given_values = np.argsort(one, axis=None, kind="stable"), np.sort(two, axis=None)
    out = np.empty(one.size)
    out[order] = given_values
    flat = one.reshape(-1)
    for value in np.unique(flat):
        out[flat == value] = out[flat == value].mean()
    return out.reshape(one.shape)


def plain_blocks(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Sums of a × b, a², b² for each of 8 × 8 blocks of 4 × 4 cells, of 32 × 32 arrays."""
    return np.stack([(x.reshape(8, 4, 8, 4)).sum(axis=(1, 3)) for x in (a * b, a * a, b * b)], -1)


def plain_worst(blocks: np.ndarray) -> float:
    ab, aa, bb = blocks.reshape(-1, 3).T
    differing = np.sort(ab.size * [0.0] + aa / aa.sum() + bb / bb.sum() - 2 * ab / np.sqrt(aa.sum() * bb.sum()))
    return float(max(0, differing[-4:].sum() / 2))


def plain_agreement(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    found = []
    for one, two in ((a, b), (b, a)):
        first, second = toned(one[1:-1, 1:-1], two[1:-1, 1:-1]), two[1:-1, 1:-1]
        x, y = first - box(first, 2), second - box(second, 2)
        smooth = box(x, 1)
        own, mean = np.linalg.lstsq(np.column_stack([x.ravel(), smooth.ravel()]), y.ravel(), rcond=None)[0]
        if own > 0:
            x = x + np.clip(mean / own, -0.4, 4) * smooth
        correlation = (x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum())
        found.append((correlation, plain_worst(plain_blocks(np.pad(x, 1), np.pad(y, 1)))))
    return max(found)


@given(st.integers(0, 99), st.floats(0, 1), st.floats(0.5, 2))
def test_agreement_equals_plain_numpy(seed: int, mixed: float, gamma: float) -> None:
    a, other = values(seed), values(seed + 1)
    b = np.rint(1020 * ((mixed * a + (1 - mixed) * other) / 1020) ** gamma).astype(np.int32)
    assert detail_agreement(a, b) == pytest.approx(plain_agreement(a, b), abs=1e-9)


@given(st.integers(0, 99), st.integers(0, 24), st.integers(0, 24), st.integers(1, 8), st.integers(1, 8))
def test_agreement_beside_a_box_equals_the_best_of_all_boxes(seed: int, y: int, x: int, high: int, wide: int) -> None:
    a = values(seed)
    b = np.minimum(a + np.random.default_rng(seed).integers(0, 60, a.shape), 1020).astype(np.int32)
    b[y : y + high, x : x + wide] = 1020
    blocks = plain_blocks(a - box(a, 2), b - box(b, 2))
    best, worst = -1.0, 0.0
    for top in range(8):
        for left in range(8):
            for bottom in range(top + 1, 9):
                for right in range(left + 1, 9):
                    if (bottom - top) * (right - left) <= 20:
                        beside = blocks.copy()
                        beside[top:bottom, left:right] = 0
                        ab, aa, bb = beside.reshape(-1, 3).sum(axis=0)
                        if ab / np.sqrt(aa * bb) > best + 1e-12:
                            best, worst = ab / np.sqrt(aa * bb), plain_worst(beside)
    assert uncovered_agreement(a, b) == pytest.approx((best, worst), abs=1e-9)


def test_what_has_no_detail_is_like_nothing() -> None:
    flat, textured = np.full((32, 32), 400, np.int32), values(0)
    for agreement in (detail_agreement, uncovered_agreement):
        assert agreement(flat, textured) == agreement(flat, flat) == (0, 0)
        assert agreement(textured, textured) == pytest.approx((1, 0), abs=1e-12)


def test_the_outermost_cells_do_not_matter() -> None:
    a = values(1)
    b = a.copy()
    b[0], b[-1], b[:, 0], b[:, -1] = 0, 1020, 0, 1020
    assert detail_agreement(a, b) == pytest.approx((1, 0), abs=1e-12)


def test_two_photographs_on_one_wide_mat_are_not_a_photograph_and_its_watermarked_copy() -> None:
    a, b = np.full((32, 32), 40, np.int32), np.full((32, 32), 40, np.int32)
    a[8:24, 10:22], b[8:24, 10:22] = values(2)[8:24, 10:22], values(3)[8:24, 10:22]
    assert uncovered_agreement(a, b) == (0, 0)
    copy = values(2)
    copy[10:18, 10:22] = 1020
    assert uncovered_agreement(values(2), copy)[0] > 0.9
