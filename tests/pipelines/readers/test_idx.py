"""IDX: pixels and labels come out as they went in, and a file that lies about its size loses nothing unseen."""

from __future__ import annotations

import gzip
import io
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from pipelines.readers import idx
from pipelines.readers.base import ImageReadConfig, Item, ReadError

sys.path.append(str(Path(__file__).resolve().parent))  # the writer of archives
from image_files import config, images, input_file, rejects

PIXELS = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)
NAMES = ("T恤", "trouser", "pullover")


def idx3(pixels: np.ndarray, count: int | None = None) -> bytes:
    return struct.pack(">4I", 0x0803, len(pixels) if count is None else count, *pixels.shape[1:]) + pixels.tobytes()


def idx1(labels: list[int], count: int | None = None) -> bytes:
    return struct.pack(">2I", 0x0801, len(labels) if count is None else count) + bytes(labels)


def read(tmp_path: Path, data: bytes, labels: bytes | None = None, suffix: str = "", **settings: Any) -> list[Item]:
    pack = gzip.compress if suffix else bytes
    (tmp_path / f"t-images-idx3-ubyte{suffix}").write_bytes(pack(data))
    if labels is not None:
        (tmp_path / "t-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    file = input_file(tmp_path / f"t-images-idx3-ubyte{suffix}", "idx")
    return list(idx.read(file, config(**settings)))


def pixels(found: list[Item]) -> np.ndarray:
    return np.stack([np.asarray(PIL.Image.open(io.BytesIO(item.data))) for item in images(found)])


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_pixels_labels_and_places(tmp_path: Path, suffix: str) -> None:
    found = read(tmp_path, idx3(PIXELS), idx1([0, 2, 1, 0, 2]), suffix)
    assert np.array_equal(pixels(found), PIXELS)
    assert [(item.key, item.name, item.label) for item in images(found)] == [
        (f"t-images-idx3-ubyte{suffix}#{row}", f"0000000{row}.png", label) for row, label in enumerate("02102")
    ]
    named = read(tmp_path, idx3(PIXELS), idx1([0, 2, 1, 0, 2]), suffix, images=ImageReadConfig(class_names=NAMES))
    assert [item.label for item in images(named)] == [NAMES[i] for i in (0, 2, 1, 0, 2)]


def test_images_without_a_file_of_labels_have_none(tmp_path: Path) -> None:
    assert [item.label for item in images(read(tmp_path, idx3(PIXELS)))] == [None] * 5


def test_a_label_beyond_the_class_names_costs_its_image(tmp_path: Path) -> None:
    found = read(tmp_path, idx3(PIXELS), idx1([0, 3, 1, 0, 2]), images=ImageReadConfig(class_names=NAMES))
    assert len(images(found)) == 4 and rejects(found) == [(1, "unknown_label", "rejected")]


def test_files_that_count_differently_stop_the_run(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=r"holds 5 images, but t-labels-idx1-ubyte beside it counts 4 labels"):
        read(tmp_path, idx3(PIXELS), idx1([0] * 4))
    with pytest.raises(ReadError, match="is no IDX file of labels"):
        read(tmp_path, idx3(PIXELS), b"garbage of some length")


def test_labels_that_end_early_cost_the_images_behind(tmp_path: Path) -> None:
    found = read(tmp_path, idx3(PIXELS), idx1([1, 2, 1], count=5))
    assert len(images(found)) == 3
    assert rejects(found) == [(3, "missing_label", "rejected"), (4, "missing_label", "rejected")]


@pytest.mark.parametrize(
    ("data", "count", "expected"),
    [
        (idx3(PIXELS)[:-1], 4, [(4, "truncated_file", "rejected")]),
        (idx3(PIXELS)[:-12], 4, [(4, "truncated_file", "rejected")]),
        (idx3(PIXELS, count=4_000_000_000), 5, [(5, "truncated_file", "rejected")]),
        (idx3(PIXELS) + b"x", 5, [(5, "unreadable_file", "rejected")]),
        (b"", 0, [(0, "unreadable_file", "rejected")]),
        (b"\x89PNG" * 10, 0, [(0, "unreadable_file", "rejected")]),
        (struct.pack(">4I", 0x0803, 5, 0, 3), 0, [(0, "unreadable_file", "rejected")]),
        (struct.pack(">4I", 0x0803, 5, 1 << 31, 1 << 31), 0, [(0, "too_large", "rejected")]),
    ],
)
def test_a_file_that_lies_about_its_size(tmp_path: Path, data: bytes, count: int, expected: list[Any]) -> None:
    found = read(tmp_path, data)
    assert len(images(found)) == count and rejects(found) == expected


def test_a_cut_compression_is_one_dead_letter(tmp_path: Path) -> None:
    path = tmp_path / "t-images-idx3-ubyte.gz"
    noise = np.random.default_rng(0).integers(0, 256, (50, 28, 28), np.uint8)
    packed = gzip.compress(idx3(noise))
    path.write_bytes(packed[: len(packed) // 2])
    found = list(idx.read(input_file(path, "idx"), config()))
    assert 0 < len(images(found)) < 50 and [reason for _, reason, _ in rejects(found)] == ["truncated_file"]
    path.write_bytes(packed[:-4])  # all images, but not the end that proves them whole
    found = list(idx.read(input_file(path, "idx"), config()))
    assert len(images(found)) == 50 and rejects(found) == [(50, "truncated_file", "rejected")]


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("d/train-images-idx3-ubyte.gz", "d/train-labels-idx1-ubyte.gz"),
        ("train-images.idx3-ubyte", "train-labels.idx1-ubyte"),
        ("images/emnist-images/x-images-idx3-ubyte", "images/emnist-images/x-labels-idx1-ubyte"),
        ("digits.idx3-ubyte", "digits.idx1-ubyte"),
    ],
)
def test_the_name_of_the_labels(name: str, labels: str) -> None:
    assert idx.labels_name(name) == labels
