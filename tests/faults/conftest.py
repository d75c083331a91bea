"""Runs of stages in children that a test may kill."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def run_stage() -> Iterator[Run]:
    """A function (stage, *argv, **request) → how the child ended; see tests/faults/worker.py."""
    if sys.platform == "win32":
        pytest.skip("fork and kill -9 are POSIX")
    command = [sys.executable, str(Path(__file__).parent / "worker.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        to, answers = process.stdin, process.stdout

        def run(stage: str, *argv: str, **request: Any) -> dict[str, Any]:
            to.write(json.dumps({"stage": stage, "argv": [*argv, "--workers", "1"], **request}) + "\n")
            to.flush()
            answer: dict[str, Any] = json.loads(answers.readline())
            return answer

        yield run
        to.close()
