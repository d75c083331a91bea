"""The Dask guard refuses the shapes that Beam's Dask runner computes silently wrong, and lets ours through; and waits
for what runs there by the client whose futures they are."""

from __future__ import annotations

from collections.abc import Iterator

import apache_beam as beam
import pytest
from apache_beam.coders import VarIntCoder
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec

from pipelines.core import runners
from pipelines.core.on_dask import problems
from pipelines.core.runners import RunnerError, RunOptions


@pytest.fixture
def pipeline() -> beam.Pipeline:
    return beam.Pipeline(runner=FnApiRunner())


def pair(value: int) -> tuple[int, int]:
    return value % 2, value


class EmitsAtTheEnd(beam.DoFn):
    def process(self, element: int) -> Iterator[int]:
        yield element

    def finish_bundle(self) -> Iterator[int]:
        yield -1


class Stateful(beam.DoFn):
    SEEN = ReadModifyWriteStateSpec("seen", VarIntCoder())

    def process(self, element: tuple[int, int], seen=beam.DoFn.StateParam(SEEN)) -> Iterator[int]:  # type: ignore[no-untyped-def] # noqa: B008
        yield element[1]


class Tagged(beam.DoFn):
    def process(self, element: int) -> Iterator[object]:
        yield element
        yield beam.pvalue.TaggedOutput("odd", element)


def test_one_chain_with_shuffles_flattens_and_side_inputs_is_let_through(pipeline: beam.Pipeline) -> None:
    numbers = pipeline | beam.Create([1, 2, 3])
    more = pipeline | "More" >> beam.Create([4])
    side = beam.pvalue.AsList(pipeline | "Side" >> beam.Create([5]))
    both = (numbers, more) | beam.Flatten()
    _ = both | beam.Map(pair) | beam.GroupByKey() | beam.Map(lambda kv, s: (kv[0], sum(kv[1]), s), side)
    assert problems(pipeline) == []


def test_two_final_nodes_are_refused_by_name(pipeline: beam.Pipeline) -> None:
    numbers = pipeline | beam.Create([1])
    _ = numbers | "Left" >> beam.Map(pair)
    _ = numbers | "Right" >> beam.Map(pair)
    (problem,) = problems(pipeline)
    assert "2 final nodes, of which this runner computes one: Left, Right" in problem.replace("/Map(pair)", "")


def test_tagged_outputs_are_refused(pipeline: beam.Pipeline) -> None:
    outputs = pipeline | beam.Create([1]) | "Split" >> beam.ParDo(Tagged()).with_outputs("odd", main="all")
    _ = (outputs.all, outputs.odd) | beam.Flatten()
    assert any("Split" in problem and "tagged outputs are merged" in problem for problem in problems(pipeline))


@pytest.mark.parametrize("kind", [EmitsAtTheEnd(), None])
def test_outputs_of_finish_bundle_are_refused(pipeline: beam.Pipeline, kind: beam.DoFn | None) -> None:
    step = beam.BatchElements(2, 2) if kind is None else beam.ParDo(kind)
    _ = pipeline | beam.Create([1]) | "End" >> step
    assert any("End" in problem and "finish_bundle are dropped" in problem for problem in problems(pipeline))


def test_state_is_refused(pipeline: beam.Pipeline) -> None:
    _ = pipeline | beam.Create([(1, 2)]) | "State" >> beam.ParDo(Stateful())
    assert any("State" in problem and "state and timers" in problem for problem in problems(pipeline))


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_cannot_hang_waiting_by_the_loop_of_another_client(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed", reason="the extra 'dask' is not installed")
    from apache_beam.runners.dask.dask_runner import DaskRunnerResult

    seen = []
    wait = DaskRunnerResult.wait_until_finish

    def spy(result: DaskRunnerResult) -> str:
        seen.append((result.client, distributed.default_client() is result.client))
        return wait(result)

    monkeypatch.setattr(DaskRunnerResult, "wait_until_finish", spy)
    with distributed.LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster:
        options = RunOptions(runner="DaskRunner", beam_args=(f"--dask_client_address={cluster.scheduler_address}",))
        with distributed.Client(cluster) as mine:
            if fails:
                with pytest.raises(ZeroDivisionError):
                    runners.run(
                        lambda pipeline: pipeline | beam.Create([0]) | beam.Map(lambda value: 1 // value), options
                    )
            else:
                runners.run(lambda pipeline: pipeline | beam.Create([1]) | beam.Map(str), options)
            assert distributed.default_client() is mine
    ((client, was_current),) = seen
    assert was_current and client.status == "closed"


def test_results_that_never_come_are_an_error_and_not_an_empty_output(monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed", reason="the extra 'dask' is not installed")
    from apache_beam.runners.dask.dask_runner import DaskRunnerResult

    wait = DaskRunnerResult.wait_until_finish

    def lose(result: DaskRunnerResult) -> str:
        result.client.cancel(result.futures)  # as where the scheduler goes
        return wait(result)

    monkeypatch.setattr(DaskRunnerResult, "wait_until_finish", lose)
    with distributed.LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster:
        options = RunOptions(runner="DaskRunner", beam_args=(f"--dask_client_address={cluster.scheduler_address}",))
        with pytest.raises(RunnerError, match="1 of 1 results are cancelled"):
            runners.run(lambda pipeline: pipeline | beam.Create([1]) | beam.Map(str), options)
