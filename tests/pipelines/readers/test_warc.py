"""WARC, ARC, WET: of a damaged file all good records and no others, and why each other one is not there."""

import base64
import bz2
import gzip
import hashlib
import io
import json
import random
import sys
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.readers import warc as reader
from pipelines.readers.base import Document, InputFile, Item, ReadConfig, Reject
from pipelines.readers.decompress import zstd

sys.path.append(str(Path(__file__).resolve().parent))  # the writer of records, which other tests use too
from archives import ARC_HEAD, arc, html_record, http, members, page, warc

TEXTS = [f"Article number {i} says something of its own, 第{i}篇文章也说自己的话。" for i in range(8)]
INFO = warc("warcinfo", b"software: test\r\n", 99)


def read(path: Path, data: bytes, **config: Any) -> list[Item]:
    path.write_bytes(data)
    return list(reader.read(InputFile(str(path), path.name, len(data), "warc"), ReadConfig(**config)))


def texts(items: list[Item]) -> list[str]:
    return [item.text.strip() for item in items if isinstance(item, Document)]


def reasons(items: list[Item]) -> list[str]:
    return [item.reason for item in items if isinstance(item, Reject)]


def records(*numbers: int) -> list[bytes]:
    return [html_record(i, TEXTS[i]) for i in numbers]


CHECKSUM = {zstd.CompressionParameter.checksum_flag: 1}
PACK = {
    ".warc": b"".join,
    ".warc.gz": lambda parts: members(*parts),
    ".warc.zst": lambda parts: b"".join(zstd.compress(part, options=CHECKSUM) for part in parts),
    ".warc.bz2": lambda parts: b"".join(bz2.compress(part) for part in parts),
}


@pytest.mark.parametrize("suffix", PACK)
def test_every_response_is_a_document_with_its_key_and_metadata(tmp_path: Path, suffix: str) -> None:
    parts = [INFO, warc("request", b"GET / HTTP/1.1\r\n\r\n", 98), *records(0, 1), warc("metadata", b"a: b", 97)]
    items = read(tmp_path / f"x{suffix}", PACK[suffix](parts))
    assert texts(items) == TEXTS[:2] and len(items) == 2
    first = items[0]
    assert isinstance(first, Document) and first.metadata is not None
    assert first.key == "urn:uuid:00000000-0000-4000-8000-000000000000"
    assert json.loads(first.metadata) == {
        "charset": "utf-8",
        "date": "2024-05-01T10:20:30Z",
        "mime": "text/html",
        "status": 200,
        "title": "Title",
        "url": "http://example.org/0",
    }


@pytest.mark.parametrize("whole", [gzip.compress, zstd.compress])
def test_a_file_that_is_one_member_is_read_too(tmp_path: Path, whole: Any) -> None:
    assert texts(read(tmp_path / "x.warc", whole(b"".join([INFO, *records(0, 1, 2)])))) == TEXTS[:3]


def test_members_that_are_blocks_of_equal_size_are_no_record_borders(tmp_path: Path) -> None:
    raw = b"".join(records(0, 1, 2))
    blocks = b"".join(gzip.compress(raw[at : at + 100]) for at in range(0, len(raw), 100))
    items = read(tmp_path / "x.warc.gz", blocks)
    assert texts(items) == TEXTS[:3] and reasons(items) == []


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize("claimed", [-7, -1, 1, 2, 3, 9, 10**6, 10**12])
def test_a_wrong_length_costs_its_own_record_only(tmp_path: Path, suffix: str, claimed: int) -> None:
    block = http(page("The record that lies about its length."))
    bad = warc("response", block, 50, length=max(0, len(block) + claimed), digest=False)
    items = read(tmp_path / f"x{suffix}", PACK[suffix]([INFO, *records(0), bad, *records(1, 2)]))
    assert texts(items) == TEXTS[:3]
    assert reasons(items) == ["wrong_length"]


