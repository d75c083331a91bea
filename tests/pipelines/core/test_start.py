"""The garbage collector is off while a command imports, and only then."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pipelines
from pipelines.core.cli import guarded
from pipelines.core.start import imported, importing

PIPELINES = Path(pipelines.__file__).parent


@pytest.fixture
def collector() -> Iterator[None]:
    yield
    gc.enable()
    gc.unfreeze()


@pytest.mark.usefixtures("collector")
def test_garbage_is_collected_while_a_command_works() -> None:
    importing()
    seen = []
    assert guarded("x", lambda: seen.append((gc.isenabled(), gc.get_freeze_count() > 0))) == 0
    assert seen == [(True, True)]


def test_who_imports_the_package_keeps_its_collector_as_it_is() -> None:
    before = gc.get_freeze_count()
    imported()
    assert gc.isenabled() and gc.get_freeze_count() == before
    told = "import gc, pipelines.core.start; print(gc.isenabled())"
    assert subprocess.check_output([sys.executable, "-c", told], text=True) == "True\n"


def test_it_is_off_while_python_looks_for_the_module_of_a_command() -> None:
    told = "import gc, sys; sys.argv = ['-m']; import pipelines; print(gc.isenabled())"
    assert subprocess.check_output([sys.executable, "-c", told], text=True) == "False\n"


@pytest.mark.parametrize(
    "path",
    [
        path
        for path in sorted([*PIPELINES.glob("*.py"), *PIPELINES.glob("core/*.py")])
        if '__name__ == "__main__"' in path.read_text()
    ],
    ids=lambda path: path.stem,
)
def test_no_command_is_left_without_a_collector(path: Path) -> None:
    assert re.search(r"\b(guarded|imported|StageCommand)\(", path.read_text())
