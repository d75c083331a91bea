"""One dataset directory, opened by every reader that people use, with nothing of ours but the files: all splits."""

from __future__ import annotations

import gzip
import json
import pydoc_data.topics
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.dataset
import pytest

from pipelines import clean, dedupe, ingest, pack, shard, tokenizer
from schemas.manifest import Manifest, parse

SPLITS = ("train", "validation", "test")
COLUMNS = {"shards": ("id", "text"), "packed": ("row_id", "input_ids")}
CHINESE = "敏捷的棕色狐狸跳过了懒狗，然后在河边休息。这是第{}段文字，用来检查中文文本。今天天气很好，我们去散步。"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documentation and Chinese text, as shards and as packed rows, in several shards of each."""
    work = tmp_path_factory.mktemp("prepared")
    texts = [*pydoc_data.topics.topics.values(), *(CHINESE.format(i) * (1 + i % 3) for i in range(40))]
    lines = [json.dumps({"id": str(i), "text": text}, ensure_ascii=False) for i, text in enumerate(texts)]
    (work / "raw.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))

    def run(stage: ModuleType, source: str, output: str, *arguments: str) -> None:
        common = ["--input", str(work / source), "--output", str(work / output), "--workers", "1"]
        assert stage.main([*common, *arguments]) == 0

    run(ingest, "raw.jsonl.gz", "ingest", "--source", "s", "--id-field", "id")
    run(clean, "ingest", "clean")
    run(dedupe, "clean", "dedupe")
    splits = "splits={train: 0.6, validation: 0.2, test: 0.2}"
    run(shard, "clean", "shards", "--decisions", str(work / "dedupe"), "--set", splits, "--set", "shard_bytes=100000")
    run(tokenizer, "shards", "tokenizer", "--set", "vocab_size=1000")
    run(pack, "shards", "packed", "--tokenizer", str(work / "tokenizer"), "--set", "seq_len=64")
    return work


@pytest.fixture(scope="module", params=sorted(COLUMNS))
def dataset(request: pytest.FixtureRequest, prepared: Path) -> Path:
    return prepared / request.param


@pytest.fixture(scope="module")
def manifest(dataset: Path) -> Manifest:
    return parse((dataset / "_meta/manifest.json").read_bytes())


@pytest.fixture(scope="module")
def expected(dataset: Path, manifest: Manifest) -> dict[str, pa.Table]:
    """The rows of each split as the IPC file reader sees them, which the manifest's counts confirm."""
    tables = {}
    for split in SPLITS:
        files = [dataset / one.path for one in manifest.of(split)]
        tables[split] = pa.concat_tables(pa.ipc.open_file(pa.memory_map(str(path))).read_all() for path in files)
        assert tables[split].num_rows == sum(one.rows for one in manifest.of(split)) > 0
    assert dataset.name == "packed" or len(manifest.of("train")) > 1, "the test wants several shards"
    return tables


def paths(dataset: Path, split: str) -> list[str]:
    return [str(path) for path in sorted((dataset / split).glob("*.arrow"))]


def same_rows(dataset: Path, expected: pa.Table, column: Callable[[str], Any]) -> None:
    """Compare the id and the content column, which `column` reads by name, with the expected ones."""
    for name in COLUMNS[dataset.name]:
        assert list(column(name)) == expected[name].to_pylist()


def test_ipc_stream_reader_sees_the_same_rows(dataset: Path, expected: dict[str, pa.Table]) -> None:
    for split in SPLITS:
        tables = [pa.ipc.open_stream(pa.memory_map(path)).read_all() for path in paths(dataset, split)]
        assert pa.concat_tables(tables).equals(expected[split])


def test_pyarrow_dataset_sees_the_same_rows(dataset: Path, expected: dict[str, pa.Table]) -> None:
    for split in SPLITS:
        found = pyarrow.dataset.dataset(paths(dataset, split), format="ipc").to_table()
        assert found.equals(expected[split])


def test_load_from_disk_opens_root_and_split_without_copying(dataset: Path, expected: dict[str, pa.Table]) -> None:
    datasets = pytest.importorskip("datasets")
    whole = datasets.load_from_disk(str(dataset))
    assert set(whole) == set(SPLITS)
    for split in SPLITS:
        alone = datasets.load_from_disk(str(dataset / split))
        for found in (whole[split], alone):
            same_rows(dataset, expected[split], lambda name, rows=found: rows[name][:])


