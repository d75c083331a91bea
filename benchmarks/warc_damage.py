"""Print which good records of damaged web archives three readers give: ours, FastWARC, warcio.

    python benchmarks/warc_damage.py

Each case is a small archive with one thing wrong. A cell says how many of the good records came, how many wrong ones
came as if they were good, and what ended the reading.
"""

from __future__ import annotations

import contextlib
import gzip
import importlib
import io
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "pipelines" / "readers"))
from archives import html_record, http, members, page, warc

TEXTS = [f"Article number {i} says." for i in range(4)]
RECORDS = [html_record(i, text) for i, text in enumerate(TEXTS)]


def _lying(by: int) -> bytes:
    block = http(page("Nobody"))
    return warc("response", block, 50, length=len(block) + by, digest=False)


def _flipped(raw: bytes, place: int) -> bytes:
    changed = bytearray(raw)
    changed[place] ^= 4
    return bytes(changed)


def cases() -> dict[str, tuple[bytes, list[int]]]:
    """Name the archives: their bytes, and the numbers of the records in them that are good."""
    one, plain = [members(record) for record in RECORDS], RECORDS
    return {
        "gzip: a member cut in its middle": (b"".join([one[0], one[1][:150], one[2], one[3]]), [0, 2, 3]),
        "gzip: a bit of a member flipped": (b"".join([one[0], _flipped(one[1], 150), one[2]]), [0, 2]),
        "gzip: other bytes between members": (b"".join([one[0], b"other bytes" * 9, one[1], one[2]]), [0, 1, 2]),
        "gzip: a length too long": (members(plain[0], _lying(50), plain[1], plain[2]), [0, 1, 2]),
        "gzip: a length too short": (members(plain[0], _lying(-20), plain[1], plain[2]), [0, 1, 2]),
        "gzip: the file is cut": (b"".join([one[0], one[1], one[2][:-40]]), [0, 1]),
        "gzip: the whole file one member": (gzip.compress(b"".join(plain)), [0, 1, 2, 3]),
        "plain: a length too long": (b"".join([plain[0], _lying(300), *plain[1:]]), [0, 1, 2, 3]),
        "plain: a length too short": (b"".join([plain[0], _lying(-20), *plain[1:]]), [0, 1, 2, 3]),
        "plain: other bytes between records": (b"".join([plain[0], b"some words\r\nmore\r\n", plain[1]]), [0, 1]),
        "plain: a bit of a body flipped": (b"".join([plain[0], _flipped(plain[1], -60), plain[2]]), [0, 2]),
    }


def _ours(raw: bytes) -> list[str]:
    from pipelines.readers import warc as reader
    from pipelines.readers.base import Document, InputFile, ReadConfig

    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(raw)
        items = list(reader.read(InputFile(file.name, "x", len(raw), "warc"), ReadConfig()))
    return [item.text if isinstance(item, Document) else f"!ledger: {item.reason}" for item in items]


def _fastwarc() -> Callable[[bytes], list[str]]:
    module = importlib.import_module("fastwarc.warc")

    def read(raw: bytes) -> list[str]:
        found = []
        try:
            for record in module.ArchiveIterator(io.BytesIO(raw), record_types=module.WarcRecordType.response):
                found.append(record.reader.read().decode("utf-8", "replace"))
        except Exception as error:
            found.append(f"!{type(error).__name__}")
        return found

    return read


def _warcio() -> Callable[[bytes], list[str]]:
    module = importlib.import_module("warcio.archiveiterator")

    def read(raw: bytes) -> list[str]:
        found = []
        try:
            for record in module.ArchiveIterator(io.BytesIO(raw)):
                found.append(record.content_stream().read().decode("utf-8", "replace"))
        except Exception as error:
            found.append(f"!{type(error).__name__}")
        return found

    return read


def _judge(found: list[str], good: list[int]) -> str:
    texts = [text for text in found if not text.startswith("!")]
    whole = {i for i in good for text in texts if TEXTS[i] in text and text.rstrip().endswith((TEXTS[i], "</html>"))}
    wrong = len(texts) - len(whole)
    cell = f"{len(whole)} of {len(good)}" + (f", {wrong} wrong" if wrong else "")
    return ", ".join([cell, *(text[1:] for text in found if text.startswith("!"))])


def main() -> None:
    """Print the table."""
    readers: dict[str, Callable[[bytes], list[str]]] = {"gristmill": _ours}
    for name, make in (("FastWARC", _fastwarc), ("warcio", _warcio)):
        try:
            readers[name] = make()
        except ModuleNotFoundError:
            print(f"{name} is not installed")
    print(f"| what is wrong | {' | '.join(readers)} |\n|---|{'---|' * len(readers)}")
    for case, (raw, good) in cases().items():
        cells = []
        for read in readers.values():
            with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
                cells.append(_judge(read(raw), good))
        print(f"| {case} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