def test_a_wrong_length_in_the_last_record_is_told(tmp_path: Path) -> None:
    block = http(page("last"))
    for claimed, reason in ((len(block) - 3, "wrong_length"), (len(block) + 40, "truncated_file")):
        items = read(tmp_path / "x.warc", b"".join([*records(0), warc("response", block, 9, length=claimed)]))
        assert texts(items) == TEXTS[:1] and reasons(items) == [reason]


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.9, 0.99])
def test_a_cut_gzip_member_amid_others_costs_itself_only(tmp_path: Path, cut: float) -> None:
    parts = [gzip.compress(record, mtime=0) for record in [INFO, *records(0, 1, 2, 3)]]
    parts[2] = parts[2][: int(len(parts[2]) * cut)]
    items = read(tmp_path / "x.warc.gz", b"".join(parts))
    assert texts(items) == [TEXTS[0], TEXTS[2], TEXTS[3]]
    assert reasons(items) == ["damaged_member"]


@pytest.mark.parametrize("suffix", [".warc.gz", ".warc.zst", ".warc.bz2"])
def test_every_cut_of_a_file_keeps_the_records_before_it(tmp_path: Path, suffix: str) -> None:
    one = len(PACK[suffix](records(0)))
    raw = PACK[suffix](records(0, 1))
    for cut in range(one + 1, len(raw), 7):
        items = read(tmp_path / f"x{suffix}", raw[:cut])
        assert texts(items) == TEXTS[:1], cut
        assert reasons(items)[0] in ("truncated_file", "unreadable_file") and len(items) == 2, cut


def test_a_plain_file_that_ends_inside_a_record_says_so(tmp_path: Path) -> None:
    raw = b"".join(records(0, 1))
    first = len(records(0)[0])
    for cut in (first + 5, first + 100, len(raw) - 20):
        items = read(tmp_path / "x.warc", raw[:cut])
        assert texts(items) == TEXTS[:1] and reasons(items) == ["truncated_file"]
    assert texts(read(tmp_path / "x.warc", raw[:-2])) == TEXTS[:2]  # cut inside the last line end: nothing is missing


