"""dvc.yaml: every stage depends on the code that it imports, and reads only the parameters that it uses."""

from __future__ import annotations

import ast
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
OURS = ("pipelines", "schemas", "trainer")
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))


def body(stage: str) -> dict[str, Any]:
    return STAGES[stage].get("do", STAGES[stage])


def module_file(module: str) -> Path | None:
    base = ROOT / Path(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.exists():
            return path
    return None


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
    return {name for name in found if name.split(".")[0] in OURS}


def closure(module: str) -> set[str]:
    """Files of ours that a module imports, directly or not, relative to the root."""
    seen: set[Path] = set()
    waiting = [module]
    while waiting:
        path = module_file(waiting.pop())
        if path is not None and path not in seen:
            seen.add(path)
            waiting += imports(path)
    return {path.relative_to(ROOT).as_posix() for path in seen if path.name != "__init__.py"}


def code_dependencies(stage: str) -> list[str]:
    """The stage's dependencies that are code of ours (not the tables that lie beside it)."""
    return [dep for dep in body(stage)["deps"] if dep.split("/")[0] in OURS and not dep.endswith("/data")]


def covers(dependency: str, path: str) -> bool:
    return path == dependency or path.startswith(f"{dependency}/")


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_a_stage_is_run_again_when_code_that_it_imports_changes(stage: str) -> None:
    command = shlex.split(body(stage)["cmd"])
    module = command[command.index("-m") + 1]
    code = code_dependencies(stage)
    missing = sorted(path for path in closure(module) if not any(covers(dep, path) for dep in code))
    assert not missing, f"{stage}: dvc.yaml does not name {missing}"


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_a_stage_is_not_run_again_for_code_that_it_does_not_import(stage: str) -> None:
    command = shlex.split(body(stage)["cmd"])
    used = closure(command[command.index("-m") + 1])
    idle = [dep for dep in code_dependencies(stage) if not any(covers(dep, path) for path in used)]
    assert not idle, f"{stage}: dvc.yaml names {idle}, which it never imports"


def test_every_section_of_the_parameters_belongs_to_a_stage() -> None:
    read = {param for stage in STAGES for param in body(stage).get("params", [])}
    assert {name.split(".")[0] for name in read} == set(PARAMS)


def test_byte_code_never_makes_a_stage_look_changed() -> None:
    assert "__pycache__/" in (ROOT / ".dvcignore").read_text(encoding="utf-8").splitlines()
