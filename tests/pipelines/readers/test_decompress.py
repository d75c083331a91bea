"""Decompression: every member is read, and a file that is cut, damaged or a bomb never ends in silence."""

import bz2
import gzip
import io
import lzma

import pytest

from pipelines.readers.base import CorruptFile, ReadConfig
from pipelines.readers.decompress import OUT_BYTES, open_stream, sniff, suffix_codec, zstd

PACK = {"gz": gzip.compress, "zst": zstd.compress, "bz2": bz2.compress, "xz": lzma.compress}
TEXT = "".join(f"{i} line of text 一行文字\n" for i in range(20_000)).encode()


def unpack(raw: bytes, name: str = "x.jsonl", config: ReadConfig | None = None) -> bytes:
    return b"".join(open_stream(io.BytesIO(raw), name, config or ReadConfig()))


def unpack_until_error(raw: bytes, name: str) -> tuple[bytes, str]:
    out = b""
    with pytest.raises(CorruptFile) as caught:
        for chunk in open_stream(io.BytesIO(raw), name, ReadConfig()):
            out += chunk
    return out, caught.value.reason


@pytest.mark.parametrize("suffix", PACK)
def test_all_members_are_read(suffix: str) -> None:
    raw = PACK[suffix](TEXT) + PACK[suffix](b"") + PACK[suffix](b"end\n")
    assert unpack(raw, f"x.jsonl.{suffix}") == TEXT + b"end\n"


@pytest.mark.parametrize("suffix", PACK)
def test_the_first_bytes_decide_without_a_suffix(suffix: str) -> None:
    assert unpack(PACK[suffix](TEXT), "x.jsonl") == TEXT
    assert unpack(PACK[suffix](b""), "x.jsonl") == b""


@pytest.mark.parametrize("suffix", PACK)
def test_every_cut_is_an_error_after_the_bytes_before_it(suffix: str) -> None:
    small = TEXT[:400]
    raw = PACK[suffix](small)
    for cut in range(20, len(raw)):
        out, reason = unpack_until_error(raw[:cut], f"x.{suffix}")
        assert reason == "truncated_file"
        assert small.startswith(out)


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_a_cut_in_the_second_member_keeps_the_first(suffix: str) -> None:
    raw = PACK[suffix](TEXT) + PACK[suffix](TEXT)[:-3]
    out, reason = unpack_until_error(raw, f"x.{suffix}")
    assert out.startswith(TEXT) and reason == "truncated_file"


@pytest.mark.parametrize("suffix", PACK)
def test_something_else_after_the_last_member_is_an_error(suffix: str) -> None:
    out, reason = unpack_until_error(PACK[suffix](TEXT) + b"garbage that is no member", f"x.{suffix}")
    assert out == TEXT and reason == "unreadable_file"


@pytest.mark.parametrize("suffix", ["gz", "xz"])
def test_zero_padding_between_and_after_members_is_allowed(suffix: str) -> None:
    pad = bytes(512)
    assert unpack(PACK[suffix](TEXT) + pad + PACK[suffix](b"end") + pad, f"x.{suffix}") == TEXT + b"end"


def test_a_flipped_byte_under_a_checksum_is_an_error() -> None:
    raw = bytearray(gzip.compress(TEXT))
    raw[-6] ^= 1  # in the CRC
    with pytest.raises(CorruptFile, match="damaged gzip"):
        unpack(bytes(raw), "x.gz")


def test_a_suffix_that_the_bytes_deny_is_an_error_and_an_empty_file_is_none() -> None:
    with pytest.raises(CorruptFile, match="the suffix says gzip"):
        unpack(b'{"text": "a"}\n', "x.jsonl.gz")
    assert unpack(b"", "x.jsonl.gz") == b""
    assert unpack(b"BZh is how this text begins", "x.txt") == b"BZh is how this text begins"


def test_skippable_zstd_frames_are_skipped() -> None:
    skippable = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"\0\0\0\0"
    assert unpack(skippable + zstd.compress(TEXT) + skippable, "x.zst") == TEXT


def test_pieces_are_bounded_and_a_bomb_is_given_up() -> None:
    bomb = zstd.compress(bytes(64 << 20))
    config = ReadConfig(bomb_bytes=8 << 20)
    sizes = []
    with pytest.raises(CorruptFile) as caught:
        for chunk in open_stream(io.BytesIO(bomb), "x.zst", config):
            sizes.append(len(chunk))
    assert caught.value.reason == "decompression_bomb"
    assert max(sizes) <= OUT_BYTES and sum(sizes) <= 8 << 20


def test_a_zstd_window_beyond_the_limit_is_an_error_that_an_option_lifts() -> None:
    options = {zstd.CompressionParameter.window_log: 28, zstd.CompressionParameter.content_size_flag: 0}
    packer = zstd.ZstdCompressor(options=options)
    raw = packer.compress(TEXT) + packer.flush()
    assert unpack_until_error(raw, "x.zst")[1] == "unreadable_file"
    assert unpack(raw, "x.zst", ReadConfig(zstd_window_log=28)) == TEXT


class Trickle(io.BytesIO):
    """A remote file: no read returns more than three bytes."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(3 if size is None or size < 0 else min(size, 3))


@pytest.mark.parametrize("suffix", PACK)
def test_short_reads_lose_nothing(suffix: str) -> None:
    raw = PACK[suffix](TEXT[:3000]) + PACK[suffix](b"end")
    assert b"".join(open_stream(Trickle(raw), "x", ReadConfig())) == TEXT[:3000] + b"end"


def test_a_failing_disk_is_not_taken_for_a_damaged_file() -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell():
                raise OSError("input/output error")
            return super().read(10)

    with pytest.raises(OSError, match="input/output"):
        list(open_stream(Failing(gzip.compress(TEXT)), "x.gz", ReadConfig()))


def test_names() -> None:
    assert suffix_codec("a/b.JSONL.ZST") == "zstd" and suffix_codec("a.jsonl") is None
    assert sniff(b"\x1f\x8b\x08\0") == "gzip" and sniff(b'{"a"') is None