def test_a_flipped_bit_costs_its_record_in_every_packing(tmp_path: Path) -> None:
    for suffix, pack in PACK.items():
        parts = [pack([record]) for record in records(0, 1, 2)]
        for place in (len(parts[1]) // 2, len(parts[1]) - 6) if suffix != ".warc" else (-30, -80):
            flipped = bytearray(parts[1])
            flipped[place] ^= 4
            items = read(tmp_path / f"x{suffix}", parts[0] + bytes(flipped) + parts[2])
            assert texts(items) == [TEXTS[0], TEXTS[2]], (suffix, place)
            assert len(reasons(items)) == 1


def test_a_digest_is_believed_unless_the_option_says_otherwise(tmp_path: Path) -> None:
    good = html_record(1, TEXTS[1])
    bad = good.replace("别的话".encode(), b"").replace(b"something", b"everything"[:9])
    assert len(bad) == len(good) and bad != good
    items = read(tmp_path / "x.warc", b"".join([*records(0), bad, *records(2)]))
    assert texts(items) == [TEXTS[0], TEXTS[2]] and reasons(items) == ["digest_mismatch"]
    assert len(texts(read(tmp_path / "x.warc", bad, warc_digests=False))) == 1
    block = http(page("in hex"))
    for digest in (
        "sha256:" + hashlib.sha256(block).hexdigest(),
        "sha-256:" + base64.b64encode(hashlib.sha256(block).digest()).decode(),
        "md5:" + hashlib.md5(block).hexdigest().upper(),
        "blake9:unknown",
    ):
        items = read(tmp_path / "x.warc", warc("response", block, 5, digest=False, WARC_Block_Digest=digest))
        assert texts(items) == ["in hex"], digest


@pytest.mark.parametrize(
    "garbage", [b"x", b"some words\r\n\r\nmore", b"\xff\xfe\0" * 1000, b"WARC/1.0 is a format\n" * 9]
)
def test_garbage_between_records_is_one_row(tmp_path: Path, garbage: bytes) -> None:
    for suffix, between in ((".warc", garbage + b"\r\n"), (".warc.gz", gzip.compress(garbage)), (".warc.gz", garbage)):
        pack = PACK[suffix]
        items = read(tmp_path / f"x{suffix}", pack(records(0)) + between + pack(records(1)))
        assert texts(items) == TEXTS[:2]
        assert reasons(items) in (["not_a_record"], ["damaged_member"], ["invalid_header"]), (suffix, garbage[:9])


def test_headers_that_cannot_be_parsed_are_one_row_each(tmp_path: Path) -> None:
    bad = [
        b"WARC/1.0\r\nWARC-Type: response\r\n\r\nno length\r\n\r\n",
        warc("response", b"x", 7).replace(b"Content-Length: 1", b"Content-Length: one"),
        b"WARC/1.0\r\nnot a field\r\n\r\n\r\n\r\n",
    ]
    parts = [part for i, one in enumerate(bad) for part in (*records(i), one)]
    for suffix in (".warc", ".warc.gz"):
        items = read(tmp_path / f"x{suffix}", PACK[suffix]([*parts, *records(5)]))
        assert texts(items) == [*TEXTS[:3], TEXTS[5]]
        assert reasons(items) == ["invalid_header"] * 3


@pytest.mark.parametrize("line", [b"WARC/1.0\nA-bcd: x\n", b"x: WARC/1.0\nA-bcd: x\n"])
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_headers_without_ends_are_read_once_and_few_rows(
    tmp_path: Path, line: bytes, end: bytes, linear_time: Callable[..., None]
) -> None:
    good = html_record(0, TEXTS[0])

    def check(count: int) -> None:
        items = read(tmp_path / "x.warc", b"WARC/1.0\n" + line * count + end + good)
        assert texts(items) == TEXTS[:1] and len(reasons(items)) <= 5  # for every 64 KiB one, and the last

    linear_time(check, 6000)


def test_lengths_that_reach_over_many_members_take_linear_time(
    tmp_path: Path, linear_time: Callable[..., None]
) -> None:
    lying, good = members(warc("response", b"abc", length=60_000_000)), members(html_record(0, TEXTS[0]))

    def check(count: int) -> None:
        items = read(tmp_path / "x.warc.gz", lying * count + good)
        assert texts(items) == TEXTS[:1] and Counter(reasons(items)) == {"wrong_length": count}

    linear_time(check, 6000)


def test_sound_records_that_are_no_documents_are_removed_with_a_reason(tmp_path: Path) -> None:
    parts = [
        warc("revisit", b"HTTP/1.1 200 OK\r\n\r\n", 1),
        warc("response", http(b"\x89PNG\r\n\x1a\n" + bytes(99), "image/png"), 2),
        warc("response", http(b"%PDF-1.7 " + bytes(99), "text/html"), 3),
        warc("response", http(page("gone"), status="404 Not Found"), 4),
        warc("response", http(b"<html><body></body></html>"), 5),
        warc("invented", b"x", 6),
        *records(0),
    ]
    items = read(tmp_path / "x.warc.gz", members(*parts))
    assert texts(items) == TEXTS[:1]
    expected = ["revisit", "unsupported_type", "binary_content", "http_status", "no_text", "unsupported_type"]
    assert [(item.reason, item.action) for item in items if isinstance(item, Reject)] == [
        (reason, "removed") for reason in expected
    ]
    again = read(tmp_path / "x.warc.gz", members(*parts), http_any_status=True)
    assert texts(again) == ["gone", TEXTS[0]]


def test_records_whose_content_is_damaged_are_dead_letters(tmp_path: Path) -> None:
    packed = gzip.compress(page("packed"))
    noise = random.Random(1).randbytes(3000).replace(b"\0", b"\1")
    parts = [
        warc("response", b"no status line", 1),
        warc("response", http(packed[:-9], content_encoding="gzip"), 2),
        warc("response", http(b"x", content_encoding="made-up"), 3),
        warc("response", http(b"5\r\nabc", transfer_encoding="chunked").replace(b"5\r\nabc", b"3\r\nabc\r\nzz\r\n"), 4),
        warc("continuation", b"x", 5),
        warc("response", http(bytes(b | 0x80 for b in noise), "text/plain; charset=utf-8"), 6),
        *records(0),
    ]
    items = read(tmp_path / "x.warc.gz", members(*parts))
    assert texts(items) == TEXTS[:1]
    rejects = [item for item in items if isinstance(item, Reject)]
    assert [item.reason for item in rejects] == [
        "invalid_http", "invalid_http", "unsupported_encoding", "invalid_http", "segmented_record", "invalid_charset",
    ]  # fmt: skip
    assert {item.action for item in rejects} == {"rejected"} and all(item.raw_hash for item in rejects)


@pytest.mark.parametrize("number", ["1", "01", "2", ""])
def test_no_segment_of_a_record_is_a_document(tmp_path: Path, number: str) -> None:
    items = read(tmp_path / "x.warc", html_record(1, TEXTS[1], WARC_Segment_Number=number) + html_record(0, TEXTS[0]))
    assert texts(items) == TEXTS[:1] and reasons(items) == ["segmented_record"]


@pytest.mark.parametrize(
    ("charset", "text"),
    [
        ("gbk", "这是一个用国标码写成的网页，内容是关于中国历史的介绍，共有五千年。"),
        ("gb18030", "这个网页里有一个生僻的汉字：𠮷，还有别的字。"),
        ("big5", "這是一個用大五碼寫成的網頁，內容是關於臺灣歷史的介紹。"),
        ("shift_jis", "これは日本語のページです。内容は歴史についての説明です。"),
        ("euc-jp", "これは日本語のページです。内容は歴史についての説明です。"),
        ("euc-kr", "이것은 한국어 웹 페이지입니다. 내용은 역사에 관한 것입니다."),
        ("iso-8859-1", "Où est le café? À côté de l'hôtel, près de la forêt, où l'été dure."),
        ("windows-1252", "It costs 5 € – “quoted” and naïve, as Windows writes it…"),
        ("windows-1251", "Это страница на русском языке, она рассказывает об истории страны."),
        ("utf-16", "UTF-16 带有字节序标记的网页 with a mark at its start."),
        ("utf-8-sig", "UTF-8 带标记 with a mark."),
    ],
)
def test_encodings_by_header_by_meta_and_without_a_word(tmp_path: Path, charset: str, text: str) -> None:
    plain = page(text, charset)
    meta = f'<html><head><meta charset="{charset}"><title>T</title></head><body><p>{text}</p></body></html>'
    declared = [http(plain, f"text/html; charset={charset}"), http(meta.encode(charset), "text/html")]
    longer = " ".join([text] * 4)
    for block, wanted in [*((block, text) for block in declared), (http(page(longer, charset), "text/html"), longer)]:
        assert texts(read(tmp_path / "x.warc", warc("response", block, 1))) == [wanted]


def test_bodies_are_decoded_whatever_they_are_sent_in(tmp_path: Path) -> None:
    body = page("encoded " * 30)
    chunked = b"".join(b"%x;a=b\r\n%s\r\n" % (len(body[i : i + 50]), body[i : i + 50]) for i in range(0, len(body), 50))
    chunked += b"0\r\nTrailer: x\r\n\r\n"
    raw = zlib.compressobj(wbits=-15)
    cases = [
        http(body, content_encoding="gzip"),  # stored decoded, headers as they were
        http(gzip.compress(body), content_encoding="gzip"),
        http(gzip.compress(body[:90]) + gzip.compress(body[90:]), content_encoding="x-gzip"),
        http(zlib.compress(body), content_encoding="deflate"),
        http(raw.compress(body) + raw.flush(), content_encoding="deflate"),
        http(zstd.compress(body), content_encoding="zstd"),
        http(chunked, transfer_encoding="chunked"),
        http(body, transfer_encoding="chunked"),
        http(gzip.compress(zlib.compress(body)), content_encoding="deflate, gzip"),
    ]
    for number, block in enumerate(cases):
        assert texts(read(tmp_path / "x.warc", warc("response", block, 1))) == [("encoded " * 30).strip()], number
    brotli = pytest.importorskip("brotli", reason="packs the body that this reads")
    block = http(brotli.compress(body), content_encoding="br")
    assert texts(read(tmp_path / "x.warc", warc("response", block, 1))) == [("encoded " * 30).strip()]


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_a_body_of_many_small_members_takes_linear_time(
    tmp_path: Path, name: str, linear_time: Callable[..., None]
) -> None:
    part = b"one of many members " * 6
    packed = (gzip.compress if name == "gzip" else zstd.compress)(part)

    def check(count: int) -> None:
        block = http(packed * count, "text/plain", content_encoding=name)
        items = read(tmp_path / "x.warc", warc("response", block))
        assert len(texts(items)[0]) == count * len(part) - 1

    linear_time(check, 25_000)


def test_bombs_of_every_kind_are_told_and_the_next_record_survives(tmp_path: Path) -> None:
    big = bytes(3 << 20)
    limits = {"max_record_bytes": 1 << 20, "bomb_bytes": 1 << 20, "bomb_ratio": 100}
    inner = [http(gzip.compress(big), content_encoding="gzip"), http(zstd.compress(big), content_encoding="zstd")]
    parts = [*records(0), *(warc("response", block, 5 + i) for i, block in enumerate(inner)), *records(1)]
    items = read(tmp_path / "x.warc.gz", members(*parts), **limits)
    assert texts(items) == TEXTS[:2] and reasons(items) == ["decompression_bomb"] * 2
    bomb = warc("response", http(big), 5)
    items = read(tmp_path / "x.warc.gz", members(*records(0), bomb, *records(1)), **limits)
    assert texts(items) == TEXTS[:2] and reasons(items) == ["decompression_bomb"]
    items = read(tmp_path / "x.warc", b"".join([*records(0), bomb, *records(1)]), **limits)
    assert texts(items) == TEXTS[:2] and reasons(items) == ["record_too_long"]


def test_an_archive_inside_a_good_record_is_content(tmp_path: Path) -> None:
    inside = b"".join(records(5, 6))
    parts = [*records(0), warc("resource", inside, 9), warc("resource", members(*records(5)), 10), *records(1)]
    parts[2] = parts[2].replace(b"text/plain", b"application/gzip")
    for suffix in (".warc", ".warc.gz"):
        items = read(tmp_path / f"x{suffix}", PACK[suffix](parts))
        assert [text[:20] for text in texts(items)] == [TEXTS[0][:20], "WARC/1.0\r\nWARC-Type:"[:20], TEXTS[1][:20]]


def test_wet_conversions_are_documents_as_they_are(tmp_path: Path) -> None:
    text = "Title\nLine one\n第二行\n"
    fields = {"WARC_Identified_Content_Language": "eng,zho", "WARC_Refers_To": "<urn:uuid:x>"}
    record = warc("conversion", text.encode(), 3, **fields)
    (item,) = read(tmp_path / "x.warc.wet.gz", members(INFO, record))
    assert isinstance(item, Document) and item.text == text and item.metadata is not None
    assert json.loads(item.metadata)["language"] == "eng,zho"
    items = read(tmp_path / "x.wet", b"".join([warc("conversion", b"\xff\xfe\xfd bad \x80", 4), record]))
    assert texts(items) == [text.strip()]


def test_arc_files_of_both_versions(tmp_path: Path) -> None:
    one, two = http(page(TEXTS[0])), http(page(TEXTS[1]))
    second = f"http://b.example/ 192.0.2.1 20080430204826 text/html 200 - - 0 x.arc {len(two)}\n".encode() + two + b"\n"
    for raw in (b"".join([ARC_HEAD, arc("http://a.example/", one), second]),
                members(ARC_HEAD, arc("http://a.example/", one), second)):  # fmt: skip
        items = read(tmp_path / "x.arc", raw)
        assert texts(items) == TEXTS[:2] and len(items) == 2
        assert isinstance(items[0], Document) and items[0].key == "2008-04-30T20:48:25Z/http://a.example/"


@pytest.mark.parametrize("claimed", [-5, 5, 500])
def test_a_wrong_length_in_an_arc_file_costs_its_record_only(tmp_path: Path, claimed: int) -> None:
    blocks = [http(page(text)) for text in TEXTS]
    bad = arc("http://bad.example/", blocks[3], length=len(blocks[3]) + claimed)
    good = [arc(f"http://{i}.example/", blocks[i]) for i in range(3)]
    for pack in (b"".join, lambda parts: members(*parts)):
        items = read(tmp_path / "x.arc", pack([ARC_HEAD, good[0], bad, good[1], good[2]]))
        assert texts(items) == TEXTS[:3] and reasons(items) == ["wrong_length"]


def test_a_zstd_dictionary_at_the_start_is_used(tmp_path: Path) -> None:
    samples = [html_record(i, f"{TEXTS[i % 8]} {i}") for i in range(200)]
    dictionary = zstd.train_dict(samples, 4096)
    for content in (dictionary.dict_content, zstd.compress(dictionary.dict_content)):
        head = b"\x5d\x2a\x4d\x18" + len(content).to_bytes(4, "little") + content
        packed = head + b"".join(zstd.compress(record, zstd_dict=dictionary) for record in records(0, 1, 2))
        assert texts(read(tmp_path / "x.warc.zst", packed)) == TEXTS[:3]


def test_records_written_by_another_library_are_read(tmp_path: Path) -> None:
    warcio = pytest.importorskip("warcio.warcwriter", reason="an independent writer of WARC")
    from warcio.statusandheaders import StatusAndHeaders

    for compressed, version in ((True, "1.0"), (False, "1.1")):
        out = io.BytesIO()
        writer = warcio.WARCWriter(out, gzip=compressed, warc_version=version)
        out.write(b"")
        writer.write_record(writer.create_warcinfo_record("x.warc", {"software": "test"}))
        for i, text in enumerate(TEXTS):
            headers = StatusAndHeaders("200 OK", [("Content-Type", "text/html; charset=utf-8")], protocol="HTTP/1.0")
            url = f"http://example.org/{i}"
            record = writer.create_warc_record(url, "response", io.BytesIO(page(text)), http_headers=headers)
            writer.write_record(record)
        items = read(tmp_path / "x.warc", out.getvalue())
        assert texts(items) == TEXTS and len(items) == len(TEXTS)


def test_positions_are_all_different(tmp_path: Path) -> None:
    parts = [gzip.compress(record) for record in records(0, 1, 2, 3)]
    damaged = parts[0] + parts[1][:30] + parts[2][:25] + b"garbage" + parts[3][:-4]
    items = read(tmp_path / "x.warc.gz", damaged)
    positions = [item.position for item in items if isinstance(item, Reject)]
    assert len(positions) == len(set(positions)) >= 2 and texts(items) == TEXTS[:1]


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 5000), st.integers(0, 60), st.sampled_from(list(PACK)))
def test_no_damage_stops_a_file_or_changes_a_record(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: int, cut: int, suffix: str
) -> None:
    raw = PACK[suffix](records(0, 1, 2, 3, 4))
    at %= len(raw)
    items = read(tmp_path_factory.mktemp("w") / f"x{suffix}", raw[:at] + noise + raw[at + cut :])
    found = Counter(texts(items))
    assert not found - Counter(TEXTS[:5])
    assert sum(found.values()) >= 2
    if raw[:at] + noise + raw[at + cut :] != raw and sum(found.values()) < 5:
        assert reasons(items)


def test_a_page_that_the_extraction_fails_on_is_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RecursionError("too deep")

    monkeypatch.setattr(reader, "page_text", fails)
    (item,) = read(tmp_path / "a.warc", b"".join(records(1)))
    assert isinstance(item, Reject) and item.reason == "unreadable_markup" and "too deep" in item.detail
