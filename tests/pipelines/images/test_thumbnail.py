"""Thumbnails and hashes: defined to the bit, the same for the same pixels, and close for smaller copies."""

from __future__ import annotations

import numpy as np
import xxhash
from PIL import Image

from pipelines.images.thumbnail import pixel_hash, stream_hash, thumbnail


def test_the_pixel_hash_is_what_its_text_says() -> None:
    image = Image.frombytes("RGB", (2, 1), bytes(range(6)))
    assert pixel_hash(image) == xxhash.xxh3_128_digest("2×1".encode() + bytes(range(6)))


def test_grey_hashes_as_the_rgb_of_its_values() -> None:
    grey = Image.effect_noise((20, 10), 50)
    assert pixel_hash(grey) == pixel_hash(grey.convert("RGB"))


def test_the_shape_counts() -> None:
    assert pixel_hash(Image.new("RGB", (10, 20))) != pixel_hash(Image.new("RGB", (20, 10)))


def test_a_stream_is_hashed_with_its_orientation() -> None:
    assert stream_hash((3, 2), 6, b"x") == xxhash.xxh3_128_digest("3×2jpeg6x".encode())
    assert stream_hash((3, 2), 6, b"x") != stream_hash((3, 2), 8, b"x")


def test_a_thumbnail_is_the_grey_whole_image() -> None:
    halves = Image.new("RGB", (128, 192), (255, 0, 0))
    halves.paste((0, 0, 255), (64, 0, 128, 192))
    values = np.frombuffer(thumbnail(halves), np.uint8).reshape(64, 64)
    assert (values[:, :31] == 76).all() and (values[:, 33:] == 29).all()  # 0.299 and 0.114 of 255


def test_an_image_of_64_pixels_is_its_own_thumbnail() -> None:
    grey = Image.effect_noise((64, 64), 50)
    assert thumbnail(grey) == grey.tobytes()


def test_thumbnails_of_smaller_copies_are_close() -> None:
    shapes = np.random.default_rng(1).integers(0, 256, (24, 32), dtype=np.uint8)
    image = Image.fromarray(shapes).resize((640, 480), Image.Resampling.BICUBIC).convert("RGB")
    whole = np.frombuffer(thumbnail(image), np.uint8).astype(int)
    for size in ((320, 240), (448, 336), (256, 256)):
        copy = np.frombuffer(thumbnail(image.resize(size, Image.Resampling.LANCZOS)), np.uint8).astype(int)
        assert np.abs(whole - copy).mean() < 0.6
