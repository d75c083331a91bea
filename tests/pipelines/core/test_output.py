"""The output directory: the old dataset or the new one, one writer at a time, and never somebody else's files."""

from __future__ import annotations

import errno
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest

from pipelines.core import output
from pipelines.core.output import Output, OutputError
from pipelines.core.shards import write_bytes
from schemas.manifest import MANIFEST_PATH, Manifest, Shard, parse


def manifest(*paths: str, **facts: Any) -> Manifest:
    shards = [Shard(path, path.split("/")[0], 0, 0, "", "") for path in paths]
    return Manifest("clean", {}, {}, [], shards, {}, facts)


def put(claimed: Output, *paths: str, content: str = "new") -> None:
    for path in paths:
        write_bytes(str(Path(claimed.root) / path), content.encode())


def tree(root: Path) -> dict[str, str]:
    """The files below a directory but its manifests, hidden ones included, with their content."""
    found = (path for path in sorted(root.rglob("*")) if path.is_file() and path.name != "manifest.json")
    return {path.relative_to(root).as_posix(): path.read_text() for path in found}


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def make(root: Path, *paths: str, content: str) -> None:
    claimed = Output(str(root))
    put(claimed, *paths, content=content)
    claimed.commit(manifest(*paths))


def test_nothing_is_visible_before_the_commit_and_everything_after(tmp_path: Path) -> None:
    claimed = Output(str(tmp_path / "data" / "clean"))
    put(claimed, "documents/a.arrow")
    assert not (tmp_path / "data" / "clean").exists()
    claimed.commit(manifest("documents/a.arrow"))
    assert tree(tmp_path / "data") == {"clean/documents/a.arrow": "new"}
    assert parse((tmp_path / "data/clean" / MANIFEST_PATH).read_bytes()) == manifest("documents/a.arrow")


def test_a_new_dataset_replaces_the_old_one_whole(tmp_path: Path) -> None:
    make(tmp_path / "d", "documents/a.arrow", "documents/b.arrow", content="old")
    claimed = Output(str(tmp_path / "d"))
    put(claimed, "documents/a.arrow")
    assert tree(tmp_path / "d") == {"documents/a.arrow": "old", "documents/b.arrow": "old"}
    claimed.commit(manifest("documents/a.arrow"))
    assert tree(tmp_path) == {"d/documents/a.arrow": "new"}


def test_what_the_manifest_does_not_name_is_swept(tmp_path: Path) -> None:
    claimed = Output(str(tmp_path / "d"))
    put(
        claimed,
        "documents/a.arrow",
        "documents/stale.arrow",
        "_scratch/x/edges.arrow",
        "_meta/reports/r.json",
        "README.md",
    )
    claimed.commit(manifest("documents/a.arrow", extra_files=["README.md"]))
    assert tree(tmp_path / "d") == {"README.md": "new", "documents/a.arrow": "new"}
    assert not (tmp_path / "d" / "_scratch").exists()


def test_an_abort_leaves_the_old_dataset_and_nothing_else(tmp_path: Path) -> None:
    make(tmp_path / "d", "documents/a.arrow", content="old")
    claimed = Output(str(tmp_path / "d"))
    put(claimed, "documents/a.arrow")
    claimed.abort()
    claimed.abort()  # twice is once
    assert tree(tmp_path) == {"d/documents/a.arrow": "old"} and names(tmp_path) == ["d"]


def test_a_second_writer_is_refused_until_the_first_is_done(tmp_path: Path) -> None:
    first = Output(str(tmp_path / "d"))
    put(first, "documents/a.arrow")
    with pytest.raises(OutputError, match=r"another run is writing .*/d; wait for it, or stop it"):
        Output(str(tmp_path / "d"))
    other = Output(str(tmp_path / "d2"))  # a neighbour is not disturbed
    first.commit(manifest("documents/a.arrow"))
    other.abort()
    second = Output(str(tmp_path / "d"))
    second.abort()
    assert names(tmp_path) == ["d"]


def _try_to_write(path: str, results: Any) -> None:
    try:
        Output(path).abort()
        results.put("wrote")
    except OutputError as error:
        results.put(str(error))


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    first = Output(str(tmp_path / "d"))
    put(first, "documents/a.arrow")
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    process = context.Process(target=_try_to_write, args=(str(tmp_path / "d"), results))
    process.start()
    assert "another run is writing" in results.get(timeout=60)
    process.join()
    first.commit(manifest("documents/a.arrow"))
    assert tree(tmp_path) == {"d/documents/a.arrow": "new"}


