"""Losses of documents: what leads back from the model to the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.losses import LOSSES
from schemas.packed import IGNORE_INDEX
from trainer import checkpoint

FOLDER = "losses"


def by_piece(micro: Any, *values: np.ndarray) -> list[np.ndarray]:
    """Sum values of the masked slots, [slots] each, over each document piece: float64 [pieces] each."""
    valid = micro.labels.numpy() != IGNORE_INDEX
    where, count = micro.pieces[valid], len(micro.ordinary)
    return [np.bincount(where, each[valid].astype(np.float64), minlength=count) for each in values]


def table(ids: Any, sources: Any, step: int, loss: np.ndarray, masked: np.ndarray) -> pa.Table:
    """Make rows of schemas.losses from sums of nats over pieces, [pieces] each; pieces without a mask have no row."""
    some = np.flatnonzero(masked)
    mean = (loss[some] / masked[some]).astype(np.float32)
    columns = [
        pa.array(ids, LOSSES.schema.field("id").type).take(pa.array(some)),
        pa.array(sources, pa.string()).take(pa.array(some)),
        pa.array(np.full(len(some), step, np.uint32)), pa.array(mean), pa.array(masked[some].astype(np.uint32)),
    ]  # fmt: skip
    return pa.table(columns, schema=LOSSES.schema)


def write(path: Path, parts: list[pa.Table]) -> None:
    """Write an Arrow file that appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with pa.ipc.new_file(str(partial), LOSSES.schema) as file:
        for part in parts:
            file.write_table(part)
    checkpoint.sync(partial)
    partial.replace(path)


def forget(folder: Path, step: int) -> None:
    """Remove the losses of steps after `step`, which will be taken again."""
    for path in folder.glob("step-*.arrow"):
        if int(path.stem.removeprefix("step-")) > step:
            path.unlink()


class Recorder:
    """Keep the losses of a process's micro-batches, step by step, until the next checkpoint takes them."""

    def __init__(self, dataset: Any) -> None:
        self.dataset, self.parts = dataset, list[pa.Table]()

    def add(self, step: int, batches: list[Any], losses: list[Any]) -> None:
        """Take what step number `step` computed: losses of the masked slots, a tensor for each micro-batch."""
        for micro, values in zip(batches, losses, strict=True):
            loss, masked = by_piece(micro, values.cpu().numpy(), np.ones(len(values)))
            documents = self.dataset.documents(micro.rows)
            ids, sources = (documents[name].combine_chunks() for name in ("id", "source"))
            self.parts.append(table(ids, sources, step, loss, masked))

    def take(self) -> list[pa.Table]:
        """What has been kept since the last call."""
        parts, self.parts = self.parts, []
        return [pa.concat_tables(parts).combine_chunks()] if parts else []
