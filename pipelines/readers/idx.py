"""IDX, the format of the MNIST family: a file of grey images, and beside it one of labels."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

import numpy as np

from pipelines.core.files import exists, open_read
from pipelines.readers import png
from pipelines.readers.base import CorruptFile, Image, InputFile, Item, ReadConfig, ReadError, Reject, reject
from pipelines.readers.decompress import SUFFIXES, open_stream
from pipelines.readers.image_fields import Unusable, label_name

_IMAGES, _LABELS = 0x0803, 0x0801  # unsigned bytes in three dimensions, and in one


def labels_name(name: str) -> str:
    """The name of the labels that belong to a file of images: train-images-idx3-ubyte → train-labels-idx1-ubyte."""
    swapped = re.sub(r"images(?=[^/]*$)", "labels", name)
    return re.sub(r"idx3(?=-ubyte[^/]*$)", "idx1", swapped)


def read(file: InputFile, config: ReadConfig) -> Iterator[Item]:
    """Yield the images of an IDX file, compressed or not, as PNG of the same pixels; positions are rows from 0.

    The key is `FILE#row`. Labels come from the file beside it whose name has `labels-idx1` for `images-idx3` (with
    whatever compression), as numbers or as `images.class_names`; without that file there are none. Rejected:
    'truncated_file' (the file ends before the images that its header counts; once), 'unreadable_file' (no IDX of
    images, or bytes after the last), 'missing_label' (the labels end early), 'unknown_label', 'too_large' (once), and
    what the decompression reports. Raises ReadError where the two files count differently.
    """
    with open_read(file.path) as raw:
        source = _Exact(open_stream(raw, file.path, config))
        head = source.read(16)
        magic, count, height, width = struct.unpack(">4I", head) if len(head) == 16 else (0, 0, 0, 0)
        size = height * width
        if magic != _IMAGES or not size:
            yield source.damage(0) or Reject(0, "unreadable_file", "the header is not that of images in IDX")
            return
        if size > config.max_record_bytes:
            detail = f"{count} images of {size} bytes, the limit is {config.max_record_bytes}"
            yield Reject(0, "too_large", detail)
            return
        labels = _labels(file, count, config)
        for row in range(count):
            pixels = source.read(size)
            if len(pixels) < size:
                why = source.damage(row)
                detail = f"the header counts {count} images, the file ends in number {row}"
                yield why if why and why.reason != "truncated_file" else Reject(row, "truncated_file", detail)
                return
            yield _image(file, row, pixels, (height, width), labels, config)
        if source.read(1):
            yield Reject(count, "unreadable_file", "bytes follow the last image that the header counts")
        elif why := source.damage(count):
            yield why


def _image(
    file: InputFile, row: int, pixels: bytes, shape: tuple[int, int], labels: bytes | None, config: ReadConfig
) -> Item:
    label = None
    if labels is not None:
        if row >= len(labels):
            return reject(row, "missing_label", "the file of labels ends before this one", pixels)
        try:
            label = label_name(labels[row], config.images.class_names)
        except Unusable as error:
            return reject(row, error.reason, str(error), pixels)
    data = png.grey(np.frombuffer(pixels, np.uint8).reshape(shape))
    return Image(data, f"{row:08d}.png", f"{file.relative}#{row}", label, None, None)


def _labels(file: InputFile, count: int, config: ReadConfig) -> bytes | None:
    """Read the labels that belong to a file; None where there is no such file."""
    base = labels_name(file.path)
    for suffix in SUFFIXES:
        base = base.removesuffix(suffix)
    path = next((path for path in (base, *(base + suffix for suffix in SUFFIXES)) if exists(path)), None)
    if path is None or base == file.path:
        return None
    with open_read(path) as raw:
        source = _Exact(open_stream(raw, path, config))
        head = source.read(8)
        magic, found = struct.unpack(">2I", head) if len(head) == 8 else (0, 0)
        if magic != _LABELS or found != count:
            what = f"counts {found} labels" if magic == _LABELS else "is no IDX file of labels"
            raise ReadError(
                f"{file.relative} holds {count} images, but {labels_name(file.relative)} beside it {what}; "
                "mend it, or move it away to read the images without labels"
            )
        return source.read(count)


class _Exact:
    """The decompressed bytes of a file, in pieces of any size; short where it ends or is damaged."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""
        self._error: CorruptFile | None = None

    def read(self, size: int) -> bytes:
        pieces = [self._rest[:size]]
        self._rest = self._rest[size:]
        have = len(pieces[0])
        while have < size:
            try:
                chunk = next(self._chunks, b"")
            except CorruptFile as error:
                self._error = error
                break
            if not chunk:
                break
            pieces.append(chunk[: size - have])
            self._rest = chunk[size - have :]
            have += len(pieces[-1])
        return b"".join(pieces)

    def damage(self, position: int) -> Reject | None:
        """What the decompression has reported, if anything."""
        return Reject(position, self._error.reason, str(self._error)) if self._error else None
