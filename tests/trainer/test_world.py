import pytest
import torch
import torch.distributed as dist

from trainer import world
from trainer.world import World, launch, processes


def test_alone_there_is_nothing_to_add_and_no_process_group() -> None:
    me = World()
    tensor = torch.ones(2)
    assert me.sum(tensor) is tensor
    assert me.gather("x") == ["x"]
    assert not dist.is_initialized()


def test_as_many_processes_as_cores_and_micro_batches_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "cores", lambda: 6)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("RANK", raising=False)
    assert [processes(0, most) for most in (1, 2, 6, 8)] == [1, 2, 2, 4]  # four cannot share six
    assert processes(2, 8) == 2
    monkeypatch.setenv("RANK", "0")
    assert processes(0, 8) == processes(4, 8) == 1  # torchrun has started the others


def test_one_process_runs_in_place() -> None:
    seen: list[int] = []
    assert launch(1, lambda x: seen.append(x) or 7, 3) == 7
    assert seen == [3]
