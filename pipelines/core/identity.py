"""Identity of records: ids from (source, locator), hashes of content."""

from __future__ import annotations

import hashlib

import pyarrow as pa
import xxhash

ID_BYTES = 16


def record_id(source: str, locator: str) -> bytes:
    """Make the 16-byte id of a record: blake2b-128 of the source's name, a NUL and the locator, as UTF-8."""
    return hashlib.blake2b(f"{source}\0{locator}".encode(), digest_size=ID_BYTES).digest()


def content_hash(content: bytes) -> bytes:
    """Make the 16-byte hash of a text's UTF-8 (xxh3-128, big-endian)."""
    return xxhash.xxh3_128_digest(content)


def content_hashes(texts: pa.Array) -> pa.Array:
    """Hash every text of a string array: fixed_size_binary[16] of the same length."""
    digest = xxhash.xxh3_128_digest
    binary = texts.cast(pa.binary())
    return pa.array([digest(value.as_buffer()) for value in binary], pa.binary(ID_BYTES))


def hash64(key: bytes, salt: str = "") -> int:
    """Hash bytes to 64 bits, unrelated between salts (blake2b); the source of every seeded order and split."""
    digest = hashlib.blake2b(key, digest_size=8, salt=hashlib.blake2b(salt.encode(), digest_size=16).digest())
    return int.from_bytes(digest.digest(), "big")
