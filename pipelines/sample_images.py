"""Write the handwritten digits that ship inside scikit-learn as a folder of images: a first run without a download.

    python -m pipelines.sample_images --output data/raw_images

1,797 grey PNG files of 8 × 8 pixels in the class folders 0/ … 9/, and a README.md with their source and licence.
The data come with the optional dependency `sample` (scikit-learn); the bytes are the same on every machine.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.core.cli import guarded

LEVELS = 16  # the largest value of a pixel: it counts the inked pixels of a 4 × 4 block
CARD = "README.md"
_ABOUT = """# Handwritten digits

1,797 grey images of 8 × 8 pixels in ten classes, one folder for each digit: the test part of “Optical Recognition of
Handwritten Digits”, as it ships inside scikit-learn (`sklearn.datasets.load_digits`). The number in a file's name is
the row of the image there. A pixel is 0 (paper) to 255 (ink): round(255 · n / 16), where n of the 16 pixels of a block
of the scan were inked.

- Source: E. Alpaydin, C. Kaynak (1998), Optical Recognition of Handwritten Digits, UCI Machine Learning Repository,
  https://doi.org/10.24432/C50P49
- Licence: Creative Commons Attribution 4.0 International (CC BY 4.0), https://creativecommons.org/licenses/by/4.0/
- Changes: the counts were scaled to 255 and written as PNG by `pipelines.sample_images`.
"""


class SampleError(ValueError):
    """The sample cannot be made, or not here."""


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Load the digits of scikit-learn: uint8[n, 8, 8] of 0 to 16, and int64[n] classes.

    SampleError where scikit-learn is missing.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise SampleError(
            "the sample images ship inside scikit-learn, which is not installed: pip install 'gristmill[sample]'"
        ) from error
    found = load_digits()
    return found.images.astype(np.uint8), found.target


def png(counts: np.ndarray) -> bytes:
    """Encode uint8[h, w] of 0 to 16 as a grey PNG of 0 to 255 without metadata.

    Nothing is compressed (zlib level 0): other levels give other bytes in zlib and zlib-ng, and of so small an image
    they save 13 bytes.
    """
    grey = np.rint(counts * (255 / LEVELS)).astype(np.uint8)
    sink = io.BytesIO()
    Image.fromarray(grey).save(sink, "PNG", compress_level=0)
    return sink.getvalue()


def files(images: np.ndarray, classes: np.ndarray) -> Iterator[tuple[str, bytes]]:
    """Yield the (relative path, content) of every file of the folder."""
    yield CARD, _ABOUT.encode()
    for row, (image, label) in enumerate(zip(images, classes.tolist(), strict=True)):
        yield f"{label}/{row:04}.png", png(image)


def write(output: Path) -> int:
    """Write the folder, or write it again; returns the number of images.

    It appears whole. SampleError where `output` holds a file that this command does not write.
    """
    content = dict(files(*digits()))
    if output.exists():
        if not output.is_dir():
            raise SampleError(f"{output} is a file; name a directory as --output")
        present = sorted(path.relative_to(output).as_posix() for path in output.rglob("*") if not path.is_dir())
        strange = [name for name in present if name not in content]
        if strange:
            raise SampleError(f"{output} holds {strange[0]}, which is no sample image; name another --output")
    part = output.with_name(f".{output.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        for name, data in content.items():
            path = part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        if output.exists():
            shutil.rmtree(output)
        part.rename(output)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return len(content) - 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.sample_images",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the images")
    args = parser.parse_args(argv)
    return guarded("sample_images", lambda: print(f"{write(args.output):,} images written to {args.output}"))


if __name__ == "__main__":
    sys.exit(main())
