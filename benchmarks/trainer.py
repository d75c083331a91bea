"""Measure the trainer: training speed on CPU, data loading alone, and what a GPU makes of it.

    python -m venv PEERS                                             once: an environment of the peers' own
    PEERS/bin/pip install -r benchmarks/peers/requirements-trainer.txt
    PEERS/bin/pip install --no-deps mosaicml-streaming==0.13.0 litdata==0.2.76
    python benchmarks/trainer.py --data PACKED --peers-python PEERS/bin/python
    python benchmarks/trainer.py --data PACKED --peers-python PEERS/bin/python --only loading --seconds 1
    python benchmarks/trainer.py --only gpu [--gpu-data PACKED_512 PACKED_1024] [--curve loss.csv]

PACKED is a directory of `pipelines.pack`; the targets were set for a vocabulary of 16,384 and rows of 256. Every ratio
is ours over the peer's, the median of pairs that ran one after the other, because machines are noisy.

speed: `python -m trainer.train` (2 processes of 1 thread) and `transformers.Trainer` with `ModernBertForMaskedLM` (1
process of 2 threads, and 2 of 1), float32, global attention (sdpa), from the same initial weights, on the same
documents, with as many real tokens a step, the same mask ratio, AdamW and schedule; each library's own loop, collator,
loader and optimizer kernel. Rates count real tokens, special ones with them, padding not, after the first steps. The
loss is that of the weights at the end, both measured by our evaluation on our validation rows (in which ours, and not a
model trained on `group_texts`, has learned to see one document at a time).

loading: rows in random order as int64 token ids with the boundaries of their documents, nothing else; files in the page
cache, one core (two where a worker process helps), no network. A hash over an epoch says whether the peer gave the
same rows.

gpu: see trainer_gpu.py; needs torch, this repository and a CUDA device.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # before this file's own folder, where `trainer` is this file

import trainer_gpu  # noqa: E402
import trainer_loading  # noqa: E402
import trainer_speed  # noqa: E402
from measure import use_cores  # noqa: E402

from trainer.model import PRESETS  # noqa: E402

PARTS = {"speed": trainer_speed.run, "loading": trainer_loading.run, "gpu": trainer_gpu.run}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, action="append", help="repeatable")
    parser.add_argument("--data", type=Path, metavar="PACKED", help="directory of packed rows, for speed and loading")
    parser.add_argument("--peers-python", metavar="PATH", help="Python of the peers' environment; without: ours only")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="pairs of runs (default: %(default)s)")
    parser.add_argument("--preset", choices=PRESETS, action="append", help="speed: repeatable; default: mini, small")
    parser.add_argument("--steps", type=int, default=40, metavar="N", help="speed: of a run")
    parser.add_argument("--warm", type=int, default=8, metavar="N", help="speed: first steps that are not counted")
    parser.add_argument("--ways", type=int, default=4, metavar="N", help="speed: only the first N uses of the peer")
    parser.add_argument("--seconds", type=float, default=3, metavar="S", help="loading: of a pass")
    parser.add_argument("--gpu-data", type=Path, nargs="+", default=[], metavar="PACKED", help="else generated rows")
    parser.add_argument("--gpu-preset", choices=PRESETS, default="base", metavar="NAME")
    parser.add_argument("--gpu-steps", type=int, default=60, metavar="N", help="of a run")
    parser.add_argument("--gpu-warm", type=int, default=20, metavar="N", help="first steps that are not counted")
    parser.add_argument("--minutes", type=float, default=trainer_gpu.MINUTES, help="gpu: of the long run; 0: none")
    parser.add_argument("--curve", type=Path, default=Path("loss.csv"), metavar="FILE", help="gpu: of the long run")
    parser.add_argument("--work", type=Path, metavar="DIR", help="new folder for all files, which then stay")
    args = parser.parse_args()
    chosen = args.only or list(PARTS)
    args.preset = args.preset or ["mini", "small"]
    if args.data is None and (unmeasured := [part for part in chosen if part != "gpu"]):
        print(f"not measured: {', '.join(unmeasured)}; name a directory of packed rows with --data")
        chosen = [part for part in chosen if part == "gpu"]
    work = args.work or Path(tempfile.mkdtemp(prefix="gristmill-bench-"))
    work.mkdir(exist_ok=True)
    cores = use_cores(trainer_speed.CORES)
    print(f"load of the machine before the first run: {os.getloadavg()[0]:.1f}")
    try:
        for part in chosen:
            os.sched_setaffinity(0, cores)
            PARTS[part](args, work)
    finally:
        if args.work is None:
            shutil.rmtree(work)


if __name__ == "__main__":
    main()
