"""Measure every text stage on two real corpora: MB/s a core, and the peak memory of all its processes.

    python benchmarks/stages.py [--corpus NAME=FILE …] [--workers N] [--mode threads] [--keep DIR]

MB are bytes of UTF-8 text that the stage reads, 10^6 of them. `MB/s a core` divides them by the CPU seconds of all
processes of the stage, start-up included (imports and compiled kernels from cache cost 2 to 3 s of them); `MB/s`
divides by wall time. Memory is the sum over the process tree of what is not shared (USS), sampled ten times a second,
so pages of mapped shards that the system may drop at any time are not in it; `RSS` counts those too.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from pipelines.core.dataset import Dataset

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
CORPORA = {"wikipedia_en": SHARED / "wikipedia_en.jsonl.zst", "wikipedia_zh": SHARED / "wikipedia_zh.jsonl.zst"}


@dataclass
class Measured:
    """One stage's run: seconds of wall and CPU time, peak bytes of private and of resident memory."""

    wall: float
    cpu: float
    private: int
    resident: int


def measure(command: list[str]) -> Measured:
    """Run a command to its end and measure its whole process tree; SystemExit where it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    tree, private, resident = psutil.Process(process.pid), 0, 0
    while process.poll() is None:
        sums = [0, 0]
        try:
            for one in [tree, *tree.children(recursive=True)]:
                info = one.memory_full_info()
                sums = [sums[0] + info.uss, sums[1] + info.rss]
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            pass
        private, resident = max(private, sums[0]), max(resident, sums[1])
        time.sleep(0.1)
    output = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{output}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Measured(time.monotonic() - start, cpu, private, resident)


def text_bytes(*roots: Path) -> int:
    """Bytes of text in the main tables of dataset directories."""
    return sum(shard.text_bytes for shard in Dataset.open(*(str(root) for root in roots)).manifests[0].shards)


def stages(corpora: dict[str, Path], work: Path) -> list[tuple[str, list[str], list[Path]]]:
    """The stages as (label, arguments, directories whose text they read; of ingest those that it writes)."""
    steps = [
        (
            f"ingest {name}",
            [
                "ingest",
                "--input",
                str(path),
                "--source",
                name,
                "--id-field",
                "id",
                "--output",
                str(work / "ingest" / name),
            ],
            [work / "ingest" / name],
        )
        for name, path in corpora.items()
    ]
    ingested, clean, shards = [work / "ingest" / name for name in corpora], work / "clean", work / "shards"
    inputs = [flag for root in ingested for flag in ("--input", str(root))]
    steps += [
        ("clean", ["clean", *inputs, "--output", str(clean)], ingested),
        ("dedupe", ["dedupe", "--input", str(clean), "--output", str(work / "dedupe")], [clean]),
        (
            "shard",
            ["shard", "--input", str(clean), "--decisions", str(work / "dedupe"), "--output", str(shards)],
            [clean],
        ),
        (
            "tokenizer",
            ["tokenizer", "--input", str(shards), "--output", str(work / "tokenizer"), "--set", "vocab_size=32000"],
            [shards],
        ),
        (
            "pack",
            [
                "pack",
                "--input",
                str(shards),
                "--tokenizer",
                str(work / "tokenizer"),
                "--output",
                str(work / "packed"),
                "--set",
                "seq_len=512",
            ],
            [shards],
        ),
    ]
    return steps


def main() -> None:
    """Run all stages and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--mode", help="threads, processes or inline; default: each stage's own")
    parser.add_argument("--keep", type=Path, help="folder for the outputs, which then stay")
    args = parser.parse_args()
    corpora = {name: Path(path) for name, path in (one.split("=", 1) for one in args.corpus)} or CORPORA
    missing = [str(path) for path in corpora.values() if not path.exists()]
    if missing:
        sys.exit(
            f"not found: {', '.join(missing)}; name your own with --corpus NAME=FILE (JSON Lines with id and text)"
        )
    work = args.keep or Path(tempfile.mkdtemp(prefix="gristmill-bench-"))
    options = ["--workers", str(args.workers), *(["--mode", args.mode] if args.mode else [])]
    print(
        f"{'stage':<22} {'MB':>7} {'wall s':>7} {'cpu s':>7} {'MB/s':>7} {'MB/s a core':>12} "
        f"{'USS MB':>8} {'RSS MB':>8}"
    )
    try:
        for label, arguments, sources in stages(corpora, work):
            one = measure([sys.executable, "-m", "pipelines", *arguments, *options])
            size = sum(text_bytes(root) for root in sources) / 1e6
            print(
                f"{label:<22} {size:>7.1f} {one.wall:>7.1f} {one.cpu:>7.1f} {size / one.wall:>7.1f} "
                f"{size / one.cpu:>12.1f} {one.private / 1e6:>8.0f} {one.resident / 1e6:>8.0f}",
                flush=True,
            )
    finally:
        if args.keep is None:
            shutil.rmtree(work)


if __name__ == "__main__":
    main()
