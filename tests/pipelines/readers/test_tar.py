"""Tar archives that nobody has vouched for: nothing leaves the archive, nothing is held, no loss goes unnoticed."""

from __future__ import annotations

import gzip
import io
import sys
import tarfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.readers import tar
from pipelines.readers.base import ReadConfig, Reject
from pipelines.readers.decompress import open_stream
from pipelines.readers.tar import Member

sys.path.append(str(Path(__file__).resolve().parent))  # the writer of archives
from image_files import member, tar_bytes

NAMES = st.text(st.characters(exclude_characters="/\0\\", exclude_categories=["Cs"]), min_size=1, max_size=60)
A, B, C, D = (("a.jpg", b"A" * 700), ("b.jpg", b"B" * 512), ("c.jpg", b""), ("d.jpg", b"D"))


def by_tarfile(data: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return archive.getnames()


def walk(data: bytes, limit: int = 1 << 20, piece: int = 1000) -> list[Member | Reject]:
    chunks = (data[i : i + piece] for i in range(0, len(data), piece))
    return list(tar.walk(chunks, limit, lambda name: True))


def found(data: bytes, **options: int) -> list[tuple[str, bytes | None] | str]:
    return [(one.name, one.data) if isinstance(one, Member) else one.reason for one in walk(data, **options)]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_regular_files_of_every_format_come_in_order_with_the_position_of_their_header(format: int) -> None:
    assert walk(tar_bytes([A, member("folder", tarfile.DIRTYPE), B, C], format)) == [
        Member(0, *A),
        Member(512 + 1024 + 512, *B),
        Member(512 + 1024 + 512 + 1024, *C),
    ]


@given(
    st.lists(st.tuples(NAMES, st.binary(max_size=2000)), max_size=8),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    st.integers(1, 5000),
)
@settings(max_examples=60, deadline=None)
def test_what_tarfile_writes_is_read_back(entries: list[tuple[str, bytes]], format: int, piece: int) -> None:
    named = [(f"d/{name}", data) for name, data in entries if name not in (".", "..")]
    assert found(tar_bytes(named, format), piece=piece) == named


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize(
    "name", ["图像/猫.jpg", "x" * 300 + ".jpg", "two\nlines.jpg", "d/" * 60 + "ü.png", "a=b c.jpg"]
)
def test_long_and_strange_names_are_kept(name: str, format: int) -> None:
    assert found(tar_bytes([(name, b"1"), A], format)) == [(name, b"1"), A]


def test_a_name_that_is_not_utf8_is_shown_by_its_bytes() -> None:
    data = tar_bytes([("XX.jpg", b"1")]).replace(b"XX.jpg", b"\xc4\xe3.jpg", 1)
    header = bytearray(data[:512])
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    assert found(bytes(header) + data[512:]) == [("\\xc4\\xe3.jpg", b"1")]


@pytest.mark.parametrize(
    "name", ["../a.jpg", "/etc/passwd.jpg", "a/../../b.jpg", "..\\a.jpg", "C:\\a.jpg", "\\\\host\\a.jpg"]
)
def test_a_path_that_leaves_the_archive_is_refused(name: str) -> None:
    info = tarfile.TarInfo(name)
    assert found(tar_bytes([info, A])) == ["unsafe_path", A]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (tarfile.SYMTYPE, "link"),
        (tarfile.LNKTYPE, "link"),
        (tarfile.CHRTYPE, "special_file"),
        (tarfile.BLKTYPE, "special_file"),
        (tarfile.FIFOTYPE, "special_file"),
        (b"Z", "unsupported_member"),
        (tarfile.GNUTYPE_SPARSE, "unsupported_member"),
    ],
)
def test_what_is_no_regular_file_is_refused_and_counted(kind: bytes, reason: str) -> None:
    assert found(tar_bytes([A, member("x.jpg", kind, "/etc/passwd"), B])) == [A, reason, B]


def test_an_archive_cut_between_two_members_is_told_from_one_that_ends() -> None:
    whole = tar_bytes([A, B])
    assert found(whole[:1536]) == [A, "truncated_file"]  # tarfile itself takes this for the end
    assert by_tarfile(whole[:1536]) == ["a.jpg"]
    assert found(whole[: 1536 + 1024 + 512]) == [A, B, "truncated_file"], "half an end mark"
    assert found(whole[: 1536 + 1024 + 1024]) == [A, B]
    assert found(whole[:1536] + bytes(512)) == [A, "truncated_file"]
    assert found(b"") == ["truncated_file"]


@pytest.mark.parametrize("cut", [1, 511, 513, 1100, 1535, 1537, 2047, 2100])
def test_an_archive_cut_anywhere_gives_what_is_whole_and_one_dead_letter(cut: int) -> None:
    members = [A] if cut >= 512 + 700 else []
    result = found(tar_bytes([A, B])[:cut])
    assert result[-1] == "truncated_file" and [one for one in result if isinstance(one, tuple)] in (members, [])
    assert cut < 1536 or result == [A, "truncated_file"]


def test_a_damaged_header_costs_its_member_and_not_the_rest() -> None:
    data = bytearray(tar_bytes([A, B, C]))
    data[1536 + 20] ^= 1  # B's header; tarfile ends here without a word
    assert found(bytes(data)) == [A, "corrupt_header", C]
    assert by_tarfile(bytes(data)) == ["a.jpg"]


