"""Packed rows by memory map, read ahead in the order that training asks for."""

from __future__ import annotations

import hashlib
import itertools
import queue
import threading
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.lib.stride_tricks import sliding_window_view

from schemas.base import Record, SchemaError
from schemas.manifest import MANIFEST_PATH, Manifest, Shard, parse
from schemas.packed import ALONE, packed_record
from trainer.order import Schedule, shuffled

READ_TOKENS = 1 << 21  # gathered at a time: 16 MiB as int64
T = TypeVar("T")


@dataclass(frozen=True)
class DataConfig:
    """Which rows to use, and how often.

    train: table to learn from. evaluate: table to measure on. weights: by source; how often its rows come in an epoch,
    0.5 half of them, 2 each twice; 1 where it is not named, and for a row of several sources their mean by tokens. mix:
    the same for the --data directories, in their order; empty: 1 for each. block: rows that are read together: the
    order shuffles blocks of so many rows, and the rows within each 16 of them; for storage that is slow at single
    rows; 0: all rows.
    """

    train: str = "train"
    evaluate: str = "validation"
    weights: dict[str, float] = field(default_factory=dict)
    mix: tuple[float, ...] = ()
    block: int = 0

    def __post_init__(self) -> None:
        if min([*self.weights.values(), *self.mix, 0]) < 0 or self.block < 0:
            raise ValueError("data: weights, mix and block must not be negative")


class Rows(NamedTuple):
    """Some packed rows, copied out of the map. Segments are the documents of a row, then its padding if it has any.

    input_ids: int64 [rows, length]. word_start: bool [rows, length]. row_ids: uint64 [rows], the directory's number in
    the highest byte. lens: int64 [segments], adding up to `length` row by row. padding: bool [segments].
    next_sentence: int8 [segments], as schemas.packed has it; ALONE in rows without pairs. cu_seqlens: int32
    [segments + 1], where each segment begins in the rows one after the other, then where the last one ends.
    """

    input_ids: np.ndarray
    word_start: np.ndarray
    row_ids: np.ndarray
    lens: np.ndarray
    padding: np.ndarray
    next_sentence: np.ndarray
    cu_seqlens: np.ndarray

    def cut(self, rows: int) -> Iterator[Rows]:
        """Cut into views of so many rows each, with a cu_seqlens of their own."""
        slots = np.append(np.arange(0, len(self.row_ids), rows), len(self.row_ids)) * self.input_ids.shape[1]
        edges = np.searchsorted(self.cu_seqlens, slots).tolist()
        whole = (pieces(each, rows) for each in (self.input_ids, self.word_start, self.row_ids))
        for ids, words, row_ids, slot, begin, end in zip(*whole, slots.tolist(), edges, edges[1:], strict=False):
            inner = slice(begin, end)
            yield Rows(
                ids, words, row_ids, self.lens[inner], self.padding[inner], self.next_sentence[inner],
                self.cu_seqlens[begin : end + 1] - slot,
            )  # fmt: skip


