"""Resize as img2dataset does: five modes of the same names, which differ only in what this says.

Images are never enlarged unless `enlarge` is set. `border` fills smaller images up and `center_crop` cuts what exceeds
even where nothing is resized (img2dataset leaves such images alone).
"""

from __future__ import annotations

from PIL import Image

from pipelines.images import resample
from pipelines.images.config import ImageConfig

_FILTERS = {
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_GAP = 3.0  # shrink by whole numbers first, to 3 times the size: Pillow's documentation calls that close to fair
_ROOM = 2  # a decoder that shrinks leaves twice the size for the filter: what Image.thumbnail asks of it


def resized(width: int, height: int, config: ImageConfig) -> tuple[int, int]:
    """Width and height of the whole image at its new scale, before crop or border; rounded half up, at least 1."""
    if config.resize == "keep":
        return width, height
    by = min(width, height) if config.resize in ("keep_ratio", "center_crop") else max(width, height)
    if by == config.size or (by < config.size and not config.enlarge):
        return width, height
    return (
        max(1, (2 * width * config.size + by) // (2 * by)),
        max(1, (2 * height * config.size + by) // (2 * by)),
    )


def final(width: int, height: int, config: ImageConfig) -> tuple[int, int]:
    """Width and height of the output for an upright original of this size."""
    wide, high = resized(width, height, config)
    if config.resize == "border":
        return config.size, config.size
    if config.resize == "center_crop":
        return min(wide, config.size), min(high, config.size)
    return wide, high


def least(width: int, height: int, config: ImageConfig) -> tuple[int, int]:
    """Width and height that the decoded image must have, so that `resize` loses nothing; the original's at most."""
    wide, high = resized(width, height, config)
    return min(width, _ROOM * wide), min(height, _ROOM * high)


def resize(image: Image.Image, original: tuple[int, int], config: ImageConfig) -> Image.Image:
    """Resize an upright L or RGB image, crop it or fill it up; returns the same object where nothing is to be done.

    original: its size before a decoder shrank it, which decides the size of the result.
    """
    whole = resized(*original, config)
    width, height = final(*original, config)
    if config.resize == "border":
        scaled = _scaled(image, whole, None, config)
        if scaled.size == (width, height):
            return scaled
        red, green, blue = config.background
        grey = image.mode == "L" and red == green == blue
        filled = Image.new("L" if grey else "RGB", (width, height), red if grey else config.background)
        filled.paste(scaled, ((width - whole[0]) // 2, (height - whole[1]) // 2))
        return filled
    if (width, height) == whole:
        return _scaled(image, whole, None, config)
    left, top = (whole[0] - width) // 2, (whole[1] - height) // 2
    x, y = image.width / whole[0], image.height / whole[1]
    return _scaled(image, (width, height), (left * x, top * y, (left + width) * x, (top + height) * y), config)


def _scaled(
    image: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float] | None, config: ImageConfig
) -> Image.Image:
    if image.size == size and box is None:
        return image
    return resample.resize(image, size, _FILTERS[config.filter], box, _GAP)
