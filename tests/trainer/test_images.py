import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from schemas.base import SchemaError
from trainer.data import DataConfig
from trainer.images import OPERATIONS, ImageDataset, ImagesConfig, Loader, affine, augment, middle, mixing, random

sys.path.append(str(Path(__file__).resolve().parent))  # the writer of datasets, which the benchmark uses too
from image_data import png, record, write_images

RNG = np.random.default_rng(0)


def some(count: int, source: str = "drawn") -> Iterator[dict[str, object]]:
    for number in range(count):
        height, width = 8 + number % 5, 8 + number % 3
        pixels = RNG.integers(0, 256, (height, width, 3), np.uint8)
        label = None if number % 4 == 3 else "猫狗"[number % 2]
        yield record(png(pixels), f"{number}.png", label, source, place=number)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tables = {"train": list(some(22, "a")) + list(some(8, "b"))}
    return write_images(tmp_path_factory.mktemp("data") / "set", tables, per_shard=13, per_batch=4)


def open_set(folder: Path, **options: object) -> ImageDataset:
    return ImageDataset([folder], "train", **{"labelled": False, **options})


def test_rows_are_those_of_the_table_in_its_order(folder: Path) -> None:
    data = open_set(folder)
    assert len(data) == 30 and data.unlabelled == 0
    again = list(data.records["locator"].to_pylist())
    assert again == [f"{n}.png" for n in range(22)] + [f"{n}.png" for n in range(8)]
    assert [data.open(row).size for row in (0, 4, 29)] == [(8, 8), (9, 12), (9, 10)]
    assert data.documents(np.array([29, 0])).to_pylist() == [
        {"id": record(png(np.zeros((1, 1), np.uint8)), "7.png", None, "b")["id"], "source": "b"},
        {"id": record(png(np.zeros((1, 1), np.uint8)), "0.png", None, "a")["id"], "source": "a"},
    ]


def test_records_without_a_label_are_left_out_where_labels_are_needed(folder: Path) -> None:
    data = open_set(folder, labelled=True)
    assert len(data) == 23 and data.unlabelled == 7
    assert set(data.labels) == {"猫", "狗"}
    assert data.records["locator"].to_pylist()[:5] == ["0.png", "1.png", "2.png", "4.png", "5.png"]
    assert data.open(3).size == (9, 12)  # the decoded row is that of the record


def test_pixels_do_not_depend_on_batch_threads_or_cache(folder: Path) -> None:
    rows, epochs = np.arange(30), np.arange(30) % 3
    loader = Loader(open_set(folder), ImagesConfig(workers=1), 8)
    expected = loader.training(rows, epochs, 7)
    assert expected.shape == (30, 3, 8, 8) and expected.dtype == np.uint8
    threads = Loader(open_set(folder, cache=1), ImagesConfig(workers=3), 8)
    backwards = threads.training(rows[::-1], epochs[::-1], 7)[::-1]
    assert (backwards == expected).all()
    assert (threads.training(rows, epochs, 7) == expected).all()  # now from the cache
    assert (loader.training(rows[:5], epochs[:5], 7) == expected[:5]).all()
    for other in (loader.training(rows, epochs + 1, 7), loader.training(rows, epochs, 8)):
        assert (other != expected).any((1, 2, 3)).mean() > 0.9


def test_the_cache_keeps_no_more_than_it_may(folder: Path) -> None:
    data = open_set(folder)
    data._room = 4 * 8 * 8 + 4 * 9 * 9
    for row in range(30):
        data.open(row)
    assert sorted(data._cache) == [0, 1] and data._room == 0


def test_an_image_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    whole = record(png(np.zeros((40, 40), np.uint8)), "cut.png", "a")
    whole["image"]["bytes"] = whole["image"]["bytes"][:-20]
    folder = write_images(tmp_path / "set", {"train": [whole]})
    with pytest.raises(SchemaError, match=f"shard-00000.arrow, image {whole['id'].hex()}: .*make the shards"):
        open_set(folder).open(0)


def test_damaged_directories_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="no shard of table 'test'; its tables: train"):
        ImageDataset([folder], "test", labelled=False)
    copy = write_images(tmp_path / "set", {"train": some(3)})
    shard = copy / "train/shard-00000.arrow"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(SchemaError, match="is missing or not of"):
        open_set(copy)
    none = write_images(tmp_path / "none", {"train": [record(png(np.zeros((2, 2), np.uint8)), "x", None)]})
    with pytest.raises(SchemaError, match="holds no labelled rows"):
        open_set(none, labelled=True)


