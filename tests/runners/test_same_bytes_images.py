"""Images: the same bytes, whatever runs the pipelines, in whatever order, and however often."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines import clean, dedupe, ingest, shard
from schemas.manifest import parse

from .conftest import files_of

Files = dict[str, bytes]
LOOPBACK = ("--runner", "PortableRunner", "--environment_type=LOOPBACK", "--job_endpoint=embed")
SMALL = ["--set", "shard_bytes=20000", "--set", "read.task_bytes=40000", "--set", "read.batch_bytes=10000"]


def photo(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """Smooth random shapes under a fine grain: no two are alike."""
    chance = np.random.default_rng(seed)
    shapes = Image.fromarray(chance.integers(0, 256, (9, 12, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    grain = chance.integers(-12, 13, (size[1], size[0], 1))
    return Image.fromarray(np.clip(np.asarray(shapes).astype(np.int64) + grain, 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 photos in two classes, exact and near copies of some, blank ones, and files that are no images."""
    root = tmp_path_factory.mktemp("photos")

    def put(name: str, data: bytes) -> None:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(data)

    for i in range(24):
        sink, small = io.BytesIO(), io.BytesIO()
        photo(i).save(sink, "JPEG", quality=92)
        put(f"{'猫' if i % 2 else 'dog'}/{i:02d}.jpg", sink.getvalue())
        if i % 6 == 0:
            put(f"copies/{i:02d}.jpg", sink.getvalue())
        if i % 5 == 0:
            photo(i).resize((96, 72)).save(small, "WEBP", quality=60)
            put(f"copies/{i:02d}.webp", small.getvalue())
        if i % 8 == 0:
            put(f"damaged/{i:02d}.jpg", sink.getvalue()[:-2000])
    for i in range(3):
        blank = io.BytesIO()
        Image.new("RGB", (40 + i, 30), (9 * i, 9, 9)).save(blank, "PNG")
        put(f"blank/{i}.png", blank.getvalue())
    return root


def run(photos: Path, output: Path, *options: str) -> Files:
    """ingest → clean → dedupe → shard, several shards each; every file that they wrote."""
    settings = {
        ingest: ["--images", "--input", str(photos), "--source", "photos", *SMALL],
        clean: ["--input", f"{output}/ingest", "--set", "images.max_rejected=1"],
        dedupe: ["--input", f"{output}/clean", "--materialize"],
        shard: ["--input", f"{output}/clean", "--decisions", f"{output}/dedupe", "--set", "shard_bytes=40000"],
    }
    for stage, arguments in settings.items():
        name = stage.__name__.rpartition(".")[2]
        assert stage.main([*arguments, "--output", f"{output}/{name}", *options]) == 0, name
    return files_of(str(output))


@pytest.fixture(scope="module")
def reference(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Files:
    return run(photos, tmp_path_factory.mktemp("reference"), "--workers", "1")


def check(found: Files, reference: Files) -> None:
    assert sorted(found) == sorted(reference)
    assert [path for path in reference if found[path] != reference[path]] == []


def test_the_reference_exercises_every_pipeline(reference: Files) -> None:
    manifests = {
        name: parse(reference[f"{name}/_meta/manifest.json"]) for name in ("ingest", "clean", "dedupe", "shard")
    }
    cleaned, decided = manifests["clean"].books["photos"], manifests["dedupe"].books["photos"]
    assert cleaned.rejected == {"truncated": 3} and cleaned.removed == {"min_contrast": 3}
    assert decided.removed == {"exact_duplicate": 4, "near_duplicate": 5}
    assert manifests["shard"].books["photos"].kept == decided.kept == 24
    assert all(len(manifests[name].of("images")) > 4 for name in ("ingest", "clean"))
    assert len(manifests["shard"].of("train")) > 1


@pytest.mark.parametrize(
    "how",
    [
        ("--workers", "3", "--mode", "threads"),
        ("--workers", "2", "--mode", "processes"),
        ("--workers", "1", "--direct_runner_bundle_repeat=1"),
        LOOPBACK,
    ],
    ids=["threads", "processes", "every bundle twice", "portable"],
)
def test_other_workers(how: tuple[str, ...], photos: Path, reference: Files, tmp_path: Path) -> None:
    check(run(photos, tmp_path, *how), reference)


def test_dask_with_two_processes(photos: Path, reference: Files, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="the extra 'dask' is not installed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        options = ("--runner", "DaskRunner", f"--dask_client_address={cluster.scheduler_address}")
        check(run(photos, tmp_path, *options), reference)
