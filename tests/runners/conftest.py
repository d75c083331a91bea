"""A small real corpus, the stages as one chain, and object stores on loopback."""

import ast
import json
import logging
import os
import socket
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from apache_beam.io.filesystems import FileSystems

from pipelines import clean, dedupe, ingest, pack, shard, tokenizer
from pipelines.readers.decompress import zstd

STAGES = {
    "ingest": ingest,
    "clean": clean,
    "dedupe": dedupe,
    "shard": shard,
    "tokenizer": tokenizer,
    "pack": pack,
}
SMALL = ["--set", "read.task_bytes=60000"]
SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def docstrings(limit: int) -> list[dict[str, object]]:
    """Documentation of the standard library: real English, with natural near-duplicates."""
    root, records = Path(sysconfig.get_paths()["stdlib"]), []
    for path in [*sorted(root.glob("*.py")), *sorted(root.glob("concurrent/**/*.py"))]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            text = ast.get_docstring(node) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) else None
            if text and len(text) > 250:
                name = f"{path.name}:{getattr(node, 'name', '')}:{getattr(node, 'lineno', 0)}"
                records.append({"id": name, "text": text, "module": path.stem})
                if len(records) == limit:
                    return records
    return records


def chinese(limit: int) -> list[dict[str, object]]:
    """Chinese articles where the shared data is at hand; else Chinese sentences about the same modules."""
    path = SHARED / "wikipedia_zh.jsonl.zst"
    if path.exists():
        with zstd.open(path) as lines:
            found = [json.loads(line) for _, line in zip(range(limit), lines, strict=False)]
        return [{"id": f"zh{i}", "text": record["text"][:2000]} for i, record in enumerate(found)]
    sentence = "标准库的第{0}个模块提供了处理数据的函数,这些函数接受{0}个参数,并且返回排序之后的结果。"
    return [{"id": f"zh{i}", "text": "".join(sentence.format(i * 7 + j) for j in range(9))} for i in range(limit)]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three JSON Lines files: 200 documents, near and exact duplicates of 20, 3 repeated ids, and 2 bad lines."""
    folder = tmp_path_factory.mktemp("corpus")
    records = docstrings(160) + chinese(40)
    copies = [{**record, "id": f"copy {record['id']}"} for record in records[::20]]
    near = [{**record, "id": f"near {record['id']}", "text": f"{record['text']} And more."} for record in records[::18]]
    everything = [*records, *copies, *near, *records[50:53]]
    for i in range(3):
        lines = [json.dumps(record, ensure_ascii=False) for record in everything[i::3]]
        lines += ['{"id": "cut off'] * (i > 0)
        (folder / f"part{i}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def run_chain(inputs: list[str], output: str, *options: str, short: bool = False) -> None:
    """ingest → … → pack, or to shard, several shards each; every pipeline of every stage has something to do."""
    raw = [arg for one in inputs for arg in ("--input", one)]
    settings = {
        "ingest": [*raw, "--source", "lib", "--id-field", "id", *SMALL, "--set", "shard_bytes=30000"],
        "clean": ["--input", f"{output}/ingest"],
        "dedupe": ["--input", f"{output}/clean", "--materialize"],
        "shard": ["--input", f"{output}/clean", "--decisions", f"{output}/dedupe", "--set", "shard_bytes=60000"],
        "tokenizer": ["--input", f"{output}/shard", "--set", "vocab_size=1000"],
        "pack": ["--input", f"{output}/shard", "--tokenizer", f"{output}/tokenizer", "--set", "seq_len=128"],
    }
    for name in list(settings)[: 4 if short else 6]:
        if STAGES[name].main([*settings[name], "--output", f"{output}/{name}", *options]):
            raise RuntimeError(f"{name} failed")  # no assertion: a test runs this with python -O


def files_of(output: str) -> dict[str, bytes]:
    """All files of the datasets by relative path, on disk or in an object store."""
    listing = FileSystems.match([f"{output}/**"])[0].metadata_list
    found = {}
    for entry in listing:
        if Path(entry.path).is_dir():
            continue
        with FileSystems.open(entry.path, compression_type="uncompressed") as source:
            found[entry.path[len(output) + 1 :]] = source.read()
    return dict(sorted(found.items()))


@pytest.fixture(scope="session")
def chain() -> Callable[..., dict[str, bytes]]:
    """Run the chain and return every file that it wrote."""

    def run(inputs: list[str], output: str, *options: str, short: bool = False) -> dict[str, bytes]:
        run_chain(inputs, output, *options, short=short)
        return files_of(output)

    return run


@pytest.fixture(scope="session")
def datasets(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The datasets of all stages, as one worker writes them on disk."""
    root = tmp_path_factory.mktemp("reference")
    run_chain([str(corpus)], str(root), "--workers", "1")
    return root


