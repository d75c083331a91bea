import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.text import sampling

HASHES = st.lists(st.integers(0, 2**64 - 1), max_size=50)


@given(HASHES)
def test_bins_ascend_with_the_hash(hashes: list[int]) -> None:
    values = np.array(sorted([0, 2**64 - 1, *hashes]), np.uint64)
    bins = sampling.bins(values)
    assert (np.diff(bins) >= 0).all()
    assert bins[0] == 0
    assert bins[-1] == sampling.ALL - 1


def test_bins_are_fine_at_every_scale() -> None:
    for octave in range(20, 64):
        step = np.uint64(max(1, 2**octave // 256))
        start = np.uint64(2**octave)
        bins = sampling.bins(np.array([start, start + step], np.uint64))
        assert bins[1] - bins[0] == 1


@given(HASHES, HASHES)
def test_histograms_add_up_however_records_are_grouped(one: list[int], other: list[int]) -> None:
    first, second, both = (
        sampling.histogram(np.array(hashes, np.uint64), np.arange(len(hashes)) + 3)
        for hashes in (one, other, one + other)
    )
    shifted = sampling.histogram(np.array(other, np.uint64), np.arange(len(one), len(one) + len(other)) + 3)
    assert sampling.add([first, shifted]) == both
    assert sum(second.values()) == sum(range(3, 3 + len(other)))


def test_quotas_by_hand() -> None:
    available = {"small": 10, "middle": 400, "large": 10_000}
    assert sampling.quotas(available, 20_000, 0.5) == available
    assert sampling.quotas(available, 1_041, 1.0) == {"large": 1000, "middle": 40, "small": 1}
    assert sampling.quotas(available, 300, 0.0) == {"large": 145, "middle": 145, "small": 10}
    assert sampling.quotas({"a": 10_000, "b": 400}, 120, 0.5) == {"a": 100, "b": 20}
    assert sampling.quotas({"a": 400, "b": 400}, 100, 0.5, {"b": 3.0}) == {"a": 25, "b": 75}
    assert sampling.quotas({"a": 400, "b": 400}, 100, 0.5, {"a": 0.0}) == {"a": 0, "b": 100}
    assert sampling.quotas({"a": 0, "b": 5}, 100, 0.5) == {"a": 0, "b": 5}
    assert sampling.quotas({}, 100, 0.5) == {}


@given(st.dictionaries(st.text("abcdef", min_size=1, max_size=2), st.integers(0, 1000)), st.integers(0, 3000))
def test_quotas_stay_within_what_there_is_and_within_the_total(available: dict[str, int], total: int) -> None:
    for balance in (0.0, 0.3, 1.0):
        given_out = sampling.quotas(available, total, balance)
        assert set(given_out) == set(available)
        assert all(0 <= given_out[name] <= size for name, size in available.items())
        assert sum(given_out.values()) <= total
        assert sum(given_out.values()) >= min(total, sum(available.values())) - len(available)


@given(HASHES.filter(bool), st.integers(0, 400))
def test_what_lies_under_the_limit_fits_the_quota(hashes: list[int], quota: int) -> None:
    values, sizes = np.array(hashes, np.uint64), np.full(len(hashes), 7)
    counts = sampling.histogram(values, sizes)
    limit = sampling.limit(counts, quota)
    taken = sizes[sampling.bins(values) < limit].sum()
    assert taken <= max(quota, max(counts.values()))
    assert taken > 0 or quota == 0
    if quota >= sizes.sum():
        assert taken == sizes.sum()


@pytest.mark.parametrize("quota", [1_000, 50_000, 700_000])
def test_a_quota_is_met_within_half_a_percent_of_what_hashes_allow(quota: int) -> None:
    hashes = np.random.default_rng(0).integers(0, 2**64, 100_000, np.uint64)
    sizes = np.full(len(hashes), 10)
    counts = sampling.histogram(hashes, sizes)
    taken = sizes[sampling.bins(hashes) < sampling.limit(counts, quota)].sum()
    assert 0.98 * quota - 50 <= taken <= quota
