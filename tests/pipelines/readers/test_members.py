"""Members behind damage: found where they are, taken only where records begin in them, at bounded memory and work."""

import bz2
import gzip
import io
import random
import tracemalloc
from collections.abc import Callable

import pytest

from pipelines.readers import members
from pipelines.readers.base import ReadConfig
from pipelines.readers.decompress import zstd
from pipelines.readers.members import Damage, Start, read_members

PACK = {"gz": gzip.compress, "zst": zstd.compress, "bz2": bz2.compress}


def events(raw: bytes, name: str, **config: int) -> list[bytes | Start | Damage]:
    """The events, with pieces of one member joined."""
    out: list[bytes | Start | Damage] = []
    credible = lambda head: head.startswith(b"REC")  # noqa: E731
    for event in read_members(io.BytesIO(raw), name, ReadConfig(**config), credible):
        if isinstance(event, bytes) and out and isinstance(out[-1], bytes):
            out[-1] += event
        else:
            out.append(event)
    return out


def pieces(raw: bytes, name: str, **config: int) -> list[bytes]:
    return [event for event in events(raw, name, **config) if isinstance(event, bytes)]


def damages(raw: bytes, name: str, **config: int) -> list[tuple[str, bool]]:
    return [(event.reason, event.final) for event in events(raw, name, **config) if isinstance(event, Damage)]


@pytest.mark.parametrize("suffix", PACK)
def test_whole_files_have_a_start_before_every_member(suffix: str) -> None:
    raw = b"".join(PACK[suffix](b"REC%d" % i) for i in range(3))
    assert events(raw, f"x.{suffix}") == [Start(), b"REC0", Start(), b"REC1", Start(), b"REC2"]
    assert events(b"REC plain", "x") == [Start(), b"REC plain"] and events(b"", f"x.{suffix}") == []


@pytest.mark.parametrize("suffix", PACK)
def test_a_member_behind_damage_is_taken_only_where_records_begin(suffix: str) -> None:
    pack = PACK[suffix]
    raw = pack(b"REC0") + b"damage" + pack(b"no record") + pack(b"REC1") + pack(b"no record either")
    assert pieces(raw, f"x.{suffix}") == [b"REC0", b"REC1", b"no record either"]
    assert damages(raw, f"x.{suffix}") == [("damaged_member", False)]
    assert damages(pack(b"REC0") + b"damage", f"x.{suffix}") == [("unreadable_file", True)]
    assert damages(pack(b"REC0" * 9)[:-5], f"x.{suffix}") == [("truncated_file", True)]


@pytest.mark.parametrize("suffix", PACK)
def test_a_member_whose_first_block_is_long_is_found_behind_damage(suffix: str) -> None:
    bodies = [b"REC%d" % i + random.Random(i).randbytes(120_000).hex().encode() for i in range(4)]
    packed = [PACK[suffix](body) for body in bodies]
    assert min(map(len, packed)) > 100_000
    packed[1] = packed[1][: len(packed[1]) // 2]
    raw = b"".join(packed)
    assert [piece for piece in pieces(raw, f"x.{suffix}") if len(piece) > 150_000][-2:] == bodies[2:]
    assert damages(raw, f"x.{suffix}") == [("damaged_member", False)]


@pytest.mark.parametrize("suffix", PACK)
def test_any_number_of_small_damaged_members_is_passed(suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "MIB", 1 << 10)  # so that some hundred members use up what is given once
    member = PACK[suffix](b"REC" + random.Random(0).randbytes(120))
    raw = (member[:-6] + b"damage" + member) * 400
    assert pieces(raw, f"x.{suffix}").count(b"REC" + random.Random(0).randbytes(120)) == 400


def test_a_file_whose_first_bytes_are_damaged_is_read_by_its_suffix() -> None:
    assert pieces(b"junk" + gzip.compress(b"REC0"), "x.gz") == [b"REC0"]


def test_padding_between_members_is_no_damage() -> None:
    raw = gzip.compress(b"REC0") + bytes(300_000) + gzip.compress(b"REC1") + bytes(7)
    assert pieces(raw, "x.gz") == [b"REC0", b"REC1"] and damages(raw, "x.gz") == []


def test_a_bomb_costs_its_member() -> None:
    raw = gzip.compress(b"REC0") + gzip.compress(bytes(5 << 20)) + gzip.compress(b"REC1")
    assert damages(raw, "x.gz", bomb_bytes=1 << 20, bomb_ratio=100) == [("decompression_bomb", False)]
    assert pieces(raw, "x.gz", bomb_bytes=1 << 20, bomb_ratio=100)[-1] == b"REC1"


def test_memory_is_bounded_by_what_is_looked_back_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "LOOK_BACK", 1 << 20)
    big = gzip.compress(random.Random(0).randbytes(24 << 20), 0)
    raw = io.BytesIO(big + gzip.compress(b"REC1"))
    tracemalloc.start()
    last = b""
    for event in read_members(raw, "x.gz", ReadConfig(), lambda head: True):
        last = event if isinstance(event, bytes) else last
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert last == b"REC1" and peak < 12 << 20


def test_false_magic_numbers_take_linear_time(linear_time: Callable[..., None]) -> None:
    def check(count: int) -> None:
        raw = gzip.compress(b"REC0") + b"\x1f\x8b\x08\0" * count + gzip.compress(b"REC1")
        assert pieces(raw, "x.gz")[0] == b"REC0"

    linear_time(check, 500_000)
