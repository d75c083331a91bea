"""Decode untrusted images with Pillow: formats by a list, limits before memory, every mode by one stated rule.

What every mode becomes (`flatten`), 8 bits per channel, grey or RGB:
- 1 bit, and grey of 2 and 4 bits: grey, 0…255. 16-bit grey: its high byte, as Pillow takes it of 16-bit RGB, and as
  libpng's png_set_strip_16 does. Palettes: RGB.
- Alpha, and colours or palette entries that are declared transparent: over the background; what hides under alpha 0
  never shows. Grey with alpha stays grey where the background is grey.
- CMYK and YCCK: JPEG's are taken as inverted, as Adobe writes them; RGB is (255 - C)·(255 - K)/255 and so on.
- YCbCr: RGB by JFIF. 32-bit integers and floating point (TIFF) have no stated white, and LAB and HSV no stated use:
  refused as unsupported.
TIFF's fax compressions (CCITT: 2, 3, 4 of its tag 259) are refused as unsupported: of damaged ones libtiff leaves rows
as they were in memory, other pixels in every run.
Of an animation the first frame is decoded, and only that.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import NamedTuple

from PIL import BmpImagePlugin, GifImagePlugin, Image, ImageFile, JpegImagePlugin, PngImagePlugin, TiffImagePlugin
from PIL import WebPImagePlugin as WebpImagePlugin

from pipelines.images.config import LONGEST_DETAIL, ImageConfig, Refused
from pipelines.images.streams import Stream, walk_gif, walk_jpeg, walk_png, walk_webp

_Walk = Callable[[bytes, ImageConfig], Stream | Refused]


def _as_it_is(data: bytes, config: ImageConfig) -> Stream:
    return Stream(data)


# Plugins are called by name, not through Image.open: that would look at the limits of the whole process, which others
# may have changed, and make of a JPEG what its metadata ask for (a multi-picture object).
_FORMATS: dict[str, tuple[type[ImageFile.ImageFile], _Walk]] = {
    "JPEG": (JpegImagePlugin.JpegImageFile, walk_jpeg),
    "PNG": (PngImagePlugin.PngImageFile, walk_png),
    "WEBP": (WebpImagePlugin.WebPImageFile, walk_webp),
    "GIF": (GifImagePlugin.GifImageFile, walk_gif),
    "BMP": (BmpImagePlugin.BmpImageFile, _as_it_is),
    "TIFF": (TiffImagePlugin.TiffImageFile, _as_it_is),
}
_BEGINNINGS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}
# EXIF's orientation: what turns the stored picture upright (EXIF 2.32, 4.6.4 A)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112
_COMPRESSION, _FAX = 259, (2, 3, 4)  # TIFF 6.0, section 8, and sections 10 and 11: CCITT 1D, Group 3, Group 4


class Source(NamedTuple):
    """An image of which the header was read and found acceptable.

    width, height: of the stored pixels. orientation: 1…8, EXIF's; 1 is upright.
    """

    format: str
    stream: Stream
    width: int
    height: int
    orientation: int

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height once it is turned upright."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)

    def shrink(self, least: tuple[int, int]) -> int:
        """The divisor, 1, 2, 4 or 8, by which a JPEG decoder may shrink so that the upright image is no less than this.

        Decoders do that where they turn frequencies into pixels, at a fraction of the time; sides are rounded up.
        """
        if self.format != "JPEG":
            return 1
        width, height = self.upright
        ratio = min(width // least[0], height // least[1])
        return next((divisor for divisor in (8, 4, 2) if ratio >= divisor), 1)


def format_of(data: bytes) -> str | None:
    """Tell an image's format by its first bytes; None where it is none that can be decoded."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    return next((name for beginning, name in _BEGINNINGS.items() if data.startswith(beginning)), None)


def examine(data: bytes, config: ImageConfig) -> Source | Refused:
    """Read the header of an image and compare it with the limits; decodes no pixels and allocates none."""
    if len(data) > config.max_bytes:
        return Refused("too_many_bytes", f"{len(data)} bytes are more than {config.max_bytes}")
    name = format_of(data)
    if name is None or name not in config.formats:
        what = name or (f"it begins with {data[:8].hex()}" if data else "it has no bytes")
        return Refused("unsupported", f"not one of {', '.join(config.formats)}: {what}")
    stream = _FORMATS[name][1](data, config)
    if isinstance(stream, Refused):
        return stream
    if stream.size is None:
        try:
            image = _open(name, stream.data)
            compression = image.tag_v2.get(_COMPRESSION) if isinstance(image, TiffImagePlugin.TiffImageFile) else None
            if compression in _FAX:
                return Refused("unsupported", f"a TIFF of fax compression (CCITT, {compression})")
            frames = getattr(image, "n_frames", 1)
        except Exception as error:
            return _damaged(error)
        stream = stream._replace(size=image.size, frames=frames)  # a TIFF is turned by Pillow, its size too
    assert stream.size is not None
    width, height = stream.size
    return _beyond(width, height, config) or Source(name, stream, width, height, _orientation(stream.exif))


