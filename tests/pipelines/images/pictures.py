"""Pictures for tests: smooth random shapes, and any of them as a file."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def picture(width: int = 90, height: int = 60, seed: int = 0) -> Image.Image:
    """Draw shapes of many colours: they have contrast, and those of two seeds are not alike."""
    noise = np.random.default_rng(seed).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    """Save as Pillow does."""
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()
