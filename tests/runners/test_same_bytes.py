"""The same input gives the same bytes, whatever runs the pipelines, in whatever order, and however often."""

import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest

from pipelines import clean, ingest, shard
from pipelines.clean_config import CleanConfig
from pipelines.clean_texts import Texts
from pipelines.core.dataset import Dataset
from pipelines.core.kinds import TEXT
from pipelines.core.shards import AtomicFile
from pipelines.dedupe import DedupeConfig
from pipelines.ingest import Corpus, IngestConfig
from pipelines.lsh.link import Round, sign_shard
from pipelines.lsh.nodes import Nodes, shards_to_sign
from pipelines.lsh.verify import Target, _no_verdicts, write_decisions
from pipelines.readers.base import ReadConfig
from pipelines.readers.discover import find_files, plan
from pipelines.shard import ShardConfig
from schemas.manifest import parse

Files = dict[str, bytes]


def check(found: Files, reference: Files) -> None:
    stages = {path.split("/")[0] for path in found}
    assert {"ingest", "clean", "dedupe", "shard"} <= stages
    reference = {path: data for path, data in reference.items() if path.split("/")[0] in stages}
    assert sorted(found) == sorted(reference)
    assert [path for path in reference if found[path] != reference[path]] == []


def test_the_reference_exercises_every_pipeline(reference: Files) -> None:
    manifests = {
        name: parse(reference[f"{name}/_meta/manifest.json"]) for name in ("ingest", "clean", "dedupe", "shard")
    }
    ingested = manifests["ingest"].books["lib"]
    assert ingested.rejected == {"duplicate_id": 3, "invalid_json": 2}, "the pipeline 'repeats' and dead letters"
    assert manifests["clean"].books["lib"].removed, "rules"
    assert set(manifests["dedupe"].books["lib"].removed) == {"exact_duplicate", "near_duplicate"}, "'verify'"
    assert manifests["dedupe"].of("surviving"), "'materialize'"
    packed = parse(reference["pack/_meta/manifest.json"])
    assert packed.of("train") and parse(reference["tokenizer/_meta/manifest.json"]).facts["vocab_size"] == 1000
    assert len(manifests["shard"].of("train")) > 1 and len(manifests["clean"].of("documents")) > 4


def test_threads(corpus: Path, chain: Any, reference: Files, tmp_path: Path) -> None:
    check(chain([str(corpus)], str(tmp_path), "--workers", "3", "--mode", "threads"), reference)


def test_processes(corpus: Path, chain: Any, reference: Files, tmp_path: Path) -> None:
    check(chain([str(corpus)], str(tmp_path), "--workers", "2", "--mode", "processes", short=True), reference)


LOOPBACK = ("--runner", "PortableRunner", "--environment_type=LOOPBACK")


def test_portable_job_service_in_process(corpus: Path, chain: Any, reference: Files, tmp_path: Path) -> None:
    check(chain([str(corpus)], str(tmp_path), *LOOPBACK, "--job_endpoint=embed", short=True), reference)


