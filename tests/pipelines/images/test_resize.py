"""Resize: the size of every mode by hand, what is cut and what is filled, and that nothing grows unasked."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pipelines.images.config import ImageConfig
from pipelines.images.resize import final, least, resize


@pytest.mark.parametrize(
    ("mode", "original", "enlarge", "expected"),
    [
        ("keep", (300, 200), False, (300, 200)),
        ("keep_ratio", (300, 200), False, (150, 100)),
        ("keep_ratio", (200, 333), False, (100, 167)),
        ("keep_ratio", (80, 60), False, (80, 60)),
        ("keep_ratio", (80, 60), True, (133, 100)),
        ("keep_ratio_largest", (300, 200), False, (100, 67)),
        ("keep_ratio_largest", (300, 1), False, (100, 1)),
        ("keep_ratio_largest", (80, 60), True, (100, 75)),
        ("center_crop", (300, 200), False, (100, 100)),
        ("center_crop", (300, 60), False, (100, 60)),
        ("center_crop", (80, 60), True, (100, 100)),
        ("border", (300, 200), False, (100, 100)),
        ("border", (80, 60), False, (100, 100)),
        ("border", (80, 60), True, (100, 100)),
    ],
)
def test_sizes(mode: str, original: tuple[int, int], enlarge: bool, expected: tuple[int, int]) -> None:
    config = ImageConfig(resize=mode, size=100, enlarge=enlarge)  # type: ignore[arg-type]
    assert final(*original, config) == expected
    assert resize(Image.new("RGB", original), original, config).size == expected


def test_an_image_that_needs_nothing_is_the_same_object() -> None:
    image = Image.new("L", (100, 160))
    for mode in ("keep", "keep_ratio"):
        assert resize(image, image.size, ImageConfig(resize=mode, size=100)) is image  # type: ignore[arg-type]


def test_a_centre_crop_takes_the_middle() -> None:
    thirds = np.repeat(np.uint8([[10], [20], [30]]), 100, axis=0).T.repeat(100, 0)  # 300 × 100: three squares
    cut = resize(Image.fromarray(thirds), (300, 100), ImageConfig(resize="center_crop", size=50))
    assert set(np.asarray(cut)[:, 1:-1].ravel()) == {20}


def test_a_border_is_of_the_background_and_the_picture_in_the_middle() -> None:
    config = ImageConfig(resize="border", size=8, background=(1, 2, 3))
    made = np.asarray(resize(Image.new("RGB", (16, 8), (9, 9, 9)), (16, 8), config))
    assert (made[2:6] == 9).all() and (made[[0, 1, 6, 7]] == (1, 2, 3)).all()
    grey = resize(Image.new("L", (2, 4), 9), (2, 4), ImageConfig(resize="border", size=4))
    assert np.asarray(grey).tolist() == [[255, 9, 9, 255]] * 4


def test_the_size_is_that_of_the_original_where_a_decoder_shrank_it() -> None:
    config = ImageConfig(resize="keep_ratio", size=100)
    assert resize(Image.new("L", (251, 201)), (1001, 803), config).size == (125, 100)


def test_twice_the_size_is_asked_of_decoders_and_never_more_than_there_is() -> None:
    config = ImageConfig(resize="keep_ratio", size=100)
    assert least(1000, 800, config) == (250, 200)
    assert least(150, 120, config) == (150, 120)
    assert least(1000, 800, ImageConfig()) == (1000, 800)
