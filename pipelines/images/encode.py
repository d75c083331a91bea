"""Encode pixels with fixed settings: the same pixels and the same Pillow give the same bytes."""

from __future__ import annotations

import io

from PIL import Image

from pipelines.images.config import ImageConfig

_WEBP_METHOD = 4  # libwebp's own default, between speed and size


def encoding_of(format: str, config: ImageConfig) -> str:
    """The encoding of the output for an original of this format: jpeg, png or webp."""
    if config.encoding != "keep":
        return config.encoding
    return {"JPEG": "jpeg", "WEBP": "webp"}.get(format, "png")


def encode(image: Image.Image, encoding: str, config: ImageConfig) -> bytes:
    """Encode an L or RGB image that carries no metadata (`image.info` is empty)."""
    out = io.BytesIO()
    if encoding == "jpeg":
        image.save(out, "JPEG", quality=config.quality, subsampling=config.subsampling)
    elif encoding == "png":
        image.save(out, "PNG", compress_level=config.png_level)
    else:
        image.save(out, "WEBP", quality=config.quality, method=_WEBP_METHOD)
    return out.getvalue()
