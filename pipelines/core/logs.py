"""Quiet libraries, and credentials kept out of every log."""

from __future__ import annotations

import io
import logging
import os
import sys
import traceback
import warnings
from typing import Any

from apache_beam.runners.worker import sdk_worker

from pipelines.core import files


def quiet(debug: bool = False) -> None:
    """Keep libraries' threads to ours, their logs to errors (unless `debug`), and credentials out of all logs.

    Standard output loses its power to fail: a terminal that knows ASCII alone shows \\u6587 for 文.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"):
        os.environ.setdefault(variable, "1")  # workers are the parallelism; native pools on top would fight
    _redact_records()
    # Beam's worker prints the traceback of a task that failed, before the runner raises the same error.
    sdk_worker.print = _print_redacted if debug else _print_nothing  # type: ignore[attr-defined]
    if not debug:
        for name in ("", "apache_beam", "distributed"):
            logging.getLogger(name).setLevel(logging.ERROR)
        for name in ("common", "worker", "portability.local_job_service"):
            # They log the whole traceback of an error that also comes to the driver, which tells it in one line.
            logging.getLogger(f"apache_beam.runners.{name}").setLevel(logging.CRITICAL)
        warnings.filterwarnings("ignore", module="apache_beam")


def _print_redacted(*values: object, **_: object) -> None:
    sys.stderr.write(files.redact(" ".join(map(str, values))) + "\n")


def _print_nothing(*_: object, **__: object) -> None:
    """Stand in for print."""


def _redact_records() -> None:
    make = logging.getLogRecordFactory()
    if getattr(make, "redacts", False):
        return

    def redacted(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        record.msg, record.args = files.redact(record.getMessage()), ()
        if record.exc_info and record.exc_info[0]:
            record.exc_text = files.redact("".join(traceback.format_exception(*record.exc_info)).rstrip())
        return record

    redacted.redacts = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(redacted)
