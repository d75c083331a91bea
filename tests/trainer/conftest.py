"""Small packed datasets in the real shard format, made without the pipelines' stages."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipelines.core.sealed import SealedStream
from schemas.manifest import MANIFEST_PATH, Manifest, Shard
from schemas.packed import ALONE, CLS_ID, PAD_ID, SECOND, SEP_ID, packed_record

LENGTH, VOCAB = 64, 128


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Bits depend on the number of threads, so the tests fix it."""
    torch.set_num_threads(1)


def document(rng: np.random.Generator, size: int) -> tuple[list[int], list[bool]]:
    """A document that can be learned: consecutive ids from a random start; words of one to three tokens."""
    start = int(rng.integers(VOCAB - 5))
    ids = [5 + (start + i) % (VOCAB - 5) for i in range(size)]
    return [CLS_ID, *ids, SEP_ID], [False, *(rng.random(size) < 0.6).tolist(), False]


def pair(rng: np.random.Generator, size: int) -> tuple[list[int], list[bool], list[int], list[int]]:
    """Two pieces: the second goes on where the first ends, or, as a random one, begins elsewhere."""
    ids, marks = document(rng, size)
    at, real = size // 2, bool(rng.integers(2))
    shift = 0 if real else (VOCAB - 5) // 2
    second = [5 + (token - 5 + shift) % (VOCAB - 5) for token in ids[1 + at : -1]]
    whole = [*ids[: 1 + at], SEP_ID, *second, SEP_ID]
    return whole, [*marks[: 1 + at], False, *marks[1 + at :]], [at + 2, len(second) + 1], [int(real), SECOND]


def packed_rows(
    rng: np.random.Generator, count: int, shard: int, length: int = LENGTH, *, pairs: bool = False
) -> list[dict[str, Any]]:
    rows = []
    for number in range(count):
        ids: list[int] = []
        starts: list[bool] = []
        lens: list[int] = []
        codes: list[int] = []
        while length - len(ids) >= 8 and (len(lens) < 6):
            size = int(rng.integers(3, min(24, length - len(ids) - 2 - pairs) + 1))
            if pairs and size >= 4:
                more, marks, sizes, kinds = pair(rng, size)
            else:
                more, marks = document(rng, size)
                sizes, kinds = [len(more)], [ALONE]
            ids, starts, lens, codes = ids + more, starts + marks, lens + sizes, codes + kinds
        padding = length - len(ids)
        names = [hashlib.blake2b(bytes([shard, number, i]), digest_size=16).digest() for i in range(len(lens))]
        rows.append(
            {
                "row_id": shard << 32 | number,
                "input_ids": ids + [PAD_ID] * padding,
                "seq_lens": lens,
                "word_start": starts + [False] * padding,
                "doc_ids": names,
                "sources": [("books", "新闻")[name[0] % 2] for name in names],
                "byte_lens": [3 * (n - 2) for n in lens],
            }
            | ({"next_sentence": codes} if pairs else {})
        )
    return rows


def write_dataset(root: Path, *, train: int = 40, validation: int = 12, seed: int = 0, pairs: bool = False,
                  **facts: Any) -> Path:  # fmt: skip
    """Write a dataset directory: two shards of training rows in batches of 7, one of validation rows."""
    rng = np.random.default_rng(seed)
    shards = []
    for table, numbers in (("train", {0: train // 2, 1: train - train // 2}), ("validation", {2: validation})):
        for number, count in numbers.items():
            rows = pa.Table.from_pylist(
                packed_rows(rng, count, number, pairs=pairs), packed_record(LENGTH, VOCAB, pairs=pairs).schema
            )
            path = f"{table}/shard-{number:05d}.arrow"
            (root / table).mkdir(parents=True, exist_ok=True)
            with (root / path).open("wb") as file:
                stream = SealedStream(file.write, rows.schema)
                for batch in rows.combine_chunks().to_batches(max_chunksize=7):
                    # cut batches keep an offset into their parent; a written shard has none
                    stream.write(pa.RecordBatch.from_pylist(batch.to_pylist(), rows.schema))
                stream.close()
            data = (root / path).read_bytes()
            shards.append(Shard(path, table, count, len(data), hashlib.sha256(data).hexdigest(), ""))
    stated = {"seq_len": LENGTH, "vocab_size": VOCAB, **facts}
    (root / "_meta").mkdir(parents=True)
    (root / MANIFEST_PATH).write_bytes(Manifest("pack", {"seed": seed}, {}, [], shards, {}, stated).to_json())
    return root


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset directory that tests only read."""
    return write_dataset(tmp_path_factory.mktemp("data") / "packed")


@pytest.fixture
def make_packed(tmp_path: Path) -> Callable[..., Path]:
    """Make a dataset directory of the test's own."""
    return lambda name="packed", **options: write_dataset(tmp_path / name, **options)
