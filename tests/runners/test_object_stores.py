"""S3 and Google Cloud Storage: the bytes of the disk, a commit that shows no half, and no credentials anywhere."""

import gc
import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines import clean, ingest
from pipelines.core import files
from pipelines.core.output import OutputError
from pipelines.core.remote import MARKER_PATH, RemoteOutput
from pipelines.core.runners import configure_filesystems
from pipelines.core.shards import AtomicFile, read_table, write_bytes, write_shard
from schemas.manifest import MANIFEST_PATH, Manifest

LOCAL = ("--workers", "1")


def check(found: dict[str, bytes], reference: dict[str, bytes]) -> None:
    stages = {path.split("/")[0] for path in found}
    reference = {path: data for path, data in reference.items() if path.split("/")[0] in stages}
    assert len(stages) >= 4 and sorted(found) == sorted(reference)
    assert [path for path in reference if found[path] != reference[path]] == []


def upload(corpus: Path, url: str) -> None:
    for path in sorted(corpus.iterdir()):
        write_bytes(f"{url}/{path.name}", path.read_bytes())


def test_s3_gives_the_bytes_of_the_disk(corpus: Path, chain: Any, reference: dict[str, bytes], s3: Any) -> None:
    configure_filesystems(s3.options)
    upload(corpus, f"{s3.url}/raw")
    check(chain([f"{s3.url}/raw"], f"{s3.url}/out", *s3.options, *LOCAL), reference)


def test_gcs_gives_the_bytes_of_the_disk(corpus: Path, chain: Any, reference: dict[str, bytes], gcs: str) -> None:
    configure_filesystems(["--no_auth"])
    upload(corpus, f"{gcs}/raw")
    check(chain([f"{gcs}/raw"], f"{gcs}/out", "--no_auth", "--workers", "2", short=True), reference)


# --- the commit -------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["s3", "gcs"])
def store(request: pytest.FixtureRequest, s3: Any) -> str:
    """A fresh prefix of each store."""
    if request.param == "s3":
        configure_filesystems(s3.options)
        return f"{s3.url}/{request.node.name}"
    configure_filesystems(["--no_auth"])
    return f"{request.getfixturevalue('gcs')}/{request.node.name}"


def names(prefix: str) -> list[str]:
    return [files.relative(path, prefix) for path, _ in files.list_tree(prefix)]


EMPTY = Manifest("test", {}, {}, [], [], {})
BATCH = pa.record_batch({"n": pa.array([1, 2, 3])})


def test_the_old_manifest_goes_first_and_the_new_one_comes_last(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    delete, commit = files.delete, AtomicFile.commit
    monkeypatch.setattr(files, "delete", lambda paths: (events.extend(f"- {p}" for p in paths), delete(paths))[1])
    monkeypatch.setattr(AtomicFile, "commit", lambda self: (events.append(f"+ {self.path}"), commit(self))[1])
    for round_ in range(2):
        output = RemoteOutput(store)
        shard = write_shard(output.root, f"documents/shard-{round_}.arrow", BATCH.schema, [BATCH])
        write_bytes(f"{output.root}/_scratch/x", b"x")
        output.commit(Manifest("test", {}, {}, [], [shard], {}))
    assert [event.replace(f"{store}/", "") for event in events] == [
        f"+ {MARKER_PATH}",
        "+ documents/shard-0.arrow",
        "+ _scratch/x",
        "- _scratch/x",
        f"+ {MANIFEST_PATH}",
        f"- {MARKER_PATH}",
        f"+ {MARKER_PATH}",
        f"- {MANIFEST_PATH}",
        "- documents/shard-0.arrow",
        "+ documents/shard-1.arrow",
        "+ _scratch/x",
        "- _scratch/x",
        f"+ {MANIFEST_PATH}",
        f"- {MARKER_PATH}",
    ]
    assert names(store) == [MANIFEST_PATH, "documents/shard-1.arrow"]


def test_other_peoples_objects_are_neither_replaced_nor_swept(store: str) -> None:
    write_bytes(f"{store}/thesis.txt", b"years of work")
    with pytest.raises(OutputError, match="holds something else"):
        RemoteOutput(store)
    assert names(store) == ["thesis.txt"]


def test_what_a_killed_run_left_is_swept(store: str) -> None:
    RemoteOutput(store)
    write_bytes(f"{store}/_meta/reports/read.json", b'["of the killed run"]')
    again = RemoteOutput(store)
    assert names(store) == [MARKER_PATH]
    again.commit(EMPTY)
    assert names(store) == [MANIFEST_PATH]


def test_a_failed_run_leaves_nothing(store: str) -> None:
    output = RemoteOutput(store)
    write_bytes(f"{store}/documents/shard-0.arrow", b"x")
    output.abort()
    assert names(store) == []


def test_the_run_that_began_last_wins(store: str) -> None:
    first, second = RemoteOutput(store), RemoteOutput(store)
    write_bytes(f"{store}/of-the-second", b"x")
    with pytest.raises(OutputError, match="another run has begun"):
        first.commit(EMPTY)
    first.abort()
    assert names(store) == [MARKER_PATH, "of-the-second"]
    second.commit(EMPTY)
    assert names(store) == [MANIFEST_PATH]


def test_an_upload_that_fails_does_not_replace_a_whole_object(store: str) -> None:
    write_bytes(f"{store}/shard", b"whole")
    attempt = AtomicFile(f"{store}/shard")
    attempt.write(b"half" * (5 << 20))  # more than one part of an upload
    attempt.abort()
    del attempt
    gc.collect()
    with files.open_read(f"{store}/shard") as source:
        assert source.read() == b"whole"


def test_a_rewritten_object_is_read_anew(store: str) -> None:
    for values in ([1, 2], [3]):
        batch = pa.record_batch({"n": pa.array(values)})
        write_shard(store, "t/shard.arrow", batch.schema, [batch])
        assert read_table(f"{store}/t/shard.arrow")["n"].to_pylist() == values


# --- credentials ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [("--workers", "1"), ("--workers", "2", "--mode", "processes"), ("--dry_run",)])
def test_no_credential_is_printed_or_written(
    corpus: Path, s3: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str], how: tuple[str, ...]
) -> None:
    output = f"{s3.url}/hidden{len(how)}"
    configure_filesystems(s3.options)
    upload(corpus, f"{output}/raw")
    options = (*s3.options, *how, "--debug")
    args = ["--input", f"{output}/raw", "--source", "lib", "--output", f"{output}/ingest"]
    assert ingest.main([*args, *options]) == 0
    printed = "".join(capfd.readouterr())
    assert "ingest" in printed
    written = {**s3.objects(output[len("s3://corpus/") :]), "printed": printed.encode()}
    assert [name for name, data in written.items() if s3.leaks(data)] == []


