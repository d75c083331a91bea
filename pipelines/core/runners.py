"""Choose the Beam runner: one engine per name, on every machine.

`local` is Beam's FnApiRunner, built here. Beam's own 'DirectRunner' is never used: it tries other engines first, so
that one command would mean different engines on different machines.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import secrets
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.portability.fn_api_runner import fn_runner
from apache_beam.runners.runner import PipelineRunner
from apache_beam.transforms.environments import (
    EmbeddedPythonGrpcEnvironment,
    Environment,
    SubprocessSDKEnvironment,
    python_sdk_capabilities,
)

from pipelines.core import files, on_dask

RUNNERS = ("local", "DataflowRunner", "FlinkRunner", "SparkRunner", "PrismRunner", "PortableRunner", "DaskRunner")
MODES = ("inline", "processes", "threads")
# Environment variable for local worker processes: the process id that they end with, and a file that tells them to.
DRIVER = "GRISTMILL_DRIVER"
_SHUFFLE_IN_MEMORY = ("local", "DaskRunner")
DOWNLOAD_TIMEOUT = 60.0  # seconds without a byte
_DOWNLOADING = ("FlinkRunner", "SparkRunner", "PrismRunner")  # fetch their job server unless one is named
_LOG_LEVEL = "--default_sdk_harness_log_level"
_SECRET_NAME = re.compile(r"secret|token|password|access_key|credential|connection_string")


class RunnerError(ValueError):
    """A runner cannot run this pipeline, or its options are wrong."""


@dataclass(frozen=True)
class RunOptions:
    """How to run a pipeline. Nothing here changes a byte of the output.

    runner: one of RUNNERS. workers: local workers, 0 = all cores. mode: 'inline', 'threads' or 'processes', of the
    local runner. beam_args: further options for Beam. dry_run: build and check the first pipeline, and stop. memory:
    bytes that a stage plans with where it can choose, 0 = a quarter of the machine's. resume: what the command line
    asks for, as text, where the run may be taken up again; "" = what it wrote is dropped when it ends early.
    """

    runner: str = "local"
    workers: int = 0
    mode: str = "threads"
    beam_args: tuple[str, ...] = ()
    dry_run: bool = False
    memory: int = 0
    resume: str = ""

    @property
    def shuffle_memory(self) -> int:
        """Bytes that a shuffle may take; 0 = no limit, where the runner keeps shuffles on disk."""
        if self.runner not in _SHUFFLE_IN_MEMORY:
            return self.memory
        return self.memory or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4

    @property
    def planned(self) -> bool:
        """Whether the pipeline is only built: a dry run, or a template for Dataflow."""
        return self.dry_run or _template_location(self) is not None

    @property
    def in_process(self) -> bool:
        """Whether all tasks run in this process."""
        return self.runner == "local" and (self.mode != "processes" or self.worker_count == 1)

    @property
    def worker_count(self) -> int:
        """Local workers, with 0 replaced by the number of cores that this process may use."""
        if self.workers:
            return self.workers
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class SharedViews(PipelineOptions):
    """Beam's options, each view made once: Beam asks for one at every transform, and builds a parser every time.

    All views of an object share its values, so that a kept one shows what another has set.
    """

    def view_as(self, cls: Any) -> Any:
        """The options as an instance of `cls`."""
        views = self.__dict__.setdefault("_views", {})
        if cls not in views:
            views[cls] = super().view_as(cls)
        return views[cls]


def pipeline_options(options: RunOptions) -> PipelineOptions:
    """Make Beam's options; unknown ones are an error here, where Beam would drop them without a word."""
    check_beam_args(options.beam_args)
    args = [*options.beam_args]
    if hide_credentials(PipelineOptions(args)) and not any(arg.startswith(_LOG_LEVEL) for arg in args):
        args.append(f"{_LOG_LEVEL}=WARNING")  # Beam's worker logs all options, as an information
    if options.runner == "local":
        # Beam's other running modes would put its own workers in the place of those that make_runner names.
        count = 1 if options.mode == "inline" else options.worker_count
        args += [f"--direct_num_workers={count}", "--direct_running_mode=in_memory"]
    else:
        args += [f"--runner={on_dask.DASK_RUNNER if options.runner == 'DaskRunner' else options.runner}"]
    return SharedViews(args)


