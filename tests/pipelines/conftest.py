"""Real text from ../shared for the tests of stages, where it is present."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.readers.base import InputFile, ReadConfig, Reject
from pipelines.readers.lines import read_lines

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"


@pytest.fixture(scope="session")
def real_records() -> Callable[..., list[dict[str, Any]]]:
    """A function (file name, count, skip=0) → records of a file of ../shared/data; skips where it is absent."""

    def read(name: str, count: int, skip: int = 0) -> list[dict[str, Any]]:
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"no real data here: {name} is not in ../shared/data")
        records = []
        for number, (_, line) in enumerate(read_lines(InputFile(str(path), name, 0, "jsonl"), ReadConfig())):
            if number >= skip + count:
                break
            if number >= skip:
                assert not isinstance(line, Reject)
                records.append(json.loads(line))
        return records

    return read
