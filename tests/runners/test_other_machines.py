"""Another working directory, locale, time zone, hash seed, umask, home and number of cores: the same bytes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHAIN = """
import importlib.util, os, sys
os.umask(int(sys.argv[3], 8))
spec = importlib.util.spec_from_file_location("chain", sys.argv[4])
chain = importlib.util.module_from_spec(spec)
spec.loader.exec_module(chain)
chain.run_chain([sys.argv[1]], sys.argv[2], *sys.argv[5:])
"""
HERE = {"TZ": "UTC", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0", "COLUMNS": "80"}
ELSEWHERE = {
    "TZ": "Asia/Shanghai",
    "LANG": "C",
    "LC_ALL": "C",
    "PYTHONHASHSEED": "4711",
    "COLUMNS": "200",
    "PYTHONUTF8": "0",
    "PYTHONOPTIMIZE": "1",
    "OMP_NUM_THREADS": "3",
    "ARROW_IO_THREADS": "1",
}


def run_as(
    machine: dict[str, str], corpus: Path, output: Path, cwd: Path, umask: str, prefix: list[str], *options: str
) -> None:
    cwd.mkdir()
    home = cwd / "home"
    home.mkdir()
    kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
    environment = {**kept, "HOME": str(home), "PYTHONPATH": str(ROOT), "TMPDIR": str(home), **machine}
    arguments = [str(corpus), str(output), umask, str(ROOT / "tests" / "runners" / "conftest.py"), *options]
    command = [*prefix, sys.executable, "-c", CHAIN, *arguments]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, timeout=240)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-3000:]
    left = [path.name for path in cwd.iterdir() if path != home]
    assert left == [], "a stage leaves nothing in the directory it is started from"


def one_core() -> list[str]:
    if shutil.which("taskset") is None or not hasattr(os, "sched_getaffinity"):
        return []
    return ["taskset", "-c", str(min(os.sched_getaffinity(0)))]


def test_another_machine_gives_the_same_bytes(corpus: Path, reference: dict[str, bytes], tmp_path: Path) -> None:
    run_as(HERE, corpus, tmp_path / "a", tmp_path / "cwd-a", "0022", one_core(), "--workers", "0")
    # Read-only and elsewhere: the corpus through another path, as after moving it to another machine.
    moved = tmp_path / "other" / "place"
    shutil.copytree(corpus, moved)
    run_as(ELSEWHERE, moved, tmp_path / "b", tmp_path / "cwd-b", "0077", [], "--workers", "3")
    for output in ("a", "b"):
        found = {
            str(path.relative_to(tmp_path / output)): path.read_bytes()
            for path in (tmp_path / output).rglob("*")
            if path.is_file()
        }
        assert sorted(found) == sorted(reference)
        assert [name for name in reference if found[name] != reference[name]] == [], output


def test_nothing_written_names_this_machine(corpus: Path, reference: dict[str, bytes], tmp_path: Path) -> None:
    """No absolute path, user, host or date of this machine stands in a dataset."""
    home = str(Path.home()).encode()
    words = [str(corpus).encode(), str(ROOT).encode(), os.uname().nodename.encode(), sys.prefix.encode()]
    words += [home] if len(home) > 6 else []
    assert [(name, word) for name, data in reference.items() for word in words if len(word) > 4 and word in data] == []
