"""kill -9 and full disks at any moment: the output is the old dataset or the new one, and a rerun gives its bytes."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from schemas.manifest import MANIFEST_PATH, parse

Run = Callable[..., dict[str, Any]]
KILLED = -9


class Setting(NamedTuple):
    """Two inputs, and what the stage makes of each; `args` makes the command line of a run into a directory."""

    root: Path
    stage: str
    old_sha256: str
    new_sha256: str
    seconds: float
    calls: int

    @property
    def out(self) -> Path:
        return self.root / "work" / "out"

    def reset(self) -> None:
        """Put the old dataset there, and nothing else."""
        shutil.rmtree(self.out.parent, ignore_errors=True)
        shutil.copytree(self.root / "old", self.out)

    def argv(self) -> list[str]:
        return arguments(self.stage, self.root / "input-new", self.out)


def arguments(stage: str, source: Path, output: Path) -> list[str]:
    settings = {"clean": "filters.min_chars=40", "shard": "shard_bytes=30000"}
    return ["--input", str(source), "--output", str(output), "--set", settings[stage]]


def identity(directory: Path) -> str:
    """Check a dataset directory against its manifest, byte for byte, file for file; returns the manifest's sha256."""
    raw = (directory / MANIFEST_PATH).read_bytes()
    manifest = parse(raw)
    named = {shard.path for shard in manifest.shards} | set(manifest.facts.get("extra_files", [])) | {MANIFEST_PATH}
    found = {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}
    assert found == named, "files that the manifest does not name, or that are missing"
    for shard in manifest.shards:
        assert hashlib.sha256((directory / shard.path).read_bytes()).hexdigest() == shard.sha256, shard.path
    return hashlib.sha256(raw).hexdigest()


def leftovers(setting: Setting) -> set[str]:
    """What stands beside the output; only hidden names may, and only after a kill."""
    return {path.name for path in setting.out.parent.iterdir()} - {"out"}


def text(number: int) -> str:
    rng = random.Random(number)
    return " ".join(rng.choice(["the", "quick", "brown", "fox", "jumps", "over"]) for _ in range(40)) + "."


@pytest.fixture(scope="module")
def setting(request: pytest.FixtureRequest, run_stage: Run, tmp_path_factory: pytest.TempPathFactory) -> Setting:
    root, stage = tmp_path_factory.mktemp(request.param), request.param
    for name, count in (("old", 100), ("new", 250)):
        path = root / f"{name}.jsonl"
        path.write_text("".join(json.dumps({"id": i, "text": text(i)}) + "\n" for i in range(count)))
        argv = ["--input", str(path), "--source", "s", "--id-field", "id", "--output", str(root / f"input-{name}")]
        small = ["--set", "shard_bytes=20000", "--set", "read.batch_bytes=10000"]
        assert run_stage("ingest", *argv, *small)["code"] == 0
        assert run_stage(stage, *arguments(stage, root / f"input-{name}", root / name), warm=True)["code"] == 0
    first = Setting(root, stage, identity(root / "old"), identity(root / "new"), 0.0, 0)
    assert first.old_sha256 != first.new_sha256
    first.reset()
    timed = run_stage(stage, *first.argv())
    first.reset()
    counted = run_stage(stage, *first.argv(), at=0)
    assert timed["code"] == counted["code"] == 0 and counted["calls"] > 20
    assert identity(first.out) == first.new_sha256
    return first._replace(seconds=timed["seconds"], calls=counted["calls"])


def check(setting: Setting, run_stage: Run, *, rerun: bool = True) -> str:
    """Say which dataset is there after a kill; the rerun must give the new one and leave nothing beside it."""
    state = identity(setting.out)
    assert state in (setting.old_sha256, setting.new_sha256)
    assert all(name.startswith(".") for name in leftovers(setting))
    if rerun:
        assert run_stage(setting.stage, *setting.argv())["code"] == 0
        assert identity(setting.out) == setting.new_sha256 and not leftovers(setting)
    return "old" if state == setting.old_sha256 else "new"


@pytest.mark.parametrize("setting", ["clean", "shard"], indirect=True)
def test_kill_at_20_random_moments(setting: Setting, run_stage: Run) -> None:
    rng = random.Random(20)
    killed, seconds = 0, setting.seconds
    for _ in range(60):
        setting.reset()
        ended = run_stage(setting.stage, *setting.argv(), delay=rng.uniform(0, 1.05 * seconds))
        if ended["code"] == KILLED:
            killed += 1
        else:  # it was timed on a busier machine
            seconds = min(seconds, ended["seconds"])
        check(setting, run_stage, rerun=ended["code"] == KILLED and killed % 4 == 0)
        if killed == 20:
            return
    pytest.fail(f"only {killed} of 60 moments fell into the run")


@pytest.mark.parametrize("setting", ["clean"], indirect=True)
def test_kill_at_calls_to_the_disk(setting: Setting, run_stage: Run) -> None:
    """All calls of the commit, and some of those before it."""
    states = []
    commit = setting.calls - 14
    for at in [*range(1, commit, max(1, commit // 8)), *range(commit, setting.calls + 1)]:
        setting.reset()
        assert run_stage(setting.stage, *setting.argv(), fault="kill", at=at)["code"] == KILLED
        states.append(check(setting, run_stage, rerun=at % 5 == 0))
    assert "old" in states and "new" in states and states == sorted(states, reverse=True), "first old, then new"


@pytest.mark.parametrize("setting", ["shard"], indirect=True)
def test_kills_in_a_row_without_a_sweep_between(setting: Setting, run_stage: Run) -> None:
    setting.reset()
    for at in range(2, setting.calls - 6, max(1, setting.calls // 8)):
        assert run_stage(setting.stage, *setting.argv(), fault="kill", at=at)["code"] == KILLED
        assert check(setting, run_stage, rerun=False) == "old"
    check(setting, run_stage)


@pytest.mark.parametrize("setting", ["clean"], indirect=True)
def test_a_disk_that_is_full_at_any_call(setting: Setting, run_stage: Run) -> None:
    for at in [
        *range(1, setting.calls - 12, max(1, setting.calls // 10)),
        *range(setting.calls - 12, setting.calls + 1),
    ]:
        setting.reset()
        ended = run_stage(setting.stage, *setting.argv(), fault="full", at=at)
        state = check(setting, run_stage, rerun=False)
        assert not leftovers(setting), "a run that ends by itself cleans up"
        if ended["code"] == 0:
            assert state == "new"
        else:
            assert ended["code"] == 1 and "No space left on device" in ended["console"]
            assert "Traceback" not in ended["console"]


@pytest.mark.parametrize("setting", ["clean", "shard"], indirect=True)
def test_a_file_that_may_not_grow_fails_the_run_and_keeps_the_old_dataset(setting: Setting, run_stage: Run) -> None:
    setting.reset()
    ended = run_stage(setting.stage, *setting.argv(), limit=4096)
    assert ended["code"] == 1 and "File too large" in ended["console"]
    assert check(setting, run_stage, rerun=False) == "old" and not leftovers(setting)


@pytest.mark.parametrize("setting", ["clean", "shard"], indirect=True)
def test_a_disk_that_is_really_full(setting: Setting, run_stage: Run) -> None:
    disk = setting.root / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "gristmill-test", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a small disk here")
    try:
        ended = run_stage(setting.stage, *arguments(setting.stage, setting.root / "input-new", disk / "out"))
        assert ended["code"] == 1 and "No space left on device" in ended["console"]
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)
