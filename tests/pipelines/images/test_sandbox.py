"""The sandbox: a crash, a hang or hunger for memory costs one image, and no child outlives its parent."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from pipelines.images import child, sandbox
from pipelines.images.config import ImageConfig, Processed, Refused
from pipelines.images.process import process
from pipelines.images.sandbox import Sandbox, SandboxError

ROOT = Path(__file__).resolve().parents[3]
CONFIG = ImageConfig(resize="keep_ratio", size=32, seconds=0.3)
FAULTY = """
import os, signal
from pipelines.images import child
from pipelines.images.config import Processed, Refused

calls = 0
FORGED = {b"garbage": b"{]", b"text": b"\\xff", b"number": b"7", b"object": b"{}", b"short": b"[5, 1]",
          b"reason": b'["because", ""]', b"types": b'["unsupported", 7]', b"half": b'["unsupported", "\\ud800"]',
          b"deep": b"[" * 100_000}
last, right = b"", child.pack

def pack(answer):
    forged = FORGED.get(last)
    return child.HEAD.pack(len(forged), 0) + forged if forged else right(answer) * (2 if last == b"twice" else 1)

child.pack = pack

def process(data, config):
    global calls, last
    calls, last = calls + 1, data
    if data == b"abort":
        os.abort()
    if data == b"segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if data == b"exit":
        os._exit(3)
    if data == b"spin":
        while True:
            pass
    if data == b"hungry" and calls > 1:
        return Refused("out_of_memory", "")
    if data == b"second call" and calls > 1:
        os.abort()
    if data == b"noise":
        os.write(1, b"printed"); os.write(2, b"warned")
    return Processed(data[::-1], len(data), config.size, "JPEG", 1, 1, 1, bytes(16), bytes(4096))
