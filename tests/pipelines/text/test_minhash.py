import math
from collections.abc import Callable

import numba
import numpy as np
import pyarrow as pa
import pytest
from datasketch import MinHash
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.text.minhash import (
    EMPTY,
    MinHashConfig,
    band_hashes,
    choose_bands,
    jaccard,
    mix32,
    permutations,
    s_curve,
    s_curve_of_two_cuts,
    sign,
    signatures,
    sketches,
)
from pipelines.text.shingles import shingle_hash, shingle_hashes, shingles

HASHES = st.integers(0, 2**32 - 1)
SETS = st.lists(st.sets(HASHES, max_size=40), max_size=6)


def flat(sets: list[set[int]]) -> tuple[np.ndarray, np.ndarray]:
    values = np.array([value for one in sets for value in sorted(one)], np.uint32)
    return values, np.cumsum([0, *map(len, sets)], dtype=np.int64)


def peer(values: set[int], num_perm: int, seed: int) -> np.ndarray:
    minhash = MinHash(num_perm=num_perm, seed=seed, scheme="affine32", hashfunc=lambda value: value)
    minhash.update_batch(sorted(values))
    return minhash.hashvalues


@given(SETS, st.integers(1, 130), st.sampled_from([0, 1, 42, 2**32 - 1]))
@settings(max_examples=50)
def test_signatures_equal_datasketch(sets: list[set[int]], num_perm: int, seed: int) -> None:
    found = signatures(*flat(sets), num_perm, seed)
    assert found.dtype == np.uint32 and found.shape == (len(sets), num_perm)
    for values, signature in zip(sets, found, strict=True):
        assert np.array_equal(signature, peer(values, num_perm, seed))


@pytest.mark.parametrize("corpus", ["wikipedia_en", "wikipedia_zh"])
def test_a_user_can_query_signatures_with_datasketch(corpus: str, real_texts: Callable[[str, int], list[str]]) -> None:
    texts = real_texts(corpus, 40_000)
    found = signatures(*shingle_hashes(pa.array(texts)), 112, 1)
    for text, signature in zip(texts, found, strict=True):
        minhash = MinHash(num_perm=112, seed=1, scheme="affine32", hashfunc=shingle_hash)
        minhash.update_batch([shingle.encode() for shingle in shingles(text)])
        assert np.array_equal(minhash.hashvalues, signature)


def test_the_signature_of_nothing_is_datasketch_s() -> None:
    assert (signatures(*flat([set()]), 8) == EMPTY).all()
    assert np.array_equal(MinHash(num_perm=8, scheme="affine32").hashvalues, signatures(*flat([set()]), 8)[0])


def test_multipliers_are_odd_so_a_permutation_loses_nothing() -> None:
    factors, increments = permutations(200, 3)
    assert (factors & 1).all() and factors.dtype == increments.dtype == np.uint32


@given(st.integers(1, 5), st.integers(1, 4), st.data())
def test_documents_share_a_band_hash_where_they_agree_in_its_rows(bands: int, rows: int, data: st.DataObject) -> None:
    shape = (6, bands * rows)
    values = data.draw(st.lists(st.integers(0, 2), min_size=shape[0] * shape[1], max_size=shape[0] * shape[1]))
    found = np.array(values, np.uint32).reshape(shape)
    hashes = band_hashes(found, bands, rows, 0, 2 * bands)
    assert hashes.dtype == np.uint64 and hashes.shape == (2 * bands, 6)
    assert np.array_equal(band_hashes(found, bands, rows), hashes[:bands])
    assert np.array_equal(band_hashes(found, bands, rows, bands), hashes[bands:bands])
    along, across = found.reshape(6, bands, rows), found.reshape(6, bands, rows).transpose(0, 2, 1)
    parts = np.concatenate([along, across.reshape(6, bands, rows)], axis=1)
    for one in range(2 * bands):
        for other in range(2 * bands):
            for i in range(6):
                for j in range(6):
                    same = one == other and np.array_equal(parts[i, one], parts[j, other])
                    assert (hashes[one, i] == hashes[other, j]) == same


def test_band_hashes_refuse_a_signature_of_another_length() -> None:
    with pytest.raises(ValueError, match="14 × 8"):
        band_hashes(np.zeros((3, 111), np.uint32), 14, 8)


def test_the_sketch_mix_is_a_bijection() -> None:
    probe = np.arange(0, 2**32, 4093, dtype=np.uint32)
    assert len({mix32(value) for value in probe}) == len(probe)


@given(SETS, st.integers(1, 30))
def test_sketches_are_the_smallest_mixed_hashes(sets: list[set[int]], k: int) -> None:
    values, offsets = sketches(*flat(sets), k)
    assert values.dtype == np.uint32 and offsets.dtype == np.int64
    for i, one in enumerate(sets):
        expected = sorted(int(mix32(np.uint32(value))) for value in one)[:k]
        assert values[offsets[i] : offsets[i + 1]].tolist() == expected


