"""Packed rows by memory map, in an order that is a pure function of (seed, position)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from schemas.base import SchemaError
from schemas.manifest import MANIFEST_PATH, Manifest, parse
from schemas.packed import packed_record

FEISTEL_ROUNDS = 6


@dataclass(frozen=True)
class DataConfig:
    """Which tables of the dataset directory to use: train to learn from, evaluate to measure on."""

    train: str = "train"
    evaluate: str = "validation"


@dataclass(frozen=True)
class Rows:
    """Some packed rows, copied out of the map. Segments are the documents of a row, then its padding if it has any.

    input_ids: int64 [rows, length]. word_start: bool [rows, length]. row_ids: uint64 [rows].
    lens: int64 [segments], adding up to `length` row by row. padding: bool [segments].
    """

    input_ids: np.ndarray
    word_start: np.ndarray
    row_ids: np.ndarray
    lens: np.ndarray
    padding: np.ndarray


@dataclass(frozen=True)
class Documents:
    """What some rows say of their documents, in the order of their segments without padding.

    source: str [documents]. bytes: int64 [documents], of text.
    """

    source: np.ndarray
    bytes: np.ndarray


class _Batch:
    """Views of one mapped record batch; nothing is copied."""

    def __init__(self, batch: pa.RecordBatch, length: int) -> None:
        self.batch = batch
        self.tokens = batch.column("input_ids").flatten().to_numpy(zero_copy_only=True).reshape(-1, length)
        bits = np.frombuffer(batch.column("word_start").values.buffers()[1], np.uint8)  # lowest bit first
        self.words = bits[: len(batch) * length // 8].reshape(-1, length // 8)
        self.row_ids = batch.column("row_id").to_numpy(zero_copy_only=True)
        lens = batch.column("seq_lens")
        self.lens, self.offsets = lens.values.to_numpy(zero_copy_only=True), lens.offsets.to_numpy(zero_copy_only=True)

    def seq_lens(self, row: int) -> np.ndarray:
        return self.lens[self.offsets[row] : self.offsets[row + 1]]


class PackedDataset:
    """One table of a dataset directory of packed rows; every shard is mapped, none is read ahead."""

    def __init__(self, directory: Path | str, table: str) -> None:
        """Map the shards of `table`; SchemaError where the directory, the manifest or a shard is amiss."""
        self.directory, self.table = Path(directory), table
        self.manifest = read_manifest(self.directory)
        facts = self.manifest.facts
        for fact in ("seq_len", "vocab_size"):
            if not isinstance(facts.get(fact), int):
                raise SchemaError(f"{self.directory}: the manifest states no {fact!r}; are its rows packed?")
        self.seq_len, self.vocab_size = facts["seq_len"], facts["vocab_size"]
        if self.seq_len % 8:
            raise SchemaError(f"{self.directory}: seq_len is {self.seq_len}; the trainer needs a multiple of 8")
        shards = self.manifest.of(table)
        if not shards:
            tables = ", ".join(self.manifest.tables()) or "none"
            raise SchemaError(f"{self.directory}: the manifest names no shard of table {table!r}; its tables: {tables}")
        record = packed_record(self.seq_len, self.vocab_size)
        self._batches: list[_Batch] = []
        for shard in shards:
            path = self.directory / shard.path
            if not path.exists() or path.stat().st_size != shard.bytes:
                raise SchemaError(f"{path} is missing or not of {shard.bytes:,} bytes, as the manifest says")
            reader = pa.ipc.open_file(pa.memory_map(str(path)))
            record.check_version(reader.schema, str(path))
            found = reader.schema.field("input_ids").type
            if not found.equals(record.schema.field("input_ids").type):
                raise SchemaError(
                    f"{path}: input_ids is {found}; the manifest says seq_len {self.seq_len} and "
                    f"vocab_size {self.vocab_size}"
                )
            batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
            if sum(map(len, batches)) != shard.rows:
                raise SchemaError(f"{path} holds {sum(map(len, batches)):,} rows; the manifest says {shard.rows:,}")
            self._batches += [_Batch(batch, self.seq_len) for batch in batches if len(batch)]
        self._starts = np.cumsum([0] + [len(batch.row_ids) for batch in self._batches])
        if not len(self):
            raise SchemaError(f"{self.directory}: table {table!r} holds no rows")

    def __len__(self) -> int:
        return int(self._starts[-1])

    def _find(self, rows: np.ndarray) -> list[tuple[_Batch, int]]:
        """Batch and offset of each global row."""
        number = np.searchsorted(self._starts, rows, side="right") - 1
        offset = rows - self._starts[number]
        return [(self._batches[b], i) for b, i in zip(number.tolist(), offset.tolist(), strict=True)]

    def rows(self, rows: np.ndarray) -> Rows:
        """Gather rows by their global number: int [n] below len(self), in the order given."""
        found = self._find(rows)
        ids = np.stack([batch.tokens[i] for batch, i in found]).astype(np.int64)
        if ids.max() >= self.vocab_size:
            raise SchemaError(f"{self.directory}: token id {ids.max()} in {self.table!r} of {self.vocab_size:,} ids")
        words = np.unpackbits(np.stack([batch.words[i] for batch, i in found]), axis=1, bitorder="little").view(bool)
        row_ids = np.array([batch.row_ids[i] for batch, i in found], np.uint64)
        lens: list[int] = []
        padding: list[bool] = []
        for (batch, i), row_id in zip(found, row_ids, strict=True):
            mine = batch.seq_lens(i).tolist()
            rest = self.seq_len - sum(mine)
            if rest < 0:
                raise SchemaError(f"{self.directory}: seq_lens of row {row_id} in {self.table!r} exceed {self.seq_len}")
            lens += [*mine, rest] if rest else mine
            padding += [False] * len(mine) + [True] * (rest > 0)
        return Rows(ids, words, row_ids, np.array(lens, np.int64), np.array(padding, bool))

    def documents(self, rows: np.ndarray) -> Documents:
        """Describe the documents in rows given by their global number."""
        found = self._find(rows)
        sources = [source for batch, i in found for source in batch.batch.column("sources")[i].as_py()]
        sizes = [size for batch, i in found for size in batch.batch.column("byte_lens")[i].as_py()]
        return Documents(np.array(sources), np.array(sizes, np.int64))

    def token_counts(self, most_rows: int = 65_536) -> np.ndarray:
        """Count token ids: int64 [vocab_size], over all rows or, of a larger table, over `most_rows` drawn evenly."""
        counts = np.zeros(self.vocab_size, np.int64)
        chosen = shuffled(np.arange(min(most_rows, len(self))), len(self), seed=0)
        batch = np.searchsorted(self._starts, chosen, side="right") - 1
        for b in np.unique(batch).tolist():
            tokens = self._batches[b].tokens[np.sort(chosen[batch == b] - self._starts[b])]
            counts += np.bincount(tokens.ravel(), minlength=self.vocab_size)[: self.vocab_size]
        return counts


def read_manifest(directory: Path) -> Manifest:
    """Read a dataset directory's manifest, or raise SchemaError."""
    path = directory / MANIFEST_PATH
    if not path.exists():
        raise SchemaError(f"{directory} is no dataset directory: it has no {MANIFEST_PATH}")
    return parse(path.read_bytes(), str(path))


