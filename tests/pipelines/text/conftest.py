"""Texts of the real corpora; a test that asks for one skips where it is absent."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import settings

settings.register_profile("kernels", deadline=None)  # the first call of a kernel compiles it
settings.load_profile("kernels")

DATA = Path(__file__).resolve().parents[3] / ".." / "shared" / "data"


@functools.cache
def _read(path: Path, limit: int) -> list[str]:
    texts: list[str] = []
    size, rest = 0, b""
    with pa.CompressedInputStream(pa.OSFile(str(path)), "zstd") as stream:
        while size < limit and (block := stream.read(1 << 18)):
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                texts.append(json.loads(line)["text"])
                size += len(texts[-1].encode())
                if size >= limit:
                    break
    return texts


@pytest.fixture(scope="session")
def real_texts() -> Callable[[str, int], list[str]]:
    """Read the first texts of a corpus, up to a number of bytes of UTF-8 in all."""

    def read(corpus: str, limit: int) -> list[str]:
        path = DATA / f"{corpus}.jsonl.zst"
        if not path.exists():
            pytest.skip(f"the corpus {path.name} is not in ../shared/data")
        return _read(path, limit)

    return read
