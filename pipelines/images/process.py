"""Process one image: check it, decode it once, describe it, resize it, encode it: a pure function.

A JPEG that is large is decoded at a fraction of its size, as far as the thumbnail (`thumbnail.LEAST`) and the output
(`resize.least`) allow; where they need different fractions, it is decoded twice.
"""

from __future__ import annotations

from PIL import Image

from pipelines.images import thumbnail
from pipelines.images.bare import bare
from pipelines.images.config import LONGEST, LONGEST_DETAIL, ImageConfig, Processed, Refused
from pipelines.images.decode import Source, decode, examine, flatten, turn_upright
from pipelines.images.encode import encode, encoding_of
from pipelines.images.icc import to_srgb
from pipelines.images.resize import final, least, resize


def process(data: bytes, config: ImageConfig) -> Processed | Refused:
    """Make of an encoded image its output, thumbnail and hash, or say why not; raises nothing for any bytes."""
    try:
        return _process(data, config)
    except MemoryError:
        return Refused("out_of_memory", f"{config.memory} bytes are not enough")
    except Exception as error:  # a parser's surprise at hostile bytes must cost one image and not the run
        return Refused("decoder_error", f"{type(error).__name__}: {error}"[:LONGEST_DETAIL])


def _process(data: bytes, config: ImageConfig) -> Processed | Refused:
    source = examine(data, config)
    if isinstance(source, Refused):
        return source
    upright, encoding = source.upright, encoding_of(source.format, config)
    width, height = final(*upright, config)
    if max(width, height) > LONGEST[encoding]:
        return Refused("too_long", f"{width} × {height} pixels are more than {encoding} can hold")
    first = decode(source, thumbnail.LEAST, config)
    if isinstance(first, Refused):
        return first
    flat = flatten(first, config.background)
    if isinstance(flat, Refused):
        return flat
    flat = turn_upright(flat, source.orientation)
    if source.shrink(thumbnail.LEAST) > 1:
        pixel_hash = thumbnail.stream_hash(upright, source.orientation, source.stream.data)
    else:
        pixel_hash = thumbnail.pixel_hash(flat)
    output = None
    if (width, height) == upright and _is_final(source, first, encoding, config):
        output = bare(source.format, source.stream.data)
    if output is None:
        picture = _picture(source, first, flat, config)
        if isinstance(picture, Refused):
            return picture
        output = encode(resize(picture, upright, config), encoding, config)
    small = thumbnail.thumbnail(flat)
    return Processed(output, width, height, source.format, *upright, source.stream.frames, pixel_hash, small)


def _is_final(source: Source, image: Image.Image, encoding: str, config: ImageConfig) -> bool:
    """Tell whether the compressed data, without its metadata, are the output as they are, where they are `bare`."""
    return (
        source.format.lower() == encoding
        and source.orientation == 1
        and source.stream.frames == 1
        and source.stream.eight_bits
        and not (source.stream.icc and config.icc)
        and image.mode in (("RGB",) if config.colour == "rgb" else ("L", "RGB"))
        and "transparency" not in image.info
    )


def _picture(source: Source, first: Image.Image, flat: Image.Image, config: ImageConfig) -> Image.Image | Refused:
    """The upright pixels that the output is made of: those of the thumbnail where they are enough."""
    wanted = least(*source.upright, config)
    managed = source.stream.icc if config.icc else b""
    if source.shrink(wanted) < source.shrink(thumbnail.LEAST):
        decoded = decode(source, wanted, config)
        if isinstance(decoded, Refused):
            return decoded
        first = decoded
        flattened = flatten(first, config.background)
        if isinstance(flattened, Refused):
            return flattened
        flat = turn_upright(flattened, source.orientation)
    if managed:
        converted = to_srgb(first if first.mode == "CMYK" else flat, managed)
        if converted is not None:
            flat = turn_upright(converted, source.orientation) if first.mode == "CMYK" else converted
    return flat.convert("RGB") if config.colour == "rgb" and flat.mode != "RGB" else flat
