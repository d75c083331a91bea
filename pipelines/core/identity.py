"""Identity of records: ids from (source, locator), hashes of content."""

from __future__ import annotations

import hashlib

import numpy as np
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


def mixed64(ids: np.ndarray, salt: str) -> np.ndarray:
    """Mix 16-byte ids to uint64[n], uniform and unrelated between salts: the vectorised `hash64`.

    ids: uint8[n, 16], as uniform as blake2b made them. Mixing is that of SplitMix64 (Steele et al. 2014).
    """
    words = np.ascontiguousarray(ids).view("<u8").reshape(-1, 2)
    mixed = words[:, 0] ^ np.uint64(hash64(b"", salt))
    for word in (words[:, 1], np.uint64(0)):
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed = (mixed ^ (mixed >> np.uint64(31))) ^ word
    return mixed


def id_bytes(ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """View a fixed_size_binary[16] array as uint8[n, 16] without copying."""
    array = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
    raw = np.frombuffer(array.buffers()[1], np.uint8) if len(array) else np.empty(0, np.uint8)
    return raw[array.offset * ID_BYTES : (array.offset + len(array)) * ID_BYTES].reshape(-1, ID_BYTES)
