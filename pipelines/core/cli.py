"""The command line that all stages share, and how they end."""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import re
import signal
import stat
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pipelines.core import files
from pipelines.core.allocator import keep_freed_memory
from pipelines.core.config import corpora_of, describe, explain, load
from pipelines.core.dataset import of_corpora
from pipelines.core.logs import quiet
from pipelines.core.output import OutputError
from pipelines.core.runners import (
    MODES,
    RUNNERS,
    RunnerError,
    RunOptions,
    check_beam_args,
    check_dataflow,
    configure_filesystems,
    let_workers_end,
)
from pipelines.core.stage import BooksError, DryRun
from pipelines.core.start import imported

# Errors that a person can mend: their message says what to do, a traceback would only hide it.
EXPECTED = (ValueError, OSError, OutputError, BooksError)

LEAST_MEMORY = 16 << 20  # with less, more time goes into rounds than into work


@dataclass(frozen=True)
class StageCommand:
    """The command line of one stage.

    name: of the stage and of its section in params.yaml. description: shown by --help. config: its dataclass.
    mode: how local workers run unless --mode says otherwise (measured; see docs/runners.md). resumable: offer --resume;
    all inputs must be datasets, which do not change unnoticed.
    """

    name: str
    description: str
    config: Any
    mode: str = "threads"
    materialize: bool = False
    corpora: bool = False
    memory: bool = False
    resumable: bool = False
    add_arguments: Callable[[argparse.ArgumentParser], object] | None = None

    def parser(self) -> argparse.ArgumentParser:
        """Make the stage's argument parser."""
        keys = "\n".join(describe(self.config))
        about = "\n\n".join(explain(self.config))
        parser = argparse.ArgumentParser(
            prog=f"gristmill {self.name}",
            description=textwrap.dedent(self.description).strip(),
            epilog=f"keys for --set, with their defaults (section {self.name!r} of the configuration):\n{keys}\n\n"
            f"{about}\n\n"
            "Options of Beam and its runners (--project, --temp_location, …) may follow.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        parser.add_argument(
            "--input", action="extend", nargs="+", required=True, metavar="DIR_OR_GLOB", help="one or more; repeatable"
        )
        if self.corpora:
            parser.add_argument(
                "--corpora",
                metavar="params.yaml[:SECTION]",
                help="of the directories that --input matches, take those named under `corpora` (or SECTION) there",
            )
        parser.add_argument("--output", required=True, metavar="DIR", help="dataset directory to write or replace")
        parser.add_argument("--config", metavar="params.yaml", help=f"YAML file with a section {self.name!r}")
        parser.add_argument("--section", default=self.name, metavar="NAME", help="read another section of that file")
        parser.add_argument(
            "--set", action="append", default=[], metavar="KEY=VALUE", help="override a key; repeatable"
        )
        parser.add_argument("--runner", default="local", choices=RUNNERS, help="where to run (default: %(default)s)")
        parser.add_argument("--workers", type=_count, default=0, metavar="N", help="local workers (default: all cores)")
        parser.add_argument("--mode", default=self.mode, choices=MODES, help="of local workers (default: %(default)s)")
        if self.memory:
            parser.add_argument(
                "--memory",
                type=_size,
                default=0,
                metavar="BYTES",
                help="what shuffles may take, as 500M or 4G (default: a quarter of the machine; on clusters no limit)",
            )
        parser.add_argument(
            "--dry_run",
            nargs="?",
            const=True,
            default=False,
            type=_truth,
            help="build the first pipeline, have the runner check it, list its transforms, and write nothing",
        )
        if self.resumable:
            parser.add_argument(
                "--resume",
                action="store_true",
                help="keep what was done when the run ends early; take up what such a run of this command kept",
            )
        parser.add_argument("--debug", action="store_true", help="show the traceback of an error, and Beam's log")
        if self.materialize:
            parser.add_argument(
                "--materialize", action="store_true", help="also write the surviving records, as surviving/"
            )
        if self.add_arguments is not None:
            self.add_arguments(parser)
        return parser

    def main(self, argv: Sequence[str] | None, body: Callable[[argparse.Namespace, Any, RunOptions], None]) -> int:
        """Parse the command line, run `body(args, config, options)`, and return the exit code.

        0: done. 1: the run failed, with one clear line on standard error. 2: the command line is wrong.
        """
        parser = self.parser()
        args, beam_args = parser.parse_known_args(argv)
        try:
            check_beam_args(beam_args)
        except RunnerError as error:
            parser.error(str(error))
        return guarded(self.name, lambda: self._run(args, tuple(beam_args), body), debug=args.debug)

    def _run(self, args: argparse.Namespace, beam_args: tuple[str, ...], body: Callable[..., None]) -> None:
        keep_freed_memory()
        config = load(self.config, args.section, args.config, args.set)
        memory, resume = getattr(args, "memory", 0), _asked(args) if getattr(args, "resume", False) else ""
        options = RunOptions(args.runner, args.workers, args.mode, beam_args, args.dry_run, memory, resume)
        configure_filesystems(beam_args)
        if self.corpora and args.corpora:
            args.input = of_corpora(args.input, corpora_of(args.corpora))
        check_dataflow(options, [*args.input, args.output])
        body(args, config, options)


