"""What Beam's Dask runner needs around it: a guard, a cluster, and workers that can open our files."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.pipeline import PipelineVisitor

DASK_RUNNER = "apache_beam.runners.dask.dask_runner.DaskRunner"


class _Guard(PipelineVisitor):
    """Collect what Beam's Dask runner gets silently wrong."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._produced: set[Any] = set()
        self._consumed: set[Any] = set()

    def visit_transform(self, node: Any) -> None:
        """Look at one transform."""
        from apache_beam.transforms.userstate import is_stateful_dofn

        name = node.full_label
        self._produced.update(node.outputs.values())
        self._consumed.update(node.inputs)
        self._consumed.update(view.pvalue for view in node.side_inputs)
        if len([tag for tag in node.outputs if tag is not None]) > 1 or len(node.outputs) > 1:
            self.problems.append(f"{name}: tagged outputs are merged by this runner")
        dofn = getattr(node.transform, "fn", None)
        if isinstance(dofn, beam.DoFn):
            if type(dofn).finish_bundle is not beam.DoFn.finish_bundle:
                self.problems.append(f"{name}: outputs of finish_bundle are dropped by this runner")
            if is_stateful_dofn(dofn):
                self.problems.append(f"{name}: state and timers are not supported by this runner")

    def leaves(self) -> set[Any]:
        """Outputs that nothing reads."""
        return self._produced - self._consumed


def problems(pipeline: beam.Pipeline) -> list[str]:
    """Name the shapes of a pipeline on which Beam's Dask runner silently gives wrong results.

    It computes the last node only, drops what finish_bundle emits, and merges tagged outputs
    (apache_beam/runners/dask/dask_runner.py and transform_evaluator.py, 2.77).
    """
    guard = _Guard()
    pipeline.visit(guard)
    found = list(guard.problems)
    leaves = guard.leaves()
    if len(leaves) > 1:
        names = sorted(str(leaf.producer.full_label) for leaf in leaves)
        found.append(f"{len(leaves)} final nodes, of which this runner computes one: {', '.join(names)}")
    return found


@contextmanager
def workers(beam_options: PipelineOptions, count: int, filesystem_args: tuple[str, ...]) -> Iterator[None]:
    """Give a pipeline a Dask cluster for as long as the body runs.

    The cluster is the one that the options name, else `count` local processes. Its workers get the options of Beam's
    filesystems (endpoints, credentials), which the runner does not hand on. Elements become tasks one by one: a shard
    is work enough, and the runner's default would put 128 of them into one.
    """
    from apache_beam.runners.dask.dask_runner import DaskOptions
    from dask.distributed import Client, LocalCluster, WorkerPlugin

    options = beam_options.view_as(DaskOptions)
    if options.npartitions is None and options.partition_size is None:
        options.partition_size = 1
    with ExitStack() as stack:
        if not options.address and not options.scheduler_file:
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="gristmill-dask-"))  # else it stays here
            cluster = LocalCluster(
                n_workers=count, threads_per_worker=1, processes=True, dashboard_address=None, local_directory=scratch
            )
            options.address = stack.enter_context(cluster).scheduler_address
        named = {"address": options.address, "scheduler_file": options.scheduler_file}
        client = stack.enter_context(Client(**{key: value for key, value in named.items() if value}))

        class SetUp(WorkerPlugin):  # also for workers that join later
            def setup(self, worker: Any) -> None:
                _set_up_worker(filesystem_args)

        client.register_plugin(SetUp(), name="gristmill")
        yield


@contextmanager
def waiting(result: Any) -> Iterator[None]:
    """Let Beam's own client be the current one while its result is waited for, and close it, which Beam does not.

    Beam waits by `as_completed`, which takes the event loop of the current client, ours or the caller's. Events of
    another client's futures are set by the thread of another loop, and of that one is now and then never told: the run
    would hang with all its work done. And it raises nothing for results that were cancelled, as where the cluster goes:
    they are an error here.
    """
    from pipelines.core.runners import RunnerError

    with closing(result.client), result.client.as_current():
        yield
        if missing := [future.status for future in result.futures if future.status != "finished"]:
            count = f"{len(missing)} of {len(result.futures)} results are {missing[0]}"
            raise RunnerError(f"the Dask cluster went away, or gave up: {count}; nothing is committed, run it again")


def _set_up_worker(filesystem_args: tuple[str, ...]) -> None:
    from pipelines.core.logs import quiet
    from pipelines.core.runners import configure_filesystems

    quiet()
    configure_filesystems(filesystem_args)
