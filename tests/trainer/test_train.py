"""The command itself: what it leaves behind, and that its bits depend on nothing but options and data."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

from schemas.losses import LOSSES
from trainer import checkpoint, evaluate
from trainer.config import Config, load
from trainer.metrics import Metrics, read
from trainer.train import Job, Paths, _work, main
from trainer.world import STOPPED, _child, _start_method

from .runs import arguments as run_arguments
from .runs import digest

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = {
    "model.preset": "tiny", "run.steps": 12, "run.micro_batches": 4, "run.processes": 1, "run.log_every": 1,
    "run.eval_every": 0, "run.eval_rows": 8, "run.save_every": 4, "run.keep": 0, "run.tensorboard": False,
}  # fmt: skip


def arguments(data: Path, output: Path, **options: object) -> list[str]:
    merged = OPTIONS | {name.replace("__", "."): value for name, value in options.items()}
    return run_arguments(data, output, merged)


@pytest.fixture(scope="module")
def uninterrupted(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "alone"
    assert main(arguments(packed, output, run__tensorboard=True)) == 0
    return output


def test_a_run_leaves_checkpoints_metrics_and_summary(uninterrupted: Path) -> None:
    saved = sorted(path.name for path in (uninterrupted / "checkpoints").iterdir())
    assert saved == ["step-00000004", "step-00000008", "step-00000012"]
    lines = read(uninterrupted / "metrics.jsonl")
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, 13))
    summary = json.loads((uninterrupted / "train.json").read_text())
    assert summary["validation"]["loss"] == lines[-1]["loss"]
    assert 0.8 * 12 * 4 * 2 * 64 < summary["tokens"] < 12 * 4 * 2 * 64  # padding does not count
    assert 0 <= summary["data_wait"] < 1 and summary["memory"] > 1e6 and summary["mfu"] is None
    assert summary["joules"] is None  # nothing counts them here
    assert (uninterrupted / "loss.csv").read_text().count("\n") == 13
    assert json.loads((uninterrupted / "config.json").read_text())["model"]["preset"] == "tiny"
    assert list((uninterrupted / "tensorboard").iterdir())


def test_the_loss_falls_below_the_unigram_model(packed: Path, tmp_path: Path) -> None:
    options = {"run.steps": 70, "run.log_every": 0, "run.save_every": 0, "optim.lr": 0.01}
    assert main(arguments(packed, tmp_path / "run", **options)) == 0
    report = json.loads((tmp_path / "run/train.json").read_text())["validation"]
    assert report["loss"] < report["unigram_loss"] - 1.0


@pytest.mark.parametrize("stop", [3, 8])
def test_a_run_stopped_by_sigterm_and_resumed_ends_in_the_same_bits(
    packed: Path, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    with monkeypatch.context() as patch:
        plain = Metrics.progress

        def tell(self: Metrics, step: int, loss: float, rate: float) -> None:
            plain(self, step, loss, rate)
            if step == stop:
                os.kill(os.getpid(), signal.SIGTERM)

        patch.setattr(Metrics, "progress", tell)
        assert main(arguments(packed, tmp_path / "run")) == STOPPED == 143
    assert checkpoint.find(tmp_path / "run").name == f"step-{stop + 1:08d}"  # the step after the signal carries it
    assert main([*arguments(packed, tmp_path / "run"), "--resume"]) == 0
    assert digest(tmp_path / "run") == digest(uninterrupted)
    lines = [read(run / "metrics.jsonl") for run in (uninterrupted, tmp_path / "run")]
    losses = [[(line["step"], line["loss"]) for line in each if line["kind"] == "train"] for each in lines]
    assert losses[0] == losses[1]


def test_four_processes_end_in_the_bits_of_one(packed: Path, uninterrupted: Path, tmp_path: Path) -> None:
    assert main(arguments(packed, tmp_path / "run", run__processes=4)) == 0
    assert digest(tmp_path / "run") == digest(uninterrupted)
    reports = [json.loads((run / "train.json").read_text())["validation"] for run in (uninterrupted, tmp_path / "run")]
    assert reports[0] == reports[1]


def test_resuming_a_finished_run_reports_it_again_and_fewer_steps_are_refused(
    packed: Path, uninterrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(uninterrupted, run)
    assert main([*arguments(packed, run), "--resume"]) == 0
    assert digest(run) == digest(uninterrupted)
    for name in ("train.json", "loss.csv", "metrics.jsonl"):  # the numbers of the steps that were taken stay
        assert (run / name).read_bytes() == (uninterrupted / name).read_bytes()
    (run / "train.json").unlink()
    assert main([*arguments(packed, run), "--resume"]) == 0
    before, after = (json.loads((each / "train.json").read_text())["validation"] for each in (uninterrupted, run))
    assert before == after
    assert "has taken 12 steps already" in refused(capsys, [*arguments(packed, run, run__steps=5), "--resume"])


def test_a_run_that_left_no_checkpoint_may_start_again_in_its_directory(packed: Path, tmp_path: Path) -> None:
    options = arguments(packed, tmp_path / "run", optim__lr=1e30, optim__warmup=0, optim__clip=0, run__save_every=0)
    assert main(options) == 1
    assert main(arguments(packed, tmp_path / "run", run__steps=2)) == 0


def test_three_processes_train_where_no_tree_is_needed(packed: Path, tmp_path: Path) -> None:
    options = {"run__steps": 3, "run__micro_batches": 6, "run__mode": "ddp", "run__threads": 1}
    assert main(arguments(packed, tmp_path / "three", run__processes=3, **options)) == 0
    assert main(arguments(packed, tmp_path / "one", run__processes=1, **options)) == 0
    curves = [[line["loss"] for line in read(tmp_path / name / "metrics.jsonl")] for name in ("three", "one")]
    assert curves[0] == pytest.approx(curves[1], rel=2e-4)


def test_a_signal_to_the_whole_group_saves_the_step(packed: Path, tmp_path: Path) -> None:
    """Batch systems, and `timeout`, send it to all processes at once, the fork server among them."""
    run = tmp_path / "run"
    options = arguments(packed, run, run__processes=2, run__steps=100_000, run__save_every=0)
    command = [sys.executable, "-m", "trainer.train", *options]
    child = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    until(lambda: any(line["kind"] == "train" for line in read(run / "metrics.jsonl")))
    os.killpg(child.pid, signal.SIGINT)
    assert child.wait(timeout=120) == STOPPED
    assert checkpoint.read_state(checkpoint.find(run)).step == read(run / "metrics.jsonl")[-1]["step"]


def test_processes_end_with_the_one_that_started_them(packed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = arguments(packed, run, run__processes=2, run__steps=100_000, run__save_every=0)
    child = subprocess.Popen([sys.executable, "-m", "trainer.train", *options], cwd=ROOT, start_new_session=True)
    until(lambda: any(line["kind"] == "train" for line in read(run / "metrics.jsonl")))
    child.kill()
    child.wait()

    def gone() -> bool:
        try:
            os.killpg(child.pid, 0)
        except ProcessLookupError:
            return True
        return False

    until(gone)


def test_two_runs_in_one_directory_are_refused(
    packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    held = checkpoint.lock(tmp_path / "run")
    (tmp_path / "run/config.json").write_text("{}")
    assert "another process trains in" in refused(capsys, arguments(packed, tmp_path / "run"))
    held.close()


def test_a_run_can_start_from_the_weights_of_another_on_other_data(
    packed: Path, uninterrupted: Path, make_packed: Callable[..., Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    other = make_packed(seed=1, pairs=False)
    options = [*arguments(other, tmp_path / "run", run__steps=1, optim__lr=1e-12), "--init", str(uninterrupted)]
    assert main(options) == 0
    ours, theirs = (checkpoint.load_model(checkpoint.find(run))[0] for run in (uninterrupted, tmp_path / "run"))
    for name, tensor in ours.state_dict().items():
        torch.testing.assert_close(tensor, theirs.state_dict()[name], atol=1e-9, rtol=0)
    foreign = arguments(make_packed("foreign", tokenizer="ab" * 32), tmp_path / "two", run__steps=1)
    known = tmp_path / "known"
    assert main(arguments(make_packed("k", tokenizer="cd" * 32), known, run__steps=1)) == 0
    assert "another tokenizer" in refused(capsys, [*foreign, "--init", str(known)])


def test_the_best_weights_are_saved_when_they_are_found(packed: Path, tmp_path: Path) -> None:
    options = {"run__steps": 9, "run__eval_every": 2, "run__save_every": 5, "run__keep": 1, "optim__lr": 0.01}
    assert main(arguments(packed, tmp_path / "run", **options)) == 0
    found = [line for line in read(tmp_path / "run/metrics.jsonl") if line["kind"] == "validation"]
    best = min(found, key=lambda line: line["loss"])
    state = checkpoint.read_state(checkpoint.find(tmp_path / "run/best"))
    assert (state.step, state.validation_loss) == (best["step"], best["loss"])


def test_next_sentence_prediction_is_measured(make_packed: Callable[..., Path], tmp_path: Path) -> None:
    data, run = make_packed(pairs=True), tmp_path / "run"
    assert main(arguments(data, run, run__steps=60, run__save_every=0, optim__lr=0.01, data__evaluate="train")) == 0
    report = json.loads((run / "train.json").read_text())["validation"]
    assert report["next_sentence_loss"] < 0.69 and report["next_sentence_accuracy"] > 0.6
    plain = tmp_path / "plain"
    assert main(arguments(make_packed("plain-data"), plain, run__steps=1)) == 0
    command = ["--checkpoint", str(plain), "--data", str(data), "--metrics", str(tmp_path / "m.json")]
    assert evaluate.main(command) == 0  # a model without the head still guesses tokens
    assert "next_sentence_loss" not in json.loads((tmp_path / "m.json").read_text())


@pytest.mark.parametrize("mode", ["ddp", "fsdp"])
def test_the_fast_modes_learn_what_the_elastic_one_does_to_rounding(
    packed: Path, uninterrupted: Path, tmp_path: Path, mode: str
) -> None:
    assert main(arguments(packed, tmp_path / "run", run__processes=2, run__mode=mode)) == 0
    curves = [
        [line["loss"] for line in read(run / "metrics.jsonl") if line["kind"] == "train"]
        for run in (uninterrupted, tmp_path / "run")
    ]
    assert curves[1] == pytest.approx(curves[0], rel=2e-4)
    ours, other = (checkpoint.load_model(checkpoint.find(run))[0] for run in (uninterrupted, tmp_path / "run"))
    for name, tensor in other.state_dict().items():
        torch.testing.assert_close(tensor, ours.state_dict()[name], atol=2e-3, rtol=0)


def test_shards_take_steps_of_sgd_for_which_torch_has_no_fused_kernel(packed: Path, tmp_path: Path) -> None:
    options = {"run__steps": 2, "optim__name": "sgd", "run__save_every": 0}
    for mode in ("fsdp", "ddp"):
        assert main(arguments(packed, tmp_path / mode, run__processes=2, run__mode=mode, **options)) == 0
    ours, other = (checkpoint.load_model(checkpoint.find(tmp_path / mode))[0] for mode in ("fsdp", "ddp"))
    for name, tensor in other.state_dict().items():
        torch.testing.assert_close(tensor, ours.state_dict()[name], atol=1e-5, rtol=0)


def test_a_run_goes_on_in_another_mode(packed: Path, uninterrupted: Path, tmp_path: Path) -> None:
    """Shards are saved whole: what one mode wrote, another reads."""
    run = tmp_path / "run"
    assert main(arguments(packed, run, run__processes=2, run__mode="fsdp", run__steps=6)) == 0
    assert main([*arguments(packed, run, run__mode="elastic"), "--resume"]) == 0
    ends = [read(each / "metrics.jsonl")[-1]["loss"] for each in (uninterrupted, run)]
    assert ends[1] == pytest.approx(ends[0], rel=1e-2)  # the rate of the first six steps fell earlier


def test_ten_random_kills_with_other_world_sizes_end_in_the_same_bits(packed: Path, tmp_path: Path) -> None:
    options = {
        "run__steps": 32,
        "run__save_every": 3,
        "run__eval_every": 15,
        "run__ramp_from": 4,
        "run__micro_batches": 8,
    }
    assert main(arguments(packed, tmp_path / "alone", **options)) == 0
    run, draw = tmp_path / "run", random.Random(5)
    context: Any = multiprocessing.get_context(_start_method())
    given = arguments(packed, run, **options)[4:]
    work = (_work, (load(Config, "train", None, [each for each in given if "=" in each]), Paths((packed,), run, run)))
    sizes, steps = [1, 4, 2, 1, 2, 4, 1, 2, 4, 2], sorted(draw.sample(range(2, 30), 10))
    for number, (size, step) in enumerate(zip(sizes, steps, strict=True)):
        store = str(tmp_path / f"store-{number}")
        ranks = [context.Process(target=_child, args=(rank, size, store, *work)) for rank in range(size)]
        for rank in ranks:
            rank.start()
        until(lambda step=step: any(line["step"] >= step for line in read(run / "metrics.jsonl")[-2:]))
        for rank in ranks:
            rank.kill()
        for rank in ranks:
            rank.join()
        newest = checkpoint.latest(run / "checkpoints")  # none yet, if it was killed early
        assert not newest or checkpoint.read_state(newest).step < 32
    assert main([*arguments(packed, run, **options), "--resume"]) == 0
    assert digest(run) == digest(tmp_path / "alone")


def test_losses_of_documents_lead_back_to_them_whoever_computes(packed: Path, tmp_path: Path) -> None:
    tables = []
    for processes in (1, 2):
        run = tmp_path / str(processes)
        options = {"run__losses": True, "run__steps": 6, "run__save_every": 3, "run__processes": processes}
        assert main(arguments(packed, run, **options)) == 0
        files = sorted((run / "losses").iterdir())
        assert [path.name for path in files] == ["step-00000003.arrow", "step-00000006.arrow"]
        whole = pa.concat_tables([pa.ipc.open_file(str(path)).read_all() for path in files])
        LOSSES.validate(whole)
        tables.append(whole.sort_by([("step", "ascending"), ("id", "ascending")]))
        totals = whole.group_by("step").aggregate([("tokens", "sum")]).sort_by("step")
        lines = [line for line in read(run / "metrics.jsonl") if line["kind"] == "train"]
        assert totals["tokens_sum"].to_pylist() == [line["masked"] for line in lines]
        for line in lines:
            mine = whole.filter(pc.equal(whole["step"], line["step"]))
            mean = pc.sum(pc.multiply(mine["loss"], mine["tokens"])).as_py() / line["masked"]
            assert mean == pytest.approx(line["loss"], rel=1e-5)
    assert tables[0].equals(tables[1])


class Killed(BaseException):
    """Ends a run as abruptly as a signal would: nothing in the trainer catches it."""


def test_a_killed_run_resumed_by_torchrun_with_two_processes_ends_in_the_same_bits(
    packed: Path, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"

    def kill(self: Metrics, step: int, loss: float, rate: float) -> None:
        if step == 7:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Metrics, "progress", kill)
        main(arguments(packed, run))
    assert checkpoint.find(run).name == "step-00000004"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "trainer.train", *arguments(packed, run), "--resume"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=200)
    assert digest(run) == digest(uninterrupted)


def test_sigterm_to_a_run_of_two_processes_saves_its_step(packed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"

    def terminate() -> None:
        until(lambda: any(line["kind"] == "train" for line in read(run / "metrics.jsonl")))
        os.kill(os.getpid(), signal.SIGTERM)

    killer = threading.Thread(target=terminate)
    killer.start()
    options = arguments(packed, run, run__processes=2, run__steps=100_000, run__save_every=0)
    assert main(options) == STOPPED
    killer.join()
    assert checkpoint.read_state(checkpoint.find(run)).step == read(run / "metrics.jsonl")[-1]["step"]


def until(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the run did not get there in time"
        time.sleep(0.02)


def refused(capsys: pytest.CaptureFixture[str], argv: list[str]) -> str:
    capsys.readouterr()
    assert main(argv) == 1
    return capsys.readouterr().err


def test_errors_are_one_line_that_says_what_to_do(
    packed: Path, make_packed: Callable[..., Path], uninterrupted: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    new = tmp_path / "new"
    assert "unknown option train.optim.rate" in refused(capsys, [*arguments(packed, new), "--set", "optim.rate=1"])
    assert "holds a run: continue it with --resume" in refused(capsys, arguments(packed, uninterrupted))
    assert "holds something that is no training run" in refused(capsys, arguments(packed, packed))
    assert "has no _meta/manifest.json" in refused(capsys, arguments(tmp_path, new))
    three = arguments(packed, new, run__processes=3)
    assert "3 processes cannot add gradients as a binary tree: start 1, 2, 4" in refused(capsys, three)
    shared = refused(capsys, [*three, "--set", "run.mode=ddp"])
    assert "3 processes cannot share the 4 micro-batches of a step" in shared
    muon = refused(capsys, arguments(packed, new, run__mode="fsdp", optim__name="muon"))
    assert "optim.name=muon needs whole matrices" in muon
    assert "data.weights names 'poems'" in refused(
        capsys, [*arguments(packed, new), "--set", "data.weights={poems: 2}"]
    )
    other = make_packed(seed=1)
    assert "give the same --data" in refused(capsys, [*arguments(other, uninterrupted), "--resume"])
    assert not new.exists()


def test_a_process_that_fails_alone_ends_the_run(make_packed: Callable[..., Path], tmp_path: Path) -> None:
    data = make_packed(vocab_size=127)  # some rows hold id 127, others do not
    assert main(arguments(data, tmp_path / "run", run__processes=2)) == 1


def test_a_loss_that_explodes_stops_the_run_with_advice(
    packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = arguments(packed, tmp_path / "run", optim__lr=1e30, optim__warmup=0, optim__clip=1e30)
    message = refused(capsys, given)
    assert "no weight was changed. Lower optim.lr (here 1e+30) or optim.clip, and go on with --resume" in message


def test_an_evaluation_that_a_stop_left_out_is_made_up_for(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"run__eval_every": 4, "run__keep": 1, "run__save_every": 0, "optim__lr": 0.01}
    assert main(arguments(packed, tmp_path / "whole", **options)) == 0
    for stop in (3, 11):  # the fourth step and the last one carry the wish
        with monkeypatch.context() as patch:
            plain = Metrics.progress

            def tell(self: Metrics, step: int, *rest: float, at: int = stop, plain: Any = plain) -> None:
                plain(self, step, *rest)
                if step == at:
                    os.kill(os.getpid(), signal.SIGTERM)

            patch.setattr(Metrics, "progress", tell)
            assert main([*arguments(packed, tmp_path / "run", **options), "--resume"]) == STOPPED
    assert main([*arguments(packed, tmp_path / "run", **options), "--resume"]) == 0
    found = [
        [line for line in read(tmp_path / run / "metrics.jsonl") if line["kind"] == "validation"]
        for run in ("whole", "run")
    ]
    assert found[0] == found[1] and [line["step"] for line in found[0]] == [4, 8, 12]
    states = [checkpoint.read_state(checkpoint.find(tmp_path / run / "best")) for run in ("whole", "run")]
    assert states[0] == states[1]
    names = [sorted(each.name for each in (tmp_path / run / "checkpoints").iterdir()) for run in ("whole", "run")]
    assert names[0] == names[1]


def test_an_evaluation_that_is_no_number_ends_the_run_before_anything_is_saved(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Job, "measure", lambda self: {"loss": float("nan")})
    message = refused(capsys, arguments(packed, tmp_path / "run", run__eval_every=4))
    assert "step 4: the validation loss is nan, so nothing was saved. Lower optim.lr" in message
    assert checkpoint.latest(tmp_path / "run/checkpoints") is None


def test_what_cannot_be_written_in_the_end_is_refused_before_the_first_step(
    packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    given = [*arguments(packed, tmp_path / "run"), "--metrics", str(tmp_path / "file")]
    assert str(tmp_path / "file") in refused(capsys, given)
    assert not (tmp_path / "run").exists()