@pytest.fixture
def job_service(tmp_path: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    module = "apache_beam.runners.portability.local_job_service_main"
    server = subprocess.Popen(
        [sys.executable, "-m", module, "-p", str(port), "--staging_dir", str(tmp_path / "staging")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        assert server.poll() is None, "the job service did not start"
        time.sleep(0.1)
    yield f"127.0.0.1:{port}"
    server.terminate()
    server.wait(30)


def test_portable_job_server(corpus: Path, chain: Any, reference: Files, tmp_path: Path, job_service: str) -> None:
    """The submission that Flink and Spark use: job API, artifact staging, workers that the driver serves."""
    found = chain([str(corpus)], str(tmp_path / "out"), *LOOPBACK, f"--job_endpoint={job_service}", short=True)
    check(found, reference)


def test_dask_with_two_processes(corpus: Path, chain: Any, reference: Files, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="the extra 'dask' is not installed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        options = ("--runner", "DaskRunner", f"--dask_client_address={cluster.scheduler_address}")
        check(chain([str(corpus)], str(tmp_path), *options, short=True), reference)


def test_order_of_inputs_and_of_elements(
    corpus: Path, chain: Any, reference: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance, created = random.Random(0), []
    original = beam.Create.__init__

    def shuffled(self: Any, values: Any, reshuffle: bool = True) -> None:
        values = list(values)
        chance.shuffle(values)
        created.append(len(values))
        original(self, values, reshuffle)

    monkeypatch.setattr(beam.Create, "__init__", shuffled)
    inputs = [str(corpus / f"part{i}.jsonl") for i in (2, 0, 1)]
    check(chain(inputs, str(tmp_path), "--workers", "1"), reference)
    assert len(created) >= 7 and max(created) > 4, "every pipeline's elements were shuffled"


def test_every_bundle_runs_twice(
    corpus: Path, chain: Any, reference: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A runner may retry a bundle that had already written its files: the second attempt must change nothing."""
    written: list[str] = []
    commit = AtomicFile.commit

    def counted(self: AtomicFile) -> None:
        written.append(self.path)
        commit(self)

    monkeypatch.setattr(AtomicFile, "commit", counted)
    check(chain([str(corpus)], str(tmp_path), "--workers", "1", "--direct_runner_bundle_repeat=1"), reference)
    by_tasks = [path for path in written if path.endswith(".arrow") and "groups" not in path]  # the driver writes those
    times = Counter(by_tasks)
    assert len(times) > 20 and set(times.values()) == {2}, "each shard was written twice"


# --- tasks by themselves: attempts that fail half-way, and two attempts at once ---------------------------------------


def tasks(root: Path, corpus: Path, output: str) -> dict[str, Any]:
    """One task of every kind that writes shards, ready to call."""
    ingested, cleaned = Dataset.open(str(root / "ingest")), Dataset.open(str(root / "clean"))
    decided = Dataset.open(str(root / "dedupe"))
    read = ReadConfig(id_field="id", task_bytes=60000)
    task = plan(find_files([str(corpus)], read).files, read)[0]
    key = cleaned.keys()[0]
    counts = shard.shard_counts(cleaned.content_bytes(), ShardConfig())
    planned = [
        element
        for i, name in enumerate(cleaned.keys())
        for element in shard.plan_shard((i, name), cleaned, [decided], TEXT, counts, ShardConfig())
    ]
    rows = [batch for name, (report, batch) in planned if name == "train/00000" and not report]
    nodes = Nodes(tuple(shards_to_sign(output, cleaned, "documents", fixed=False)))
    signed = Nodes(tuple(shards_to_sign(str(root / "dedupe"), cleaned, "documents", fixed=False)))
    target, (name, (_, batch)) = Target(output, cleaned, "documents", True), _no_verdicts(key)
    return {
        "ingest": lambda: list(
            ingest.ingest_task(task, Corpus("lib"), output, IngestConfig(read=read, shard_bytes=30000), 1)
        ),
        "clean": lambda: clean.clean_shard(
            ingested.keys()[0], ingested, output, CleanConfig(), True, Texts(CleanConfig())
        ),
        "sign": lambda: list(sign_shard(0, nodes, cleaned, "documents", Round(0, 15, 1), DedupeConfig())),
        "materialize": lambda: write_decisions(name, [batch], signed, target, DedupeConfig()),
        "write": lambda: shard.write_output("train/00000", rows, cleaned.keys(), cleaned, TEXT, output),
    }


KINDS = ["ingest", "clean", "sign", "materialize", "write"]


def snapshot(folder: Path) -> Files:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_that_runs_twice_at_once(datasets: Path, corpus: Path, tmp_path: Path, kind: str) -> None:
    once, twice = tmp_path / "once", tmp_path / "twice"
    expected = tasks(datasets, corpus, str(once))[kind]()
    results: list[Any] = []
    attempts = [tasks(datasets, corpus, str(twice))[kind] for _ in range(4)]
    threads = [threading.Thread(target=lambda run=run: results.append(run())) for run in attempts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 4
    assert snapshot(twice) == snapshot(once) != {}


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_that_fails_half_way_and_is_tried_again(
    datasets: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    from pipelines.core import sealed

    once, again = tmp_path / "once", tmp_path / "again"
    expected = tasks(datasets, corpus, str(once))[kind]()
    run = tasks(datasets, corpus, str(again))[kind]
    with monkeypatch.context() as broken:
        broken.setattr(sealed.SealedStream, "close", lambda self: (_ for _ in ()).throw(OSError(28, "No space left")))
        with pytest.raises(OSError, match="No space left"):
            run()
    assert snapshot(again) == {}, "a failed attempt leaves nothing, under no name"
    assert run() == expected
    assert snapshot(again) == snapshot(once) != {}
