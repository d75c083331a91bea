"""Convert colours from an embedded profile to sRGB with Little CMS."""

from __future__ import annotations

import io

from PIL import Image


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image | None:
    """Convert an L, RGB or CMYK image; None where the profile is broken or made for other colours.

    The intent is perceptual, as browsers and cameras take it.
    """
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(
            image,
            source,
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.PERCEPTUAL,
            outputMode="RGB",
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    if converted is not None:
        converted.info = {}
    return converted