"""
IMAGES = [bytes([number]) * 5000 for number in range(4)]  # for the faulty decoder, which starts quickly


def answer(data: bytes) -> Processed:
    """What the faulty decoder says to bytes that ask for no fault."""
    return Processed(data[::-1], len(data), CONFIG.size, "JPEG", 1, 1, 1, bytes(16), bytes(4096))


def photo(seed: int) -> bytes:
    out = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((120, 80)).save(out, "JPEG")
    return out.getvalue()


@pytest.fixture
def others() -> frozenset[int]:
    """The children of this process that other tests have left: `clean` keeps some until its process ends."""
    return frozenset(children(os.getpid()))


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """A sandbox whose decoder does what some bytes ask for: abort, segfault, exit, spin, …"""
    (tmp_path / "faulty_decoder.py").write_text(FAULTY)
    monkeypatch.syspath_prepend(str(tmp_path))
    with Sandbox(CONFIG, function="faulty_decoder:process") as made:
        yield made


def test_results_are_those_of_the_function_itself_however_images_are_chunked(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [*map(photo, range(6)), b"", photo(6)[:-9], b"<html>"]
    expected = [process(image, CONFIG) for image in images]
    with Sandbox(CONFIG) as made:
        assert made.process(images) == expected
        assert [made.process([image])[0] for image in images] == expected
        monkeypatch.setattr(sandbox, "_MOST_BYTES", 4000)
        assert made.process(images) == expected
        monkeypatch.setattr(sandbox, "_MOST_IMAGES", 2)
        assert made.process(images) == expected
        assert made.process([]) == []


@pytest.mark.parametrize(
    ("fault", "detail"),
    [
        (b"abort", "the decoder's process ended with signal SIGABRT"),
        (b"segfault", "the decoder's process ended with signal SIGSEGV"),
        (b"exit", "the decoder's process ended with exit status 3"),
    ],
)
def test_a_crash_costs_the_image_that_makes_it_and_no_other(faulty: Sandbox, fault: bytes, detail: str) -> None:
    images = [IMAGES[0], fault, IMAGES[1], fault, IMAGES[2]]
    results = faulty.process(images)
    crash = Refused("decoder_crash", detail)
    assert results == [crash if image == fault else answer(image) for image in images]


@pytest.mark.parametrize(
    "forged", [b"garbage", b"text", b"number", b"object", b"short", b"reason", b"types", b"half", b"deep"]
)
def test_an_answer_that_is_none_costs_the_image_and_not_the_run(faulty: Sandbox, forged: bytes) -> None:
    images = [IMAGES[0], forged, IMAGES[1]]
    refused = Refused("decoder_crash", "the decoder's process gave an answer that is none")
    assert faulty.process(images) == [answer(IMAGES[0]), refused, answer(IMAGES[1])]


def test_an_answer_too_many_is_not_taken_for_that_of_the_next_image(faulty: Sandbox) -> None:
    assert faulty.process([b"twice"]) == [answer(b"twice")]
    assert faulty.process([IMAGES[0], IMAGES[1]]) == [answer(IMAGES[0]), answer(IMAGES[1])]


def test_an_image_at_which_a_used_child_dies_gets_a_second_chance_in_a_new_one(faulty: Sandbox) -> None:
    first, second = faulty.process([IMAGES[0], b"second call"])
    assert isinstance(first, Processed) and second == answer(b"second call")


def test_an_image_that_takes_too_long_is_refused_and_the_others_are_not(faulty: Sandbox) -> None:
    start = time.monotonic()
    results = faulty.process([IMAGES[0], b"spin", IMAGES[1]])
    assert [type(one) for one in results] == [Processed, Refused, Processed]
    assert results[1][0] == "decode_timeout" and time.monotonic() - start < 30


def test_a_scan_bomb_runs_into_the_limit_of_time() -> None:
    out = io.BytesIO()
    Image.effect_noise((2000, 2000), 50).save(out, "JPEG", progressive=True)
    data = out.getvalue()
    refinement = data[data.rindex(b"\xff\xda") : -2]
    bomb = data[:-2] + refinement * 20 + b"\xff\xd9"
    config = ImageConfig(seconds=0.3, max_scans=10**6)
    with Sandbox(config) as made:
        refused, kept = made.process([bomb, photo(0)])
    assert isinstance(refused, Refused) and refused.reason == "decode_timeout"
    assert kept == process(photo(0), config)


def test_memory_that_a_used_child_lacks_is_asked_of_a_new_one(faulty: Sandbox) -> None:
    images = [IMAGES[0], b"hungry", IMAGES[1]]
    assert faulty.process(images) == [answer(image) for image in images]


def test_a_large_image_does_not_fit_into_little_memory() -> None:
    out = io.BytesIO()
    Image.new("RGB", (9_000, 9_000)).save(out, "PNG", compress_level=1)
    config = ImageConfig(memory=256 << 20)
    with Sandbox(config) as made:
        refused, kept = made.process([out.getvalue(), photo(0)])
    assert isinstance(refused, Refused) and refused.reason == "out_of_memory"
    assert isinstance(kept, Processed)


def test_what_a_decoder_prints_is_no_answer(faulty: Sandbox, capfd: pytest.CaptureFixture[str]) -> None:
    assert faulty.process([b"noise", IMAGES[0]]) == [answer(b"noise"), answer(IMAGES[0])]
    assert capfd.readouterr() == ("", "")


def test_threads_share_the_children(faulty: Sandbox) -> None:
    expected = [answer(image) for image in IMAGES]
    with Sandbox(CONFIG, children=2, function="faulty_decoder:process") as made, ThreadPoolExecutor(6) as pool:
        assert list(pool.map(made.process, [IMAGES] * 12)) == [expected] * 12


def test_a_call_shares_the_children_that_others_have_started_and_starts_none(
    others: frozenset[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "faulty_decoder.py").write_text(FAULTY)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sandbox, "_MOST_IMAGES", 2)
    faults = [*IMAGES, b"abort", *IMAGES, b"spin", *IMAGES, b"second call"]
    with Sandbox(CONFIG, children=3, function="faulty_decoder:process") as made:
        expected = made.process(faults)
        assert [getattr(one, "reason", "") for one in expected if isinstance(one, Refused)] == [
            "decoder_crash",
            "decode_timeout",
        ]
        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(made.process, [faults] * 8)) == [expected] * 8
        with ThreadPoolExecutor(2) as pool:  # both are at work at once, so that there are two
            list(pool.map(made.process, [[b""] * 400] * 2))
        before = children(os.getpid(), others)
        assert made.process(IMAGES * 5) == [answer(image) for image in IMAGES * 5]
        assert sorted(children(os.getpid(), others)) == sorted(before) and len(before) <= 3


def test_children_that_are_started_early_share_a_call_and_there_are_no_more_than_images_ask_for(
    others: frozenset[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "faulty_decoder.py").write_text(FAULTY)
    monkeypatch.syspath_prepend(str(tmp_path))
    with Sandbox(CONFIG, children=3, function="faulty_decoder:process") as made:
        made.start(3, 0)
        assert not children(os.getpid(), others)
        made.start(3, 65)
        two = children(os.getpid(), others)
        assert len(two) == 2
        images = [bytes([number]) for number in range(200)]
        assert made.process(images) == [answer(image) for image in images]
        assert children(os.getpid(), others) == two
        made.start(3, 1000)
        assert len(children(os.getpid(), others)) == 3, "those that are there count"
    assert not children(os.getpid(), others), "one that was still starting is ended too"


def test_a_child_that_was_started_early_and_died_is_started_once_more(others: frozenset[int], faulty: Sandbox) -> None:
    faulty.start(1, 1)
    (pid,) = children(os.getpid(), others)
    os.kill(pid, signal.SIGKILL)
    assert faulty.process([IMAGES[0]]) == [answer(IMAGES[0])]


def test_one_child_serves_all_calls(others: frozenset[int], faulty: Sandbox) -> None:
    faulty.process([b""])
    (pid,) = children(os.getpid(), others)
    for _ in range(3000):  # quickly one after the other: what announces a question may not come after its answer
        faulty.process([b""])
    assert children(os.getpid(), others) == [pid]


def test_an_idle_child_that_was_killed_is_replaced(others: frozenset[int], faulty: Sandbox) -> None:
    expected = faulty.process([IMAGES[0]])
    (pid,) = children(os.getpid(), others)
    os.kill(pid, signal.SIGKILL)
    assert faulty.process([IMAGES[0]]) == expected


def test_a_child_that_cannot_start_says_why() -> None:
    with pytest.raises(SandboxError, match="no_such_module"):
        Sandbox(CONFIG, function="no_such_module:process").process([b""])
    early = Sandbox(CONFIG, function="no_such_module:process")
    early.start(1, 1)
    with pytest.raises(SandboxError, match="no_such_module"):
        early.process([b""])


def test_a_child_killed_while_it_starts_is_started_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = tmp_path / "killed"
    fault = (
        f"if not os.path.exists({str(killed)!r}):\n    open({str(killed)!r}, 'w').close()\n    os.kill(os.getpid(), 9)"
    )
    (tmp_path / "fragile_decoder.py").write_text(f"import os\n{fault}\n{FAULTY}")
    monkeypatch.syspath_prepend(str(tmp_path))
    with Sandbox(CONFIG, function="fragile_decoder:process") as made:
        assert made.process([IMAGES[0]]) == [answer(IMAGES[0])]
    assert killed.exists()


def test_a_closed_sandbox_leaves_no_child_and_may_be_used_again(others: frozenset[int], faulty: Sandbox) -> None:
    faulty.process([b""])
    assert len(children(os.getpid(), others)) == 1
    faulty.close()
    assert not children(os.getpid(), others)
    assert faulty.process([b""]) == [answer(b"")]


def children(pid: int, others: frozenset[int] = frozenset()) -> list[int]:
    """The processes of ours that decode images and were started by this one."""
    found = [one for one in psutil.Process(pid).children() if one.pid not in others]
    return [one.pid for one in found if "images.child" in " ".join(one.cmdline())]


@pytest.mark.parametrize("image", ["b'spin'", "b''"], ids=["at work", "idle"])
def test_no_child_outlives_a_parent_that_is_killed(tmp_path: Path, image: str) -> None:
    (tmp_path / "faulty_decoder.py").write_text(FAULTY)
    program = f"""
        import sys, time
        sys.path[:0] = [{str(ROOT)!r}, {str(tmp_path)!r}]
        from pipelines.images.config import ImageConfig
        from pipelines.images.sandbox import Sandbox
        made = Sandbox(ImageConfig(seconds=60), function="faulty_decoder:process")
        made.process([b""])
        print("started", flush=True)
        made.process([{image}])
        time.sleep(60)
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE)
    assert parent.stdout is not None and parent.stdout.readline() == b"started\n"
    (worker,) = children(parent.pid)
    time.sleep(0.3)  # the image is with the child
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{worker}").exists() and not _is_zombie(worker):
        assert time.monotonic() < deadline, "the child lives on"
        time.sleep(0.02)


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_the_main_module_of_the_parent_runs_once(tmp_path: Path) -> None:
    script = tmp_path / "main.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); print('imported', flush=True)\n"
        "from pipelines.images.config import ImageConfig\n"
        "from pipelines.images.sandbox import Sandbox\n"
        "with Sandbox(ImageConfig()) as made: print(made.process([b''])[0].reason)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("imported\nunsupported\n", "")


def test_a_child_imports_neither_beam_nor_arrow_nor_torch() -> None:
    program = (
        "import sys; import pipelines.images.process; print({'apache_beam', 'pyarrow', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "set()\n", done.stderr


def test_blocked_signals_and_an_ignored_interrupt_do_not_make_a_child_immortal(faulty: Sandbox) -> None:
    results: list[Processed | Refused] = []

    def run() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPROF, signal.SIGTERM, signal.SIGIO})
        results.extend(faulty.process([b"spin"]))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert results[0][0] == "decode_timeout"


def test_answers_survive_their_bytes() -> None:
    one = Processed(b"data", 3, 2, "JPEG", 30, 20, 7, bytes(range(16)), bytes(4096))
    for answer in (one, Refused("truncated", "中文 \n ÿ")):
        packed = child.pack(answer)
        small, blobs = child.HEAD.unpack(packed[: child.HEAD.size])
        body = packed[child.HEAD.size :]
        assert len(body) == small + blobs
        assert child.unpack(body[:small], body[small:]) == answer
