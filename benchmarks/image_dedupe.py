"""Measure near-duplicate detection of images: recall of generated copies, pairs among others, and speed.

    python benchmarks/image_dedupe.py [recall] [pairs] [speed] [--images 600] [--peer PYTHON] [--repeats 5] [--keep DIR]

recall: copies of some photographs, made in the ways of image_copies.py, go through `ingest --images`, `clean` and
`dedupe` as a user runs them; a copy is found where it is in the cluster of its original. pairs: what dedupe removes of
Caltech 101 as it is, with the similarity. speed: 10,000 files, all photographs and seeded copies of them, from the
files to the pairs: ingest, clean and dedupe here, PHash's encode_images and find_duplicates of imagededup there, where
--peer names a Python that has it (see peers/run_imagededup.py), 2 cores each; in turn, --repeats times. Recall is
counted alike: a copy is found where the pairs connect it to its original. Pairs also connect different photographs:
`joined` counts these.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median

import pyarrow.dataset as ds
from image_copies import CALTECH, COPIES, CORNER_COPIES, SIDE_COPIES, TURNED_COPIES, caltech, decoded, write_folder
from measure import Measured, measure

CORES = "2"
_MADE = {**COPIES, **CORNER_COPIES, **SIDE_COPIES, **TURNED_COPIES}
_TOTAL, _SEED = 10_000, 7


def _copy(task: tuple[str, bytes]) -> bytes:
    name, data = task
    return _MADE[name](decoded(data))


def _copies(tasks: list[tuple[str, bytes]]) -> list[bytes]:
    with ProcessPoolExecutor(int(CORES)) as pool:  # ended before a command is measured, which waits for all children
        return list(pool.map(_copy, tasks, chunksize=50))


def run(stage: str, source: Path, output: Path, *options: str) -> Measured:
    """Run a stage as a user does."""
    command = [
        "-m",
        f"pipelines.{stage}",
        "--input",
        str(source),
        "--output",
        str(output),
        "--workers",
        CORES,
        *options,
    ]
    return measure([sys.executable, *command])


def rows(root: Path, name: str, columns: Sequence[str] | None = None) -> list[dict]:
    """Read a table of an output; none where it has none."""
    folder = root / name
    return ds.dataset(folder, format="arrow").to_table(columns=columns).to_pylist() if folder.is_dir() else []


def prepare(root: Path, images: Sequence[tuple[str, bytes]], source: str = "files") -> Measured:
    """Write files, ingest and clean them into root/clean; returns what clean took."""
    write_folder(root / "files", images)
    run("ingest", root / "files", root / "ingest", "--images", "--source", source)
    return run("clean", root / "ingest", root / "clean")


def clusters(root: Path, output: Path) -> dict[str, bytes]:
    """The cluster of each file: its smallest id, its own where it has none."""
    of = {row["id"]: row["cluster_id"] for row in rows(output, "clusters")}
    return {row["path"]: of.get(row["id"], row["id"]) for row in rows(root / "clean", "images", ["id", "path"])}


def connected(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The connected component of each name that a pair names."""
    parent: dict[str, str] = {}

    def find(name: str) -> str:
        while parent.setdefault(name, name) != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for a, b in pairs:
        parent[find(a)] = find(b)
    return {name: find(name) for name in list(parent)}


def measure_recall(root: Path, count: int) -> None:
    """Print a table of recall by the way in which copies were made."""
    chosen = caltech(count)
    originals = root / "recall" / "original"
    prepare(originals, chosen, "original")
    print(f"\n| copy of {len(chosen)} photographs | recall |\n|---|---:|")
    options = {"": COPIES, "corners": CORNER_COPIES, "sides": SIDE_COPIES, "orientations": TURNED_COPIES}
    for option, copies in options.items():
        for number, kind in enumerate(copies):
            made = _copies([(kind, data) for _, data in chosen])
            folder = root / "recall" / f"{option}{number}"
            prepare(folder, [(name, data) for (name, _), data in zip(chosen, made, strict=True)], "copy")
            settings = ["--set", f"images.{option}=true"] if option else []
            run("dedupe", folder / "clean", folder / "dedupe", "--input", str(originals / "clean"), *settings)
            of, original = clusters(folder, folder / "dedupe"), clusters(originals, folder / "dedupe")
            found = sum(of[name] == original[name] for name, _ in chosen)
            label = f"{kind} ({option})" if option else kind
            print(f"| {label} | {found / len(chosen):.3f} |", flush=True)


def measure_pairs(root: Path) -> None:
    """Print what is removed of Caltech 101."""
    folder = root / "pairs"
    prepare(folder, caltech())
    run("dedupe", folder / "clean", folder / "dedupe")
    path = {row["id"]: row["path"] for row in rows(folder / "clean", "images", ["id", "path"])}
    found = sorted(rows(folder / "dedupe", "ledger"), key=lambda row: -row["similarity"])
    print(
        f"\n{len(found)} of {len(path)} images of Caltech 101 are removed\n\n| removed | kept | reason | similarity |"
    )
    print("|---|---|---|---:|")
    for row in found:
        print(f"| {path[row['id']]} | {path[row['kept_id']]} | {row['reason']} | {row['similarity']:.3f} |")


