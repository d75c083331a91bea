"""Find the near-duplicates of one text in an index that dedupe wrote, and say which of them were kept.

gristmill near "To be, or not to be, that is the question" --index data/dedupe
gristmill near --file page.txt --index data/dedupe --documents 'data/clean/*'
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core import files
from pipelines.core.cli import guarded, positive
from pipelines.core.config import parse
from pipelines.core.dataset import LEDGER_TABLE, Dataset, expand, shard_key
from pipelines.core.identity import content_hash
from pipelines.core.shards import read_batches
from pipelines.core.texts import document_sets, excerpt, texts
from pipelines.lsh.survey import INDEX, require_texts
from pipelines.text.minhash import MinHashConfig, jaccard, sign
from schemas.base import SchemaError
from schemas.ledger import REMOVED

# A signature estimates a similarity with the standard error sqrt(s (1 - s) / permutations). Of the documents at the
# threshold, the estimate is lower by more than four of them for 3 in 100,000, and these may still share a band.
_ERRORS = 4.0
_COLUMNS = ["id", "source", "locator", "content_hash", "shingle_count", "signature", "sketch"]


class Query(NamedTuple):
    """A text as an index sees it.

    signature: uint32[permutations]. sketch: uint32, ascending. shingles: how many distinct ones. content: its hash.
    """

    minhash: MinHashConfig
    signature: np.ndarray
    sketch: np.ndarray
    shingles: int
    content: bytes


class Match(NamedTuple):
    """A document that is near: where it stands in the index, its measured similarity and that one's standard error."""

    similarity: float
    error: float
    exact: bool
    id: bytes
    source: str
    locator: str
    shard: str


def query(text: str, dataset: Dataset) -> Query:
    """Sign a text as the documents of a dataset's index were; SchemaError where the manifest does not say how."""
    config = require_texts(dataset).manifests[0].config
    try:
        minhash = parse(MinHashConfig, config["minhash"], "the index's manifest")
        signed = sign(pa.array([text]), config["shingle_size"], minhash)
    except (KeyError, TypeError) as error:
        raise SchemaError(f"{files.redact(dataset.roots[0])}: its manifest does not say how it was signed") from error
    return Query(minhash, signed.signatures[0], signed.values, int(signed.counts[0]), content_hash(text.encode()))


def candidates(signed: np.ndarray, counts: np.ndarray, one: Query, threshold: float) -> np.ndarray:
    """Find the rows that may be near: they share a band with the query, or their signatures estimate it.

    signed: uint32[n, permutations]. counts: distinct shingles; rows without any are left out. Returns bool[n]. An
    estimate is enough where it is at most four standard errors below the threshold.
    """
    least = threshold - _ERRORS * np.sqrt(threshold * (1 - threshold) / one.minhash.num_perm)
    needed = max(0, math.ceil(least * one.minhash.num_perm))
    return _agree(signed, one.signature, one.minhash.rows, needed) & (counts > 0) & (one.shingles > 0)


@numba.njit(nogil=True, cache=True)
def _agree(signed, signature, rows, needed):  # type: ignore[no-untyped-def]
    found = np.zeros(signed.shape[0], np.bool_)
    for i in range(signed.shape[0]):
        equal = 0
        for start in range(0, signature.shape[0], rows):
            here = 0
            for j in range(start, start + rows):
                here += signed[i, j] == signature[j]
            equal += here
            found[i] |= here == rows
        found[i] |= equal >= needed
    return found


@numba.njit(nogil=True, cache=True)
def _measure(values, offsets, counts, sketch, count, k):  # type: ignore[no-untyped-def]
    similarity, error = np.empty(len(counts)), np.empty(len(counts))
    for i in range(len(counts)):
        similarity[i], error[i] = jaccard(sketch, count, values[offsets[i] : offsets[i + 1]], counts[i], k)
    return similarity, error