def test_load_dataset_finds_every_split_through_the_card(
    dataset: Path, expected: dict[str, pa.Table], tmp_path: Path
) -> None:
    datasets = pytest.importorskip("datasets")
    found = datasets.load_dataset(str(dataset), cache_dir=str(tmp_path))
    assert {split: len(found[split]) for split in found} == {split: t.num_rows for split, t in expected.items()}
    for split in SPLITS:
        same_rows(dataset, expected[split], lambda name, rows=found[split]: rows[name][:])


@pytest.mark.parametrize("streaming", [False, True])
def test_load_dataset_arrow_with_data_files(
    dataset: Path, expected: dict[str, pa.Table], tmp_path: Path, streaming: bool
) -> None:
    datasets = pytest.importorskip("datasets")
    data_files = {split: str(dataset / split / "*.arrow") for split in SPLITS}
    found = datasets.load_dataset("arrow", data_files=data_files, cache_dir=str(tmp_path), streaming=streaming)
    for split in SPLITS:
        rows = list(found[split])
        same_rows(dataset, expected[split], lambda name, rows=rows: [row[name] for row in rows])


def test_polars_scans_the_same_rows(dataset: Path, expected: dict[str, pa.Table]) -> None:
    polars = pytest.importorskip("polars")
    for split in SPLITS:
        found = polars.scan_ipc(str(dataset / split / "*.arrow")).collect()
        same_rows(dataset, expected[split], lambda name, rows=found: rows[name].to_list())


def test_duckdb_queries_them_through_pyarrow(dataset: Path, expected: dict[str, pa.Table]) -> None:
    duckdb = pytest.importorskip("duckdb")
    for split in SPLITS:
        rows = pyarrow.dataset.dataset(paths(dataset, split), format="ipc")  # duckdb finds it by its name
        _, column = COLUMNS[dataset.name]
        counted = duckdb.sql(f"SELECT count(*), sum(length({column})) FROM rows").fetchall()[0]
        lengths = sum(len(value) for value in expected[split][column].to_pylist())
        assert rows is not None and counted == (expected[split].num_rows, lengths)


def test_torch_views_token_ids_of_the_mapped_file_without_a_copy(prepared: Path) -> None:
    torch = pytest.importorskip("torch")
    for split in SPLITS:
        for path in paths(prepared / "packed", split):
            before = pa.total_allocated_bytes()
            reader = pa.ipc.open_file(pa.memory_map(path))
            for i in range(reader.num_record_batches):
                column = reader.get_batch(i).column("input_ids")
                tokens = torch.from_numpy(column.flatten().to_numpy(zero_copy_only=True)).view(len(column), 64)
                assert tokens.dtype == torch.uint16 and tokens.tolist() == column.to_pylist()
            assert pa.total_allocated_bytes() == before


def test_a_card_counts_the_books(dataset: Path, manifest: Manifest) -> None:
    card = (dataset / "README.md").read_text(encoding="utf-8")
    for split in SPLITS:
        assert f"path: {split}/*.arrow" in card
    assert f"{manifest.books['s'].kept:,}" in card


def test_batches_have_constant_rows_so_that_a_row_is_found_by_divmod(dataset: Path, manifest: Manifest) -> None:
    for one in manifest.shards:
        reader = pa.ipc.open_file(pa.memory_map(str(dataset / one.path)))
        sizes = [reader.get_batch(i).num_rows for i in range(reader.num_record_batches)]
        assert len(set(sizes[:-1])) <= 1 and all(size <= sizes[0] for size in sizes)


def test_a_corpus_too_small_for_every_split_opens_all_the_same(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": " ".join(f"word{i}" for i in range(50))}))
    common = ["--workers", "1"]
    ingested, shards = str(tmp_path / "i"), str(tmp_path / "s")
    assert ingest.main(["--input", str(tmp_path / "a.jsonl"), "--source", "s", "--output", ingested, *common]) == 0
    assert shard.main(["--input", ingested, "--output", shards, *common]) == 0
    assert sum(len(split) for split in datasets.load_from_disk(shards).values()) == 1
    assert sum(len(split) for split in datasets.load_dataset(shards, cache_dir=str(tmp_path / "c")).values()) == 1
    for split in SPLITS:
        assert datasets.load_from_disk(f"{shards}/{split}").column_names[0] == "id"
