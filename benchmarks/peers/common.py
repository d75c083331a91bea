"""What the peers' scripts share: the command line, reading, shingles, writing. Runs in the peers' environment."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import orjson

SHINGLE, BANDS, ROWS = 5, 14, 8


def arguments(description: str | None, **choices: tuple[str, ...]) -> argparse.Namespace:
    """Parse INPUT (a folder of part-N.jsonl), OUTPUT (a folder), --cores, and a flag for every keyword."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--cores", type=int, default=2)
    for name, values in choices.items():
        parser.add_argument(f"--{name}", choices=values, default=values[0])
    return parser.parse_args()


def shingles(text: str) -> list[str]:
    """Cut a text into runs of five words, as the README and the benchmark of rensa do: lower case, split at spaces.

    A shorter text is one shingle.
    """
    words = text.lower().split()
    if len(words) <= SHINGLE:
        return [" ".join(words)]
    return [" ".join(words[i : i + SHINGLE]) for i in range(len(words) - SHINGLE + 1)]


def lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a part."""
    with path.open("rb") as file:
        yield from file


def parts(folder: Path) -> list[Path]:
    """List the parts of the input in order."""
    return sorted(folder.glob("part-*.jsonl"))


def batches(path: Path, texts: int = 1000) -> Iterator[list[str]]:
    """Yield the texts of a part, so many at a time."""
    batch: list[str] = []
    for line in lines(path):
        batch.append(orjson.loads(line)["text"])
        if len(batch) == texts:
            yield batch
            batch = []
    if batch:
        yield batch


def write_kept(source: list[Path], kept: Iterator[bool] | list[bool], output: Path) -> None:
    """Copy the lines whose flag is true; the flags are those of all parts, one after the other."""
    output.mkdir(parents=True, exist_ok=True)
    flags = iter(kept)
    for path in source:
        with (output / path.name).open("wb", 1 << 20) as target:
            target.writelines(line for line in lines(path) if next(flags))