def test_a_sketch_keeps_something() -> None:
    with pytest.raises(ValueError, match="k=0"):
        sketches(*flat([{1}]), 0)


def measure(a: set[int], b: set[int], k: int) -> tuple[float, float]:
    values, offsets = sketches(*flat([a, b]), k)
    return jaccard(values[: offsets[1]], len(a), values[offsets[1] :], len(b), k)


SMALL = st.sets(st.integers(0, 30), max_size=25)


@given(SMALL, SMALL)
def test_similarity_is_exact_where_both_sets_fit(a: set[int], b: set[int]) -> None:
    union = len(a | b)
    assert measure(a, b, 25) == (len(a & b) / union if union else 0.0, 0.0)


@given(SMALL, SMALL, st.integers(1, 24))
def test_similarity_of_larger_sets_is_the_share_of_the_union_s_sketch(a: set[int], b: set[int], k: int) -> None:
    if len(a) <= k and len(b) <= k:
        return
    mixed_a, mixed_b = ({int(mix32(np.uint32(value))) for value in values} for values in (a, b))
    lowest = sorted(mixed_a | mixed_b)[:k]
    share = sum(value in mixed_a and value in mixed_b for value in lowest) / len(lowest)
    similarity, error = measure(a, b, k)
    assert similarity == min(share, min(len(a), len(b)) / max(len(a), len(b)))
    assert error > 0, "an estimate never looks exact"


@pytest.mark.parametrize("true", [0.3, 0.5, 0.8, 0.95])
def test_the_estimate_is_unbiased_and_its_error_honest(true: float) -> None:
    rng = np.random.default_rng(7)
    size, k, trials = 1000, 256, 300
    shared = round(2 * size * true / (1 + true))
    exact = shared / (2 * size - shared)
    found = []
    for _ in range(trials):
        values = rng.choice(2**32, 2 * size - shared, replace=False).tolist()
        found.append(measure(set(values[:size]), set(values[size - shared :]), k))
    estimates, errors = np.array(found).T
    assert abs(estimates.mean() - exact) < 4 * errors.mean() / math.sqrt(trials)
    within = np.mean(np.abs(estimates - exact) < 2 * errors)
    assert 0.92 < within <= 1.0, f"{within:.1%} of the estimates lie within two standard errors"
    assert errors.mean() < 1.2 * estimates.std(), "the stated error is not padded"


def test_copies_larger_than_a_sketch_measure_one_but_not_exactly() -> None:
    similarity, error = measure(set(range(3000)), set(range(3000)), 1024)
    assert similarity == 1.0 and 0 < error < 0.002


def test_kernels_may_call_jaccard() -> None:
    @numba.njit
    def call(a: np.ndarray, b: np.ndarray) -> float:
        return jaccard(a, 2, b, 2, 10)[0]

    assert call(np.array([1, 2], np.uint32), np.array([2, 3], np.uint32)) == 1 / 3


def test_s_curve_of_the_default_bands() -> None:
    config = MinHashConfig()
    assert config.num_perm == 112
    found = [s_curve(similarity, config.bands, config.rows) for similarity in (0.0, 0.7, 0.8, 0.9, 1.0)]
    assert found == pytest.approx([0, 0.5645, 0.9235, 0.9996, 1], abs=1e-4)
    assert found == [MinHashConfig(cuts=1).s_curve(similarity) for similarity in (0.0, 0.7, 0.8, 0.9, 1.0)]
    twice = [config.s_curve(similarity) for similarity in (0.0, 0.7, 0.8, 0.9, 1.0)]
    assert twice == pytest.approx([0, 0.7760, 0.9860, 0.99999, 1], abs=1e-4)


def test_the_second_cut_takes_each_row_once_and_no_two_of_one_band() -> None:
    found = np.zeros((112, 112), np.uint32)
    np.fill_diagonal(found, 1)  # document i differs from the others in row i alone
    plain = band_hashes(np.zeros((1, 112), np.uint32), 14, 8, 0, 28)
    changed = band_hashes(found, 14, 8, 0, 28) != plain
    assert (changed[:14].sum(axis=0) == 1).all() and (changed[14:].sum(axis=0) == 1).all()
    shared = changed[:14].astype(int) @ changed[14:].T
    assert shared.max() == 1 and shared.sum() == 112


@pytest.mark.parametrize(("bands", "rows"), [(2, 8), (8, 8), (14, 8), (20, 6), (4, 20)])
def test_the_s_curve_of_two_cuts_is_that_of_rows_that_agree_by_chance(bands: int, rows: int) -> None:
    draw = np.random.default_rng(5)
    for similarity in (0.5, 0.7, 0.8, 0.9):
        differs = (draw.random((20_000, bands * rows)) > similarity).astype(np.uint32)
        plain = band_hashes(np.zeros((1, bands * rows), np.uint32), bands, rows, 0, 2 * bands)
        caught = (band_hashes(differs, bands, rows, 0, 2 * bands) == plain).any(axis=0).mean()
        expected = s_curve_of_two_cuts(similarity, bands, rows)
        assert s_curve(similarity, bands, rows) <= expected <= s_curve(similarity, 2 * bands, rows)
        assert abs(caught - expected) < 0.01 + 4 * math.sqrt(expected * (1 - expected) / 20_000)


