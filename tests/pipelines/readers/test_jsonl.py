"""JSON Lines: each kind of bad line has its reason, and no bad line costs a good one."""

import gzip
import json
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.readers import jsonl
from pipelines.readers.base import Document, InputFile, Item, ReadConfig, Reject


def read(path: Path, data: bytes, **config: object) -> list[Item]:
    path.write_bytes(data)
    return list(jsonl.read(InputFile(str(path), path.name, len(data), "jsonl"), ReadConfig(**config)))  # type: ignore[arg-type]


GOOD = b'{"text":"kept"}'
BAD = {
    b"{": "invalid_json",
    b'{"text":"a"} x': "invalid_json",
    b'{"text":"a","n":NaN}': "invalid_json",
    b'{"text":"a","n":1e999}': "invalid_json",
    b'{"text":"\\ud800"}': "invalid_json",
    b'{"text":"raw \x00 byte"}': "invalid_json",
    b"[" * 100_000: "invalid_json",
    b'{"text":"a","n":' + b"[" * 500 + b"]" * 500 + b"}": "invalid_json",
    b'{"text":"a","n":' + b"9" * 5000 + b"}": "invalid_json",
    b'{"text":"\xff"}': "invalid_utf8",
    b'{"text":"\xed\xa0\x80"}': "invalid_utf8",
    b'["text"]': "not_an_object",
    b"null": "not_an_object",
    b'"text"': "not_an_object",
    b"{}": "missing_text",
    b'{"text":null}': "missing_text",
    b'{"text":7}': "text_not_a_string",
    b'{"text":["a"]}': "text_not_a_string",
    b'{"text":{"a":1}}': "text_not_a_string",
    b'{"text":true}': "text_not_a_string",
}


@pytest.mark.parametrize(("line", "reason"), BAD.items(), ids=[str(i) for i in range(len(BAD))])
def test_a_bad_line_is_one_reject_between_two_kept_lines(tmp_path: Path, line: bytes, reason: str) -> None:
    found = read(tmp_path / "x.jsonl", GOOD + b"\n" + line + b"\n" + GOOD)
    assert found[0] == found[2] == Document("kept", None, None)
    bad = found[1]
    assert len(found) == 3 and isinstance(bad, Reject)
    assert (bad.position, bad.reason) == (len(GOOD) + 1, reason)
    assert len(bad.detail) <= 200 and bad.raw_hash is not None


def test_details_hold_no_content(tmp_path: Path) -> None:
    lines = [b'{"text":["SECRET"]}', b'{"text":"SECRET', b'["SECRET"]', b'{"SECRET":1}', b'"SECRET \xff"']
    for item in read(tmp_path / "x.jsonl", b"\n".join(lines)):
        assert isinstance(item, Reject) and "SECRET" not in item.detail


@pytest.mark.parametrize(
    ("value", "expected"),
    [('"a"', "a"), ("7", "7"), ("-1", "-1"), ("18446744073709551615", "18446744073709551615")],
)
def test_text_and_whole_numbers_are_ids(tmp_path: Path, value: str, expected: str) -> None:
    data = f'{{"id":{value},"text":"t","n":1}}'.encode()
    assert read(tmp_path / "x.jsonl", data, id_field="id") == [Document("t", expected, b'{"n":1}')]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("null", "missing_id"),
        ('""', "missing_id"),
        ("true", "invalid_id"),
        ("1.5", "invalid_id"),
        ("18446744073709551616", "invalid_id"),
        ("[1]", "invalid_id"),
    ],
)
def test_an_id_that_could_not_tell_records_apart_is_rejected(tmp_path: Path, value: str, reason: str) -> None:
    found = read(tmp_path / "x.jsonl", f'{{"id":{value},"text":"t"}}'.encode(), id_field="id")
    assert [item.reason for item in found if isinstance(item, Reject)] == [reason]


def test_a_record_without_the_id_field_is_rejected(tmp_path: Path) -> None:
    found = read(tmp_path / "x.jsonl", b'{"text":"t"}', id_field="id")
    assert isinstance(found[0], Reject) and found[0].reason == "missing_id"


def test_other_fields_become_canonical_json(tmp_path: Path) -> None:
    a = read(tmp_path / "a.jsonl", '{"z":1,"text":"t","a":{"y":"汉","b":[1.5,null]}}'.encode())
    b = read(tmp_path / "b.jsonl", b'{ "a" : {"b":[1.5, null],"y":"\\u6c49"}, "text":"t", "z":1 }')
    assert a == b == [Document("t", None, '{"a":{"b":[1.5,null],"y":"汉"},"z":1}'.encode())]


def test_of_repeated_keys_the_last_counts(tmp_path: Path) -> None:
    assert read(tmp_path / "x.jsonl", b'{"text":"a","text":"b","n":1,"n":2}') == [Document("b", None, b'{"n":2}')]


def test_escaped_nul_and_empty_text_are_kept(tmp_path: Path) -> None:
    found = read(tmp_path / "x.jsonl", b'{"text":"a\\u0000b"}\n{"text":""}')
    assert found == [Document("a\0b", None, None), Document("", None, None)]


def test_line_ends_and_marks_do_not_change_the_records(tmp_path: Path) -> None:
    lines = ['{"text":"一\u2028二"}', '{"text":"b"}']
    expected = [Document("一\u2028二", None, None), Document("b", None, None)]
    for data in (
        "\n".join(lines).encode(),
        "\r\n".join([*lines, ""]).encode(),
        "\n\n \r\n".join([*lines, ""]).encode(),
        "\n".join(lines).encode("utf-8-sig"),
        "\n".join(lines).encode("utf-16"),
        gzip.compress("\n".join(lines).encode()),
    ):
        assert read(tmp_path / "x.jsonl", data) == expected


def test_an_empty_file_holds_no_records(tmp_path: Path) -> None:
    assert read(tmp_path / "x.jsonl", b"") == []


def test_a_cut_gzip_gives_the_lines_before_the_cut_and_one_reject(tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"line {i} {i * 7919 % 1000}"}).encode() for i in range(5000)]
    packed = gzip.compress(b"\n".join(lines))
    found = read(tmp_path / "x.jsonl.gz", packed[: len(packed) // 2])
    assert len(found) > 500
    assert all(isinstance(item, Document) for item in found[:-1])
    last = found[-1]
    assert isinstance(last, Reject) and last.reason == "truncated_file"
    assert last.position == sum(len(line) + 1 for line in lines[: len(found) - 1])


TEXT = st.text(max_size=12)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=4,
)


@settings(max_examples=50)
@given(st.lists(st.tuples(TEXT, st.dictionaries(TEXT, VALUES, max_size=3)), max_size=3))
def test_any_text_and_any_metadata_survive(tmp_path_factory: pytest.TempPathFactory, records: list) -> None:  # type: ignore[type-arg]
    others = [{k: v for k, v in other.items() if k != "text"} for _, other in records]
    lines = [orjson.dumps({**other, "text": text}) for other, (text, _) in zip(others, records, strict=True)]
    found = read(tmp_path_factory.mktemp("any") / "x.jsonl", b"\n".join(lines))
    assert len(found) == len(records)
    for item, other, (text, _) in zip(found, others, records, strict=True):
        assert isinstance(item, Document) and item.text == text
        assert (orjson.loads(item.metadata) if item.metadata else {}) == other
