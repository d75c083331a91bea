"""Measure deduplication, ours and the peers', in one run: same input, 14 × 8 bands, shingles of 5 words, 2 cores.

    python -m venv PEERS                                             once: an environment of the peers' own
    PEERS/bin/pip install -r benchmarks/peers/requirements.txt
    PEERS/bin/pip install --no-deps text-dedup==0.4.0
    python benchmarks/dedupe.py --peers-python PEERS/bin/python [--margin]
    python benchmarks/dedupe.py --peers-python PEERS/bin/python --limit 2500 --only ours,rensa     a quick try

Every row is one command in processes of its own, from JSON Lines on disk (ours: from the shards that ingest makes of
them, with ingest as a row of its own) to the surviving records on disk, start-up included. MB are 10^6 bytes of UTF-8
text. `MB/s a core` divides by wall time and the number of cores, `MB/cpu s` by the CPU time of all processes. Memory is
the peak of the sum over all processes of what is resident, pages of mapped files included. `wall ×` is the row's wall
time divided by ours, once by dedupe alone (the shards are there, as after any other stage), once by ingest and dedupe.
`CPU ×` is the same for CPU time. Where a row is repeated, it is the run of median wall time.

On a machine that others use too, compare CPU times: wall times then say how busy it was.

Ours cuts its signatures into bands twice, which finds more; `--set minhash.cuts=1` gives it the peers' bands alone.
Peers get their faster options: xxh3 or xxh32 where sha1 is the default, words cut by `str.split`, uncompressed output.
Only ours verifies what it removes, and writes ledger, clusters and an index. A margin is the cost of what four times
the input has more (see corpora.py), so start-up is not in it.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import corpora
import numpy as np
import orjson
import pyarrow as pa
from measure import CommandError, Measured, measure, use_cores

from pipelines.core.dataset import DOCUMENTS, Dataset
from pipelines.lsh.config import DedupeConfig
from pipelines.lsh.sign import sign_batch
from pipelines.lsh.verify import SURVIVING

ROOT = Path(__file__).resolve().parents[1]
OWN = {"PYTHONPATH": str(ROOT)}
# name → script in peers/ and its flags, fastest first
PEERS = {
    "rensa": ["run_rensa.py", "--path", "matrix"],
    "rensa-rho": ["run_rensa.py", "--path", "rho"],
    "rensa-dedup": ["run_rensa.py", "--path", "dedup"],
    "datasketch": ["run_datasketch.py"],
    "text-dedup": ["run_textdedup.py"],
    "datatrove": ["run_datatrove.py"],
}
OURS, PARTS, MARGIN_PEERS = "ours", ("startup", "floor", "signing"), ("rensa", "datatrove")
# each import with those above it; the last command is measured whole, on one record
IMPORTS = {
    "python": "",
    "numpy, pyarrow": "import numpy, pyarrow.compute",
    "numba": "import numba",
    "apache_beam": "import apache_beam",
    "our modules": "import pipelines.dedupe",
    "kernels from the cache": """