# what a command line says about how to run, or what the configuration that comes of it says better
_HOW = {"config", "section", "set", "runner", "workers", "mode", "dry_run", "debug", "memory", "resume"}


def _asked(args: argparse.Namespace) -> str:
    """What a command line asks for, as text."""
    return json.dumps({key: value for key, value in vars(args).items() if key not in _HOW}, sort_keys=True)


def _count(raw: str) -> int:
    value = int(raw)
    if value < 0:
        raise argparse.ArgumentTypeError("must be 0 (all cores) or more")
    return value


def positive(raw: str) -> int:
    """Read a number of 1 or more from the command line."""
    value = int(raw)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value


def _size(raw: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?", raw.strip(), re.IGNORECASE)
    if not found:
        raise argparse.ArgumentTypeError(f"expected a size as 500M or 4G; got {raw!r}")
    size = int(float(found[1]) * 1024 ** " KMGT".index(found[2].upper() or " "))
    if 0 < size < LEAST_MEMORY:
        raise argparse.ArgumentTypeError(f"at least {LEAST_MEMORY >> 20}M; got {raw!r}")
    return size


def _truth(raw: str) -> bool:
    if raw.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError("must be true or false, or nothing")
    return raw.lower() == "true"


_PATIENCE = 5.0  # seconds in which a second signal changes nothing: the first is still ending the workers
_interrupted = -math.inf


def _interrupt(*_: object) -> None:
    global _interrupted
    let_workers_end()
    now = time.monotonic()
    if now - _interrupted > _PATIENCE:
        _interrupted = now
        raise KeyboardInterrupt


class _Pipe(io.RawIOBase):
    """Standard output as a pipe that takes everything, though nobody read it any more."""

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return 1

    def write(self, data: Any) -> int:
        try:
            return os.write(1, data)
        except BrokenPipeError:
            return len(data)


@contextmanager
def _read_or_not() -> Iterator[None]:
    """Let the body print into a pipe that its reader has closed (`| head`): it has more to do than to be read."""
    before = sys.stdout
    if before is not sys.__stdout__ or before is None or not stat.S_ISFIFO(os.fstat(1).st_mode):
        yield
        return
    before.flush()
    own = io.TextIOWrapper(io.BufferedWriter(_Pipe()), encoding=before.encoding, errors=before.errors)
    sys.stdout = own
    try:
        yield
    finally:
        own.flush()
        own.detach()
        sys.stdout = before


def guarded(name: str, body: Callable[[], None], *, debug: bool = False) -> int:
    """Run `body`; turn an error into one line on standard error and an exit code."""
    global _interrupted
    _interrupted = -math.inf
    imported()
    quiet(debug)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)  # sweep what was written, leave the old dataset
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _interrupt)
    try:
        with _read_or_not():
            try:
                body()
            except DryRun as end:
                print(files.redact(str(end)))
    except KeyboardInterrupt:
        print(f"gristmill {name}: interrupted; the output directory is as it was", file=sys.stderr)
        return 130
    except Exception as error:
        if debug:
            print(files.redact(traceback.format_exc()), file=sys.stderr, end="")
        print(f"gristmill {name}: error: {files.redact(root_cause(error))}", file=sys.stderr)
        if not debug and not isinstance(error, EXPECTED) and _dig(error)[0] not in _names(EXPECTED):
            print("  (run again with --debug for the whole traceback)", file=sys.stderr)
        return 1
    return 0


def root_cause(error: BaseException) -> str:
    """Find the sentence that says what went wrong inside an error that Beam wrapped."""
    return _dig(error)[1]


# The line that ends a traceback, and the name of an exception before its message.
_RAISED = re.compile(r"^ +.*\n([A-Za-z_][\w.]*(?:: .*)?)$", re.MULTILINE)
_KIND = re.compile(r"^[A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit|Invalid): ")


def _dig(error: BaseException) -> tuple[str, str]:
    """The name of the innermost exception, and its message on one line."""
    kind, text = type(error).__name__, str(error)
    if "Traceback (most recent call last)" in text:  # from a worker, as text
        found = _RAISED.findall(text)
        text = found[-1] if found else text
    text = re.sub(r" ?\[while running '[^']*'\]", "", text)
    text = re.sub(r"\s+", " ", text).strip()
    while name := _KIND.match(text):  # RuntimeError('OSError: …')
        kind, text = name[0].rstrip(": ").rpartition(".")[2], text[name.end() :]
    return kind, text or kind


def _names(kinds: Iterable[type]) -> set[str]:
    """Names of classes and of all that derive from them: a worker's error comes back as text."""
    return {kind.__name__ for kind in kinds}.union(*(_names(kind.__subclasses__()) for kind in kinds))
