"""Identity: ids and hashes are fixed by their definition, and vectorised ones are uniform and unrelated by salt."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from pipelines.core.identity import content_hash, content_hashes, hash64, id_bytes, mixed64, record_id


@given(st.text(), st.text())
def test_a_record_id_is_blake2b_of_source_and_locator(source: str, locator: str) -> None:
    raw = source.encode() + b"\0" + locator.encode()
    assert record_id(source, locator) == hashlib.blake2b(raw, digest_size=16).digest()


def test_the_border_between_source_and_locator_counts() -> None:
    assert record_id("ab", "c") != record_id("a", "bc")
    assert record_id("wiki", "1").hex() == hashlib.blake2b(b"wiki\x001", digest_size=16).hexdigest()


@given(st.lists(st.none() | st.text(max_size=5), max_size=9), st.integers(0, 9))
def test_content_hashes_of_an_array_are_those_of_its_texts(texts: list[str | None], start: int) -> None:
    given_texts = [text or "" for text in texts]
    array = pa.array(given_texts, pa.string()).slice(min(start, len(texts)))
    expected = [xxhash.xxh3_128_digest(text.encode()) for text in given_texts[start:]]
    assert content_hashes(array).to_pylist() == expected
    assert content_hashes(array).type == pa.binary(16)
    assert [content_hash(text.encode()) for text in given_texts[start:]] == expected


def test_hash64_changes_with_key_and_salt() -> None:
    values = {hash64(key, salt) for key in (b"", b"a", b"b") for salt in ("", "x", "y")}
    assert len(values) == 9 and all(0 <= value < 2**64 for value in values)


def ids(count: int) -> np.ndarray:
    return np.frombuffer(b"".join(record_id("s", str(i)) for i in range(count)), np.uint8).reshape(-1, 16)


def test_mixed64_is_uniform_and_unrelated_between_salts() -> None:
    one, two = (mixed64(ids(20_000), salt) / 2.0**64 for salt in ("split 0", "split 1"))
    for values in (one, two):
        counts, _ = np.histogram(values, 20, (0, 1))
        assert abs(counts - 1000).max() < 5 * np.sqrt(1000)
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.03


def test_mixed64_depends_on_every_byte_of_the_id() -> None:
    base = np.zeros((1, 16), np.uint8)
    mixed = {int(mixed64(base, "s")[0])}
    for byte in range(16):
        changed = base.copy()
        changed[0, byte] = 1
        mixed.add(int(mixed64(changed, "s")[0]))
    assert len(mixed) == 17


def test_mixed64_of_a_row_does_not_depend_on_the_others() -> None:
    many = ids(50)
    assert (mixed64(many, "s")[7:9] == mixed64(many[7:9], "s")).all()
    assert len(mixed64(many[:0], "s")) == 0


@given(st.lists(st.binary(min_size=16, max_size=16), max_size=12), st.integers(0, 12), st.integers(0, 12))
def test_id_bytes_views_slices_and_chunks(values: list[bytes], start: int, length: int) -> None:
    array = pa.array(values, pa.binary(16)).slice(min(start, len(values)), length)
    assert [row.tobytes() for row in id_bytes(array)] == array.to_pylist()
    chunks = pa.chunked_array([array, pa.array(values, pa.binary(16))])
    assert [row.tobytes() for row in id_bytes(chunks)] == chunks.to_pylist()
