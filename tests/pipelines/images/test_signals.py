import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageStat

from pipelines.images.signals import SIGNALS, signals

SIDE = 64


def _one(thumbnail: np.ndarray, size: tuple[int, int, int, int] = (64, 64, 1, 1)) -> dict[str, float]:
    return {name: values[0] for name, values in signals(thumbnail[None].astype(np.uint8), [size]).items()}


def test_sizes_and_aspect_are_of_the_image_and_not_of_its_thumbnail():
    found = _one(np.zeros((SIDE, SIDE)), (300, 1200, 4567, 3))
    assert [found[name] for name in SIGNALS[:7]] == [300, 1200, 300, 360_000, 4, 4567, 3]


def test_a_blank_image_has_no_contrast_entropy_or_edges():
    found = _one(np.full((SIDE, SIDE), 51))
    assert found["brightness"] == found["brightness_5"] == found["brightness_99"] == 0.2
    assert found["contrast"] == found["entropy"] == found["sharpness"] == 0
    assert found["flat_ratio"] == 1


def test_half_black_half_white_has_one_bit_and_the_greatest_contrast():
    image = np.zeros((SIDE, SIDE))
    image[:, 32:] = 255
    found = _one(image)
    assert (found["entropy"], found["contrast"], found["brightness"], found["flat_ratio"]) == (1, 127.5, 0.5, 0.5)
    assert (found["brightness_5"], found["brightness_99"]) == (0, 1)


def test_all_levels_alike_have_eight_bits():
    assert _one(np.arange(SIDE * SIDE).reshape(SIDE, SIDE) % 256)["entropy"] == 8


def test_dark_and_light_percentiles_are_where_the_count_reaches_them():
    image = np.zeros(SIDE * SIDE)
    image[: int(0.011 * SIDE * SIDE)] = 200  # 45 of 4,096 pixels: more than 1 %, so 99 % are not all dark
    assert _one(image.reshape(SIDE, SIDE))["brightness_99"] == pytest.approx(200 / 255)
    image[20:] = 0
    assert _one(image.reshape(SIDE, SIDE))["brightness_99"] == 0


def test_noise_measured_as_pillow_measures_it(images=5):
    noise = np.random.default_rng(0).integers(0, 256, (images, SIDE, SIDE), np.uint8)
    found = signals(noise, [(64, 64, 1, 1)] * images)
    for i in range(images):
        picture = Image.fromarray(noise[i])
        assert found["entropy"][i] == pytest.approx(picture.entropy())
        assert found["contrast"][i] == pytest.approx(ImageStat.Stat(picture).stddev[0])
        # Pillow leaves the border as it is; ours does not look at it.
        inner = picture.filter(ImageFilter.FIND_EDGES).crop((1, 1, SIDE - 1, SIDE - 1))
        assert found["sharpness"][i] == pytest.approx(ImageStat.Stat(inner).stddev[0])


def test_blurring_lowers_the_sharpness_and_leaves_the_brightness():
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (SIDE, SIDE), np.uint8))
    sharp, blurred = (_one(np.asarray(one)) for one in (noise, noise.filter(ImageFilter.GaussianBlur(2))))
    assert blurred["sharpness"] < sharp["sharpness"] / 5
    assert blurred["brightness"] == pytest.approx(sharp["brightness"], abs=0.01)


def test_no_images_give_empty_columns():
    found = signals(np.zeros((0, SIDE, SIDE), np.uint8), [])
    assert set(found) == set(SIGNALS)
    assert all(len(values) == 0 for values in found.values())


def test_a_batch_is_measured_as_its_images_alone():
    noise = np.random.default_rng(2).integers(0, 256, (1030, SIDE, SIDE), np.uint8)
    whole = signals(noise, [(64, 64, 1, 1)] * len(noise))
    for row in (0, 511, 512, 1029):
        assert _one(noise[row]) == {name: values[row] for name, values in whole.items()}
