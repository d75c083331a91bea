"""Pixels without a copy, and what is made of them at once: what Pillow makes of them, bit for bit."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipelines.images.pixels import grey_columns, pixels, rgb_bytes
from pipelines.images.thumbnail import thumbnail

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))


def noise(size: tuple[int, int], seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.frombytes("RGB", size, values.tobytes())


@given(SIZES, st.integers(0, 9))
def test_bytes_and_grey_values_are_those_of_pillow(size: tuple[int, int], seed: int) -> None:
    image = noise(size, seed)
    assert rgb_bytes(image).tobytes() == image.tobytes()
    assert np.array_equal(grey_columns(image).T[: size[1]], np.asarray(image.convert("L")))
    assert np.array_equal(pixels(image) & 0xFFFFFF, np.asarray(image, np.uint32) @ np.uint32([1, 1 << 8, 1 << 16]))


def test_every_colour_has_the_grey_value_that_pillow_gives_it() -> None:
    steps = np.arange(0, 256, 5, dtype=np.uint8)  # 52 of each: 0 and 255 among them
    image = Image.fromarray(np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(52, -1, 3))
    assert np.array_equal(grey_columns(image).T[:52], np.asarray(image.convert("L")))


@pytest.mark.parametrize("size", [(63, 64), (64, 65), (65, 64), (90, 383), (383, 90), (384, 90), (90, 800), (5, 3)])
def test_a_thumbnail_is_that_of_pillow_on_either_side_of_every_limit(size: tuple[int, int]) -> None:
    image = noise(size)
    expected = image.convert("L").resize((64, 64), Image.Resampling.HAMMING, None, 3.0)
    assert thumbnail(image) == expected.tobytes()


def test_memory_that_is_not_pillows_own_is_copied_and_not_followed_into_nothing() -> None:
    values = np.arange(20, dtype=np.uint8).reshape(4, 5)
    mapped = Image.fromarray(values)
    assert mapped.readonly
    assert np.array_equal(pixels(mapped), values)


def test_an_image_in_several_pieces_is_read_whole() -> None:
    image = noise((2100, 2100))
    with pytest.raises(ValueError, match="multiple array blocks"):
        image.__arrow_c_array__()
    assert rgb_bytes(image).tobytes() == image.tobytes()


def test_the_array_holds_the_memory_when_the_image_is_gone() -> None:
    image = noise((300, 200))
    view, expected = pixels(image), pixels(image).copy()
    assert not view.flags.writeable and not view.flags.owndata
    del image
    gc.collect()
    others = [noise((300, 200), seed) for seed in range(1, 5)]  # would take that memory
    assert np.array_equal(view, expected) and others
