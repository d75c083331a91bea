import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.order import Schedule, shuffled


@given(st.integers(1, 400), st.integers(0, 2**63), st.integers(0, 5))
def test_shuffled_is_a_permutation(size: int, seed: int, epoch: int) -> None:
    assert sorted(shuffled(np.arange(size), size, seed, epoch).tolist()) == list(range(size))


def test_shuffled_moves_rows_and_differs_between_seeds_and_epochs() -> None:
    orders = [shuffled(np.arange(1000), 1000, seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    for order in orders:
        assert abs(np.corrcoef(order, np.arange(1000))[0, 1]) < 0.1
    assert all((a != b).mean() > 0.99 for a, b in itertools.pairwise(orders))


def test_shuffled_is_the_same_order_for_ever() -> None:
    # a change here makes every checkpoint resume on other rows
    assert shuffled(np.arange(8), 10, seed=1, epoch=2).tolist() == [8, 6, 9, 2, 4, 3, 1, 5]


def test_schedule_visits_every_row_once_an_epoch_however_it_is_cut() -> None:
    rows, epochs = Schedule(10, 4)(np.arange(35))
    assert epochs.tolist() == [0] * 10 + [1] * 10 + [2] * 10 + [3] * 5
    for epoch in range(3):
        assert sorted(rows[epochs == epoch].tolist()) == list(range(10))
    pieces = [Schedule(10, 4)(np.arange(first, first + 5))[0] for first in range(0, 35, 5)]
    assert np.concatenate(pieces).tolist() == rows.tolist()


@given(st.integers(1, 300), st.integers(1, 20), st.integers(0, 3))
def test_the_order_in_blocks_is_a_permutation_too(size: int, block: int, epoch: int) -> None:
    rows, _ = Schedule(size, 3, block=block)(np.arange(size) + epoch * size)
    assert sorted(rows.tolist()) == list(range(size))


def test_blocks_are_read_in_windows_of_sixteen() -> None:
    rows, _ = Schedule(10_000, 1, block=10)(np.arange(10_000))
    for first in range(0, 10_000, 160):
        assert len(set((rows[first : first + 160] // 10).tolist())) == min(16, (10_000 - first) // 10)
    assert abs(np.corrcoef(rows, np.arange(10_000))[0, 1]) < 0.1


@given(st.lists(st.floats(0, 4), min_size=1, max_size=60), st.integers(0, 3))
def test_a_weighted_row_comes_as_often_as_its_weight_and_never_twice_with_one_draw(
    weights: list[float], epoch: int
) -> None:
    if sum(weights) < 0.6:
        return
    schedule = Schedule(len(weights), 7, weights=np.array(weights))
    rows, draws = schedule(np.arange(schedule.size) + epoch * schedule.size)
    counts = np.bincount(rows, minlength=len(weights))
    scale = schedule.size / sum(weights)  # an epoch has a whole number of rows
    assert all(abs(n - w * scale) < 1 + 1e-6 for n, w in zip(counts, weights, strict=True))
    assert len(set(zip(rows.tolist(), draws.tolist(), strict=True))) == schedule.size


def test_over_epochs_a_half_weight_brings_all_rows() -> None:
    schedule = Schedule(100, 7, weights=np.full(100, 0.5))
    assert schedule.size == 50
    assert len(set(schedule(np.arange(50 * 20))[0].tolist())) == 100


def test_weights_that_leave_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="no row to train on"):
        Schedule(3, 0, weights=np.zeros(3))
