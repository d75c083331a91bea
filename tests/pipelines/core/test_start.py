"""The garbage collector is off while a command imports, and only then."""

from __future__ import annotations

import gc
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import pipelines
from pipelines import __main__ as command
from pipelines.core.cli import guarded
from pipelines.core.start import command_of, imported, importing

PIPELINES = Path(pipelines.__file__).parent


@pytest.fixture
def collector() -> Iterator[None]:
    yield
    gc.enable()
    gc.unfreeze()


@pytest.mark.usefixtures("collector")
def test_garbage_is_collected_while_a_command_works() -> None:
    importing("pipelines.x")
    importing("pipelines.x")  # `python -m pipelines` does it twice
    seen = []
    assert guarded("x", lambda: seen.append((gc.isenabled(), gc.get_freeze_count() > 0))) == 0
    assert seen == [(True, True)]


@pytest.mark.usefixtures("collector")
def test_a_collector_that_the_caller_has_switched_off_stays_off() -> None:
    before = gc.get_freeze_count()
    gc.disable()
    importing("pipelines.x")
    imported()
    assert not gc.isenabled() and gc.get_freeze_count() == before


def test_a_command_that_is_called_as_a_function_freezes_nothing_of_its_caller(tmp_path: Path) -> None:
    before = gc.get_freeze_count()
    assert command.main(["verify", str(tmp_path / "none")]) == 1
    assert gc.isenabled() and gc.get_freeze_count() == before


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("python -m pipelines.clean --input x", "pipelines.clean"),
        ("python -X dev -m pipelines clean", "pipelines"),
        ("python -m pipelines.core.worker", "pipelines.core.worker"),
        ("python -m pipelines.text.make_han", ""),
        ("python -m mytool.serve -m pipelines.clean", ""),
        ("python -m pipelinesque", ""),
        ("python -m", ""),
        ("python -c pass", ""),
        ("", ""),
    ],
)
def test_only_our_own_commands_leave_the_collector_off(arguments: str, expected: str) -> None:
    assert command_of(arguments.split()) == expected


@pytest.mark.parametrize(
    ("run", "expected"),
    [(["-m", "pipelines.told"], "False"), (["-m", "told"], "True"), (["-c", "import told"], "True")],
)
def test_it_is_off_while_a_command_imports_and_for_nobody_else(tmp_path: Path, run: list[str], expected: str) -> None:
    told = "import gc, pipelines\nprint(gc.isenabled())\n"
    (tmp_path / "told.py").write_text(told)
    copy = tmp_path / "pipelines"
    shutil.copytree(PIPELINES / "core", copy / "core", ignore=lambda *_: ["__pycache__"])
    shutil.copy(PIPELINES / "__init__.py", copy)
    (copy / "told.py").write_text(told)
    found = subprocess.run([sys.executable, *run], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout == f"{expected}\n"


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


def test_a_kernel_imports_no_scipy_and_others_may_as_ever() -> None:
    pytest.importorskip("scipy", reason="there is none to be imported")
    program = """
        import sys
        from pipelines.core.start import imported, importing
        importing("pipelines.x")
        import numpy as np
        from pipelines.images.hashing import deviations
        imported()
        print(deviations(np.zeros((1, 4096), np.uint8)), "scipy.linalg" in sys.modules)
        import scipy.linalg
        print(scipy.linalg.norm([3, 4]))
    """
    run = [sys.executable, "-c", textwrap.dedent(program)]
    found = subprocess.run(run, cwd=PIPELINES.parent, capture_output=True, text=True, check=True)
    assert found.stdout == "[0.] False\n5.0\n"


@pytest.mark.parametrize(("module", "expected"), [("pipelines.x", "False"), ("trainer.x", "True")])
def test_no_pipeline_imports_pandas_and_others_may_as_ever(module: str, expected: str) -> None:
    pytest.importorskip("pandas", reason="there is none to be imported")
    program = f"""
        import sys
        from pipelines.core.start import imported, importing
        importing({module!r})
        import apache_beam, pyarrow
        pyarrow.array([1])
        print("pandas" in sys.modules)
        imported()
        import pandas
        print(pandas.Series([1, 2]).sum())
    """
    run = [sys.executable, "-c", textwrap.dedent(program)]
    found = subprocess.run(run, cwd=PIPELINES.parent, capture_output=True, text=True, check=True)
    assert (found.stdout, found.stderr) == (f"{expected}\n3\n", "")