def test_weights_are_by_source_and_directory(folder: Path) -> None:
    data = ImageDataset([folder, folder], "train", labelled=False)
    assert data.weights(DataConfig()) is None
    found = data.weights(DataConfig(weights={"b": 0.5}, mix=(1.0, 3.0)))
    assert found is not None and found[[0, 29, 30, 59]].tolist() == [1, 0.5, 3, 1.5]
    with pytest.raises(ValueError, match="names 'c'; the sources of 'train': a, b"):
        data.weights(DataConfig(weights={"c": 2.0}))
    with pytest.raises(ValueError, match=r"data\.mix has 1 weights for 2"):
        data.weights(DataConfig(mix=(1.0,)))


def test_the_middle_square_is_cut_from_the_resized_image() -> None:
    pixels = np.zeros((4, 8), np.uint8)
    pixels[:, 2:6] = 200
    assert (np.asarray(middle(Image.fromarray(pixels), 4)) == 200).all()
    assert middle(Image.fromarray(pixels), 3).size == (3, 3)


def test_a_crop_of_1_without_operations_leaves_the_middle_square() -> None:
    image = Image.fromarray(RNG.integers(0, 256, (9, 12, 3), np.uint8))
    config = ImagesConfig(crop=1.0, flip=False, operations=0)
    assert (np.asarray(augment(image, np.full(6, 0.9), 6, config)) == np.asarray(middle(image, 6))).all()
    flipped = augment(image, np.full(6, 0.4), 6, ImagesConfig(crop=1.0, operations=0))
    assert (np.asarray(flipped) == np.asarray(middle(image, 6))[:, ::-1]).all()


def test_a_random_window_lies_in_the_image_and_keeps_the_smallest_area() -> None:
    ramp = Image.fromarray(np.tile(np.arange(64, dtype=np.uint8), (64, 1)))
    config = ImagesConfig(crop=0.25, flip=False, operations=0)
    left, right = (
        np.asarray(augment(ramp, np.array([0, 0.5, x, 0.5, 0, 0]), 32, config)).astype(int) for x in (0, 0.999999)
    )
    # a quarter of the area at aspect 1 is 32×32 pixels of 64: no scaling, from either edge
    assert (left[0] == np.arange(32)).all() and (right[0] == np.arange(32, 64)).all()


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_every_operation_keeps_size_and_mode_and_does_what_it_says(mode: str) -> None:
    image = Image.fromarray(RNG.integers(20, 200, (6, 6, 3), np.uint8)).convert(mode)
    fill = (9,) * len(image.getbands())
    for number, operate in enumerate(OPERATIONS):
        for strength in (-1.0, 0.0, 0.7, 1.0):
            out = operate(image, strength, fill)
            assert out.size == (6, 6) and out.mode == mode, number
    shifted = np.asarray(affine(image, (1, 0, 0, 1, 1 / 3, 0), fill))  # two of six pixels to the left
    assert (shifted[:, :4] == np.asarray(image)[:, 2:]).all() and (shifted[:, 4:] == 9).all()
    assert (np.asarray(OPERATIONS[9](image, 1.0, fill)) == 255 - np.asarray(image)).all()


def test_shares_of_mixtures_follow_the_beta_distribution() -> None:
    chance = (np.arange(2000) + 0.5) / 2000
    assert mixing(chance, 1.0) == pytest.approx(chance, abs=1e-3)  # Beta(1, 1) is even
    arcsine = np.sin(np.pi / 2 * chance) ** 2  # the quantiles of Beta(½, ½)
    assert mixing(chance, 0.5) == pytest.approx(arcsine, abs=1e-3)
    small = mixing(chance, 0.2)
    assert float(small.mean()) == pytest.approx(0.5, abs=1e-3)
    assert float(small.var()) == pytest.approx(1 / (4 * (2 * 0.2 + 1)), abs=1e-3)
    assert (mixing(chance, 0.0) == 1).all()
    x = np.linspace(0, 1, 101)
    assert mixing(3 * x**2 - 2 * x**3, 2.0) == pytest.approx(x, abs=1e-3)  # the distribution function of Beta(2, 2)
    for shape in (1.5, 4.0, 20.0, 100.0):
        assert float(mixing(chance, shape).var()) == pytest.approx(1 / (4 * (2 * shape + 1)), rel=0.02)


def test_draws_are_even_and_differ_between_rows_epochs_and_purposes() -> None:
    ids = RNG.integers(0, 2**63, 500).astype(np.uint64)
    zeros = np.zeros(500, np.int64)
    found = random(ids, zeros, 8, 0)
    assert found.shape == (500, 8) and 0 <= found.min() < 0.01 and 0.99 < found.max() < 1
    assert found.mean() == pytest.approx(0.5, abs=0.02)
    for other in (random(ids, zeros + 1, 8, 0), random(ids, zeros, 8, 1), random(ids, zeros, 8, 0, first=1 << 20)):
        assert not (other == found).any()
