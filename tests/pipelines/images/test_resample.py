"""The resampling kernels: Pillow's own results, bit for bit, whatever the filter, the size, the box and the mode."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipelines.images.resample import resize

SIDES = st.integers(1, 150)
PARTS = st.tuples(st.floats(0, 0.9), st.floats(0, 0.9), st.floats(0.05, 1), st.floats(0.05, 1))


@pytest.mark.parametrize("kind", ["BOX", "HAMMING", "BILINEAR", "BICUBIC", "LANCZOS"])
@settings(max_examples=60, deadline=None)
@given(st.tuples(SIDES, SIDES), st.tuples(SIDES, SIDES), st.none() | PARTS, st.sampled_from(["L", "RGB"]))
@example((150, 3), (150, 2), None, "L")  # one direction alone, of memory that may only be read
@example((9, 9), (9, 9), None, "RGB")
@example((150, 150), (4, 5), (0.31, 0.1, 0.5, 0.77), "RGB")  # shrunk by whole numbers first, beyond the box
def test_it_is_pillows_resize(
    kind: str, original: tuple[int, int], size: tuple[int, int], part: tuple[float, ...] | None, mode: str
) -> None:
    noise = np.random.default_rng(original[0]).integers(0, 256, (*original[::-1], 3), np.uint8)
    noise[: original[1] // 2] = np.where(noise[: original[1] // 2] > 127, 255, 0)  # filters that overshoot are clipped
    image = Image.fromarray(noise).convert(mode)
    box = None
    if part:
        left, top = part[0] * original[0], part[1] * original[1]
        box = (left, top, left + part[2] * (original[0] - left), top + part[3] * (original[1] - top))
    made = resize(image, size, Image.Resampling[kind], box, 3.0)
    assert made.mode == mode and made.size == size
    assert made.tobytes() == image.resize(size, Image.Resampling[kind], box, 3.0).tobytes()


def test_large_sides_do_not_overflow() -> None:
    image = Image.linear_gradient("L").resize((65_500, 3))
    for size in ((7, 2), (16_383, 3)):
        made = resize(image, size, Image.Resampling.LANCZOS, None, 3.0)
        assert made.tobytes() == image.resize(size, Image.Resampling.LANCZOS, None, 3.0).tobytes()
