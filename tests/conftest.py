"""Settings for all tests, and what several of them use."""

import gc
import time
from collections.abc import Callable

import pytest
from hypothesis import settings

# The same examples on every machine and in every run, and no deadline: a busy machine is no bug.
settings.register_profile("gristmill", deadline=None, derandomize=True, database=None)
settings.load_profile("gristmill")

# What torch, Beam and the tests import stays to the end: to look through it as often as Python does by default takes an
# eighth of the time of the stages' tests.
gc.set_threshold(50_000, 20, 50)

Task = Callable[[int], object]


def _cpu_seconds(task: Task, size: int) -> float:
    begin = time.process_time()
    task(size)
    return time.process_time() - begin


@pytest.fixture(scope="session")
def linear_time() -> Callable[[Task, int], None]:
    """Give an assertion: a task of a size takes CPU time in proportion to it, wherever the test runs.

    Between a size and a sixteenth of it lies a factor of 16 where time is linear and of 256 where it is quadratic: 64
    is between them. A single run on a busy machine may take any time, so one try in five is enough.
    """

    def check(task: Task, size: int) -> None:
        task(size // 16)  # compiles, and fills caches
        small, large = 0.005, float("inf")  # less cannot be told from the noise
        for _ in range(5):
            small, large = max(small, _cpu_seconds(task, size // 16)), min(large, _cpu_seconds(task, size))
            if large < 64 * small:
                return
        pytest.fail(f"a size of {size // 16:,} takes {small:.3f} s, and of {size:,} {large:.3f} s: not linear")

    return check
