"""Filesystem helpers: what they list, how they name it, and that no credential reaches a message."""

import os
from pathlib import Path

import pytest

from pipelines.core import files


def test_redact_hides_user_info_signed_parameters_and_named_secrets() -> None:
    assert files.redact("s3://key:pass@bucket/a.jsonl") == "s3://***@bucket/a.jsonl"
    signed = "https://host/a?X-Amz-Credential=AK%2F2026&X-Amz-Signature=abcdef&part=3"
    assert files.redact(signed) == "https://host/a?X-Amz-Credential=***&X-Amz-Signature=***&part=3"
    assert files.redact("--s3_secret_access_key=abc --x=1").startswith("--s3_secret_access_key=*** ")
    assert files.redact("{'access_token': 'abc', 'n': 1}") == "{'access_token': '***', 'n': 1}"


def test_redact_hides_the_values_of_secret_environment_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
    assert files.redact("signing with wJalrXUtnFEMI failed") == "signing with *** failed"


@pytest.mark.parametrize(
    "text", ["no such file: data/tokens/a.jsonl", "gs://bucket/a@b/c.jsonl", "mail me@example.org"]
)
def test_redact_leaves_ordinary_names_alone(text: str) -> None:
    assert files.redact(text) == text


def test_join_and_relative_keep_slashes_and_schemes() -> None:
    assert files.join("gs://bucket/a/", "b", "c.jsonl") == "gs://bucket/a/b/c.jsonl"
    assert files.relative("gs://bucket/a/b/c.jsonl", "gs://bucket/a/") == "b/c.jsonl"
    assert files.relative("data/x/y.jsonl", "data") == "x/y.jsonl"
    with pytest.raises(files.FileError, match="does not lie under"):
        files.relative("gs://bucket/ab/c", "gs://bucket/a")
    with pytest.raises(files.FileError, match="does not lie under"):
        files.relative("data/../x", "data")


def test_relative_of_a_name_that_is_not_utf8_is_valid_text() -> None:
    assert files.relative(os.fsdecode(b"d/\xff.txt"), "d") == "\\xff.txt"


def test_open_read_gives_raw_bytes_of_a_compressed_suffix(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(b"not gzip")
    with files.open_read(str(tmp_path / "a.gz")) as raw:
        assert raw.read() == b"not gzip"


def test_open_read_of_a_missing_file_names_it(tmp_path: Path) -> None:
    with pytest.raises(files.FileError, match="absent"):
        files.open_read(str(tmp_path / "absent"))


def test_an_unknown_scheme_is_an_error_without_its_credentials() -> None:
    with pytest.raises(files.FileError) as caught:
        files.open_read("nope://user:hunter2@host/a")
    assert "hunter2" not in str(caught.value)


def test_match_lists_sorted_and_takes_brackets_of_an_existing_name_literally(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "a[1].jsonl", "c.txt"):
        (tmp_path / name).write_text(name)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "d.jsonl").write_text("")
    names = [Path(path).name for path, _ in files.match(f"{tmp_path}/*.jsonl")]
    assert names == ["a.jsonl", "a[1].jsonl", "b.jsonl"]
    assert [Path(path).name for path, _ in files.match(f"{tmp_path}/**.jsonl")] == [*names, "d.jsonl"]
    assert files.match(f"{tmp_path}/a[1].jsonl") == [(f"{tmp_path}/a[1].jsonl", 10)]
    assert files.match(f"{tmp_path}/absent.jsonl") == []
    assert files.exists(f"{tmp_path}/b.jsonl") and not files.exists(f"{tmp_path}/absent")


def test_list_tree_follows_links_once_and_leaves_pipes_out(tmp_path: Path) -> None:
    (tmp_path / "root" / "sub").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "o.txt").write_text("12")
    (tmp_path / "root" / "a.txt").write_text("1")
    (tmp_path / "root" / "linked").symlink_to(tmp_path / "outside")
    (tmp_path / "root" / "sub" / "loop").symlink_to(tmp_path / "root")
    os.mkfifo(tmp_path / "root" / "pipe")
    root = str(tmp_path / "root")
    assert files.list_tree(root) == [(f"{root}/a.txt", 1), (f"{root}/linked/o.txt", 2)]
    assert files.list_tree(f"{root}/absent") == []


def test_list_tree_refuses_a_link_that_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "gone.txt").symlink_to(tmp_path / "never")
    with pytest.raises(files.FileError, match=r"gone\.txt is a link"):
        files.list_tree(str(tmp_path))