def test_a_file_that_is_no_archive_is_one_dead_letter() -> None:
    assert found(b"<html>not found</html>" * 100) == ["corrupt_header", "truncated_file"]
    assert found(b"short") == ["truncated_file"]


def test_archives_that_were_joined_are_read_on_and_the_gap_is_told() -> None:
    first = tar_bytes([A])
    assert found(first + tar_bytes([B])) == [A, "archive_gap", B]
    gap = walk(first + tar_bytes([B]))[1]
    assert isinstance(gap, Reject) and gap.position == len(first) - 512


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (1536, 2560, [A, "archive_gap", C, D]),  # all of B
        (2560, 3072, [A, B, "archive_gap", D]),  # C, which is a header alone: one block
        (1536, 3584, [A, "corrupt_header"]),  # B, C, and the header of D
    ],
)
def test_a_hole_of_zeros_that_covers_members_is_no_end(start: int, end: int, expected: list[object]) -> None:
    data = bytearray(tar_bytes([A, B, C, D]))  # headers at 0, 1536, 2560, 3072
    data[start:end] = bytes(end - start)
    assert found(bytes(data)) == expected


def test_zeros_inside_a_stretch_that_is_lost_are_no_second_loss() -> None:
    data = bytearray(tar_bytes([A, ("b.jpg", b"x" * 512 + bytes(1024)), C]))
    data[1536 + 20] ^= 1
    assert found(bytes(data)) == [A, "corrupt_header", C]


def test_a_name_of_an_extension_is_not_given_to_a_member_behind_damage() -> None:
    long = tarfile.TarInfo("././@LongLink")
    long.type, long.size = tarfile.GNUTYPE_LONGNAME, 9
    extension = long.tobuf(tarfile.GNU_FORMAT) + b"wrong.jpg".ljust(512, b"\0")
    assert found(extension + bytes(512) + tar_bytes([A])) == ["archive_gap", A]
    assert found(extension + b"?" * 512 + tar_bytes([A])) == ["corrupt_header", A]
    assert found(extension + tar_bytes([A])) == [("wrong.jpg", A[1])]


def test_a_zero_byte_does_not_stay_in_a_name() -> None:
    data = tar_bytes([("猫a?b.jpg", b"1")], tarfile.PAX_FORMAT)
    assert found(data.replace("猫a?b.jpg".encode(), "猫a\0b.jpg".encode(), 1)) == [("猫a\\x00b.jpg", b"1")]


@pytest.mark.parametrize("size", [8 << 30, 1 << 60])
def test_a_size_that_is_a_lie_takes_no_memory(size: int) -> None:
    info = tarfile.TarInfo("big.jpg")
    info.size = size
    data = info.tobuf(tarfile.GNU_FORMAT) + b"x" * 10_000
    tracemalloc.start()
    assert found(data) == ["truncated_file"]
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_negative_size_is_a_damaged_header() -> None:
    header = bytearray(tar_bytes([C])[:512])
    header[124:136] = b"\xff" * 12
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    assert found(bytes(header) + tar_bytes([A])) == ["corrupt_header", A]


def test_a_member_beyond_the_limit_is_passed_over_without_holding_it() -> None:
    big = 40 << 20
    info = tarfile.TarInfo("big.jpg")
    info.size = big

    def chunks() -> Iterator[bytes]:
        yield info.tobuf(tarfile.GNU_FORMAT)
        for _ in range(big >> 16):
            yield bytes(1 << 16)
        yield tar_bytes([A])

    tracemalloc.start()
    result = list(tar.walk(chunks(), 1 << 20, lambda name: True))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [type(one) for one in result] == [Reject, Member] and peak < 1 << 20
    assert isinstance(result[0], Reject) and result[0].reason == "too_large"


def test_members_that_nobody_wants_are_not_read() -> None:
    data = tar_bytes([("model.pkl", b"evil"), A])
    result = list(tar.walk(iter([data]), 1 << 20, lambda name: name.endswith(".jpg")))
    assert result == [Member(0, "model.pkl", None), Member(1024, *A)]


def test_a_long_name_or_pax_record_that_cannot_be_read_is_a_dead_letter() -> None:
    data = tar_bytes([("汉.jpg", b"1"), A], tarfile.PAX_FORMAT)
    broken = data.replace(b" path=", b"!path=", 1)
    assert found(broken) == ["corrupt_header", A], "under its short name it would be another image"
    huge = tarfile.TarInfo("././@LongLink")
    huge.type, huge.size = tarfile.GNUTYPE_LONGNAME, 2 << 20
    assert found(huge.tobuf(tarfile.GNU_FORMAT) + bytes(2 << 20) + tar_bytes([A, B])) == ["corrupt_header", B]


def test_a_damaged_compression_ends_the_archive_with_its_own_reason() -> None:
    packed = gzip.compress(tar_bytes([A, B, C]))
    stream = open_stream(io.BytesIO(packed[: len(packed) - 12]), "x.tar.gz", ReadConfig())
    result = list(tar.walk(stream, 1 << 20, lambda name: True))
    assert isinstance(result[-1], Reject) and result[-1].reason == "truncated_file"
    assert sum(isinstance(one, Reject) for one in result) == 1