import pyarrow
from pipelines.lsh.config import DedupeConfig
from pipelines.lsh.sign import sign_batch
from schemas.document import DOCUMENT
row = {name: b"0" * 16 if name.endswith(("id", "hash")) else "a b c d e f" for name in DOCUMENT.schema.names}
row["metadata"] = None
sign_batch(pyarrow.RecordBatch.from_pylist([row], DOCUMENT.schema), DedupeConfig())
""",
}


@dataclass(frozen=True)
class Row:
    """One line of the table. cores: how many the work could use. kept: records that survive."""

    name: str
    megabytes: float
    run: Measured
    cores: int
    kept: int | None = None

    def minus(self, other: Row, name: str) -> Row:
        """The margin: what this row cost more than `other`, a run on less input."""
        one, two = self.run, other.run
        more = Measured(one.wall - two.wall, one.cpu - two.cpu, one.resident, one.timed_out or two.timed_out)
        return Row(name, self.megabytes - other.megabytes, more, self.cores)

    def plus(self, other: Row, name: str) -> Row:
        """Both rows, one after the other, over the same text."""
        one, two = self.run, other.run
        both = Measured(one.wall + two.wall, one.cpu + two.cpu, max(one.resident, two.resident))
        return Row(name, self.megabytes, both, self.cores, other.kept)


@dataclass
class Table:
    """Prints rows as they come, each with its ratios to our rows where it has such."""

    rows: list[Row] = field(default_factory=list)

    def head(self) -> None:
        """Print the header."""
        print(
            f"| {'':<32} | {'MB':>6} | {'wall s':>8} | {'CPU s':>7} | {'MB/s a core':>11} | {'MB/cpu s':>8} "
            f"| {'RSS MB':>6} | {'kept':>7} | {'wall × dedupe':>13} | {'wall × both':>11} | {'CPU × dedupe':>12} "
            f"| {'CPU × both':>10} |\n|:{'-' * 33}|"
            + "|".join("-" * n + ":" for n in (7, 9, 8, 12, 9, 7, 8, 14, 12, 13, 11))
            + "|"
        )

    def add(self, row: Row, dedupe: Row | None = None, both: Row | None = None) -> Row:
        """Print a row; with ours, how many times they it takes. Returns it."""
        run, bound = row.run, ">" if row.run.timed_out else ""
        speed = own = ""
        if row.megabytes and not run.timed_out:
            speed, own = f"{row.megabytes / run.wall / row.cores:.1f}", f"{row.megabytes / run.cpu:.1f}"
        ratios = [
            f"{bound}{getattr(run, what) / getattr(ours.run, what):.1f}" if ours else ""
            for what in ("wall", "cpu")
            for ours in (dedupe, both)
        ]
        megabytes, resident = (f"{row.megabytes:.1f}" if row.megabytes else ""), run.resident / 1e6
        print(
            f"| {row.name:<32} | {megabytes:>6} | {f'{bound}{run.wall:.2f}':>8} | {f'{bound}{run.cpu:.2f}':>7} "
            f"| {speed:>11} | {own:>8} | {f'{resident:.0f}' if resident else '':>6} "
            f"| {'' if row.kept is None else row.kept:>7} "
            f"| {ratios[0]:>13} | {ratios[1]:>11} | {ratios[2]:>12} | {ratios[3]:>10} |",
            flush=True,
        )
        self.rows.append(row)
        return row


@dataclass(frozen=True)
class Input:
    """JSON Lines in a folder, as many parts as cores; megabytes: of text; label: of its rows."""

    folder: Path
    megabytes: float
    label: str = ""


@dataclass
class Bench:
    """What all measurements share. work: an empty folder for inputs and outputs."""

    work: Path
    cores: int
    repeat: int
    timeout: float
    peers_python: str | None
    settings: tuple[str, ...] = ()
    counter: Iterator[int] = field(default_factory=itertools.count)

    def output(self) -> Path:
        """Name a folder that does not exist yet."""
        return self.work / f"out-{next(self.counter)}"

    def median(self, command: Callable[[Path], list[str]]) -> tuple[Measured, Path]:
        """Run our command `repeat` times; returns the run of median wall time, and the last output."""
        runs = []
        for _ in range(self.repeat):
            output = self.output()
            runs.append(measure(command(output), self.timeout, OWN))
        return next(run for run in runs if run.wall == statistics.median_low(r.wall for r in runs)), output

    def ours(self, given: Input) -> tuple[Row, Row, Path]:
        """Ingest, and deduplicate with the survivors written; returns both rows and the ingested dataset."""
        workers = ["--workers", str(self.cores)]
        source = ["--input", str(given.folder), "--source", "bench", "--id-field", "id"]
        run, ingested = self.median(lambda out: [*_module("ingest"), *source, "--output", str(out), *workers])
        ingest = Row(f"ours: ingest{given.label}", given.megabytes, run, self.cores)
        settings = [arg for setting in self.settings for arg in ("--set", setting)]
        source = ["--input", str(ingested), "--materialize", *settings]
        run, output = self.median(lambda out: [*_module("dedupe"), *source, "--output", str(out), *workers])
        kept = sum(shard.rows for shard in Dataset.open(str(output)).of(SURVIVING))
        return ingest, Row(f"ours: dedupe{given.label}", given.megabytes, run, self.cores, kept), ingested

    def peer(
        self, name: str, given: Input, table: Table, dedupe: Row | None = None, both: Row | None = None
    ) -> Row | None:
        """Run a peer once and print its row; None where it fails, which is printed too."""
        assert self.peers_python is not None
        script, *flags = PEERS[name]
        output = self.output()
        path = str(ROOT / "benchmarks" / "peers" / script)
        command = [self.peers_python, path, str(given.folder), str(output), "--cores", str(self.cores), *flags]
        environment = {"PYTHONPATH": "", "HF_HUB_OFFLINE": "1", "RAYON_NUM_THREADS": str(self.cores)}
        try:
            run = measure(command, self.timeout, environment)
        except CommandError as error:
            print(f"| {name} failed |", flush=True)
            print(error, file=sys.stderr, flush=True)
            return None
        kept = None if run.timed_out else kept_records(output / "kept")
        shutil.rmtree(output, ignore_errors=True)
        return table.add(Row(f"{name}{given.label}", given.megabytes, run, self.cores, kept), dedupe, both)


def _module(stage: str) -> list[str]:
    return [sys.executable, "-m", f"pipelines.{stage}"]


def kept_records(folder: Path) -> int:
    """Count the records that a peer wrote, as JSON Lines or as Arrow streams."""
    count = 0
    for path in folder.rglob("*.jsonl"):
        with path.open("rb") as file:
            count += sum(1 for _ in file)
    for path in folder.rglob("*.arrow"):
        with pa.memory_map(str(path)) as file:
            count += sum(len(batch) for batch in pa.ipc.open_stream(file))
    return count


def timed(body: Callable[[], object]) -> Measured:
    """Run a function in this process and time it."""
    wall, cpu = time.perf_counter(), time.process_time()
    body()
    return Measured(time.perf_counter() - wall, time.process_time() - cpu, 0)


def floor_rows(given: Input, batches: list[pa.RecordBatch]) -> Iterator[Row]:
    """Read the same text and do nothing with it: from JSON, and from shards (mapped; every byte is touched)."""

    def parse() -> None:
        for path in sorted(given.folder.iterdir()):
            with path.open("rb") as file:
                for line in file:
                    orjson.loads(line)

    def touch() -> None:
        for batch in batches:
            data = batch.column("text").buffers()[2]
            np.frombuffer(data, np.uint8).max(initial=0)

    yield Row("floor: read and parse the JSON", given.megabytes, timed(parse), 1)
    yield Row("floor: read the shards", given.megabytes, timed(touch), 1)


def signing_rows(given: Input, batches: list[pa.RecordBatch], cores: int) -> Iterator[Row]:
    """Tokenize, hash, sign and sketch the batches, as the first pass of dedupe does; nothing is written."""
    config = DedupeConfig()
    sign_batch(batches[0].slice(0, 1), config)  # compile, or load what was compiled
    for threads in sorted({1, cores}):

        def sign(threads: int = threads) -> None:
            with ThreadPoolExecutor(threads) as pool:
                for _ in pool.map(lambda batch: len(sign_batch(batch, config)), batches):
                    pass

        yield Row(f"signing alone, threads: {threads}", given.megabytes, timed(sign), threads)


def startup_rows(bench: Bench) -> Iterator[Row]:
    """Measure what starting costs, part by part, then the whole command on one record."""
    code, before = "", Row("", 0, Measured(0, 0, 0), bench.cores)
    for name, statement in IMPORTS.items():
        code += f"{statement}\n"
        run, _ = bench.median(lambda _, program=code: [sys.executable, "-c", program])  # type: ignore[misc]
        now = Row(name, 0, run, bench.cores)
        yield now.minus(before, f"start-up: {name}")
        before = now
    folder = bench.work / "one"
    corpora.write([{"id": "1", "text": "one document of a few words"}], folder, 1)
    _, dedupe, _ = bench.ours(Input(folder, 0))
    yield dedupe.minus(before, "start-up: runs of one record")
    yield Row("start-up: all of it", 0, dedupe.run, bench.cores)


def run(bench: Bench, names: tuple[str, ...], chosen: set[str], args: argparse.Namespace) -> None:
    """Measure what is chosen and print the table."""
    count, size = corpora.write(corpora.records(names, args.limit), bench.work / "input", bench.cores)
    given = Input(bench.work / "input", size / 1e6)
    on_disk = sum(path.stat().st_size for path in given.folder.iterdir())
    print(f"{' + '.join(names)}: {count:,} records, {size / 1e6:.1f} MB of text, {on_disk / 1e6:.1f} MB of JSON Lines")
    print(f"{bench.cores} cores; load of the machine before the first run: {os.getloadavg()[0]:.1f}\n")
    table = Table()
    table.head()
    measure(
        [sys.executable, "-c", IMPORTS["kernels from the cache"]], None, OWN
    )  # compiles what no run has compiled yet
    startup = list(startup_rows(bench)) if "startup" in chosen else []
    ingest, dedupe, ingested = bench.ours(given)
    both = ingest.plus(dedupe, "ours: ingest + dedupe")
    for row in (ingest, dedupe, both):
        table.add(row)
    peers = {name: bench.peer(name, given, table, dedupe, both) for name in PEERS if name in chosen}
    if args.margin:
        margin_rows(bench, table, names, args, ingest, dedupe, peers)
    dataset = Dataset.open(str(ingested))
    batches = [batch for key in dataset.keys(DOCUMENTS) for batch in dataset.batches(DOCUMENTS, key)]
    if "floor" in chosen:
        for row in floor_rows(given, batches):
            table.add(row)
    if "signing" in chosen:
        for row in signing_rows(given, batches, bench.cores):
            table.add(row)
    for row in startup:
        table.add(row)
    for row in (row for row in table.rows if row.name.startswith("floor")):
        print(
            f"\ndedupe takes {dedupe.run.wall / row.run.wall:,.0f} times as long as one core for the {row.name}", end=""
        )
    print()


def margin_rows(
    bench: Bench,
    table: Table,
    names: tuple[str, ...],
    args: argparse.Namespace,
    ingest: Row,
    dedupe: Row,
    peers: dict[str, Row | None],
) -> None:
    """Measure several times the input, and what it cost more than the input once, which the rows are of."""
    folder = bench.work / "copies"
    _, size = corpora.write(corpora.copies(names, args.times, args.seed, args.limit), folder, bench.cores)
    given = Input(folder, size / 1e6, f", × {args.times}")
    more_ingest, more_dedupe, _ = bench.ours(given)
    table.add(more_ingest)
    table.add(more_dedupe)
    added = table.add(more_ingest.minus(ingest, "margin: ingest"))
    own = table.add(more_dedupe.minus(dedupe, "margin: dedupe"))
    both = table.add(added.plus(own, "margin: ingest + dedupe"))
    for name in MARGIN_PEERS:
        if (once := peers.get(name)) and (more := bench.peer(name, given, table)):
            table.add(more.minus(once, f"margin: {name}"), own, both)


def _names(text: str, known: Iterable[str]) -> set[str]:
    names = set(text.split(","))
    if unknown := names - set(known):
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    return names


def main() -> None:
    """Run the command line."""
    known = (OURS, *PARTS, *PEERS)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--peers-python", metavar="PATH", help="Python of the peers' environment; without it, ours only"
    )
    parser.add_argument("--corpus", action="append", metavar="NAME", help="of the shared data; repeatable")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for our dedupe; repeatable")
    parser.add_argument("--limit", type=int, metavar="N", help="records of each corpus, at most")
    parser.add_argument("--only", type=lambda text: _names(text, known), metavar="NAME,…", help=", ".join(known))
    parser.add_argument("--margin", action="store_true", help="also --times the input: ours, rensa, datatrove")
    parser.add_argument("--times", type=int, default=4, metavar="N")
    parser.add_argument("--seed", type=int, default=0, help="of the copies")
    parser.add_argument("--cores", type=int, default=2, metavar="N")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="runs of ours (default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=1800, metavar="SECONDS", help="of one run")
    parser.add_argument("--work", type=Path, metavar="DIR", help="new folder for all files, which then stay")
    args = parser.parse_args()
    names = tuple(args.corpus or corpora.DEFAULT)
    if absent := corpora.missing(names):
        print(f"not measured: the real corpora are not here ({', '.join(absent)})")
        return
    chosen = args.only or set(known)
    if args.peers_python is None:
        print("without --peers-python (see --help): ours alone")
        chosen -= set(PEERS)
    use_cores(args.cores)
    work = args.work or Path(tempfile.mkdtemp(prefix="gristmill-bench-"))
    work.mkdir(exist_ok=True)
    try:
        bench = Bench(work, args.cores, args.repeat, args.timeout, args.peers_python, tuple(args.set))
        run(bench, names, chosen, args)
    finally:
        if args.work is None:
            shutil.rmtree(work)


if __name__ == "__main__":
    main()