def _beyond(width: int, height: int, config: ImageConfig) -> Refused | None:
    """Refuse a size that no limit of the configuration allows; None where it is allowed."""
    size = f"{width} × {height} pixels"
    if width * height > config.max_pixels:
        return Refused("too_many_pixels", f"{size} are more than {config.max_pixels}")
    if min(width, height) < 1:
        return Refused("damaged", size)
    if max(width, height) > config.max_aspect * min(width, height):
        return Refused("aspect", f"{size}: one side is more than {config.max_aspect:g} times the other")
    if max(width, height) > config.max_side:
        return Refused("too_long", f"{size}: a side is longer than {config.max_side}")
    return None


def _open(name: str, data: bytes) -> ImageFile.ImageFile:
    return _FORMATS[name][0](io.BytesIO(data))


def _orientation(exif: bytes) -> int:
    if not exif:
        return 1
    found = Image.Exif()
    try:
        found.load(exif)
        value = found.get(_ORIENTATION)
    except Exception:  # whatever hostile bytes make of a parser: an orientation is no reason to lose a picture
        return 1
    return value if isinstance(value, int) and value in _TURNS else 1


def _damaged(error: Exception) -> Refused:
    """Say in the words of the ledger what a decoder raised. MemoryError is no property of the image: raised again."""
    if isinstance(error, MemoryError):
        raise error
    text = f"{type(error).__name__}: {error}"[:LONGEST_DETAIL]
    return Refused("truncated" if "truncated" in text.lower() else "damaged", text)


def decode(source: Source, least: tuple[int, int] | None, config: ImageConfig) -> Image.Image | Refused:
    """Decode the pixels as they are stored, in the mode that the format has.

    least: where it is given, a JPEG may be decoded smaller, but not below this width and height (upright).
    """
    divisor = source.shrink(least) if least else 1
    try:
        if source.format == "JPEG" and config.decoder == "simplejpeg":
            image = _decode_simplejpeg(source, divisor)
            if image is not None:
                return image
        image = _open(source.format, source.stream.data)
        if image.size != (source.width, source.height):
            return Refused("damaged", f"the header says {source.width} × {source.height}, the picture {image.size}")
        if divisor > 1:
            image.draft(None, (source.width // divisor, source.height // divisor))
        if source.format == "JPEG" and image.mode == "RGB":
            # As libjpeg-turbo can write what Pillow keeps, four bytes a pixel: a tenth faster than three and a copy.
            image.tile = [tile._replace(args=("RGBX", "")) for tile in image.tile]
        image.load()
    except Exception as error:
        return _damaged(error)
    return image


def _decode_simplejpeg(source: Source, divisor: int) -> Image.Image | None:
    """Decode with libjpeg-turbo at once, refusing all of its warnings; None for CMYK, which it leaves as it is."""
    import simplejpeg

    data = source.stream.data
    *_, space, _ = simplejpeg.decode_jpeg_header(data, strict=True)
    if space not in ("Gray", "YCbCr", "RGB"):
        return None
    mode, raw, wanted = ("L", "L", "GRAY") if space == "Gray" else ("RGB", "RGBX", "RGBX")
    width, height = -(-source.width // divisor), -(-source.height // divisor)
    pixels = simplejpeg.decode_jpeg(data, wanted, min_width=width, min_height=height, strict=True)
    return Image.frombytes(mode, (width, height), pixels, "raw", raw)


def flatten(image: Image.Image, background: tuple[int, int, int]) -> Image.Image | Refused:
    """Make of any mode grey (L) or RGB of 8 bits, without alpha and without metadata; see the module's text."""
    mode, hidden = image.mode, image.info.get("transparency")
    if mode.startswith("I;16"):
        high = slice(0, None, 2) if mode == "I;16B" else slice(1, None, 2)
        levels = image.tobytes()
        flat = Image.frombytes("L", image.size, levels[high])
        if isinstance(hidden, int):
            return _over(flat, _unlike(levels, hidden, mode, image.size), background)
        return flat
    if mode in ("1", "L", "RGB", "P") and hidden is not None:
        image, mode = image.convert("RGBA" if mode in ("RGB", "P") else "LA"), "RGBA"
    if image.mode in ("LA", "La"):
        image = image.convert("LA")
        return _over(image.getchannel("L"), image.getchannel("A"), background)
    if image.mode in ("RGBA", "RGBa", "PA"):
        image = image.convert("RGBA")
        return _over(image.convert("RGB"), image.getchannel("A"), background)
    if mode not in ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr"):
        return Refused("unsupported", f"samples of Pillow's mode {mode!r} have no stated meaning as colours")
    flat = image if mode in ("L", "RGB") else image.convert("L" if mode == "1" else "RGB")
    flat.info = {}
    return flat


def _unlike(levels: bytes, hidden: int, mode: str, size: tuple[int, int]) -> Image.Image:
    """A mask of 16-bit grey values: 0 where they are the transparent one, else 255."""
    import numpy as np

    values = np.frombuffer(levels, ">u2" if mode == "I;16B" else "<u2")
    return Image.frombytes("L", size, np.where(values == hidden, 0, 255).astype(np.uint8).tobytes())


def _over(flat: Image.Image, alpha: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    red, green, blue = background
    grey = flat.mode == "L" and red == green == blue
    under = Image.new("L" if grey else "RGB", flat.size, red if grey else background)
    under.paste(flat if grey else flat.convert("RGB"), mask=alpha)
    return under


def turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    """Turn and mirror the pixels as EXIF's orientation says."""
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image
