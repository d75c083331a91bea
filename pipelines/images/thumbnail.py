"""What duplicates are found by: a hash of the pixels, and a small grey copy; neither depends on the output."""

from __future__ import annotations

import xxhash
from PIL import Image

from pipelines.images import resample
from pipelines.images.config import THUMBNAIL_SIDE
from pipelines.images.pixels import grey_columns, rgb_bytes

# JPEGs are decoded for the thumbnail by 1/2, 1/4 or 1/8 where both sides then still have this many pixels. A fixed
# number: thumbnails of one image must be the same whatever size the output has.
LEAST = (512, 512)
_GAP = 3.0  # shrink by whole numbers first, to 3 times the size


def thumbnail(image: Image.Image) -> bytes:
    """Squeeze an upright L or RGB image into 64 × 64 grey values: ITU-R 601-2 luma, weighted averages over its areas.

    HAMMING, because thumbnails of an image and of a smaller copy must agree: they differ by 0.3 grey values on average,
    with BOX by 1.4, since Pillow's takes every pixel wholly or not at all.
    """
    size = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    if image.mode == "RGB" and THUMBNAIL_SIDE not in image.size and max(image.size) < 2 * _GAP * THUMBNAIL_SIDE:
        return resample.squeeze(grey_columns(image), image.height, size, Image.Resampling.HAMMING).tobytes()
    grey = image if image.mode == "L" else image.convert("L")
    return resample.resize(grey, size, Image.Resampling.HAMMING, None, _GAP).tobytes()


def pixel_hash(image: Image.Image) -> bytes:
    """Hash the pixels of an upright image: xxh3-128, big-endian, of "{width}×{height}" in UTF-8 and its RGB bytes.

    The bytes are row by row, red, green and blue of each pixel; grey counts as three equal ones.
    """
    return _hash(image.size, rgb_bytes(image if image.mode == "RGB" else image.convert("RGB")).data)


def stream_hash(upright: tuple[int, int], orientation: int, stream: bytes) -> bytes:
    """Hash a large JPEG, of which not all pixels are decoded: as `pixel_hash`, of "jpeg", orientation and the stream.

    The stream has no metadata, so equal hashes mean equal pixels here too; only, the same pixels in another format, or
    losslessly compressed anew, have another hash.
    """
    return _hash(upright, b"jpeg%d" % orientation, stream)


def _hash(size: tuple[int, int], *parts: bytes | memoryview) -> bytes:
    digest = xxhash.xxh3_128("{}×{}".format(*size).encode())
    for part in parts:
        digest.update(part)
    return digest.digest()
