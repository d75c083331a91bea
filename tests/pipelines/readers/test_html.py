"""HTML files: one file is one document, one dead letter, or one that is removed with a reason."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.readers import html
from pipelines.readers.base import Document, InputFile, Item, ReadConfig, Reject

PAGE = (
    '<html lang="zh"><head><meta charset="{}"><title>标题</title></head>'
    "<body><p>网页的内容，一共一段。</p></body></html>"
)


def read(path: Path, data: bytes, **config: Any) -> Item:
    path.write_bytes(data)
    (item,) = html.read(InputFile(str(path), path.name, len(data), "html"), ReadConfig(**config))
    return item


@pytest.mark.parametrize("charset", ["utf-8", "gb18030"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_file_is_one_document(tmp_path: Path, charset: str, pack: Any) -> None:
    item = read(tmp_path / "x.html", pack(PAGE.format(charset).encode(charset)))
    assert isinstance(item, Document) and (item.text, item.key) == ("网页的内容，一共一段。", None)
    assert item.metadata and json.loads(item.metadata) == {"charset": charset, "language": "zh", "title": "标题"}


def test_a_failure_of_the_extraction_is_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RecursionError("too deep")

    monkeypatch.setattr(html, "page_text", fail)
    item = read(tmp_path / "x.html", PAGE.encode())
    assert isinstance(item, Reject) and item[1:3] == ("unreadable_markup", "RecursionError: too deep")


def test_what_is_no_document_says_why(tmp_path: Path) -> None:
    cases: list[tuple[bytes, str, str]] = [
        (b"", "empty_file", "rejected"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "binary_content", "removed"),
        (b"<html><script>x</script></html>", "no_text", "removed"),
        (b"x" * 3000, "text_too_long", "rejected"),
        (gzip.compress(b"words " * 99)[:-9], "truncated_file", "rejected"),
    ]
    for data, reason, action in cases:
        item = read(tmp_path / "x.html", data, max_record_bytes=2000)
        assert isinstance(item, Reject) and (item.reason, item.action) == (reason, action)
