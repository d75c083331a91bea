"""Dataflow without a network: every pipeline of every stage becomes a job, whose transforms and coders are known.

The golden list is tests/runners/golden/dataflow.json. After a change that is meant, write it again with
`GRISTMILL_UPDATE_GOLDEN=1 python -m pytest tests/runners/test_dataflow.py`, and read the difference before committing.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.runners.pipeline_context import PipelineContext

from pipelines import clean, dedupe, ingest, pack, shard, tokenizer
from pipelines.clean_config import CleanConfig
from pipelines.clean_texts import Texts
from pipelines.core.dataset import Dataset
from pipelines.core.kinds import TEXT
from pipelines.core.runners import RunOptions, plan
from pipelines.core.stage import CollectReports
from pipelines.dedupe import DedupeConfig
from pipelines.ingest import Corpus, IngestConfig
from pipelines.lsh.link import build_link, build_sign, plan_rounds
from pipelines.lsh.nodes import Nodes, shards_to_sign
from pipelines.lsh.stars import build_pass
from pipelines.lsh.verify import Target, build_verify
from pipelines.pack import PackConfig
from pipelines.readers.base import ReadConfig
from pipelines.readers.discover import discover
from pipelines.shard import ShardConfig
from pipelines.tokenizer import TokenizerConfig

pytest.importorskip("google.cloud.dataflow", reason="the extra 'gcp' is not installed")

GOLDEN = Path(__file__).parent / "golden" / "dataflow.json"
# A project id that looks like one, and no credentials: nothing is asked of Google.
CLOUD = ("--project=gristmill-test", "--region=europe-west1", "--temp_location=gs://corpus/tmp", "--no_auth")
OUT = "gs://corpus/out"


def pipelines_of(datasets: Path, corpus: Path) -> dict[str, Callable[[beam.Pipeline], Any]]:
    """Every pipeline of the stages, those included that a stage builds from the results of an earlier one."""
    ingested, cleaned = Dataset.open(str(datasets / "ingest")), Dataset.open(str(datasets / "clean"))
    decided = Dataset.open(str(datasets / "dedupe"))
    read = ReadConfig(id_field="id", task_bytes=60000)
    scratch, config = f"{OUT}/_scratch", IngestConfig(read=read)
    verifying, dedupe_config = [(("groups.arrow", 0, 4, 4),), (("groups.arrow", 4, 8, 4),)], DedupeConfig()
    nodes = Nodes(tuple(shards_to_sign(OUT, cleaned, "documents", fixed=False)))
    (whole,), target = plan_rounds(nodes.total, dedupe_config, 0), Target(OUT, cleaned, "documents", True)
    sharded, model, learn = (
        Dataset.open(str(datasets / "shard")),
        Dataset.open(str(datasets / "tokenizer")),
        TokenizerConfig(),
    )
    shards = tuple(("train", key) for key in sharded.keys("train"))

    def tasks(function: Any, arguments: tuple[Any, ...]) -> Callable[[beam.Pipeline], Any]:
        return lambda p: p | tokenizer.Tasks(shards, function, arguments)

    return {
        "ingest read": lambda p: ingest.build(p, discover([str(corpus)], read), Corpus("lib"), OUT, scratch, config),
        "clean": lambda p: clean.build(p, ingested, OUT, CleanConfig(), False, Texts(CleanConfig())),
        "dedupe sign": lambda p: build_sign(p, [0], nodes, cleaned, "documents", whole, scratch, dedupe_config),
        "dedupe link": lambda p: build_link(p, nodes, whole, None, scratch, dedupe_config),
        "dedupe stars": lambda p: build_pass(p, ["edges/0.arrow"], "large", 2, range(2), scratch, "stars/000-large"),
        "dedupe verify": lambda p: build_verify(p, nodes, target, scratch, dedupe_config, verifying),
        "shard": lambda p: shard.build(p, cleaned, [decided], TEXT, OUT, ShardConfig()),
        "tokenizer count": tasks(tokenizer.count_shard, (sharded, learn)),
        "tokenizer sample": tasks(tokenizer.sample_shard, (sharded, scratch, {"train": {"lib": 1}}, learn)),
        "tokenizer train": tasks(tokenizer.train_model, (scratch, OUT, learn)),
        "tokenizer measure": tasks(tokenizer.measure_shard, (scratch, OUT)),
        "pack": lambda p: pack.build(p, pack.Job(sharded, model, OUT, PackConfig(seq_len=128))),
    }


def describe(proto: Any) -> dict[str, list[str]]:
    """The leaf transforms of a pipeline with their URN and the coder of what they give, and all coders' URNs."""
    context = PipelineContext(proto.components)
    lines = []

    def walk(key: str) -> None:
        transform = proto.components.transforms[key]
        for inner in transform.subtransforms:
            walk(inner)
        if not transform.subtransforms and transform.spec.urn:
            name = re.sub(r"<lambda at [^>]*>", "<lambda>", transform.unique_name)
            outputs = (proto.components.pcollections[out].coder_id for out in transform.outputs.values())
            coders = ", ".join(str(context.coders.get_by_id(coder)) for coder in outputs)
            lines.append(f"{name} | {transform.spec.urn} | {coders}")

    for root in proto.root_transform_ids:
        walk(root)
    urns = sorted({coder.spec.urn for coder in proto.components.coders.values()})
    return {"transforms": lines, "coders": urns}


