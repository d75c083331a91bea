"""Lines: none is lost, none is split in two, and no line takes unbounded memory."""

import gzip
import itertools
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from pipelines.readers.base import CorruptFile, InputFile, ReadConfig, Reject
from pipelines.readers.lines import as_utf8, read_lines, split_lines


def chop(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


@given(st.lists(st.binary(max_size=30).map(lambda b: b.replace(b"\n", b"")), max_size=30), st.integers(1, 40))
def test_split_lines_equals_split_for_any_content_and_any_chunks(lines: list[bytes], size: int) -> None:
    data = b"\n".join(lines)
    if data.startswith(b"\xef\xbb\xbf"):
        data = b"x" + data
    found = list(split_lines(chop(data, size), 1000))
    expected = data.split(b"\n")
    if expected[-1] == b"":
        expected.pop()
    assert [line for _, line in found] == expected
    for offset, line in found:
        assert isinstance(line, bytes) and data[offset : offset + len(line)] == line


@given(st.lists(st.integers(0, 60), max_size=12), st.integers(1, 50), st.integers(1, 30), st.booleans())
def test_long_lines_are_rejected_with_their_hash_and_the_others_survive(
    sizes: list[int], chunk: int, limit: int, newline_at_end: bool
) -> None:
    lines = [bytes([97 + i % 26]) * size for i, size in enumerate(sizes)]
    data = b"\n".join(lines) + (b"\n" if newline_at_end and lines else b"")
    found = list(split_lines(chop(data, chunk), limit))
    expected = data.split(b"\n")
    if expected[-1] == b"":
        expected.pop()
    assert len(found) == len(expected)
    for (offset, got), line in zip(found, expected, strict=True):
        if len(line) > limit:
            assert got == Reject(
                offset,
                "line_too_long",
                f"{len(line)} bytes, the limit is {limit}",
                xxhash.xxh3_128_digest(line),
            )
        else:
            assert got == line


def test_a_line_of_a_gigabyte_takes_no_memory_and_the_next_line_survives() -> None:
    chunk = b"x" * (1 << 20)

    def gigabyte() -> Iterator[bytes]:
        yield b"first\n"
        for _ in range(1024):
            yield chunk
        yield b"\nlast"

    tracemalloc.start()
    found = list(split_lines(gigabyte(), 4 << 20))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [offset for offset, _ in found] == [0, 6, 6 + (1 << 30) + 1]
    assert found[0][1] == b"first" and found[2][1] == b"last"
    assert isinstance(found[1][1], Reject) and found[1][1].reason == "line_too_long"
    assert peak < 16 << 20


def test_only_a_newline_ends_a_line() -> None:
    data = "a\u2028b\u0085c\r\nd\x0be\rf".encode()
    assert [line for _, line in split_lines([data], 100)] == ["a\u2028b\u0085c\r".encode(), b"d\x0be\rf"]


def test_an_error_in_the_middle_gives_the_lines_before_and_one_reject() -> None:
    def failing() -> Iterator[bytes]:
        yield b"one\ntwo\nthr"
        raise CorruptFile("truncated_file", "cut")

    assert list(split_lines(failing(), 100)) == [
        (0, b"one"),
        (4, b"two"),
        (8, Reject(8, "truncated_file", "cut")),
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be", "utf-32-le"])
@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_encodings_with_a_mark_or_a_first_brace_are_read(encoding: str, size: int) -> None:
    text = '{"text": "汉字 and words 😀"}\n{"text": "第二"}'
    chunks = as_utf8(iter(chop(text.encode(encoding), size)))
    assert [line.decode() for _, line in split_lines(chunks, 1000) if isinstance(line, bytes)] == text.split("\n")


def test_utf16_that_ends_in_half_a_character_is_reported() -> None:
    data = "ab\ncd".encode("utf-16")[:-1]
    found = list(split_lines(as_utf8(iter([data])), 100))
    assert found[0] == (0, b"ab")
    last = found[-1][1]
    assert isinstance(last, Reject) and last.reason == "invalid_utf16" and len(found) == 2


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=40),
    st.lists(st.integers(1, 60), max_size=4, unique=True),
    st.booleans(),
)
def test_byte_ranges_that_touch_give_every_line_once(sizes: list[int], cuts: list[int], newline: bool) -> None:
    data = b"\n".join(b"%d" % i * size for i, size in enumerate(sizes)) + (b"\n" if newline else b"")
    bounds = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    with Memory(data) as path:
        whole = list(read_lines(InputFile(path, "x", len(data), "jsonl"), ReadConfig()))
        parts: list[tuple[int, bytes | Reject]] = []
        for start, end in itertools.pairwise(bounds):
            parts += read_lines(InputFile(path, "x", len(data), "jsonl", start, end), ReadConfig())
    assert parts == whole


class Memory:
    """A file for the time of one example."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __enter__(self) -> str:
        self.file = tempfile.NamedTemporaryFile(suffix=".jsonl")
        self.file.write(self.data)
        self.file.flush()
        return self.file.name

    def __exit__(self, *_: object) -> None:
        self.file.close()


def test_read_lines_decompresses_and_strips_the_mark(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress(b"\xef\xbb\xbfone\n\xef\xbb\xbftwo"))
    file = InputFile(str(path), "x.jsonl.gz", path.stat().st_size, "jsonl")
    assert list(read_lines(file, ReadConfig())) == [(0, b"one"), (7, b"\xef\xbb\xbftwo")]
