"""Ingest of images: every image is a row or a dead letter, with its bytes as they were, whoever runs it."""

from __future__ import annotations

import hashlib
import json
import sys
import tarfile
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import ingest
from pipelines.core import rolling
from pipelines.core.dataset import Dataset
from pipelines.core.identity import record_id
from pipelines.core.shards import verify_shard
from schemas.image import IMAGE
from schemas.ledger import LEDGER
from schemas.manifest import Books

sys.path.append(str(Path(__file__).resolve().parent / "readers"))  # the writer of archives
from image_files import member, tar_bytes

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"

ONE = ("--workers", "1")


def run(output: Path, *inputs: Path, options: tuple[str, ...] = ONE) -> int:
    argv = [arg for path in inputs for arg in ("--input", str(path))]
    return ingest.main(["--images", *argv, "--source", "s", "--output", str(output), *options])


def opened(path: Path) -> Dataset:
    dataset = Dataset.open(str(path))
    for shard in dataset.manifests[0].shards:
        verify_shard(str(path), shard)
    assert dataset.tables() == ["images", "ledger"]
    IMAGE.validate(dataset.table("images"))
    LEDGER.validate(dataset.table("ledger"))
    images, ledger, books = dataset.table("images"), dataset.table("ledger"), dataset.books["s"]
    assert (len(images), len(ledger)) == (books.kept, books.records_in - books.kept) and books.balance() == 0
    return dataset


def corpus(root: Path) -> Path:
    """A corpus of every format, with what is wrong in some."""
    for i in range(12):
        path = root / f"tree/{'猫狗'[i % 2]}/{i:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"tree" * 50 * i)
    (root / "tree/list.csv").write_text("file_name,caption\n猫/00.jpg,一只猫\n../escape.jpg,x\ngone.jpg,y\n", "utf-8")
    samples = [(f"{i:04}.{kind}", data) for i in range(9) for kind, data in (("jpg", b"s" * i), ("cls", b"%d" % i))]
    others = [member("x.jpg", tarfile.SYMTYPE, "/etc/passwd"), ("../up.jpg", b""), ("a.pkl", b"")]
    (root / "shard.tar").write_bytes(tar_bytes([*samples, *others]))
    (root / "cut.tar").write_bytes(tar_bytes([("汉.png", b"c" * 512)])[:1024])
    table = pa.table({"image": [b"p" * i or None for i in range(7)], "label": list("abcdefg")})
    pq.write_table(table, root / "table.parquet")
    return root


def test_a_corpus_of_every_format_is_read_whole_and_the_books_balance(tmp_path: Path) -> None:
    options = (*ONE, "--set", "max_rejected=0.9")
    assert run(tmp_path / "d", corpus(tmp_path / "raw"), options=options) == 0
    dataset = opened(tmp_path / "d")
    reasons = Counter(dataset.table("ledger")["reason"].to_pylist())
    expected = "path_outside missing_file link unsafe_path not_an_image missing_image truncated_file"
    assert reasons == dict.fromkeys(expected.split(), 1)
    images = dataset.table("images")
    assert len(images) == 12 + 9 + 1 + 6
    for row in images.to_pylist():
        data = row["image"]["bytes"]
        assert row["sha256"] == hashlib.sha256(data).digest() and (row["width"], row["height"]) == (None, None)
        assert row["id"] == record_id("s", row["locator"])
    assert dataset.content_bytes("images") == sum(len(row["image"]["bytes"]) for row in images.to_pylist())


@pytest.mark.parametrize("mode", ["threads", "processes"])
def test_workers_modes_and_bounds_of_tasks_change_no_byte(tmp_path: Path, mode: str) -> None:
    raw = corpus(tmp_path / "raw")
    extra = ("--set", "read.task_bytes=3000", "--set", "max_rejected=0.9", "--set", "shard_bytes=2000")
    assert run(tmp_path / "a", raw, options=(*ONE, *extra)) == 0
    assert run(tmp_path / "b", raw, options=("--workers", "2", "--mode", mode, *extra)) == 0
    one, other = opened(tmp_path / "a"), opened(tmp_path / "b")
    assert one.sha256s == other.sha256s and len(one.keys("images")) > 4


def test_repeated_ids_keep_the_first_image(tmp_path: Path) -> None:
    for name, ids in (("a", ["1", "2", "1"]), ("b", ["3", "2"])):
        columns = {"image": [f"{name}{i}".encode() for i in range(len(ids))], "uid": ids}
        (tmp_path / "raw").mkdir(exist_ok=True)
        pq.write_table(pa.table(columns), tmp_path / f"raw/{name}.parquet")
    options = (*ONE, "--id-field", "uid", "--set", "read.task_bytes=1", "--set", "max_rejected=1")
    assert run(tmp_path / "d", tmp_path / "raw", options=options) == 0
    dataset = opened(tmp_path / "d")
    images = dataset.table("images").to_pylist()
    assert {row["locator"]: row["image"]["bytes"] for row in images} == {"1": b"a0", "2": b"a1", "3": b"b0"}
    assert dataset.books == {"s": Books(5, 3, {}, {"duplicate_id": 2})}
    assert dataset.content_bytes("images") == 6
    assert sorted(row["kept_id"] for row in dataset.table("ledger").to_pylist()) == sorted(
        record_id("s", key) for key in "12"
    )


