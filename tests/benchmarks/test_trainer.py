"""What the trainer's benchmark measures: the same rows on both sides, steady steps alone, the peer's better side."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

_ROOT = Path(__file__).resolve().parents[2]
_FOLDER = _ROOT / "benchmarks"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="measuring process trees needs Linux")


@pytest.fixture(scope="module")
def modules() -> Any:
    """The benchmark's modules; its own folder is on the path only while they load."""
    sys.path.append(str(_FOLDER))  # behind the repository's root, as trainer.py has it
    known = set(sys.modules)
    found: dict[str, ModuleType] = {}
    try:
        for name in ("trainer_table", "trainer_speed", "trainer_loading", "trainer_gpu"):
            spec = importlib.util.spec_from_file_location(name, _FOLDER / f"{name}.py")
            assert spec and spec.loader
            found[name] = sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(found[name])
        yield found
    finally:
        sys.path.remove(str(_FOLDER))
        for name in {*found, "measure", "peers", "peers.trainer_rows"} - known:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def packed(modules: dict[str, ModuleType], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    return modules["trainer_gpu"].generate(folder, 64, 300, {"train": 53, "validation": 5})


def test_generated_rows_are_valid_and_the_same_each_time(
    modules: dict[str, ModuleType], packed: Path, tmp_path: Path
) -> None:
    import pyarrow as pa

    from schemas.manifest import MANIFEST_PATH
    from schemas.packed import validate

    for table, rows in (("train", 53), ("validation", 5)):
        found = pa.ipc.open_file(str(packed / table / "shard-00000.arrow")).read_all()
        validate(found, 64, 300)
        assert len(found) == rows
    again = modules["trainer_gpu"].generate(tmp_path / "again", 64, 300, {"train": 53, "validation": 5})
    assert (again / MANIFEST_PATH).read_bytes() == (packed / MANIFEST_PATH).read_bytes()


def test_batches_hold_each_row_once_with_its_boundaries(modules: dict[str, ModuleType], packed: Path) -> None:
    from trainer.data import PackedDataset

    loading, dataset = modules["trainer_loading"], PackedDataset(packed, "train")
    whole = dataset.rows(np.arange(53))
    wanted = {}
    pieces = np.split(whole.lens, np.flatnonzero(np.cumsum(whole.lens) % 64 == 0)[:-1] + 1)
    for row, lens in zip(whole.input_ids, pieces, strict=True):
        wanted[row.tobytes()] = [0, *np.cumsum(lens).tolist()]
    ours, found = loading.Ours(packed, 8), {}
    for ids, cu_seqlens in ours.epoch(0):
        ends = cu_seqlens.tolist()
        assert str(ids.dtype) == "torch.int64"
        assert ends[-1] == ids.numel()
        for number, row in enumerate(ids.numpy()):
            inside = [end - 64 * number for end in ends if 64 * number <= end <= 64 * (number + 1)]
            found[row.tobytes()] = inside
    assert found == wanted
    assert [len(batch[0]) for batch in ours.epoch(1)] == [8] * 6 + [5]
    assert next(ours.epoch(0, masks=True))[2].shape == (8 * 19,)  # 30 % of 64 slots


def test_digest_ignores_the_order_of_rows_and_sees_any_change(modules: dict[str, ModuleType]) -> None:
    digest = sys.modules["peers.trainer_rows"].digest
    ids, lens, counts = np.arange(12).reshape(3, 4), np.array([4, 1, 3, 2, 1]), np.array([1, 2, 2])
    whole = digest([(ids, lens, counts)])
    assert digest([(ids[1:], lens[1:], counts[1:]), (ids[:1], lens[:1], counts[:1])]) == whole
    assert digest([(ids, np.array([4, 2, 2, 2, 1]), counts)])["boundaries"] != whole["boundaries"]
    assert digest([(ids[:, ::-1].copy(), lens, counts)])["tokens"] != whole["tokens"]
    bare = digest([(ids, None, None)])
    assert (bare["tokens"], bare["boundaries"]) == (whole["tokens"], None)
    same = modules["trainer_loading"].same
    assert [same(whole, other) for other in (whole, bare, digest([(ids[:2], lens[:3], counts[:2])]))] == [
        "yes", "tokens only", "NO: 2",
    ]  # fmt: skip
    with pytest.raises(TypeError, match="int32"):
        digest([(ids.astype(np.int32), lens, counts)])


def test_rate_is_tokens_over_seconds_of_the_steps_after_the_warm_up(modules: dict[str, ModuleType]) -> None:
    steps = [(1, 100, 1.0), (2, 100, 100.0), (3, 300, 100.0)]  # 1 s and 3 s after the slow first
    lines = [{"kind": "train", "step": s, "tokens": n, "tokens_per_second": rate} for s, n, rate in steps]
    assert modules["trainer_speed"].rate_of([*lines, {"kind": "validation", "step": 3}], 1) == pytest.approx(100)


def test_a_ratio_is_the_median_of_pairs_and_the_better_peer_counts(modules: dict[str, ModuleType]) -> None:
    speed = modules["trainer_speed"]
    slow, fast = [((10.0, 0.0), (2.0, 0.0)), ((30.0, 0.0), (10.0, 0.0)), ((9.0, 0.0), (1.0, 0.0))], [((8.0,), (4.0,))]
    assert speed.ratio_of(slow) == 5
    assert speed.faster({("way", 1): slow, ("way", 2): fast}, "way") == 2
    row, verdict = modules["trainer_table"].Row, modules["trainer_table"].verdict
    assert [verdict(row("", "", 1, ratio=r, target=1.5)) for r in (1.5, 1.49, None)] == ["met", "missed", ""]


def test_without_data_or_a_gpu_the_command_says_so() -> None:
    code = "import runpy, torch; torch.cuda.is_available = lambda: False; sys.argv = ['', '--only', 'gpu', '--only', "
    code += "'loading']; runpy.run_path(sys.path[0] + '/trainer.py', run_name='__main__')"
    program = f"import sys; sys.path.insert(0, {str(_FOLDER)!r}); {code}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "not measured: loading; name a directory of packed rows with --data" in done.stdout
    assert "GPU: not measured, no CUDA device here" in done.stdout