def _template_location(options: RunOptions) -> str | None:
    cloud = PipelineOptions(list(options.beam_args)).view_as(GoogleCloudOptions)
    return cloud.template_location if options.runner == "DataflowRunner" else None


def check_beam_args(args: Sequence[str]) -> None:
    """Raise RunnerError for an option that neither a stage nor Beam knows."""
    if any(arg.startswith("--dask_") for arg in args):
        with contextlib.suppress(ImportError):
            importlib.import_module(on_dask.DASK_RUNNER.rpartition(".")[0])  # defines the options
    _, unknown = _beam_parser().parse_known_args(list(args))
    if unknown:
        name = unknown[0].split("=", 1)[0]
        what = f"unknown option {name}" if name.startswith("-") else f"unexpected argument {name!r}"
        raise RunnerError(f"{what}: neither this stage nor Beam has it (see --help)")


def configure_filesystems(beam_args: Sequence[str]) -> None:
    """Give Beam's filesystems their options (endpoints, credentials) outside a pipeline too.

    Values of options that hold credentials are kept out of every message from here on.
    """
    options = PipelineOptions(list(beam_args))
    hide_credentials(options)
    FileSystems.set_options(options)


def check_dataflow(options: RunOptions, paths: Sequence[str]) -> None:
    """Raise RunnerError where Dataflow could not run a stage on these paths, or would show credentials."""
    if options.runner != "DataflowRunner":
        return
    secrets = hide_credentials(PipelineOptions(list(options.beam_args)))
    if secrets:
        names = ", ".join(f"--{name}" for name in secrets)
        raise RunnerError(
            f"Dataflow would show {names} to everyone who may see the job, and log it; give its workers credentials in "
            "the environment of their image instead (docs/runners.md)"
        )
    local = [path for path in paths if files.is_local(path)]
    if local and not options.planned:
        raise RunnerError(f"Dataflow's workers cannot see local files: {', '.join(local)}; use gs:// or s3:// paths")


def hide_credentials(options: PipelineOptions) -> list[str]:
    """Keep the values of options that hold credentials out of messages; returns the names of those that are set."""
    found = options.get_all_options(drop_default=True).items()
    secrets = {name: value for name, value in found if isinstance(value, str) and _SECRET_NAME.search(name)}
    for value in secrets.values():
        files.hide(value)
    return sorted(secrets)


def _beam_parser() -> Any:
    from apache_beam.options.pipeline_options import _BeamArgumentParser

    parser = _BeamArgumentParser(allow_abbrev=False, add_help=False)
    for kind in sorted(_subclasses(PipelineOptions), key=lambda c: c.__name__):
        try:
            kind._add_argparse_args(parser)
        except Exception:
            continue  # two Beam classes may define one flag; the first definition is enough to know the name
    return parser


def _subclasses(kind: Any) -> set[Any]:
    direct: set[Any] = set(kind.__subclasses__())
    return direct.union(*(_subclasses(one) for one in direct))


def make_runner(options: RunOptions, beam_options: PipelineOptions) -> PipelineRunner | str:
    """Make the runner object, or the name by which Beam finds it."""
    if options.runner == "local":
        # Without provision info the options (S3 endpoints, credentials) do not reach worker processes.
        from apache_beam.runners.portability.portable_runner import JobServiceHandle

        struct = JobServiceHandle.encode_pipeline_options(beam_options.get_all_options())
        info = beam_provision_api_pb2.ProvisionInfo(pipeline_options=struct)
        return fn_runner.FnApiRunner(_workers(options), provision_info=fn_runner.ExtendedProvisionInfo(info))
    if options.runner not in RUNNERS:
        raise RunnerError(f"unknown runner {options.runner!r}; choose one of {', '.join(RUNNERS)}")
    return on_dask.DASK_RUNNER if options.runner == "DaskRunner" else options.runner