def test_ingested_images_can_be_ingested_again(tmp_path: Path) -> None:
    corpus(tmp_path / "raw")
    assert run(tmp_path / "d", tmp_path / "raw/tree", options=(*ONE, "--set", "max_rejected=0.9")) == 0
    assert run(tmp_path / "e", tmp_path / "d") == 0
    first, again = (opened(tmp_path / name).table("images") for name in "de")
    for name in ("image", "label", "caption", "content_hash", "sha256"):
        assert first[name].equals(again[name])
    assert json.loads(again["metadata"][0].as_py())["locator"] == first["locator"][0].as_py()


def test_fields_and_classes_come_from_the_configuration_and_the_command_line(tmp_path: Path) -> None:
    pq.write_table(pa.table({"foto": [b"x"], "kind": [1], "alt": ["说明"]}), tmp_path / "x.parquet")
    (tmp_path / "params.yaml").write_text(
        "ingest: {read: {images: {image_field: foto, class_names: [猫, 狗]}}}\n", encoding="utf-8"
    )
    options = ("--config", str(tmp_path / "params.yaml"), "--label-field", "kind", "--caption-field", "alt", *ONE)
    assert run(tmp_path / "d", tmp_path / "x.parquet", options=options) == 0
    (row,) = opened(tmp_path / "d").table("images").to_pylist()
    assert (row["label"], row["caption"], row["metadata"]) == ("狗", "说明", None)
    more = (*options, "--set", "read.images.class_names=[a, b, c]")
    assert run(tmp_path / "d", tmp_path / "x.parquet", options=more) == 0
    assert opened(tmp_path / "d").table("images")["label"].to_pylist() == ["b"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--images", "--text-field", "x"), "--text-field is of text"),
        (("--label-field", "x"), "--label-field is of images; add --images"),
        (("--caption-field", "x"), "--caption-field is of images; add --images"),
        (("--images", "--set", "read.images.label_from=x"), "images.label_from is 'x'"),
        (("--set", "read.kind=video"), "kind is 'video'; it must be 'text' or 'images'"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    argv = ["--input", str(tmp_path / "a.jpg"), "--source", "s", "--output", str(tmp_path / "d"), *options]
    assert ingest.main(argv) == 1
    assert message in capsys.readouterr().err and not (tmp_path / "d").exists()


def test_small_and_large_images_in_turn_keep_batches_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch's rows are fixed by a shard's first ones: large images behind small ones must not fill its offsets."""
    monkeypatch.setattr(rolling, "MAX_BATCH_BYTES", 4 << 20)
    entries = [(f"a/{i:05}.png", b"x") for i in range(9000)] + [(f"b/{i}.png", bytes(1 << 20)) for i in range(20)]
    (tmp_path / "x.tar").write_bytes(tar_bytes(entries))
    assert run(tmp_path / "d", tmp_path / "x.tar", options=(*ONE, "--set", "shard_bytes=10000000000")) == 0
    dataset = Dataset.open(str(tmp_path / "d"))
    sizes = [batch.nbytes for key in dataset.keys("images") for batch in dataset.batches("images", key)]
    assert max(sizes) < (4 + 2 + 1 + 1) << 20 and sum(shard.rows for shard in dataset.of("images")) == 9020


@pytest.mark.skipif(not SHARED.exists(), reason="needs the real images in ../shared/data")
def test_real_images_are_read_whole(tmp_path: Path) -> None:
    assert run(tmp_path / "c", SHARED / "caltech101_subset.tar") == 0
    dataset = opened(tmp_path / "c")
    with tarfile.open(SHARED / "caltech101_subset.tar") as archive:
        expected = {info.name: archive.extractfile(info) for info in archive if info.isreg()}
        assert len(expected) == 1780
        for row in dataset.table("images").to_pylist():
            name = row["locator"].removeprefix("caltech101_subset.tar#")
            source = expected.pop(name)
            assert source is not None and source.read() == row["image"]["bytes"]
            assert (row["label"], row["image"]["path"]) == tuple(name.split("/"))
    assert not expected
    assert run(tmp_path / "f", SHARED / "fashion_mnist") == 0
    labels = opened(tmp_path / "f").table("images")["label"].to_pylist()
    assert Counter(labels) == {str(label): 7000 for label in range(10)}
