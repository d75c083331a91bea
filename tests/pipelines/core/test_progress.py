"""Progress: exact sums from many workers on a terminal, silence in a log."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import pytest

from pipelines.core import progress


class Terminal:
    def __init__(self, tty: bool) -> None:
        self.tty, self.text = tty, ""

    def isatty(self) -> bool:
        return self.tty

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass


def test_a_log_stays_quiet_and_workers_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal(tty=False)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with progress.shown("clean", 100):
        assert progress.ENVIRONMENT not in os.environ
        progress.advance(1, 2)
    assert stream.text == "" and list(tmp_path.iterdir()) == []


def test_a_terminal_shows_the_sums_of_all_workers_and_cleans_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Terminal(tty=True)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(progress, "_INTERVAL", 0.01)
    monkeypatch.chdir(tmp_path)

    def work() -> None:
        for _ in range(100):
            progress.advance(3, 10_000)

    with progress.shown("clean", 8_000_000):
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        deadline = time.monotonic() + 30
        while "1,200 records" not in stream.text and time.monotonic() < deadline:
            time.sleep(0.01)
    assert "clean: 4.0 MB, 1,200 records" in stream.text and ", 50 %, " in stream.text
    assert stream.text.endswith("\r" + " " * 79 + "\r")
    assert list(tmp_path.iterdir()) == [] and progress.ENVIRONMENT not in os.environ


def test_an_error_in_the_body_ends_the_display_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal(tty=True))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(ZeroDivisionError), progress.shown("clean", 0):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == [] and progress.ENVIRONMENT not in os.environ


def test_a_line_says_rate_share_and_time_left() -> None:
    assert progress._line("x", 1000, 3_000_000, 12_000_000, 2.0) == "x: 3.0 MB, 1,000 records, 1.5 MB/s, 25 %, 6 s left"
    assert progress._line("x", 0, 0, 0, 0.0) == "x: 0.0 MB, 0 records, 0.0 MB/s"
    assert progress._line("x", 1, 30, 10, 1.0).endswith("100 %, 0 s left")


def test_a_worker_whose_driver_is_gone_does_not_fail(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(progress.ENVIRONMENT, str(tmp_path / "absent" / "file"))
    progress.advance(1, 1)
