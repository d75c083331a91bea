"""Copies of images as the web makes them: encoded anew, scaled, blurred, recoloured, framed, covered, cut, turned.

A copy is a function of an RGB image to the bytes of a file; `COPIES` names them. All but the two that are encodings
themselves are saved as JPEG of quality 90, or 75 after scaling to a square.
"""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

Copy = Callable[[Image.Image], bytes]
CALTECH = Path(__file__).resolve().parents[1] / ".." / "shared" / "data" / "caltech101_subset.tar"


def encoded(image: Image.Image, kind: str = "JPEG", quality: int = 90) -> bytes:
    """Encode an image."""
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=quality)
    return buffer.getvalue()


def _gamma(image: Image.Image, gamma: float) -> Image.Image:
    return image.point([round(255 * (value / 255) ** gamma) for value in range(256)] * 3)


def _border(image: Image.Image, share: float) -> Image.Image:
    wide, high = round(image.width * share), round(image.height * share)
    framed = Image.new("RGB", (image.width + 2 * wide, image.height + 2 * high))
    framed.paste(image, (wide, high))
    return framed


def _watermark(image: Image.Image) -> Image.Image:
    """An opaque box with a word, 40 % of the width and 22 % of the height."""
    marked, (w, h) = image.copy(), image.size
    draw = ImageDraw.Draw(marked)
    draw.rectangle((w * 0.55, h * 0.70, w * 0.95, h * 0.92), fill="white")
    draw.text((w * 0.57, h * 0.75), "SAMPLE", fill="black")
    return marked


def _crop(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    """Cut off shares of the sides."""
    w, h = image.size
    return image.crop((round(w * left), round(h * top), round(w * (1 - right)), round(h * (1 - bottom))))


def _square(image: Image.Image) -> Image.Image:
    """Cut the middle out of an image, but no more than a third of it."""
    w, h = image.size
    side = max(min(w, h), round(max(w, h) * 2 / 3))
    left, top = max(0, w - side) / 2 / w, max(0, h - side) / 2 / h
    return _crop(image, left, top, left, top)


def _bars(
    image: Image.Image, left: float, top: float, right: float, bottom: float, colour: str = "black"
) -> Image.Image:
    """Add bars, shares of the sides."""
    w, h = image.size
    framed = Image.new("RGB", (round(w * (1 + left + right)), round(h * (1 + top + bottom))), colour)
    framed.paste(image, (round(w * left), round(h * top)))
    return framed


def _centre(share: float) -> Copy:
    return lambda image: encoded(_crop(image, share, share, share, share))


def _corner(left: float, top: float, right: float, bottom: float) -> Copy:
    return lambda image: encoded(_crop(image, left, top, right, bottom))


def _transposed(how: Image.Transpose) -> Copy:
    return lambda image: encoded(image.transpose(how))


COPIES: dict[str, Copy] = {
    "JPEG quality 30": lambda image: encoded(image, quality=30),
    "WebP quality 50": lambda image: encoded(image, "WEBP", 50),
    "half size": lambda image: encoded(image.resize((max(1, image.width // 2), max(1, image.height // 2)))),
    "square of 256": lambda image: encoded(image.resize((256, 256)), quality=75),
    "blur, radius 2": lambda image: encoded(image.filter(ImageFilter.GaussianBlur(2))),
    "grey": lambda image: encoded(image.convert("L")),
    "gamma 0.6": lambda image: encoded(_gamma(image, 0.6)),
    "gamma 1.6": lambda image: encoded(_gamma(image, 1.6)),
    "contrast +50 %": lambda image: encoded(ImageEnhance.Contrast(image).enhance(1.5)),
    "brightness +40 %": lambda image: encoded(ImageEnhance.Brightness(image).enhance(1.4)),
    "brightness -40 %": lambda image: encoded(ImageEnhance.Brightness(image).enhance(0.6)),
    "border 6 %": lambda image: encoded(_border(image, 0.06)),
    "watermark box": lambda image: encoded(_watermark(image)),
    "centre crop 2 %": _centre(0.02),
    "centre crop 5 %": _centre(0.05),
    "centre crop 8 %": _centre(0.08),
    "centre crop 10 %": _centre(0.10),
}
CORNER_COPIES: dict[str, Copy] = {
    "corner crop 10 %, upper left": _corner(0, 0, 0.10, 0.10),
    "corner crop 10 %, lower right": _corner(0.10, 0.10, 0, 0),
}
SIDE_COPIES: dict[str, Copy] = {
    "crop of one side, 10 %": lambda image: encoded(_crop(image, 0, 0, 0.10, 0)),
    "square out of the middle": lambda image: encoded(_square(image)),
    "letterbox, 10 % above and below": lambda image: encoded(_bars(image, 0, 0.10, 0, 0.10)),
    "pillarbox, 10 % left and right": lambda image: encoded(_bars(image, 0.10, 0, 0.10, 0)),
    "white strip below, 15 %": lambda image: encoded(_bars(image, 0, 0, 0, 0.15, "white")),
}
TURNED_COPIES: dict[str, Copy] = {
    "mirrored": _transposed(Image.Transpose.FLIP_LEFT_RIGHT),
    "upside down": _transposed(Image.Transpose.FLIP_TOP_BOTTOM),
    "quarter turn": _transposed(Image.Transpose.ROTATE_90),
    "half turn": _transposed(Image.Transpose.ROTATE_180),
}


def caltech(count: int | None = None, seed: int = 1) -> list[tuple[str, bytes]]:
    """Read images of Caltech 101 (1,780 of 12 classes), all or a seeded choice: (class/name.jpg, bytes), by name.

    FileNotFoundError where the data is not there.
    """
    found = []
    with tarfile.open(CALTECH) as archive:
        for member in archive:
            if member.isfile() and member.name.endswith(".jpg"):
                file = archive.extractfile(member)
                assert file is not None
                found.append(("/".join(member.name.split("/")[-2:]), file.read()))
    found.sort()
    return found if count is None else sorted(random.Random(seed).sample(found, count))


def decoded(data: bytes) -> Image.Image:
    """Decode an image to RGB."""
    return Image.open(io.BytesIO(data)).convert("RGB")


def write_folder(root: Path, images: Sequence[tuple[str, bytes]]) -> None:
    """Write images as files under a folder."""
    for name, data in images:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