def near_rows(batch: pa.RecordBatch, one: Query, threshold: float, shard: str) -> Iterator[Match]:
    """Yield the documents of a batch of the index whose measured similarity is at least the threshold.

    Equal content counts as 1, with or without shingles.
    """
    signed = batch.column("signature").flatten().to_numpy().reshape(len(batch), one.minhash.num_perm)
    counts = batch.column("shingle_count").to_numpy()
    exact = pc.equal(batch.column("content_hash"), pa.scalar(one.content, pa.binary(16))).to_numpy(zero_copy_only=False)
    rows = np.flatnonzero(candidates(signed, counts, one, threshold) | exact)
    if not len(rows):
        return
    found = batch.select(["id", "source", "locator", "sketch"]).take(pa.array(rows))
    sketch = found.column("sketch")
    similarity, error = _measure(
        sketch.values.to_numpy(),
        sketch.offsets.to_numpy().astype(np.int64),
        counts[rows],
        one.sketch,
        one.shingles,
        one.minhash.sketch_size,
    )
    similarity[exact[rows]], error[exact[rows]] = 1.0, 0.0
    for i in np.flatnonzero(similarity >= threshold).tolist():
        record, source, locator = (found.column(name)[i].as_py() for name in ("id", "source", "locator"))
        yield Match(float(similarity[i]), float(error[i]), bool(exact[rows[i]]), record, source, locator, shard)


def search(text: str, dataset: Dataset, threshold: float, top: int) -> tuple[list[Match], int]:
    """Scan an index for the `top` documents most similar to a text, and count all that reach the threshold.

    Sorted by similarity, then equal content first, then id. Every signature is compared, a batch at a time: what is
    found does not hang on the bands alone. In memory: a batch, and the best. The shards are not hashed first
    (`gristmill verify` does it): a scan reads the signatures, and the sketches of what may be near.
    """
    one = query(text, dataset)
    best: list[Match] = []
    total = 0
    for root, manifest in zip(dataset.roots, dataset.manifests, strict=True):
        for shard in manifest.of(INDEX):
            for batch in read_batches(files.join(root, shard.path), _COLUMNS, shard.sha256):
                found = list(near_rows(batch, one, threshold, shard_key(shard.path)))
                total += len(found)
                best = sorted([*best, *found], key=lambda m: (-m.similarity, not m.exact, m.id))[:top]
    return best, total


def decisions(dataset: Dataset, matches: Sequence[Match]) -> dict[bytes, dict[str, Any]]:
    """The ledger rows, by id, of those matches that the dataset's ledger removes."""
    found = {}
    for shard in sorted({match.shard for match in matches}):
        if dataset.shard(LEDGER_TABLE, shard) is None:
            continue
        wanted = pa.array([match.id for match in matches if match.shard == shard], pa.binary(16))
        table = dataset.table(LEDGER_TABLE, shard)
        rows = table.filter(pc.and_(pc.is_in(table["id"], wanted), pc.equal(table["action"], REMOVED)))
        found.update({row["id"]: row for row in rows.to_pylist()})
    return found


def answer(
    text: str, indexes: Sequence[str], documents: Sequence[str] | None, threshold: float, top: int
) -> dict[str, Any]:
    """Search index directories; returns what --json prints.

    characters, shingles: of the text. compared: documents in the indexes. total: how many reach the threshold. near:
    the `top` of them, each with id, source, locator, index, similarity, error, exact, removed, kept_id, excerpt.
    """
    found: list[dict[str, Any]] = []
    total = compared = shingles = 0
    for root in expand(indexes):
        dataset = require_texts(Dataset.open(root))
        matches, count = search(text, dataset, threshold, top)
        gone = decisions(dataset, matches)
        content: dict[bytes, str] = {}
        if documents is not None:
            wanted = {key: [m.id for m in matches if m.shard == key] for key in {m.shard for m in matches}}
            content = texts(document_sets(dataset, documents), wanted)
        total, compared = total + count, compared + sum(shard.rows for shard in dataset.of(INDEX))
        shingles = query(text, dataset).shingles
        found += [_described(match, root, gone.get(match.id), content.get(match.id)) for match in matches]
    found.sort(key=lambda one: (-one["similarity"], not one["exact"], one["id"], one["index"]))
    return {
        "characters": len(text),
        "shingles": shingles,
        "threshold": threshold,
        "compared": compared,
        "total": total,
        "near": found[:top],
    }


