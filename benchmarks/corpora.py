"""Make large inputs out of real text: seeded copies that are no duplicates of each other, and short documents.

    python benchmarks/corpora.py                                      list the real corpora
    python benchmarks/corpora.py --times 4 --output DIR               four times their text, as JSON Lines
    python benchmarks/corpora.py --short 5000000 --output DIR         so many short documents, cut from the same text

Copy 0 is the text itself. In every further copy half of the words, and all letters of scripts without spaces, are
replaced by others of the same length in bytes, the same word always by the same one. So a copy keeps the sizes, the
word lengths and the duplicates *inside* the corpus, and shares few of its 5-word shingles with the other copies.
One record in ten is a light edit of the original instead (0 to 6 % of its words; a quarter of these is unchanged):
the duplicates *between* copies. Same arguments, same bytes, on every machine.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import random
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from pipelines.text.unicode import Class, tables

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
DEFAULT = ("wikipedia_en", "documentation_versions")

_WORD = re.compile(r"([^\W\d_]+)")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")
_LIGHT = 10  # one record in so many is a light edit
_SAMPLE = 10  # the vocabulary is that of one record in so many

Record = dict[str, Any]


def missing(names: Iterable[str] = DEFAULT) -> list[str]:
    """List the files of the corpora that are not on this machine."""
    return [str(path) for path in (SHARED / f"{name}.jsonl.zst" for name in names) if not path.exists()]


def records(names: Iterable[str] = DEFAULT, limit: int | None = None) -> Iterator[Record]:
    """Yield the records of the corpora, at most `limit` of each; `id` becomes NAME/ID, so that it is unique."""
    for name in names:
        with pa.input_stream(str(SHARED / f"{name}.jsonl.zst"), compression="zstd") as stream:
            for line in itertools.islice(_lines(stream), limit):
                record = orjson.loads(line)
                record["id"] = f"{name}/{record['id']}"
                yield record


def _lines(stream: pa.NativeFile) -> Iterator[bytes]:
    rest = b""
    while block := stream.read(1 << 20):
        *lines, rest = (rest + block).split(b"\n")
        yield from lines
    if rest:
        yield rest


def _hash(*key: object) -> int:
    return int.from_bytes(hashlib.blake2b("\0".join(map(str, key)).encode(), digest_size=8).digest(), "little")


class Vocabulary:
    """The words and the letters of scripts without spaces that a corpus uses, by their length in bytes."""

    def __init__(self, texts: Iterable[str]) -> None:
        """Collect them from texts."""
        classes = tables().classes
        words: set[str] = set()
        letters: set[str] = set()
        for text in texts:
            for word in _WORD.findall(text):
                if word.isascii():
                    words.add(word.lower())
                    continue
                alone = {char for char in word if classes[ord(char)] == Class.CHARACTER}
                letters |= alone
                if not alone:
                    words.add(word.lower())
        self.words = _by_size(words)
        self.letters = _by_size(letters)


def _by_size(items: set[str]) -> dict[int, list[str]]:
    groups: dict[int, list[str]] = {}
    for item in sorted(items):
        groups.setdefault(len(item.encode()), []).append(item)
    return groups


class Replacement(dict[str, str]):
    """What copy `number` puts in the place of each word: itself for half of them. A mapping that fills itself."""

    def __init__(self, vocabulary: Vocabulary, seed: int, number: int) -> None:
        """Make the replacement of one copy."""
        super().__init__()
        self.key = (seed, number)
        self.words = vocabulary.words
        self.letters: dict[int, str] = {}
        for size, group in vocabulary.letters.items():
            shift = 1 + _hash(*self.key, size) % max(len(group) - 1, 1)
            self.letters |= {ord(char): group[(i + shift) % len(group)] for i, char in enumerate(group)}

    def __missing__(self, word: str) -> str:
        if not word.isascii() and any(ord(char) in self.letters for char in word):
            return word  # its letters are replaced one by one; remembering such runs would remember the corpus
        value = _hash(*self.key, word.lower())
        self[word] = word if value & 1 else self.other(word, value >> 1)
        return self[word]

    def other(self, word: str, number: int) -> str:
        """Choose a word of the same length in bytes, in the same case."""
        group = self.words.get(len(word.encode()))
        if not group:
            return word
        found = group[number % len(group)]
        return found.upper() if word.isupper() else found.capitalize() if word[0].isupper() else found

    def rewrite(self, text: str) -> str:
        """Replace throughout a text."""
        parts = _WORD.split(text if text.isascii() else text.translate(self.letters))
        parts[1::2] = [self[word] for word in parts[1::2]]
        return "".join(parts)

    def edit(self, text: str, choice: random.Random) -> str:
        """Replace up to 6 % of the words of a text, at random places."""
        rate = choice.random() * 0.08 - 0.02
        if rate <= 0:
            return text
        parts = _WORD.split(text)
        for i in range(1, len(parts), 2):
            if not parts[i].isascii() and any(ord(char) in self.letters for char in parts[i]):
                swap = self.letters
                parts[i] = "".join(swap.get(ord(c), c) if choice.random() < rate else c for c in parts[i])
            elif choice.random() < rate:
                parts[i] = self.other(parts[i], int(choice.random() * (1 << 40)))
        return "".join(parts)


def copies(
    names: Iterable[str] = DEFAULT, times: int | None = 4, seed: int = 0, limit: int | None = None
) -> Iterator[Record]:
    """Yield `times` copies of the corpora (None: without end), ids unique (NAME/ID, then NAME/ID#1, …)."""
    names = tuple(names)
    yield from records(names, limit)
    numbers = itertools.count(1) if times is None else range(1, times)
    vocabulary: Vocabulary | None = None
    for number in numbers:
        vocabulary = vocabulary or Vocabulary(r["text"] for r in itertools.islice(records(names), 0, None, _SAMPLE))
        replacement = Replacement(vocabulary, seed, number)
        for record in records(names, limit):
            key = (seed, number, record["id"])
            light = _hash(*key) % _LIGHT == 0
            text = record["text"]
            changed = replacement.edit(text, random.Random(repr(key))) if light else replacement.rewrite(text)
            yield record | {"id": f"{record['id']}#{number}", "text": changed}


def short_documents(
    names: Iterable[str] = DEFAULT, count: int = 5_000_000, seed: int = 0, least: int = 20, most: int = 300
) -> Iterator[Record]:
    """Yield `count` sentences of `least` to `most` bytes of UTF-8 out of as many copies as that takes: id and text."""
    found = (
        {"id": f"{record['id']}@{i}", "text": sentence}
        for record in copies(names, None, seed)
        for i, sentence in enumerate(_SENTENCE.split(record["text"]))
        if least <= len(sentence.encode()) <= most
    )
    return itertools.islice(found, count)


def write(found: Iterable[Record], folder: Path, parts: int = 2) -> tuple[int, int]:
    """Deal records out to part-0.jsonl, part-1.jsonl, … of a folder; returns (records, bytes of their text)."""
    folder.mkdir(parents=True)
    files = [(folder / f"part-{i}.jsonl").open("wb", 1 << 20) for i in range(parts)]
    count = size = 0
    try:
        for record in found:
            files[count % parts].write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
            count += 1
            size += len(record["text"].encode())
    finally:
        for file in files:
            file.close()
    return count, size


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", action="append", metavar="NAME", help=f"repeatable; default: {' '.join(DEFAULT)}")
    parser.add_argument("--output", type=Path, metavar="DIR", help="new folder for part-N.jsonl")
    parser.add_argument("--times", type=int, default=1, metavar="N")
    parser.add_argument("--short", type=int, metavar="N", help="write N short documents")
    parser.add_argument("--limit", type=int, metavar="N", help="records of each corpus, at most")
    parser.add_argument("--parts", type=int, default=2, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    names = tuple(args.corpus or DEFAULT)
    if absent := missing(names):
        sys.exit(f"not found: {', '.join(absent)}")
    if args.output is None:
        for name in names:
            sizes = [len(record["text"].encode()) for record in records([name], args.limit)]
            print(f"{name:<24} {len(sizes):>8,} records {sum(sizes) / 1e6:>8.1f} MB of text")
        return
    found = (
        short_documents(names, args.short, args.seed)
        if args.short
        else copies(names, args.times, args.seed, args.limit)
    )
    count, size = write(found, args.output, args.parts)
    print(f"{args.output}: {count:,} records, {size / 1e6:.1f} MB of text")


if __name__ == "__main__":
    main()