class Refusing(http.server.BaseHTTPRequestHandler):
    """Answers every request as S3 does to a key that it does not know: the answer names the key."""

    secret: bytes

    def answer(self) -> None:
        body = b"<Error><Code>InvalidAccessKeyId</Code><Message>No key %s</Message></Error>" % self.secret
        self.send_response(403)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""


@pytest.fixture
def refusing(s3: Any) -> Iterator[str]:
    Refusing.secret = f"{s3.key_id} with {s3.secret}".encode()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_no_credential_stands_in_an_error(
    corpus: Path,
    s3: Any,
    refusing: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: Any,
    debug: list[str],
) -> None:
    options = [*s3.options_for(refusing), "--workers", "1", *debug]
    source = ["--source", "lib"]
    assert ingest.main(["--input", "s3://corpus/raw", *source, "--output", str(tmp_path / "a"), *options]) == 1
    assert ingest.main(["--input", str(corpus), *source, "--output", "s3://corpus/b", *options]) == 1
    assert clean.main(["--input", "s3://corpus/c", "--output", str(tmp_path / "d"), *options]) == 1
    signed = f"https://host/raw.jsonl?X-Amz-Credential={s3.key_id}&X-Amz-Signature={s3.secret}"
    assert ingest.main(["--input", signed, *source, "--output", str(tmp_path / "e"), "--workers", "1"]) == 1
    assert (
        ingest.main(["--input", f"s3://u:{s3.secret}@corpus/x", *source, "--output", str(tmp_path / "f"), *options])
        == 1
    )
    printed = ("".join(capfd.readouterr()) + caplog.text).encode()
    assert printed.count(b"error:") >= 5
    assert not s3.leaks(printed)
    assert list(tmp_path.iterdir()) == [], "no output, not even a part of one"


def test_a_worker_process_that_fails_shows_no_credential(
    corpus: Path, s3: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    configure_filesystems(s3.options)
    upload(corpus, f"{s3.url}/broken/raw")
    args = ["--input", f"{s3.url}/broken/raw", "--source", "lib", "--output", f"{s3.url}/broken/out", *s3.options]
    broken = ["--set", "read.text_field=missing", "--set", "rejected_floor=0"]
    assert ingest.main([*args, *broken, "--workers", "2", "--mode", "processes", "--debug"]) == 1
    printed = "".join(capfd.readouterr()).encode()
    assert b"could not be read" in printed
    assert not s3.leaks(printed)
    assert s3.objects("broken/out") == {}, "no partial output"


# --- errors that a person can mend ------------------------------------------------------------------------------------


def test_what_cannot_succeed_is_not_tried_for_minutes(
    s3: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_sleep(*_: Any) -> None:
        raise AssertionError("Beam waits before it tries again")

    monkeypatch.setattr("apache_beam.utils.retry.Clock.sleep", no_sleep)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    output = ["--source", "lib", "--output", str(tmp_path / "out"), "--workers", "1"]
    assert ingest.main(["--input", "s3://No_Bucket At_All/x", *output, *s3.options]) == 1
    assert "Invalid bucket name" in capfd.readouterr().err
    assert ingest.main(["--input", "s3://corpus/raw", *output, "--s3_region_name=us-east-1"]) == 1
    assert "Unable to locate credentials" in capfd.readouterr().err


@pytest.mark.parametrize("store_options", ["s3", "gcs"])
def test_a_bucket_that_is_missing_is_named(
    s3: Any, gcs: str, corpus: Path, capfd: pytest.CaptureFixture[str], store_options: str
) -> None:
    scheme, options = ("s3", s3.options) if store_options == "s3" else ("gs", ("--no_auth",))
    args = ["--source", "lib", "--workers", "1", *options]
    assert ingest.main(["--input", str(corpus), "--output", f"{scheme}://absent-bucket/out", *args]) == 1
    assert "absent-bucket" in capfd.readouterr().err