def test_the_job_of_every_pipeline_is_the_golden_one(datasets: Path, corpus: Path) -> None:
    options = RunOptions("DataflowRunner", beam_args=CLOUD, dry_run=True)
    found = {}
    for name, build in pipelines_of(datasets, corpus).items():

        def whole(pipeline: beam.Pipeline, build: Callable[[beam.Pipeline], Any] = build) -> None:
            _ = build(pipeline) | "Reports" >> CollectReports(f"{OUT}/_meta/reports/x.json")

        found[name] = describe(plan(whole, options))
    if os.environ.get("GRISTMILL_UPDATE_GOLDEN"):
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    assert found == json.loads(GOLDEN.read_text(encoding="utf-8"))


def test_batches_never_travel_as_pickles() -> None:
    """Where a type hint is lost, Beam pickles record batches, with the whole table that each was cut from."""
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    shuffled = [
        line
        for one in golden.values()
        for line in one["transforms"]
        if re.search(r"(Repeats|Link|Star|Write)/GroupByKey \|", line)
    ]
    assert len(shuffled) == 6
    assert all("RecordBatchCoder" in line for line in shuffled)


def stage_args(datasets: Path, corpus: Path) -> dict[str, list[str]]:
    cleaned = str(datasets / "clean")
    return {
        "ingest": ["--input", str(corpus), "--source", "lib", "--id-field", "id"],
        "clean": ["--input", str(datasets / "ingest")],
        "dedupe": ["--input", cleaned],
        "shard": ["--input", cleaned, "--decisions", str(datasets / "dedupe")],
        "tokenizer": ["--input", str(datasets / "shard")],
        "pack": ["--input", str(datasets / "shard"), "--tokenizer", str(datasets / "tokenizer")],
    }


STAGES = {
    "ingest": ingest,
    "clean": clean,
    "dedupe": dedupe,
    "shard": shard,
    "tokenizer": tokenizer,
    "pack": pack,
}


OTHERS = ["local", "FlinkRunner", "SparkRunner", "PrismRunner", "DaskRunner"]


@pytest.mark.parametrize(
    ("stage", "runner"), [(stage, "DataflowRunner") for stage in STAGES] + [("clean", r) for r in OTHERS]
)
def test_a_dry_run_lists_the_job_and_touches_nothing(
    stage: str, runner: str, datasets: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud = CLOUD if runner == "DataflowRunner" else ()
    output = tmp_path / "out"
    output.mkdir()
    (output / "thesis.txt").write_text("years of work")
    args = [*stage_args(datasets, corpus)[stage], "--output", str(output), "--runner", runner, *cloud]
    assert STAGES[stage].main([*args, "--dry_run"]) == 0
    printed = capsys.readouterr().out
    assert "nothing was written" in printed and "beam:transform:pardo:v1" in printed
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "thesis.txt"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_template_is_written_through_the_emulator(
    stage: str, datasets: Path, corpus: Path, gcs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    template = f"templates/{stage}"
    image = "europe-docker.pkg.dev/p/r/gristmill:1"
    container = [f"--sdk_container_image={image}", "--sdk_location=container"]
    args = [*stage_args(datasets, corpus)[stage], "--output", f"{gcs}/{stage}", "--runner", "DataflowRunner", *CLOUD]
    assert STAGES[stage].main([*args, f"--template_location={gcs}/{template}", *container]) == 0
    bucket = storage.Client(project="gristmill-test", credentials=AnonymousCredentials()).bucket("corpus")
    job = json.loads(bucket.blob(template).download_as_bytes())
    assert job["environment"]["workerPools"][0]["workerHarnessContainerImage"] == image
    assert job["environment"]["sdkPipelineOptions"]["options"]["pipelineUrl"].startswith("gs://corpus/tmp/")
    assert list(bucket.list_blobs(prefix=f"{stage}/")) == [], "the output was not touched"
    assert "nothing was written" in capsys.readouterr().out


def test_the_module_as_a_program_builds_its_job(datasets: Path, gcs: str) -> None:
    """`python -m pipelines.dedupe`: functions of __main__ are pickled by value, which must work too."""
    args = ["--input", str(datasets / "clean"), "--output", OUT, "--runner", "DataflowRunner", *CLOUD, "--dry_run"]
    command = [sys.executable, "-m", "pipelines.dedupe", *args]
    done = subprocess.run(command, cwd=Path(__file__).resolve().parents[2], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Sign" in done.stdout


# --- what Dataflow cannot do is said before anything is sent ----------------------------------------------------------


def test_local_files_are_refused(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--input", str(corpus), "--source", "lib", "--output", OUT, "--runner", "DataflowRunner", *CLOUD]
    assert ingest.main(args) == 1
    assert f"cannot see local files: {corpus}" in capsys.readouterr().err


def test_credentials_that_the_console_would_show_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--input", "s3://b/in", "--output", "s3://b/out", "--runner", "DataflowRunner", *CLOUD]
    assert clean.main([*args, "--s3_secret_access_key=hunter2hunter2"]) == 1
    error = capsys.readouterr().err
    assert "--s3_secret_access_key" in error and "hunter2" not in error


def test_an_impossible_project_is_an_error(gcs: str, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--input", str(corpus), "--source", "lib", "--output", OUT, "--runner", "DataflowRunner", "--dry_run"]
    assert ingest.main([*args, "--project=p", "--region=europe-west1", "--temp_location=gs://b/t", "--no_auth"]) == 1
    assert "project" in capsys.readouterr().err
