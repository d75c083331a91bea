"""Tar archives and images made by hand, for the tests of the readers of images."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.readers.base import Image, InputFile, Item, ReadConfig, Reject

# Readers look at no image, so any bytes are one.
Entry = tuple[str, bytes] | tarfile.TarInfo


def tar_bytes(entries: Sequence[Entry], format: int = tarfile.GNU_FORMAT) -> bytes:
    """An archive of regular files (name, data) and of other members."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=format) as archive:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                archive.addfile(entry)
            else:
                info = tarfile.TarInfo(entry[0])
                info.size = len(entry[1])
                archive.addfile(info, io.BytesIO(entry[1]))
    return sink.getvalue()


def member(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    """A member that is no regular file."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def input_file(path: Path, format: str, relative: str | None = None) -> InputFile:
    return InputFile(str(path), relative or path.name, path.stat().st_size, format)


def config(**settings: Any) -> ReadConfig:
    return ReadConfig(kind="images", **settings)


def images(items: Sequence[Item]) -> list[Image]:
    return [item for item in items if isinstance(item, Image)]


def rejects(items: Sequence[Item]) -> list[tuple[int, str, str]]:
    """(position, reason, action) of what was refused."""
    return [(item.position, item.reason, item.action) for item in items if isinstance(item, Reject)]
