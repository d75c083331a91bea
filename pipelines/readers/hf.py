"""Arrow IPC: directories of Hugging Face `save_to_disk`, our own sealed-stream shards, and single .arrow files."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pyarrow as pa

from pipelines.core.files import open_read
from pipelines.readers import arrow
from pipelines.readers.base import InputFile, Item, ReadConfig, ReadError, Reject

FILE_MAGIC = b"ARROW1"


def data_files(state: bytes, where: str) -> list[str] | None:
    """Read the names of a split's files from its state.json; None where this is another kind of file.

    Raises ReadError for names that leave the directory, and for row selections, which datasets before 1.6 could save.
    """
    try:
        content = json.loads(state)
        names = [entry["filename"] for entry in content["_data_files"]]
    except (ValueError, KeyError, TypeError):
        return None
    for name in names:
        if not isinstance(name, str) or name in ("", ".", "..") or "/" in name or "\\" in name:
            raise ReadError(f"{where} names a data file outside its directory")
    if content.get("_indices_data_files"):
        raise ReadError(f"{where} selects rows by an index file; load it with datasets and save it again")
    return names


def splits(dataset_dict: bytes) -> list[str] | None:
    """Read the names of the splits from a dataset_dict.json; None where this is another kind of file."""
    try:
        names = json.loads(dataset_dict)["splits"]
    except (ValueError, KeyError, TypeError):
        return None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def read(file: InputFile, config: ReadConfig, open_rows: arrow.OpenRows = arrow.documents) -> Iterator[Item]:
    """Yield the rows of an Arrow IPC stream, sealed or not, or of an IPC file; positions count rows from 0.

    A stream must end with its end-of-stream marker: one that stops earlier, even between two batches, where pyarrow
    itself reports nothing, gives its rows and then one Reject 'truncated_file'. Damage is one Reject
    'unreadable_file'. Raises ReadError as `parquet.read` does; see `arrow.items` for the rest.
    """
    position = 0
    with open_read(file.path) as raw:
        source = arrow.Source(raw)
        is_file = source.read(len(FILE_MAGIC)) == FILE_MAGIC
        source.seek(0)
        source.short = False
        try:
            batches = _file_batches(source) if is_file else _stream_batches(source)
            schema = next(batches)
            rows = open_rows(schema, file, config)
            for batch in batches:
                for piece in arrow.pieces(batch, config):
                    yield from arrow.each_item(piece, position, rows)
                    position += piece.num_rows
        except (pa.ArrowException, OSError) as error:
            message = source.blame(error)
            reason = "truncated_file" if source.short else "unreadable_file"
            yield Reject(position, reason, message)
            return
        if source.short and not is_file:
            yield Reject(position, "truncated_file", "the Arrow stream stops before its end-of-stream marker")


def _stream_batches(source: arrow.Source) -> Iterator[pa.Schema | pa.RecordBatch]:
    reader = pa.ipc.open_stream(pa.PythonFile(source, mode="r"))
    yield reader.schema
    yield from reader


def _file_batches(source: arrow.Source) -> Iterator[pa.Schema | pa.RecordBatch]:
    reader = pa.ipc.open_file(pa.PythonFile(source, mode="r"))
    yield reader.schema
    for i in range(reader.num_record_batches):
        yield reader.get_batch(i)