def _described(match: Match, root: str, removal: dict[str, Any] | None, text: str | None) -> dict[str, Any]:
    kept = removal["kept_id"] if removal else None
    return {
        "id": match.id.hex(),
        "source": match.source,
        "locator": match.locator,
        "index": files.redact(root),
        "similarity": match.similarity,
        "error": match.error,
        "exact": match.exact,
        "removed": removal["reason"] if removal else None,
        "kept_id": kept.hex() if kept else None,
        "excerpt": None if text is None else excerpt(text),
    }


def lines(found: dict[str, Any]) -> list[str]:
    """The answer for people."""
    size = f"{found['characters']:,} characters, {found['shingles']:,} distinct shingles"
    at = f"at a similarity of {found['threshold']:g} or more among {found['compared']:,} documents"
    if not found["near"]:
        why = "" if found["shingles"] else " (the text has no letter or digit: only equal content would be found)"
        return [f"nothing is near this text ({size}) {at}{why}"]
    shown = [f"{found['total']:,} near this text ({size}) {at}:"]
    for one in found["near"]:
        error = f" ± {one['error']:.4f}" if one["error"] else ""
        measured = f"{one['similarity']:.4f}{error}" + (" equal content" if one["exact"] else "")
        kept = f" for {one['kept_id']}" if one["kept_id"] else ""
        decision = f"removed ({one['removed']}){kept}" if one["removed"] else "kept"
        shown.append(f"  {measured}  {excerpt(one['source'])}  {excerpt(one['locator'])}")
        shown.append(f"    {one['id']}  {decision}")
        if one["excerpt"] is not None:
            shown.append(f"    {one['excerpt']}")
    if found["total"] > len(found["near"]):
        shown.append(f"  … and {found['total'] - len(found['near']):,} more (--top)")
    return shown


def _text(given: str | None, path: str | None) -> str:
    if path is None and given != "-":
        raw, name = os.fsencode(given or ""), "TEXT"
    elif path in (None, "-"):
        raw, name = sys.stdin.buffer.read(), "standard input"
    else:
        name = str(path)
        try:
            raw = Path(name).read_bytes()
        except OSError as error:
            raise ValueError(f"{name} cannot be read: {error.strerror}") from None
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not UTF-8: {error}") from None


def _similarity(raw: str) -> float:
    value = float(raw)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError("must be above 0 and at most 1")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 also where nothing is near."""
    parser = argparse.ArgumentParser(
        prog="gristmill near",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("text", nargs="?", metavar="TEXT", help="the text itself; '-' reads it from standard input")
    which.add_argument("--file", metavar="FILE", help="read the text from a file (UTF-8)")
    parser.add_argument(
        "--index", action="extend", nargs="+", required=True, metavar="DIR_OR_GLOB", help="outputs of dedupe"
    )
    parser.add_argument(
        "--documents", action="extend", nargs="+", metavar="DIR_OR_GLOB", help="dedupe's inputs: show excerpts"
    )
    parser.add_argument("--threshold", type=_similarity, default=0.7, metavar="S", help="default: %(default)s")
    parser.add_argument("--top", type=positive, default=10, metavar="N", help="most to show (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(argv)

    def body() -> None:
        found = answer(_text(args.text, args.file), args.index, args.documents, args.threshold, args.top)
        print(json.dumps(found, ensure_ascii=False, indent=1) if args.json else "\n".join(lines(found)))

    return guarded("near", body)


if __name__ == "__main__":
    sys.exit(main())
