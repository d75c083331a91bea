"""Flink, Spark and Prism: their servers cannot be fetched here, so what is checked is that the way there is right."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines import clean
from pipelines.core import runners
from pipelines.core.runners import check_beam_args

RUNNERS = {"FlinkRunner": "job server jar", "SparkRunner": "job server jar", "PrismRunner": "prism binary"}


@pytest.fixture(scope="module")
def ingested(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from pipelines import ingest

    root = tmp_path_factory.mktemp("clusters")
    assert ingest.main(["--input", str(corpus), "--source", "lib", "--output", str(root), "--workers", "1"]) == 0
    return root


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Send downloads to an address of this machine, and caches to an empty directory."""

    def through(proxy: str) -> None:
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, proxy)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.setattr("urllib.request._opener", None)  # it remembers the proxies of its first use

    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return through


def failed(ingested: Path, tmp_path: Path, runner: str, capsys: pytest.CaptureFixture[str]) -> str:
    output = tmp_path / "out"
    assert clean.main(["--input", str(ingested), "--output", str(output), "--runner", runner]) == 1
    assert not output.exists()
    return capsys.readouterr().err


@pytest.mark.parametrize("runner", RUNNERS)
def test_without_a_network_the_error_names_what_is_missing(
    runner: str, ingested: Path, tmp_path: Path, no_network: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    no_network("http://127.0.0.1:9")  # nobody listens there
    error = failed(ingested, tmp_path, runner, capsys)
    assert f"Unable to fetch remote {RUNNERS[runner]} at" in error


@pytest.fixture
def black_hole() -> Iterator[str]:
    """An address that takes connections and never answers, as behind a firewall that swallows packets."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_network_that_never_answers_ends_the_run(
    runner: str,
    ingested: Path,
    tmp_path: Path,
    no_network: Any,
    black_hole: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert runners.DOWNLOAD_TIMEOUT <= 120
    monkeypatch.setattr(runners, "DOWNLOAD_TIMEOUT", 0.5)
    no_network(black_hole)
    before = socket.getdefaulttimeout()  # Beam's way in to Google sets one, if a test before this one took it.
    started = time.monotonic()
    assert "timed out" in failed(ingested, tmp_path, runner, capsys)
    assert time.monotonic() - started < 30
    assert socket.getdefaulttimeout() == before


@pytest.mark.parametrize(
    "options",
    [
        ["--flink_master=host:8081", "--flink_version=1.20", "--flink_job_server_jar=/x.jar", "--parallelism=4"],
        ["--spark_master_url=spark://host:7077", "--spark_job_server_jar=/x.jar", "--environment_type=EXTERNAL"],
        ["--environment_type=DOCKER", "--environment_config=image:1", "--sdk_worker_parallelism=2"],
        ["--prism_location=/usr/bin/prism"],
    ],
)
def test_their_options_are_known(options: list[str]) -> None:
    check_beam_args(options)