def test_what_a_killed_run_left_is_swept(tmp_path: Path) -> None:
    make(tmp_path / "d", "documents/a.arrow", content="old")
    killed = Output(str(tmp_path / "d"))
    put(killed, "documents/half.arrow", "_scratch/x")
    os.close(os.dup(killed._lock.fileno()))  # type: ignore[union-attr]
    killed._lock.close()  # type: ignore[union-attr]  # as the kernel does for a killed process
    make(tmp_path / "d", "documents/b.arrow", content="new")
    assert tree(tmp_path) == {"d/documents/b.arrow": "new"} and names(tmp_path) == ["d"]


@pytest.mark.parametrize("held", ["file", "files", "foreign manifest", "newer"])
def test_a_place_that_holds_something_else_is_refused_and_untouched(tmp_path: Path, held: str) -> None:
    target = tmp_path / "d"
    if held == "file":
        target.write_text("thesis")
    else:
        (target / "_meta").mkdir(parents=True)
        (target / "thesis.txt").write_text("thesis")
    if held == "foreign manifest":
        (target / MANIFEST_PATH).write_text('{"name": "an app"}')
    if held == "newer":
        (target / MANIFEST_PATH).write_text('{"format_version": [9, 0]}')
    before = tree(tmp_path)
    with pytest.raises(OutputError, match="holds something else than"):
        Output(str(target))
    assert tree(tmp_path) == before and names(tmp_path) == ["d"]


def test_an_empty_directory_is_taken(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    make(tmp_path / "d", "documents/a.arrow", content="new")
    assert tree(tmp_path) == {"d/documents/a.arrow": "new"}


def test_a_link_to_a_directory_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    make(tmp_path / "disk" / "real", "documents/a.arrow", content="old")
    (tmp_path / "d").symlink_to(tmp_path / "disk" / "real")
    make(tmp_path / "d", "documents/a.arrow", content="new")
    assert (tmp_path / "d").is_symlink() and tree(tmp_path / "disk") == {"real/documents/a.arrow": "new"}


@pytest.mark.parametrize("path", ["d/", "./d", "sub/../d"])
def test_ways_to_write_a_path_mean_one_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    first = Output("d")
    with pytest.raises(OutputError, match="another run"):
        Output(path)
    first.abort()


def test_a_directory_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write beside .*file/d: (Not a directory|File exists)"):
        Output(str(tmp_path / "file" / "d"))


@pytest.mark.parametrize("stage", ["before", "between", "after"])
def test_without_an_exchange_of_directories_a_kill_never_costs_the_old_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """NFS knows no RENAME_EXCHANGE: two renames stand in, and the next run mends what a kill left between them."""

    class Killed(BaseException):
        pass

    monkeypatch.setattr(output.sys, "platform", "other")
    make(tmp_path / "d", "documents/a.arrow", content="old")
    claimed = Output(str(tmp_path / "d"))
    put(claimed, "documents/a.arrow")
    rename, calls = Path.rename, []

    def killed(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == {"before": 1, "between": 2, "after": 3}[stage]:
            raise Killed
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(Killed):
        claimed.commit(manifest("documents/a.arrow"))
    claimed._lock.close()  # type: ignore[union-attr]
    monkeypatch.setattr(Path, "rename", rename)
    again = Output(str(tmp_path / "d"))
    assert tree(tmp_path / "d") == {"documents/a.arrow": "new" if stage == "after" else "old"}
    again.abort()
    assert names(tmp_path) == ["d"]


def test_a_failed_rename_puts_the_old_dataset_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output.sys, "platform", "other")
    make(tmp_path / "d", "documents/a.arrow", content="old")
    claimed = Output(str(tmp_path / "d"))
    put(claimed, "documents/a.arrow")
    rename = Path.rename

    def refused(self: Path, target: Path) -> Path:
        if self.name == ".d.partial":
            raise OSError(errno.EACCES, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(OSError, match="Permission denied"):
        claimed.commit(manifest("documents/a.arrow"))
    claimed.abort()
    assert tree(tmp_path) == {"d/documents/a.arrow": "old"} and names(tmp_path) == ["d"]


def test_the_exchange_is_one_system_call_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "d", "documents/a.arrow", content="old")
    monkeypatch.setattr(Path, "rename", lambda *_: pytest.fail("two renames where one exchange does"))
    if output.sys.platform != "linux":
        pytest.skip("only Linux exchanges directories")
    make(tmp_path / "d", "documents/a.arrow", content="new")
    assert tree(tmp_path) == {"d/documents/a.arrow": "new"}
