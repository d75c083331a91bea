"""Deduplicate with rensa: 14 × 8 bands, shingles cut in Python.

--path matrix: its batch path. `--cores` processes cut and hash the shingles (`hash_token_sets`), then one call signs
the whole matrix and one flags the rows that share a band with another row, both on all cores. It says which records are
candidates, not which one of a group should stay: all of them go, and the count of kept records is that much lower.
--path rho: the same with the sketch of its published numbers, which samples tokens instead of reading all.
--path dedup: `RMinHashDeduplicator.add_pairs`, as in its README: keeps the first of a group; one process.
"""

from __future__ import annotations

import itertools
import multiprocessing
from array import array
from collections.abc import Iterator
from pathlib import Path

import orjson
from common import BANDS, ROWS, arguments, batches, lines, parts, shingles, write_kept
from rensa import RMinHash, RMinHashDeduplicator, RMinHashLSH

SEED, THRESHOLD = 42, 0.7


def hashed(path: Path) -> tuple[array, array]:
    """Hash the shingles of a part: all hashes one after the other, and how many each record has."""
    hashes, counts = array("Q"), array("Q")
    for texts in batches(path):
        for row in RMinHash.hash_token_sets([shingles(text) for text in texts]):
            hashes.extend(row)
            counts.append(len(row))
    return hashes, counts


def flag(source: list[Path], cores: int, rho: bool) -> list[bool]:
    """Tell for each record whether no other one shares a band with it."""
    with multiprocessing.Pool(cores) as pool:
        found = pool.map(hashed, source, chunksize=1)
    hashes, offsets = array("Q"), array("Q", [0])
    for values, counts in found:
        hashes.extend(values)
        offsets.extend(itertools.accumulate(counts, initial=offsets.pop()))
    sign = RMinHash.digest_matrix_from_flat_token_hashes_rho if rho else RMinHash.digest_matrix_from_flat_token_hashes
    matrix = sign(hashes, offsets, BANDS * ROWS, SEED)
    index = RMinHashLSH(threshold=THRESHOLD, num_perm=BANDS * ROWS, num_bands=BANDS)
    return [not duplicate for duplicate in index.query_duplicate_flags_matrix_one_shot(matrix)]


def first_of_group(source: list[Path]) -> list[bool]:
    """Tell for each record whether the deduplicator keeps it."""
    dedup = RMinHashDeduplicator(THRESHOLD, BANDS * ROWS, True, BANDS)
    texts = (orjson.loads(line)["text"] for path in source for line in lines(path))
    pairs: Iterator[tuple[str, list[str]]] = ((str(i), shingles(text)) for i, text in enumerate(texts))
    kept: list[bool] = []
    while chunk := list(itertools.islice(pairs, 1000)):  # a whole corpus of Python strings would not fit
        kept += dedup.add_pairs(chunk)
    return kept


def main() -> None:
    """Deduplicate."""
    args = arguments(__doc__, path=("matrix", "rho", "dedup"))
    source = parts(args.input)
    kept = first_of_group(source) if args.path == "dedup" else flag(source, args.cores, args.path == "rho")
    write_kept(source, kept, args.output / "kept")


if __name__ == "__main__":
    main()