def _workers(options: RunOptions) -> Environment | None:
    """What the local runner's workers are; None: the driver's own thread."""
    if options.worker_count == 1 or options.mode == "inline":
        return None
    if options.mode == "processes":
        # Beam's own worker prints the pipeline's credentials.
        return SubprocessSDKEnvironment.from_command_string(f"{sys.executable} -m pipelines.core.worker")
    # A time limit on buffers (Beam's default here is 1 s) has a second thread send what an encoder has written so far:
    # in bundles that take longer, elements are cut in two or lost (TimeBasedBufferingClosableOutputStream, 2.77).
    capabilities = python_sdk_capabilities()
    return EmbeddedPythonGrpcEnvironment(data_buffer_time_limit_ms=-1, capabilities=capabilities)


def run(build: Callable[[beam.Pipeline], object], options: RunOptions) -> Any:
    """Build a pipeline with `build(pipeline)` and run it to its end; returns Beam's result."""
    beam_options = pipeline_options(options)
    with _no_argv(), _importable(), _driving(), ExitStack() as stack:
        if options.runner == "DaskRunner":
            stack.enter_context(on_dask.workers(beam_options, options.worker_count, options.beam_args))
        if options.runner in _DOWNLOADING:
            stack.enter_context(_bounded_waits())
        result: Any = _build(build, options, beam_options).run()
        if options.runner == "DaskRunner":
            stack.enter_context(on_dask.waiting(result))
        state = result.wait_until_finish()
    state = state or getattr(result, "state", None)
    if state not in (None, "DONE"):
        raise RunnerError(f"{options.runner} ended the pipeline in state {state}")
    return result


_ends: set[Path] = set()


@contextmanager
def _driving() -> Iterator[None]:
    """Tell local worker processes whose they are, and of which file they are to take notice."""
    end = Path(tempfile.gettempdir(), f"gristmill-end-{secrets.token_hex(16)}")
    os.environ[DRIVER] = f"{os.getpid()} {end}"
    _ends.add(end)
    try:
        yield
    finally:
        _ends.discard(end)
        end.unlink(missing_ok=True)


def let_workers_end() -> None:
    """Have local worker processes end within a second or two.

    When Beam is interrupted it waits for them: for ever, where they have not yet found the runner.
    """
    for end in list(_ends):
        with contextlib.suppress(OSError):
            end.touch()


def plan(build: Callable[[beam.Pipeline], object], options: RunOptions) -> Any:
    """Build a pipeline, let the runner check it without running it, and return its proto.

    Dataflow translates the whole job; with --template_location it also writes it there. Other runners have no such
    check beyond that of the pipeline's own shape.
    """
    dataflow = options.runner == "DataflowRunner"
    if dataflow and not _template_location(options):
        options = replace(options, beam_args=(*options.beam_args, "--dry_run=True"))
    beam_options = pipeline_options(options)
    with _no_argv():
        pipeline = _build(build, options, beam_options)
        if not dataflow:
            return pipeline.to_runner_api()
        pipeline.run()
        runner: Any = pipeline.runner
        return runner.proto_pipeline


def _build(
    build: Callable[[beam.Pipeline], object], options: RunOptions, beam_options: PipelineOptions
) -> beam.Pipeline:
    pipeline = beam.Pipeline(runner=make_runner(options, beam_options), options=beam_options)
    build(pipeline)
    if options.runner == "DaskRunner" and (problems := on_dask.problems(pipeline)):
        raise RunnerError("the Dask runner would give wrong results: " + "; ".join(problems))
    return pipeline


@contextmanager
def _bounded_waits() -> Iterator[None]:
    """End a download that hears nothing for a while: Beam's own waits for ever, where a firewall swallows packets."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


@contextmanager
def _no_argv() -> Iterator[None]:
    """Hide the command line from Beam, which reads it wherever it is given no options; ours are not for it."""
    argv, sys.argv = sys.argv, sys.argv[:1]
    try:
        yield
    finally:
        sys.argv = argv


@contextmanager
def _importable() -> Iterator[None]:
    """Let worker processes import this package, however the driver found it (a checkout that is not installed)."""
    root, before = str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [before, root]))
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