def pieces(array: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Cut the first axis into views of `size`, the last as long as the others or shorter: quicker than by slices."""
    whole = len(array) // size
    yield from array[: whole * size].reshape(whole, size, *array.shape[1:])
    if whole * size < len(array):
        yield array[whole * size :]


class _Shard:
    """One mapped file, and where in it each record batch has its buffers; nothing is copied.

    Rows are gathered from a whole file at once: by record batches it would be a few calls for each of them, and rows in
    random order are all in different ones.
    """

    def __init__(self, path: Path, record: Record, directory: int) -> None:
        self.path = path
        file = pa.memory_map(str(path))
        reader = _opened(file, path)
        record.check_version(reader.schema, str(path))
        found, wanted = (schema.field("input_ids").type for schema in (reader.schema, record.schema))
        if not found.equals(wanted):
            raise SchemaError(f"{path}: input_ids is {found}; the manifest asks for {wanted}")
        self.batches = [batch for batch in _batches(reader, path) if len(batch)]
        self._sound: set[int] = set()
        self.starts = np.cumsum([0] + [len(batch) for batch in self.batches])
        file.seek(0)
        whole = file.read_buffer()
        self.bytes = np.frombuffer(whole, np.uint8)
        self.directory, self.token = np.uint64(directory << 56), np.dtype(wanted.value_type.to_pandas_dtype())
        self.pairs = reader.schema.get_field_index("next_sentence") >= 0

        def buffers(name: str, number: int) -> np.ndarray:
            """Where a column's buffer begins in the file, batch by batch: int64."""
            found = [batch.column(name).buffers()[number].address for batch in self.batches]
            places = np.array(found, np.int64) - whole.address
            if len(places) and not 0 <= places.min() <= places.max() < whole.size:
                raise SchemaError(f"{path}: its buffers are compressed; rows to train on must not be, pack them again")
            return places

        # buffers of a list: validity, offsets, the items' validity, items; a list of fixed size has no offsets
        self.tokens, self.words, self.row_ids = buffers("input_ids", 2), buffers("word_start", 2), buffers("row_id", 1)
        self.offsets, self.lens = buffers("seq_lens", 1), buffers("seq_lens", 3)
        self.codes = buffers("next_sentence", 3) if self.pairs else None

    def __len__(self) -> int:
        return int(self.starts[-1])

    def locate(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Record batch of each row, and its place there."""
        batch = np.searchsorted(self.starts, rows, side="right") - 1
        return batch, rows - self.starts[batch]

    def take(self, where: np.ndarray, size: int, dtype: np.typing.DTypeLike) -> np.ndarray:
        """Copy `size` bytes from each place in the file: [n, size / the type's]."""
        return sliding_window_view(self.bytes, size)[where].view(dtype)

    def documents(self, rows: np.ndarray, names: Sequence[str]) -> tuple[pa.Table, np.ndarray]:
        """Items of list columns, row by row of ascending rows, and their number in each row."""
        batch, offset = self.locate(rows)
        chosen = np.unique(batch).tolist()
        self._check(chosen, names)
        lists = [[self.batches[b].column(name).take(pa.array(offset[batch == b])) for name in names] for b in chosen]
        counts = np.concatenate([each[0].value_lengths().to_numpy() for each in lists])
        return pa.concat_tables([pa.table([c.flatten() for c in each], names=list(names)) for each in lists]), counts

    def _check(self, batches: Sequence[int], names: Sequence[str]) -> None:
        """Look once through the offsets of list columns: Arrow follows damaged ones out of the file."""
        for number in set(batches) - self._sound:
            try:
                for name in names:
                    self.batches[number].column(name).validate(full=True)
            except pa.ArrowInvalid as error:
                raise damaged(self.path, f"record batch {number}: {error}") from error
            self._sound.add(number)


def damaged(path: Path, what: object) -> SchemaError:
    """An error about a file that is not as `pack` wrote it."""
    return SchemaError(f"{path} is damaged ({what}): pack it again")


def _opened(file: pa.MemoryMappedFile, path: Path) -> pa.RecordBatchFileReader:
    try:
        return pa.ipc.open_file(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise damaged(path, error) from error


def _batches(reader: pa.RecordBatchFileReader, path: Path) -> list[pa.RecordBatch]:
    try:
        return [reader.get_batch(i) for i in range(reader.num_record_batches)]
    except (pa.ArrowInvalid, OSError) as error:
        raise damaged(path, error) from error


class PackedDataset:
    """One table of one or more dataset directories of packed rows; every shard is mapped, none is read ahead."""

    def __init__(self, directories: Path | str | Sequence[Path | str], table: str) -> None:
        """Map the shards of `table`; SchemaError where a directory, a manifest or a shard is amiss."""
        several = [directories] if isinstance(directories, (str, Path)) else directories
        self.directories, self.table = [Path(each) for each in several], table
        self.manifests = [read_manifest(each) for each in self.directories]
        #: sha256 of the tokenizer's model; None in rows of an older `pack`, which does not say it
        self.tokenizer: str | None = self.manifests[0].facts.get("tokenizer")
        sizes = [
            (_fact(m, d, "seq_len"), _fact(m, d, "vocab_size"), m.facts.get("tokenizer")) for d, m in self._pairs()
        ]
        if len(set(sizes)) > 1:
            found = "; ".join(
                f"{directory}: seq_len {length}, vocab_size {ids:,}, tokenizer {str(tokenizer)[:12]}…"
                for directory, (length, ids, tokenizer) in zip(self.directories, sizes, strict=True)
            )
            raise SchemaError(f"these directories do not go together, pack them alike: {found}")
        self.seq_len, self.vocab_size, _ = sizes[0]
        if self.seq_len % 8:
            raise SchemaError(f"{several[0]}: seq_len is {self.seq_len}; the trainer needs a multiple of 8")
        self._shards = [
            shard
            for number, (directory, manifest) in enumerate(self._pairs())
            for shard in self._open(directory, manifest, number)
        ]
        self._starts = np.cumsum([0] + [len(shard) for shard in self._shards])
        self.has_pairs = any(shard.pairs for shard in self._shards)
        lens = [batch.column("seq_lens").value_lengths() for shard in self._shards for batch in shard.batches]
        #: the largest number of segments in a row, its padding among them
        self.most_segments = 1 + max((pc.max(each).as_py() for each in lens), default=0)
        if not len(self):
            raise SchemaError(f"{several[0]}: table {table!r} holds no rows")

    @property
    def _where(self) -> str:
        return ", ".join(map(str, self.directories))

    def _pairs(self) -> Iterator[tuple[Path, Manifest]]:
        return zip(self.directories, self.manifests, strict=True)

    def _open(self, directory: Path, manifest: Manifest, number: int) -> Iterator[_Shard]:
        record = packed_record(self.seq_len, self.vocab_size)
        for path, shard in named_shards(directory, manifest, self.table):
            mapped = _Shard(path, record, number)
            if len(mapped) != shard.rows:
                raise SchemaError(f"{path} holds {len(mapped):,} rows; the manifest says {shard.rows:,}")
            yield mapped

    def __len__(self) -> int:
        return int(self._starts[-1])

    def sha256(self) -> str:
        """Name the data: the manifest's sha256, or of several manifests the sha256 of theirs."""
        return name_of(self.manifests)

    def _groups(self, rows: np.ndarray) -> Iterator[tuple[_Shard, np.ndarray, np.ndarray]]:
        """Sort rows by where they stand: for each shard its rows, ascending, and their places in `rows`."""
        order = np.argsort(rows, kind="stable")
        inside = rows[order]
        edges = np.searchsorted(inside, self._starts).tolist()
        for number, shard in enumerate(self._shards):
            begin, end = edges[number : number + 2]
            if end > begin:
                yield shard, inside[begin:end] - self._starts[number], order[begin:end]

    def rows(self, rows: np.ndarray) -> Rows:
        """Gather rows by their global number: int [n] below len(self), in the order given."""
        length = self.seq_len
        ids = np.empty((len(rows), length), np.int64)
        bits = np.empty((len(rows), length // 8), np.uint8)
        row_ids, counts = np.empty(len(rows), np.uint64), np.empty(len(rows), np.int64)
        found = []
        for shard, inside, places in self._groups(rows):
            batch, offset = shard.locate(inside)
            size = length * shard.token.itemsize
            ids[places] = shard.take(shard.tokens[batch] + offset * size, size, shard.token)
            bits[places] = shard.take(shard.words[batch] + offset * (length // 8), length // 8, np.uint8)
            row_ids[places] = shard.take(shard.row_ids[batch] + offset * 8, 8, "<u8")[:, 0] | shard.directory
            edges = shard.take(shard.offsets[batch] + offset * 4, 8, "<i4").astype(np.int64)
            counts[places] = edges[:, 1] - edges[:, 0]
            found.append((shard, batch, edges[:, 0], places))
        if ids.max() >= self.vocab_size:
            raise SchemaError(f"{self._where}: token id {ids.max()} in {self.table!r} of {self.vocab_size:,} ids")
        # every row gets a place more, for its padding, which is dropped again where there is none
        ends = np.cumsum(counts + 1)
        lens, codes = np.zeros(ends[-1], np.int64), np.full(ends[-1], ALONE, np.int8)
        for shard, batch, first, places in found:
            mine = counts[places]
            ramp = np.arange(mine.sum()) - np.repeat(np.cumsum(mine) - mine, mine)
            item, target = (np.repeat(each, mine) + ramp for each in (first, (ends - counts - 1)[places]))
            lens[target] = shard.take(np.repeat(shard.lens[batch], mine) + 2 * item, 2, "<u2")[:, 0]
            if shard.codes is not None:
                codes[target] = shard.take(np.repeat(shard.codes[batch], mine) + item, 1, np.int8)[:, 0]
        rest = length - np.add.reduceat(lens, ends - counts - 1)
        if rest.min() < 0:
            bad = row_ids[rest.argmin()]
            raise SchemaError(f"{self._where}: seq_lens of row {bad} in {self.table!r} exceed {length}")
        lens[ends - 1] = rest
        padding = np.zeros(len(lens), bool)
        padding[ends - 1] = True
        keep = lens > 0
        words = np.unpackbits(bits, axis=1, bitorder="little").view(bool)
        cu_seqlens = np.zeros(keep.sum() + 1, np.int32)
        np.cumsum(lens[keep], out=cu_seqlens[1:])
        return Rows(ids, words, row_ids, lens[keep], padding[keep], codes[keep], cu_seqlens)

    def documents(self, rows: np.ndarray) -> pa.Table:
        """Describe the documents of rows, in the order of their segments without padding: id, source, bytes (of text).

        A document that is cut over several segments stands in the table several times.
        """
        parts, places = [], []
        for shard, inside, where in self._groups(rows):
            table, counts = shard.documents(inside, ("doc_ids", "sources", "byte_lens"))
            parts.append(table)
            places.append(np.repeat(where, counts))
        order = np.argsort(np.concatenate(places), kind="stable")
        return pa.concat_tables(parts).rename_columns(["id", "source", "bytes"]).take(pa.array(order))

    def weights(self, config: DataConfig) -> np.ndarray | None:
        """Weight of each row, float64 [rows]; None where all are 1."""
        mix = config.mix or (1.0,) * len(self.directories)
        if len(mix) != len(self.directories):
            raise ValueError(f"data.mix has {len(mix)} weights for {len(self.directories)} --data directories")
        if set(mix) == {1.0} and not config.weights:
            return None
        parts, seen = [], set()
        for shard, batch in ((each, batch) for each in self._shards for batch in each.batches):
            sources = batch.column("sources").values.dictionary_encode()
            names = sources.dictionary.to_pylist()
            seen |= set(names)
            known = np.array([config.weights.get(name, 1.0) for name in names])
            lens, offsets = (getattr(batch.column("seq_lens"), part).to_numpy() for part in ("values", "offsets"))
            total, weighted = (
                np.append(0, np.cumsum(each)) for each in (lens, lens * known[sources.indices.to_numpy()])
            )
            first, last = offsets[:-1], offsets[1:]
            mean = (weighted[last] - weighted[first]) / (total[last] - total[first])
            parts.append(mix[int(shard.directory) >> 56] * mean)
        if unknown := sorted(set(config.weights) - seen):
            raise ValueError(
                f"data.weights names {unknown[0]!r}; the sources of {self.table!r}: {', '.join(sorted(seen))}"
            )
        found = np.concatenate(parts)
        return None if (found == 1).all() else found

    def token_counts(self, most_rows: int = 65_536) -> np.ndarray:
        """Count token ids: int64 [vocab_size], over all rows or, of a larger table, over `most_rows` drawn evenly."""
        counts = np.zeros(self.vocab_size, np.int64)
        chosen = shuffled(np.arange(min(most_rows, len(self))), len(self), seed=0)
        block = max(1, READ_TOKENS // self.seq_len)
        for first in range(0, len(chosen), block):
            tokens = self.rows(chosen[first : first + block]).input_ids
            counts += np.bincount(tokens.ravel(), minlength=self.vocab_size)
        return counts


def _fact(manifest: Manifest, directory: Path, name: str) -> int:
    value = manifest.facts.get(name)
    if type(value) is not int:
        raise SchemaError(f"{directory}: the manifest states no {name!r}; are its rows packed?")
    return value


def named_shards(directory: Path, manifest: Manifest, table: str) -> Iterator[tuple[Path, Shard]]:
    """The shards of a table and their files; SchemaError where there are none, or one is not as the manifest says."""
    shards = manifest.of(table)
    if not shards:
        tables = ", ".join(manifest.tables()) or "none"
        raise SchemaError(f"{directory}: the manifest names no shard of table {table!r}; its tables: {tables}")
    for shard in shards:
        path = directory / shard.path
        if not path.exists() or path.stat().st_size != shard.bytes:
            raise SchemaError(f"{path} is missing or not of {shard.bytes:,} bytes, as the manifest says")
        yield path, shard


def name_of(manifests: Sequence[Manifest]) -> str:
    """Name data: the manifest's sha256, or of several manifests the sha256 of theirs."""
    names = [manifest.sha256() for manifest in manifests]
    return names[0] if len(names) == 1 else hashlib.sha256("".join(names).encode()).hexdigest()


def read_manifest(directory: Path) -> Manifest:
    """Read a dataset directory's manifest, or raise SchemaError."""
    path = directory / MANIFEST_PATH
    if not path.exists():
        raise SchemaError(f"{directory} is no dataset directory: it has no {MANIFEST_PATH}")
    return parse(path.read_bytes(), str(path))


def read_batches(
    dataset: PackedDataset, order: Schedule, positions: Iterator[np.ndarray], ahead: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray, Rows]]:
    """Read batches of rows by their positions, int64 [rows], the last as long as the others or shorter.

    Yields (row numbers, draws, rows) for each batch.

    `ahead` rows (0: READ_TOKENS), or a batch, are gathered at a time, sorted by where they stand: an order of magnitude
    faster than batch by batch.
    """
    ahead = ahead or READ_TOKENS // dataset.seq_len
    for first in positions:
        group = [first, *itertools.islice(positions, max(0, ahead // len(first) - 1))]
        numbers, draws = order(np.concatenate(group))
        size = len(first)
        yield from zip(pieces(numbers, size), pieces(draws, size), dataset.rows(numbers).cut(size), strict=True)


def prefetch(items: Iterator[T], depth: int) -> Generator[T, None, None]:
    """Run an iterator in a thread, at most `depth` items ahead; 0: without a thread. What it raises is raised here."""
    if not depth:
        yield from items
        return
    ready: queue.Queue[tuple[bool, T | BaseException | None]] = queue.Queue(depth)
    closed = threading.Event()

    def put(entry: tuple[bool, T | BaseException | None]) -> bool:
        while not closed.is_set():
            try:
                ready.put(entry, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def run() -> None:
        try:
            if all(put((True, item)) for item in items):
                put((False, None))
        except BaseException as error:
            put((False, error))

    thread = threading.Thread(target=run, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            more, item = ready.get()
            if not more:
                if item is not None:
                    raise item  # type: ignore[misc]
                return
            yield item  # type: ignore[misc]
    finally:
        closed.set()
        thread.join()