def _mix(x: np.ndarray, key: int) -> np.ndarray:
    """Hash uint64 numbers under a key: the finaliser of splitmix64 (Steele et al. 2014), arithmetic modulo 2⁶⁴."""
    x = x + np.uint64(key)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def shuffled(positions: np.ndarray, size: int, seed: int, epoch: int = 0) -> np.ndarray:
    """Permute numbers below `size`: where each position of this epoch's order leads, int64 [n].

    A Feistel network over the next even power of two, walked until it lands below `size` (Black and Rogaway 2002):
    any position costs the same, no permutation is kept in memory, and no library's generator decides the order.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    low = np.uint64((1 << half) - 1)
    digest = hashlib.blake2b(f"order {seed} {epoch}".encode(), digest_size=8 * FEISTEL_ROUNDS).digest()
    keys = np.frombuffer(digest, "<u8").tolist()
    value = positions.astype(np.uint64)
    todo = np.arange(len(value))
    while len(todo):
        left, right = value[todo] >> np.uint64(half), value[todo] & low
        for key in keys:
            left, right = right, left ^ (_mix(right, key) & low)
        value[todo] = (left << np.uint64(half)) | right
        todo = todo[value[todo] >= size]
    return value.astype(np.int64)


def schedule(positions: np.ndarray, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Say which row stands at each position of an endless run over `size` rows: (row, epoch), int64 [n] each.

    Each epoch visits every row once, in an order of its own. A run needs no other data state than its position.
    """
    epochs = positions // size
    rows = np.empty_like(positions)
    for epoch in np.unique(epochs).tolist():
        chosen = epochs == epoch
        rows[chosen] = shuffled(positions[chosen] % size, size, seed, epoch)
    return rows, epochs
