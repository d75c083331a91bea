"""PNG written by hand: the pixels come back, and the bytes never change."""

from __future__ import annotations

import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from pipelines.readers import png


@pytest.mark.parametrize(("height", "width"), [(1, 1), (28, 28), (3, 70_000), (255, 256), (700, 100)])
def test_pillow_reads_the_same_pixels(height: int, width: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width), np.uint8)
    with Image.open(io.BytesIO(png.grey(pixels))) as image:
        image.load()
        assert (image.format, image.mode) == ("PNG", "L")
        assert np.array_equal(np.asarray(image), pixels)


def test_the_bytes_are_these() -> None:
    pixels = np.arange(28 * 28, dtype=np.uint32).reshape(28, 28).astype(np.uint8)
    data = png.grey(pixels)
    assert len(data) == 8 + 25 + 12 + (2 + 5 + 28 * 29 + 4) + 12
    digest = "ca77f8f0a4e21520f3c676566d0b34afe9cdc2ad5131a0c577eece2f17030d6e"
    assert hashlib.sha256(data).hexdigest() == digest
