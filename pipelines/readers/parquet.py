"""Parquet, a row group at a time."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.core.files import open_read
from pipelines.readers import arrow
from pipelines.readers.base import MIB, InputFile, Item, ReadConfig, Reject

MAX_ROWS = 65_536


def read(file: InputFile, config: ReadConfig, open_rows: arrow.OpenRows = arrow.documents) -> Iterator[Item]:
    """Yield the rows of a Parquet file; positions count rows from 0. Page checksums are verified where there are any.

    A damaged file is one Reject 'unreadable_file'; each row that a damaged row group cost is a Reject
    'unreadable_rows', and the next row group is read. Raises ReadError where a column that the configuration names is
    missing or is no text; see `arrow.items` for the rest.
    """
    with open_read(file.path) as raw:
        source = arrow.Source(raw)
        try:
            parquet = pq.ParquetFile(
                pa.PythonFile(source, mode="r"), buffer_size=MIB, pre_buffer=False, page_checksum_verification=True
            )
            schema, groups = parquet.schema_arrow, parquet.metadata
        except (pa.ArrowException, OSError) as error:
            yield Reject(0, "unreadable_file", source.blame(error))
            return
        read_rows = open_rows(schema, file, config)
        position = 0
        for i in range(groups.num_row_groups):
            group = groups.row_group(i)
            rows = min(max(1, group.num_rows * config.batch_bytes // max(1, group.total_byte_size)), MAX_ROWS)
            done = 0
            try:
                for batch in parquet.iter_batches(rows, row_groups=[i], use_threads=False):
                    yield from arrow.each_item(batch, position + done, read_rows)
                    done += batch.num_rows
            except (pa.ArrowException, OSError) as error:
                why = f"row group {i}: {source.blame(error)}"
                for lost in range(done, group.num_rows):
                    yield Reject(position + lost, "unreadable_rows", why)
            position += group.num_rows