@pytest.fixture(scope="session")
def reference(datasets: Path) -> dict[str, bytes]:
    """Every file of `datasets`: the bytes that every other way must give."""
    return files_of(str(datasets))


@pytest.fixture(scope="session")
def gcs() -> Iterator[str]:
    """A bucket of a Google Cloud Storage emulator."""
    server_module = pytest.importorskip("gcp_storage_emulator.server", reason="gcp-storage-emulator is not installed")
    pytest.importorskip("google.cloud.storage", reason="the extra 'gcp' is not installed")
    port = free_port()
    before = os.environ.get("STORAGE_EMULATOR_HOST")
    server = server_module.create_server("127.0.0.1", port, in_memory=True, default_bucket="corpus")
    server.start()
    os.environ["STORAGE_EMULATOR_HOST"] = f"http://127.0.0.1:{port}"
    yield "gs://corpus"
    os.environ.pop("STORAGE_EMULATOR_HOST")
    if before is not None:
        os.environ["STORAGE_EMULATOR_HOST"] = before
    server.stop()


@pytest.fixture(autouse=True)
def own_filesystem_options() -> Iterator[None]:
    """Keep one test's object-store options out of the next one."""
    before = FileSystems._pipeline_options
    yield
    FileSystems.set_options(before)


KEY_ID, SECRET = "AKIDISTINCTIVE4711", "verySecret/Of+The=Tests4711"


@dataclass(frozen=True)
class S3:
    """A bucket of an S3 server on loopback: its URL, a client, and credentials that no output may show."""

    url: str
    endpoint: str
    client: Any
    key_id: str = KEY_ID
    secret: str = SECRET

    @property
    def options(self) -> tuple[str, ...]:
        """The stages' options for this server."""
        return self.options_for(self.endpoint)

    def options_for(self, endpoint: str) -> tuple[str, ...]:
        """The stages' options for some server, with these credentials."""
        keys = {"endpoint_url": endpoint, "access_key_id": self.key_id, "secret_access_key": self.secret}
        return (*(f"--s3_{name}={value}" for name, value in keys.items()), "--s3_region_name=us-east-1")

    def leaks(self, data: bytes) -> bool:
        """Whether a part of the credentials stands in some bytes."""
        return any(part in data for part in (self.key_id.encode(), self.secret.encode(), b"4711"))

    def objects(self, prefix: str = "") -> dict[str, bytes]:
        """All objects below a prefix by key."""
        listing = self.client.list_objects_v2(Bucket="corpus", Prefix=prefix).get("Contents", [])
        return {e["Key"]: self.client.get_object(Bucket="corpus", Key=e["Key"])["Body"].read() for e in listing}


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """A bucket of a moto server."""
    moto = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    boto3 = pytest.importorskip("boto3", reason="the extra 'aws' is not installed")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # the server's log of requests is none of ours
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    keys = {"aws_access_key_id": KEY_ID, "aws_secret_access_key": SECRET, "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=endpoint, **keys)
    client.create_bucket(Bucket="corpus")
    yield S3("s3://corpus", endpoint, client)
    server.stop()
