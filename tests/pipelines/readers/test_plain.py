"""Plain text: one file is one document or one dead letter."""

import bz2
import gzip
from pathlib import Path
from typing import Any

import pytest
import xxhash

from pipelines.readers import plain
from pipelines.readers.base import Document, InputFile, Item, ReadConfig, Reject


def read(path: Path, data: bytes, **config: Any) -> list[Item]:
    path.write_bytes(data)
    return list(plain.read(InputFile(str(path), path.name, len(data), "plain"), ReadConfig(**config)))


TEXT = "# 标题\r\n\r\nText with a \0 and \u2028.\n"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("x.md", TEXT.encode()),
        ("x.md", TEXT.encode("utf-8-sig")),
        ("x.md", TEXT.encode("utf-16")),
        ("x.md.gz", gzip.compress(TEXT.encode(), mtime=0)),
        ("x.md.bz2", bz2.compress(TEXT[:9].encode()) + bz2.compress(TEXT[9:].encode())),
    ],
)
def test_a_file_is_one_document_as_it_is(tmp_path: Path, name: str, data: bytes) -> None:
    assert read(tmp_path / name, data) == [Document(TEXT, None, None)]


def test_an_empty_file_is_accounted_for(tmp_path: Path) -> None:
    (empty,) = read(tmp_path / "x.txt", b"")
    assert isinstance(empty, Reject) and empty.reason == "empty_file"


def test_bad_files_are_one_reject_with_a_hash(tmp_path: Path) -> None:
    data = b"SECRET \xff"
    assert read(tmp_path / "x.txt", data) == [
        Reject(0, "invalid_utf8", "invalid start byte at byte 7", xxhash.xxh3_128_digest(data))
    ]
    (long,) = read(tmp_path / "x.txt", b"x" * 11, max_record_bytes=10)
    assert isinstance(long, Reject) and long.reason == "text_too_long"
    (cut,) = read(tmp_path / "x.txt.gz", gzip.compress(b"some text" * 9)[:-9])
    assert isinstance(cut, Reject) and cut.reason == "truncated_file"
