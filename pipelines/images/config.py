"""What may be decoded, and what becomes of it: the settings and the results of processing an image."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

Format = Literal["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]
Resize = Literal["keep", "keep_ratio", "keep_ratio_largest", "center_crop", "border"]
Filter = Literal["box", "hamming", "bilinear", "bicubic", "lanczos"]
Encoding = Literal["keep", "jpeg", "png", "webp"]
Subsampling = Literal["4:4:4", "4:2:2", "4:2:0"]
Colour = Literal["keep", "rgb"]
Decoder = Literal["pillow", "simplejpeg"]

THUMBNAIL_SIDE = 64  # schemas.image says the same; importing it would load Arrow into every child process
LONGEST = {"jpeg": 65_500, "png": 2**31 - 1, "webp": 16_383}  # pixels of a side: libjpeg, PNG 11.2.1, libwebp
LONGEST_DETAIL = 200  # characters of what is said about a refused image
_MOST_PIXELS = 178_956_970  # twice MAX_IMAGE_PIXELS: beyond it Pillow's own guard would raise


@dataclass(frozen=True)
class ImageConfig:
    """How images are decoded, resized and encoded, and which are refused.

    formats: what may be opened, told by the first bytes; BMP and TIFF are for those who ask. max_bytes: of the encoded
    image. max_pixels, max_side, max_aspect (longer side / shorter side): of the header, before pixels are decoded.
    max_scans: of a JPEG; each costs a pass over all of its pixels. strict: refuse also what decodes but is not whole:
    no end mark (JPEG's EOI, PNG's IEND, GIF's trailer), a checksum that is wrong. decoder: of JPEG; 'simplejpeg' (the
    extra fast-jpeg) gives the same pixels a little faster, and refuses most that are damaged inside the compressed
    data, of which Pillow notices next to none.

    background: red, green, blue under what is transparent. colour: 'keep' leaves grey images grey, 'rgb' does not.
    icc: convert colours by the embedded profile to sRGB, where it can be done; without, profiles are dropped. It is off
    because Little CMS and Pillow's binding of it read hostile bytes (CVE-2024-28219, CVE-2026-59205).

    resize: keep; keep_ratio (the shorter side becomes `size`); keep_ratio_largest (the longer side does); center_crop
    (as keep_ratio, and what exceeds size × size is cut off on both sides); border (as keep_ratio_largest, and filled up
    to size × size with the background). enlarge: do so with smaller images. filter: of Pillow, all of which average
    over what they shrink; hamming is nearly as sharp as bicubic at 2/3 of its time.

    encoding: 'keep' is the format of the original (PNG for GIF, BMP and TIFF). An image that has this format and needs
    no change of its pixels keeps its compressed data. quality: of JPEG and WebP. subsampling: of JPEG's colours.
    png_level: 0…9.

    seconds: of CPU time that one image may take in the sandbox. memory: bytes of address space that it may take there,
    beyond those of the program.
    """

    formats: tuple[Format, ...] = ("JPEG", "PNG", "WEBP", "GIF")
    max_bytes: int = 64 << 20
    max_pixels: int = 100_000_000
    max_side: int = 65_500
    max_aspect: float = 100.0
    max_scans: int = 100
    strict: bool = True
    decoder: Decoder = "pillow"
    background: tuple[int, int, int] = (255, 255, 255)
    colour: Colour = "keep"
    icc: bool = False
    resize: Resize = "keep"
    size: int = 256
    enlarge: bool = False
    filter: Filter = "hamming"
    encoding: Encoding = "keep"
    quality: int = 95
    subsampling: Subsampling = "4:2:0"
    png_level: int = 6
    seconds: float = 30.0
    memory: int = 4 << 30

    def __post_init__(self) -> None:
        """Raise ValueError for what does not exist or makes no sense."""
        for name, kind in _CHOICES.items():
            values = getattr(self, name)
            for value in values if isinstance(values, tuple) else (values,):
                if value not in get_args(kind):
                    raise ValueError(f"{name} is one of {', '.join(get_args(kind))}; got {value!r}")
        for name, (least, most) in _RANGES.items():
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} is {least} to {most}; got {getattr(self, name)}")
        if self.decoder == "simplejpeg" and importlib.util.find_spec("simplejpeg") is None:
            raise ValueError("decoder: simplejpeg is not installed; install gristmill[fast-jpeg], or choose pillow")
        if len(self.background) != 3 or not all(0 <= value <= 255 for value in self.background):
            raise ValueError(f"background is red, green and blue, each 0 to 255; got {self.background}")


_CHOICES = {
    "formats": Format,
    "decoder": Decoder,
    "colour": Colour,
    "resize": Resize,
    "filter": Filter,
    "encoding": Encoding,
    "subsampling": Subsampling,
}
_RANGES: dict[str, tuple[float, float]] = {
    "max_bytes": (1, 2**31 - 1),
    "max_pixels": (1, _MOST_PIXELS),
    "max_side": (1, LONGEST["jpeg"]),
    "max_aspect": (1, LONGEST["jpeg"]),
    "max_scans": (1, 2**31 - 1),
    "size": (1, 16_383),
    "quality": (1, 100),
    "png_level": (0, 9),
    "seconds": (0.01, 86_400),
    "memory": (256 << 20, 2**62),
}


class Processed(NamedTuple):
    """An image that was decoded and encoded anew.

    data: without metadata, width × height pixels, 8 bits per channel, grey or RGB, upright. format: of the original.
    original_width, original_height: of the original, turned upright. frames: of the original; data is the first.
    pixel_hash: 16 bytes, see `thumbnail.pixel_hash`. thumbnail: 64 × 64 grey values, row by row.
    """

    data: bytes
    width: int
    height: int
    format: str
    original_width: int
    original_height: int
    frames: int
    pixel_hash: bytes
    thumbnail: bytes


class Refused(NamedTuple):
    """An image that was not decoded: one of REASONS, and a line that says more (at most 200 characters)."""

    reason: str
    detail: str


REASONS = {
    "unsupported": "no image of an allowed format, or a kind of it that has no stated meaning",
    "too_many_bytes": "larger than max_bytes",
    "too_many_pixels": "more than max_pixels",
    "too_long": "a side longer than max_side, or than the output's format can be",
    "aspect": "longer side / shorter side above max_aspect",
    "too_many_scans": "a JPEG of more than max_scans",
    "metadata_bomb": "compressed metadata that would grow beyond all use",
    "truncated": "the end is missing",
    "damaged": "the bytes contradict the format or their checksums",
    "out_of_memory": "more than `memory` was needed",
    "decode_timeout": "more than `seconds` were needed",
    "decoder_crash": "the process that decoded it died, twice",
    "decoder_error": "the decoder failed in an unforeseen way",
}