@pytest.mark.parametrize(("bands", "rows"), [(2, 2048), (4, 1024), (14, 8)])
def test_the_s_curve_of_two_cuts_is_a_share_for_bands_of_any_length(bands: int, rows: int) -> None:
    curve = [s_curve_of_two_cuts(similarity, bands, rows) for similarity in (0.0, 0.3, 0.6, 0.9, 0.9999, 1.0)]
    assert curve[0] == 0.0 and curve[-1] == 1.0 and all(0 <= share <= 1 for share in curve)
    assert curve == pytest.approx(sorted(curve), abs=1e-9)


def test_a_second_cut_is_left_out_where_it_would_repeat_the_first() -> None:
    assert MinHashConfig().all_bands == 28 and MinHashConfig(cuts=1).all_bands == 14
    assert MinHashConfig(bands=112, rows=1).all_bands == 112 and MinHashConfig(bands=1, rows=8).all_bands == 1
    assert MinHashConfig(bands=1, rows=8).s_curve(0.9) == s_curve(0.9, 1, 8)
    with pytest.raises(ValueError, match="cuts is 1 or 2; got 3"):
        MinHashConfig(cuts=3)


def test_bands_are_chosen_for_a_target() -> None:
    assert choose_bands(0.8, 0.98, 128) == (17, 7) and s_curve(0.8, 17, 7) > 0.98 > s_curve(0.8, 16, 7)
    assert choose_bands(0.8, 0.9, 112) == (13, 8)
    chosen = MinHashConfig(target=0.8)
    assert (chosen.bands, chosen.rows, chosen.num_perm, chosen.all_bands) == (17, 7, 119, 17)
    assert s_curve(0.8, 16, 8) < 0.98, "eight rows would need more permutations than allowed"
    with pytest.raises(ValueError, match=r"4 permutations cannot find 99.00% of the pairs at 0.3; allow more"):
        choose_bands(0.3, 0.99, 4)
    with pytest.raises(ValueError, match="target and recall"):
        MinHashConfig(target=1.5)


@pytest.mark.parametrize("size", [1, 5])
@given(texts=st.lists(st.text(max_size=60), max_size=6), k=st.sampled_from([1, 3, 1024]))
def test_signing_texts_equals_its_parts(size: int, texts: list[str], k: int) -> None:
    config = MinHashConfig(bands=3, rows=4, sketch_size=k)
    signed = sign(pa.array(texts, pa.string()), size, config)
    hashes, offsets = shingle_hashes(pa.array(texts, pa.string()), size)
    values, borders = sketches(hashes, offsets, k)
    assert np.array_equal(signed.signatures, signatures(hashes, offsets, 12))
    assert np.array_equal(signed.counts, np.diff(offsets))
    assert np.array_equal(signed.values, values) and np.array_equal(signed.offsets, borders)


@pytest.mark.parametrize("corpus", ["wikipedia_en", "wikipedia_zh", "documentation_versions", "poetry_zh"])
def test_signing_real_texts_equals_its_parts(corpus: str, real_texts: Callable[[str, int], list[str]]) -> None:
    texts = pa.array(real_texts(corpus, 300_000))
    config = MinHashConfig()
    signed = sign(texts, 5, config)
    hashes, offsets = shingle_hashes(texts)
    assert np.array_equal(signed.signatures, signatures(hashes, offsets, config.num_perm))
    assert np.array_equal(signed.values, sketches(hashes, offsets, config.sketch_size)[0])


def test_bands_catch_pairs_as_often_as_the_s_curve_says() -> None:
    rng = np.random.default_rng(11)
    size, trials = 400, 600
    shared = round(2 * size * 0.7 / 1.7)
    sets = []
    for _ in range(trials):
        values = rng.choice(2**32, 2 * size - shared, replace=False).tolist()
        sets += [set(values[:size]), set(values[size - shared :])]
    for config in (MinHashConfig(cuts=1), MinHashConfig()):
        hashes = band_hashes(signatures(*flat(sets), 112, 1), 14, 8, 0, config.all_bands)
        caught = (hashes[:, ::2] == hashes[:, 1::2]).any(axis=0).mean()
        expected = config.s_curve(shared / (2 * size - shared))
        assert abs(caught - expected) < 4 * math.sqrt(expected * (1 - expected) / trials)


@pytest.mark.parametrize("change", [{"bands": 0}, {"rows": -1}, {"sketch_size": 0}, {"seed": -1}, {"seed": 2**32}])
def test_impossible_settings_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"at least 1|seed"):
        MinHashConfig(**change)
