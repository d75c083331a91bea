"""Runner choice: one engine per name, options that nobody knows are refused, and workers that mean what they say."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import DirectOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to

from pipelines.core import runners
from pipelines.core.runners import RunnerError, RunOptions, check_beam_args, make_runner, pipeline_options


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["--project=p", "--temp_location", "gs://bucket/t"],
        ["--experiments=a", "--experiments", "b"],
        ["--flink_master=host:8081", "--parallelism", "4"],
        ["--spark_job_server_jar=/x.jar"],
        ["--s3_endpoint_url=http://localhost:1"],
        ["--job_endpoint=embed", "--environment_type=LOOPBACK"],
        ["--prism_location=/x"],
        ["--streaming"],
    ],
)
def test_options_that_beam_knows_pass(args: list[str]) -> None:
    check_beam_args(args)


def test_options_of_the_dask_runner_are_known_where_dask_is_installed() -> None:
    pytest.importorskip("dask.distributed")
    check_beam_args(["--dask_client_address=tcp://localhost:1"])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--wokers=3"], "unknown option --wokers: neither this stage nor Beam has it"),
        (["-w", "3"], "unknown option -w"),
        (["stray"], "unexpected argument 'stray'"),
        (["--project", "p", "stray"], "unexpected argument 'stray'"),
        (["--proj=p"], "unknown option --proj"),
    ],
)
def test_what_beam_would_drop_without_a_word_is_refused(args: list[str], message: str) -> None:
    with pytest.raises(RunnerError, match=message):
        check_beam_args(args)


@pytest.mark.parametrize(
    ("workers", "mode", "expected"),
    [
        (1, "threads", "EmbeddedPythonEnvironment"),
        (2, "inline", "EmbeddedPythonEnvironment"),
        (2, "threads", "EmbeddedPythonGrpcEnvironment"),
        (2, "processes", "SubprocessSDKEnvironment"),
    ],
)
def test_local_workers_are_of_the_kind_that_was_asked_for(workers: int, mode: str, expected: str) -> None:
    options = RunOptions(workers=workers, mode=mode)
    beam_options = pipeline_options(options)
    direct = beam_options.view_as(DirectOptions)
    count = 1 if mode == "inline" else workers
    assert (direct.direct_num_workers, direct.direct_running_mode) == (count, "in_memory")
    runner = make_runner(options, beam_options)
    assert isinstance(runner, FnApiRunner)
    assert type(runner._default_environment).__name__ == expected


class SlowCoder(beam.coders.Coder):
    """Takes its time, as a coder does that gives up the interpreter's lock while it works."""

    def encode(self, value: str) -> bytes:
        time.sleep(0.05)
        return value.encode()

    def decode(self, encoded: bytes) -> str:
        return encoded.decode()

    def is_deterministic(self) -> bool:
        return True

    def to_type_hint(self) -> type:
        return Slow


class Slow(str):
    """A type of its own, for its coder."""


def _emit(start: int) -> Iterator[tuple[int, Slow]]:
    for i in range(35):
        yield start + i, Slow(i)


def test_a_bundle_of_threads_that_takes_more_than_a_second_loses_nothing() -> None:
    """Beam's default sends buffers once a second, from another thread, cutting the element that is being written."""
    beam.coders.registry.register_coder(Slow, SlowCoder)

    def build(pipeline: beam.Pipeline) -> None:
        pairs = (
            pipeline
            | beam.Create([0, 1000, 2000, 3000])
            | beam.FlatMap(_emit).with_output_types(tuple[int, Slow])
            | beam.GroupByKey()
            | beam.MapTuple(lambda key, values: (key, len(list(values))))
        )
        expected = [(start + i, 1) for start in (0, 1000, 2000, 3000) for i in range(35)]
        assert_that(pairs, equal_to(expected))

    runners.run(build, RunOptions(workers=2, mode="threads"))


def test_no_number_of_workers_means_the_cores_that_this_process_may_use() -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert RunOptions().worker_count == cores and RunOptions(workers=7).worker_count == 7


def test_local_is_one_engine_with_its_options_handed_to_workers() -> None:
    options = RunOptions(workers=2, beam_args=("--s3_region_name=eu-1",))
    runner = make_runner(options, pipeline_options(options))
    assert isinstance(runner, FnApiRunner)
    handed = runner._provision_info.provision_info.pipeline_options
    assert "eu-1" in str(handed)


def test_an_unknown_runner_is_named() -> None:
    options = RunOptions(runner="DirectRunner")
    with pytest.raises(RunnerError, match="unknown runner 'DirectRunner'; choose one of local, DataflowRunner"):
        make_runner(options, pipeline_options(RunOptions()))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_pipeline_runs_whatever_the_command_line_of_the_process_says(
    monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(sys, "argv", ["pytest", "--runner=NoSuchRunner", "--direct_num_workers=99"])

    def build(pipeline: beam.Pipeline) -> None:
        assert_that(pipeline | beam.Create([1, 2, 3]) | beam.Map(lambda x: x * 2), equal_to([2, 4, 6]))

    runners.run(build, RunOptions(workers=workers))
    assert sys.argv[1:] == ["--runner=NoSuchRunner", "--direct_num_workers=99"]


def test_dask_is_refused_where_it_would_compute_half_of_the_pipeline() -> None:
    pytest.importorskip("dask.distributed")

    def two_ends(pipeline: beam.Pipeline) -> None:
        numbers = pipeline | beam.Create([1])
        _ = numbers | "Left" >> beam.Map(str)
        _ = numbers | "Right" >> beam.Map(str)

    with pytest.raises(RunnerError, match="the Dask runner would give wrong results: 2 final nodes"):
        runners._build(two_ends, RunOptions(runner="DaskRunner"), pipeline_options(RunOptions(runner="DaskRunner")))