def ten_thousand() -> list[tuple[str, bytes]]:
    """All photographs, and copies of a seeded choice of ways and photographs: (way/class/name, bytes)."""
    originals, rng = caltech(), random.Random(_SEED)
    wanted = sorted(rng.sample([(kind, i) for kind in COPIES for i in range(len(originals))], _TOTAL - len(originals)))
    made = _copies([(kind, originals[i][1]) for kind, i in wanted])
    names = [f"{kind.replace('.', '_')}/{originals[i][0]}" for kind, i in wanted]
    return [*((f"original/{name}", data) for name, data in originals), *zip(names, made, strict=True)]


def _judge(
    label: str, of: dict[str, str] | dict[str, bytes], names: Sequence[str], seconds: tuple[float, float]
) -> None:
    """Print a row: `of` is the cluster of each file that has one."""
    copies = [tuple(name.split("/", 1)) for name in names if not name.startswith("original/")]
    found = sum(of.get(f"{kind}/{name}", "none") == of.get(f"original/{name}") for kind, name in copies)
    members: dict[object, set[str]] = {}
    for name in names:
        members.setdefault(of.get(name, name), set()).add(name.split("/", 1)[1])
    joined = sum(len(one) - 1 for one in members.values() if len(one) > 1)
    wall, cpu = seconds
    speeds = f"{wall:.1f} | {cpu:.1f} | {len(names) / wall:,.0f}"
    print(f"| {label} | {speeds} | {found / len(copies):.3f} | {joined} |", flush=True)


def measure_speed(root: Path, peer: str | None, repeats: int) -> None:
    """Print seconds and recall of both, run in turn: the medians, and the ratio of each pair of runs."""
    folder, images = root / "speed", ten_thousand()
    names, script = [name for name, _ in images], Path(__file__).parent / "peers" / "run_imagededup.py"
    prepare(folder, images)  # the first run compiles
    run("dedupe", folder / "clean", folder / "warm")
    ours: list[tuple[Measured, Measured, Measured]] = []
    theirs: dict[str, list[Measured]] = {"10": [], "0": []} if peer else {}
    for _ in range(repeats):
        for old in ("ingest-again", "clean-again", "dedupe"):  # an output that is there is not made again
            shutil.rmtree(folder / old, ignore_errors=True)
        ingested = run("ingest", folder / "files", folder / "ingest-again", "--images", "--source", "files")
        cleaned = run("clean", folder / "ingest-again", folder / "clean-again")
        ours.append((ingested, cleaned, run("dedupe", folder / "clean-again", folder / "dedupe")))
        for distance, took in theirs.items():
            pairs = str(folder / f"pairs-{distance}.json")
            arguments = [str(folder / "files"), pairs, "--cores", CORES, "--distance", distance]
            took.append(measure([str(peer), str(script), *arguments]))
    print(f"\n| {len(images):,} images, {CORES} cores | s | CPU s | images/s | recall | joined |")
    print("|---|---:|---:|---:|---:|---:|")
    of = clusters(folder, folder / "dedupe")
    for first, label in enumerate(("ingest + clean + dedupe", "clean + dedupe", "dedupe alone")):
        _judge(f"gristmill {label}", of, names, _median([one[first:] for one in ours]))
    for distance, took in theirs.items():
        linked = json.loads((folder / f"pairs-{distance}.json").read_text())
        one = connected(tuple(pair) for pair in linked)
        _judge(f"imagededup PHash, distance {distance}", one, names, _median([(single,) for single in took]))
    for distance, took in theirs.items():
        for first, label in enumerate(("ingest + clean + dedupe", "clean + dedupe")):
            ratios = [peer.wall / sum(one.wall for one in own[first:]) for own, peer in zip(ours, took, strict=True)]
            each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
            print(f"imagededup at distance {distance} / gristmill {label}: {median(ratios):.2f} ({each})", flush=True)


def _median(runs: Sequence[Sequence[Measured]]) -> tuple[float, float]:
    """The median of seconds by the clock, and of CPU seconds, of runs of one or more commands each."""
    return median(sum(one.wall for one in run) for run in runs), median(sum(one.cpu for one in run) for run in runs)


def main() -> int:
    """Run what was asked for; all without a choice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=["recall", "pairs", "speed", []])
    parser.add_argument("--images", type=int, default=600, help="photographs that copies are made of for the recall")
    parser.add_argument("--peer", help="a Python that has imagededup 0.3.3")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each in turn, for the speed")
    parser.add_argument("--keep", type=Path, help="write what is made here, and keep it")
    args = parser.parse_args()
    if not CALTECH.exists():
        print(f"there is no {CALTECH.name} in ../shared/data: nothing to measure", file=sys.stderr)
        return 1
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as temporary:
        root = args.keep or Path(temporary)
        parts = args.parts or ["recall", "pairs", "speed"]
        if "recall" in parts:
            measure_recall(root, args.images)
        if "pairs" in parts:
            measure_pairs(root)
        if "speed" in parts:
            measure_speed(root, args.peer, args.repeats)
    return 0


if __name__ == "__main__":
    sys.exit(main())
