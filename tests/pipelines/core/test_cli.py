"""The command line: exit codes, one clear sentence on standard error, and no credentials in it."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest

from pipelines.core import runners
from pipelines.core.cli import StageCommand, guarded, root_cause
from pipelines.core.dataset import Dataset
from pipelines.core.output import OutputError
from pipelines.core.runners import RunOptions


@dataclass(frozen=True)
class Config:
    threshold: float = 0.7


COMMAND = StageCommand("clean", "Clean documents.", Config, materialize=True)
ARGS = ["--input", "a", "--output", "b"]


def run(*argv: str, command: StageCommand = COMMAND) -> tuple[int, list[Any]]:
    seen: list[Any] = []
    return command.main([*ARGS, *argv], lambda *given: seen.extend(given)), seen


def test_arguments_reach_the_stage() -> None:
    code, (args, config, options) = run("--input", "c", "--set", "threshold=0.5", "--workers", "3", "--materialize")
    assert code == 0 and args.input == ["a", "c"] and args.output == "b" and args.materialize
    assert config == Config(0.5) and (options.runner, options.workers, options.mode) == ("local", 3, "threads")


def test_options_of_beam_are_passed_on() -> None:
    _, (_, _, options) = run("--project=p", "--temp_location", "gs://bucket/tmp", "--experiments", "x")
    assert options.beam_args == ("--project=p", "--temp_location", "gs://bucket/tmp", "--experiments", "x")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--wokers", "3"], "unknown option --wokers"),
        (["--sets=threshold=1"], "unknown option --sets"),
        (["-w", "3"], "unknown option -w"),
        (["stray"], "unexpected argument 'stray'"),
        (["--project", "p", "stray"], "unexpected argument 'stray'"),
        (["--runner", "DirectRunner"], "invalid choice"),
        (["--workers", "-1"], "must be 0"),
        (["--workers", "many"], "invalid"),
        (["--mode", "fast"], "invalid choice"),
        (["--inp", "x"], "unknown option --inp"),  # abbreviations would change meaning when an option is added
    ],
)
def test_a_wrong_command_line_exits_with_2_and_says_what(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        run(*argv)
    assert caught.value.code == 2 and message in capsys.readouterr().err


def test_input_and_output_are_required(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        COMMAND.main([], lambda *_: None)
    assert caught.value.code == 2 and "--input" in capsys.readouterr().err


def test_help_lists_every_key_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        COMMAND.main(["--help"], lambda *_: None)
    shown = capsys.readouterr().out
    assert caught.value.code == 0 and "threshold = 0.7" in shown and "section 'clean'" in shown


def raising(error: BaseException) -> Callable[[], None]:
    def body() -> None:
        raise error

    return body


@pytest.mark.parametrize(
    ("error", "code", "shown", "hint"),
    [
        (OutputError("d holds something else"), 1, "gristmill x: error: d holds something else", False),
        (OSError(28, "No space left on device"), 1, "No space left on device", False),
        (ValueError("unknown key 'a'"), 1, "unknown key 'a'", False),
        (KeyError("text"), 1, "text", True),
        (MemoryError(), 1, "MemoryError", True),
        (KeyboardInterrupt(), 130, "interrupted; the output directory is as it was", False),
    ],
)
def test_an_error_is_one_sentence_and_an_exit_code(
    error: BaseException, code: int, shown: str, hint: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guarded("x", raising(error)) == code
    err = capsys.readouterr().err
    assert shown in err and "Traceback" not in err and ("--debug" in err) == hint


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded("x", raising(ValueError("why")), debug=True) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("debug", [False, True])
def test_credentials_in_an_error_are_hidden(debug: bool, capsys: pytest.CaptureFixture[str]) -> None:
    guarded("x", raising(OSError("cannot open s3://key:hunter2@bucket/a?X-Amz-Signature=hunter3")), debug=debug)
    err = capsys.readouterr().err
    assert "hunter" not in err and "bucket/a" in err


def test_a_wrong_configuration_is_a_failed_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("clean: {treshold: 0.5}\n")
    code, seen = run("--config", str(tmp_path / "params.yaml"))
    err = capsys.readouterr().err
    assert code == 1 and not seen and "unknown key 'treshold'; known keys: threshold" in err and "params.yaml" in err


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("plain message", "plain message"),
        ("message [while running 'Clean/Map(clean_shard)-ptransform-12']", "message"),
        ("spread over\n  lines", "spread over lines"),
        (
            "Error processing instruction 4.\nTraceback (most recent call last):\n"
            '  File "x.py", line 3, in f\n    raise OSError(28, "full")\nOSError: [Errno 28] No space left\n\n'
            "During handling of the above exception, another exception occurred:\n\n"
            "Traceback (most recent call last):\n"
            "  File \"y.py\", line 9, in g\nOSError: [Errno 28] No space left [while running 'Write']\n",
            "[Errno 28] No space left",
        ),
        (
            'Traceback (most recent call last):\n  File "a.py", line 1\nschemas.base.SchemaError: a is damaged\n',
            "a is damaged",
        ),
        (
            'Traceback (most recent call last):\n  File "a.py", line 1\npyarrow.lib.ArrowInvalid: not a file\n',
            "not a file",
        ),
        ('Traceback (most recent call last):\n  File "a.py", line 1\nMemoryError\n', "MemoryError"),
    ],
)
def test_the_root_cause_is_dug_out_of_what_beam_wrapped_around_it(text: str, cause: str) -> None:
    assert root_cause(RuntimeError(text)) == cause


@pytest.mark.parametrize("mode", [("1", "inline"), ("2", "threads")])
def test_an_error_in_a_worker_is_told_in_its_own_words(
    mode: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_: int) -> int:
        raise OSError(28, "No space left on device")

    def body(args: argparse.Namespace, config: Config, options: RunOptions) -> None:
        runners.run(lambda p: p | beam.Create([1, 2, 3]) | "Break" >> beam.Map(broken), options)

    code = COMMAND.main([*ARGS, "--workers", mode[0], "--mode", mode[1]], body)
    assert code == 1
    assert capsys.readouterr().err == "gristmill clean: error: [Errno 28] No space left on device\n"


def test_the_console_is_quiet_but_for_the_summary(tmp_path: Path) -> None:
    """Beam warns on import about optional packages; a person who did not ask for them cannot act on it."""
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n')
    argv = ["--input", str(tmp_path / "a.jsonl"), "--source", "s", "--output", str(tmp_path / "d"), "--workers", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.ingest", *argv],
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().parents[3],
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("ingest: ")


def test_another_section_of_the_file_is_read_where_it_is_named(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("clean: {threshold: 0.1}\nclean_images: {threshold: 0.2}\n")
    assert run("--config", str(path))[1][1] == Config(0.1)
    assert run("--config", str(path), "--section", "clean_images")[1][1] == Config(0.2)


def test_corpora_are_those_of_the_section_that_follows_the_file(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("corpora: {a: 1}\nimage_corpora: {b: 1}\n")
    for name in "ab":
        (tmp_path / "data" / name / "_meta").mkdir(parents=True)
        (tmp_path / "data" / name / "_meta" / "manifest.json").write_text("{}")
    command = StageCommand("clean", "Clean documents.", Config, corpora=True)

    def inputs(corpora: str) -> list[str]:
        seen: list[Any] = []
        argv = ["--input", str(tmp_path / "data" / "*"), "--output", "o", "--corpora", corpora]
        assert command.main(argv, lambda *given: seen.extend(given)) == 0
        return [Path(one).name for one in seen[0].input]

    assert (inputs(str(path)), inputs(f"{path}:image_corpora")) == (["a"], ["b"])


def _records(path: Path) -> Path:
    path.write_text("".join(f'{{"id": "{i}", "text": "A text of some words, number {i}."}}\n' for i in range(50)))
    return path


def _ingest(source: Path, output: Path, *options: str) -> list[str]:
    arguments = ["--input", str(source), "--source", "s", "--output", str(output), *options]
    return [sys.executable, "-m", "pipelines.ingest", *arguments]


def test_a_run_ends_well_though_nobody_reads_what_it_prints(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = _ingest(_records(tmp_path / "in.jsonl"), tmp_path / "out")
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
    assert Dataset.open(str(tmp_path / "out")).books["s"].kept == 50


def test_a_dry_run_ends_well_though_nobody_reads_what_it_prints(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = _ingest(_records(tmp_path / "in.jsonl"), tmp_path / "out", "--dry_run")
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr, (tmp_path / "out").exists()) == (0, "", False)


def test_a_run_ends_well_without_any_console(tmp_path: Path) -> None:
    command = _ingest(_records(tmp_path / "in.jsonl"), tmp_path / "out")
    done = subprocess.run(["sh", "-c", '"$@" >&- 2>&-', "sh", *command], check=False)
    assert done.returncode == 0 and Dataset.open(str(tmp_path / "out")).books["s"].kept == 50


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let children take SIGINT, though who started the tests ignores it (`nohup`, `&` in a script)."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def _workers_of(driver: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == driver and "pipelines.core.worker" in (entry / "cmdline").read_text():
                found.append(int(entry.name))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_ended_while_its_workers_start_ends_with_them(tmp_path: Path, number: int) -> None:
    command = _ingest(_records(tmp_path / "in.jsonl"), tmp_path / "out", "--mode", "processes", "--workers", "2")
    own = tmp_path / "temporary"
    own.mkdir()
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **options, env={**os.environ, "TMPDIR": str(own)}) as driver:
        try:
            while not (workers := _workers_of(driver.pid)):
                assert driver.poll() is None
                time.sleep(0.01)
            driver.send_signal(number)
            time.sleep(0.2)
            driver.send_signal(number)  # who is impatient must not have it wait for ever
            _, said = driver.communicate(timeout=60)
        finally:
            driver.kill()
    assert driver.returncode == 130 and "interrupted" in said
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    assert not (tmp_path / "out").exists() and not list(own.glob("gristmill-end-*"))
