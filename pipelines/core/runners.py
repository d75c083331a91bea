"""Choose the Beam runner: one engine per name, on every machine.

`local` is Beam's FnApiRunner, built here. Beam's own 'DirectRunner' is never used: it tries other engines first, so that
one command would mean different engines on different machines.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.pipeline import PipelineVisitor
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.portability.fn_api_runner import fn_runner
from apache_beam.runners.runner import PipelineRunner

RUNNERS = ("local", "DataflowRunner", "FlinkRunner", "SparkRunner", "PrismRunner", "PortableRunner", "DaskRunner")
MODES = {"inline": "in_memory", "threads": "multi_threading", "processes": "multi_processing"}
_DASK = "apache_beam.runners.dask.dask_runner.DaskRunner"


class RunnerError(ValueError):
    """A runner cannot run this pipeline, or its options are wrong."""


@dataclass(frozen=True)
class RunOptions:
    """How to run a pipeline. Nothing here changes a byte of the output.

    runner: one of RUNNERS. workers: local workers, 0 = all cores. mode: 'inline', 'threads' or 'processes', of the
    local runner. beam_args: further options for Beam.
    """

    runner: str = "local"
    workers: int = 0
    mode: str = "threads"
    beam_args: tuple[str, ...] = ()

    @property
    def worker_count(self) -> int:
        """Local workers, with 0 replaced by the number of cores that this process may use."""
        if self.workers:
            return self.workers
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pipeline_options(options: RunOptions) -> PipelineOptions:
    """Make Beam's options; unknown ones are an error here, where Beam would drop them without a word."""
    check_beam_args(options.beam_args)
    args = [*options.beam_args]
    if options.runner == "local":
        mode = "inline" if options.worker_count == 1 else options.mode
        args += [f"--direct_num_workers={options.worker_count}", f"--direct_running_mode={MODES[mode]}"]
    else:
        args += [f"--runner={_DASK if options.runner == 'DaskRunner' else options.runner}"]
    return PipelineOptions(args)


def check_beam_args(args: Sequence[str]) -> None:
    """Raise RunnerError for an option that neither a stage nor Beam knows."""
    known = {flag for action in _beam_parser()._actions for flag in action.option_strings}
    for arg in args:
        flag = arg.split("=", 1)[0]
        if arg.startswith("--") and flag not in known:
            raise RunnerError(f"unknown option {flag}: neither this stage nor Beam has it (see --help)")
        if not arg.startswith("-") and args[0] == arg:
            raise RunnerError(f"unexpected argument {arg!r} (see --help)")


def configure_filesystems(beam_args: Sequence[str]) -> None:
    """Give Beam's filesystems their options (endpoints, credentials) outside a pipeline too."""
    FileSystems.set_options(PipelineOptions(list(beam_args)))


def _beam_parser() -> Any:
    from apache_beam.options.pipeline_options import _BeamArgumentParser

    parser = _BeamArgumentParser(allow_abbrev=False, add_help=False)
    for kind in sorted(_subclasses(PipelineOptions), key=lambda c: c.__name__):
        try:
            kind._add_argparse_args(parser)
        except Exception:
            continue  # two Beam classes may define one flag; the first definition is enough to know the name
    return parser


def _subclasses(kind: type) -> set[type]:
    direct = set(kind.__subclasses__())
    return direct.union(*(_subclasses(one) for one in direct))


def make_runner(options: RunOptions, beam_options: PipelineOptions) -> PipelineRunner | str:
    """Make the runner object, or the name by which Beam finds it."""
    if options.runner == "local":
        # Without provision info the options (S3 endpoints, credentials) do not reach worker processes.
        from apache_beam.runners.portability.portable_runner import JobServiceHandle

        struct = JobServiceHandle.encode_pipeline_options(beam_options.get_all_options())
        info = beam_provision_api_pb2.ProvisionInfo(pipeline_options=struct)
        return fn_runner.FnApiRunner(provision_info=fn_runner.ExtendedProvisionInfo(info))
    if options.runner not in RUNNERS:
        raise RunnerError(f"unknown runner {options.runner!r}; choose one of {', '.join(RUNNERS)}")
    return _DASK if options.runner == "DaskRunner" else options.runner


def run(build: Any, options: RunOptions) -> Any:
    """Build a pipeline with `build(pipeline)` and run it to its end; returns Beam's result."""
    beam_options = pipeline_options(options)
    argv, sys.argv = sys.argv, sys.argv[:1]  # Beam reads sys.argv where it is given no options; ours are not for it
    try:
        pipeline = beam.Pipeline(runner=make_runner(options, beam_options), options=beam_options)
        build(pipeline)
        if options.runner == "DaskRunner":
            check_for_dask(pipeline)
        result = pipeline.run()
        state = result.wait_until_finish()
    finally:
        sys.argv = argv
    state = state or getattr(result, "state", None)
    if state not in (None, "DONE"):
        raise RunnerError(f"{options.runner} ended the pipeline in state {state}")
    return result


class _DaskGuard(PipelineVisitor):
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


def check_for_dask(pipeline: beam.Pipeline) -> None:
    """Raise RunnerError for pipeline shapes on which Beam's Dask runner silently gives wrong results.

    It computes the last node only, drops what finish_bundle emits, and merges tagged outputs
    (apache_beam/runners/dask/dask_runner.py and transform_evaluator.py, 2.77).
    """
    guard = _DaskGuard()
    pipeline.visit(guard)
    problems = list(guard.problems)
    leaves = guard.leaves()
    if len(leaves) > 1:
        names = sorted(str(leaf.producer.full_label) for leaf in leaves)
        problems.append(f"{len(leaves)} final nodes, of which this runner computes one: {', '.join(names)}")
    if problems:
        raise RunnerError("the Dask runner would give wrong results: " + "; ".join(problems))
