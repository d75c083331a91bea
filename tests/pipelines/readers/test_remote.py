"""Object stores: the same records under the same ids as on disk."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.core import files
from pipelines.readers.base import ReadConfig, ReadError
from pipelines.readers.decompress import zstd
from pipelines.readers.discover import discover
from pipelines.readers.documents import read_task
from schemas.document import DOCUMENT

boto3 = pytest.importorskip("boto3", reason="the extra 'aws' is not installed")
moto_server = pytest.importorskip("moto.server", reason="moto[server] is not installed")

LINES = "".join(f'{{"id":"{i}","text":"第{i}行"}}\n' for i in range(200)).encode()


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options.pipeline_options import PipelineOptions

    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    before = FileSystems._pipeline_options
    keys = {"access_key_id": "testing", "secret_access_key": "testing", "region_name": "us-east-1"}
    options = {f"s3_{name}": value for name, value in keys.items()}
    FileSystems.set_options(PipelineOptions(s3_endpoint_url=f"http://{host}:{port}", **options))
    client = boto3.client(
        "s3", endpoint_url=f"http://{host}:{port}", **{f"aws_{k}" if "key" in k else k: v for k, v in keys.items()}
    )
    client.create_bucket(Bucket="readers")
    table = pa.table({"id": ["p1", "p2"], "text": ["一", "two"]})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    for key, body in {
        "raw/a.jsonl": LINES,
        "raw/deep/b.jsonl.zst": zstd.compress(LINES.replace(b'"id":"', b'"id":"b')),
        "raw/c.parquet": sink.getvalue().to_pybytes(),
        "raw/deep/": b"",
        "raw/.hidden.jsonl": b"x",
        "rawer/d.jsonl": b"x",
    }.items():
        client.put_object(Bucket="readers", Key=key, Body=body)
    yield "s3://readers"
    FileSystems.set_options(before)
    server.stop()


def read(inputs: list[str], config: ReadConfig) -> pa.Table:
    pairs = [pair for task in discover(inputs, config) for pair in read_task(task, "src", config)]
    assert sum(rejects.num_rows for _, rejects in pairs) == 0
    return pa.Table.from_batches([documents for documents, _ in pairs], DOCUMENT.schema)


def test_a_prefix_is_a_directory(bucket: str) -> None:
    expected = [f"{bucket}/raw/{name}" for name in (".hidden.jsonl", "a.jsonl", "c.parquet", "deep/b.jsonl.zst")]
    assert [path for path, _ in files.list_tree(f"{bucket}/raw")] == expected
    assert files.match(f"{bucket}/raw/a.jsonl") == [(f"{bucket}/raw/a.jsonl", len(LINES))]
    assert [path for path, _ in files.match(f"{bucket}/raw*/d.jsonl")] == [f"{bucket}/rawer/d.jsonl"]
    assert files.match(f"{bucket}/raw") == []
    assert files.exists(f"{bucket}/raw/a.jsonl") and not files.exists(f"{bucket}/absent")
    with pytest.raises(ReadError, match="no file matches"):
        discover([f"{bucket}/absent"], ReadConfig())


@pytest.mark.parametrize("config", [ReadConfig(), ReadConfig(id_field="id", task_bytes=1000)], ids=["hash", "ranges"])
def test_records_and_ids_equal_those_on_disk(bucket: str, tmp_path: Path, config: ReadConfig) -> None:
    for path, _ in files.list_tree(f"{bucket}/raw"):
        local = tmp_path / files.relative(path, f"{bucket}/raw")
        local.parent.mkdir(parents=True, exist_ok=True)
        with files.open_read(path) as raw:
            local.write_bytes(raw.read())
    remote = read([f"{bucket}/raw"], config)
    assert remote.num_rows == 402
    assert remote == read([str(tmp_path)], config)
    assert remote == read([f"{bucket}/raw/"], config)
