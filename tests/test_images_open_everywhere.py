"""One directory of image shards, opened by every reader that people use, with nothing of ours but the files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pytest
from PIL import Image

from pipelines import clean, ingest, sample_images, shard
from pipelines.core.dataset import Dataset
from schemas.image import IMAGE

SPLITS = ("train", "test")
SHARES = "splits={train: 0.8, test: 0.2}"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The handwritten digits as shards, several of them."""
    pytest.importorskip("sklearn")
    work = tmp_path_factory.mktemp("prepared")
    assert sample_images.main(["--output", str(work / "raw/digits")]) == 0
    run: Any
    for run, source, output, more in (
        (ingest, "raw/digits", "ingest", ["--images", "--source", "digits"]),
        (clean, "ingest", "clean", []),
        (shard, "clean", "shards", ["--set", SHARES, "--set", "shard_bytes=50000"]),
    ):
        assert run.main(["--input", str(work / source), "--output", str(work / output), "--workers", "1", *more]) == 0
    return work / "shards"


@pytest.fixture(scope="module")
def expected(prepared: Path) -> dict[str, pa.Table]:
    dataset = Dataset.open(str(prepared))
    assert len(dataset.keys("train")) > 1, "the test wants several shards"
    return {split: dataset.table(split) for split in SPLITS}


def pixels(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture)


def test_every_digit_is_in_one_split_with_its_size_and_label(expected: dict[str, pa.Table]) -> None:
    whole = pa.concat_tables(expected.values())
    IMAGE.validate(whole)
    assert whole.num_rows == len(pc.unique(whole["id"])) == 1797
    assert set(whole["label"].to_pylist()) == set("0123456789")
    assert pc.unique(whole["width"]).to_pylist() == pc.unique(whole["height"]).to_pylist() == [8]


def test_the_pixels_are_those_of_scikit_learn(expected: dict[str, pa.Table]) -> None:
    from sklearn.datasets import load_digits

    given = load_digits()
    theirs = sorted(
        (str(y), (x * (255 / 16)).round().astype(np.uint8).tobytes())
        for x, y in zip(given.images, given.target, strict=True)
    )
    rows = pa.concat_tables(expected.values()).select(["label", "image"]).to_pylist()
    assert sorted((row["label"], pixels(row["image"]["bytes"]).tobytes()) for row in rows) == theirs


def _same_images(found: Any, expected: pa.Table) -> None:
    """Compare labels and PIL images, one for one, with the expected rows."""
    rows = list(found)
    assert [row["label"] for row in rows] == expected["label"].to_pylist()
    for row, image in zip(rows, expected["image"].to_pylist(), strict=True):
        assert isinstance(row["image"], Image.Image)
        assert np.array_equal(np.asarray(row["image"]), pixels(image["bytes"]))


def test_load_from_disk_gives_pil_images(prepared: Path, expected: dict[str, pa.Table]) -> None:
    datasets = pytest.importorskip("datasets")
    whole = datasets.load_from_disk(str(prepared))
    for split in SPLITS:
        assert whole[split].features["image"] == datasets.Image()
        _same_images(whole[split], expected[split])
        _same_images(datasets.load_from_disk(str(prepared / split)), expected[split])


@pytest.mark.parametrize("streaming", [False, True])
def test_load_dataset_gives_pil_images(
    prepared: Path, expected: dict[str, pa.Table], tmp_path: Path, streaming: bool
) -> None:
    datasets = pytest.importorskip("datasets")
    whole = datasets.load_dataset(str(prepared), cache_dir=str(tmp_path), streaming=streaming)
    assert set(whole) == set(SPLITS)
    for split in SPLITS:
        _same_images(whole[split], expected[split])


def test_polars_sees_a_struct_of_bytes(prepared: Path, expected: dict[str, pa.Table]) -> None:
    polars = pytest.importorskip("polars")
    found = polars.scan_ipc(sorted((prepared / "train").glob("*.arrow"))).collect()
    assert found["image"].dtype == polars.Struct({"bytes": polars.Binary, "path": polars.String})
    assert found["image"].to_list() == expected["train"]["image"].to_pylist()


def test_duckdb_sees_a_struct_of_bytes(prepared: Path, expected: dict[str, pa.Table]) -> None:
    duckdb = pytest.importorskip("duckdb")
    files = [str(path) for path in sorted((prepared / "train").glob("*.arrow"))]
    digits = pyarrow.dataset.dataset(files, format="ipc")
    found = duckdb.connect().execute("SELECT image.bytes, image.path, label FROM digits").fetchall()
    theirs = expected["train"].select(["image", "label"]).to_pylist()
    assert len(digits.files) == len(files)
    assert found == [(row["image"]["bytes"], row["image"]["path"], row["label"]) for row in theirs]
