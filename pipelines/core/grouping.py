"""The one shuffle that stages use: small batches by key, and reports that ride along.

Tagged outputs and side outputs are wrong on some runners, so a task that both emits batches for a group and has
something to report puts both into one collection of `(key, (report or '', batch))`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from pipelines.core.stage import Report

Keyed = tuple[str, tuple[str, pa.RecordBatch]]
SHUFFLE = 3.6  # bytes that Beam's local runner holds for a byte that it shuffles (measured)
_REPORT = "report/"
_NOTHING = pa.RecordBatch.from_arrays([pa.array([], pa.null())], names=["nothing"])


def range_numbers(hashes: np.ndarray, ranges: int) -> np.ndarray:
    """Number the equal range that each uint64 hash falls into: uint64[n], below `ranges` (at most 2^32)."""
    # The upper 32 bits are enough to tell ranges apart, and keep the product inside 64 bits.
    return (hashes >> np.uint64(32)) * np.uint64(ranges) >> np.uint64(32)


def batch_element(key: str, batch: pa.RecordBatch) -> Keyed:
    """Make the element that sends a batch to the group `key`."""
    return key, ("", batch)


def report_element(report: Report) -> Keyed:
    """Make the element that carries a report past the shuffle."""
    return _REPORT + report.key, (report.to_json(), _NOTHING)


def _handle(
    group: tuple[str, Iterable[tuple[str, pa.RecordBatch]]], handler: Callable[..., Report], args: tuple[Any, ...]
) -> Report:
    key, values = group
    if key.startswith(_REPORT):
        ((raw, _),) = set_of_reports(values)
        return Report.from_json(raw)
    return handler(key, [batch for _, batch in values], *args)


def set_of_reports(values: Iterable[tuple[str, pa.RecordBatch]]) -> list[tuple[str, pa.RecordBatch]]:
    """The distinct reports of one key: a task that a runner ran twice says the same thing twice."""
    return list({raw: (raw, batch) for raw, batch in values}.values())


@dataclass
class GroupBatches(beam.PTransform):
    """Group batches by key and turn each group into a report with `handler(key, batches, *args)`.

    The handler must not depend on the order of the batches. Reports pass through.
    """

    handler: Callable[..., Report]
    args: tuple[Any, ...] = ()

    def expand(self, keyed: beam.PCollection) -> beam.PCollection:
        """Group, then map."""
        return (
            keyed
            | "GroupByKey" >> beam.GroupByKey()
            | "Handle" >> beam.Map(_handle, self.handler, self.args).with_output_types(Report)
        )
