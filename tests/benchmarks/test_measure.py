"""What a benchmark charges a command with: its whole process tree, and no more than the time it was given."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="measuring process trees needs Linux")
_FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
_BURN = "import time\nwhile time.process_time() < {}: pass"
# in a process of its own, because `measure` adopts all orphans of the process that calls it
_CALL = """
import dataclasses, json, sys
sys.path.insert(0, sys.argv[1])
from measure import measure
print(json.dumps(dataclasses.asdict(measure([sys.executable, "-c", sys.argv[2]], float(sys.argv[3])))))
"""


def _measure(program: str, timeout: float = 60) -> dict[str, Any]:
    command = [sys.executable, "-c", _CALL, str(_FOLDER), program, str(timeout)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_cpu_time_of_a_process_that_outlives_its_parent_counts() -> None:
    program = f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', '''{_BURN.format(0.6)}'''])"
    assert _measure(program)["cpu"] >= 0.6


def test_memory_is_summed_over_the_tree() -> None:
    hold = "block = b'x' * 60_000_000"
    child = f"import time\n{hold}\ntime.sleep(1)"
    program = f"import subprocess, sys\n{hold}\nsubprocess.run([sys.executable, '-c', {child!r}])"
    assert _measure(program)["resident"] > 120_000_000


def test_a_command_over_its_time_is_ended_and_marked() -> None:
    run = _measure("import time; time.sleep(60)", 0.5)
    assert run["timed_out"]
    assert 0.5 <= run["wall"] < 10


def test_a_failing_command_fails_the_measurement() -> None:
    with pytest.raises(AssertionError, match="CommandError"):
        _measure("raise SystemExit('no such input')")
