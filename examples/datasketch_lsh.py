"""Query an index of Gristmill with datasketch: which documents are near to a new text?

    pip install . datasketch            in a checkout of Gristmill, for the definition of a shingle
    python examples/datasketch_lsh.py data/dedupe "To be, or not to be, that is the question"

The index is plain Arrow: pyarrow alone reads it. Of Gristmill, only the published definition of a shingle and its hash
is used (`pipelines.text.shingles`), because a new text must be cut and hashed as the documents were.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from datasketch import LeanMinHash, MinHash, MinHashLSH

from pipelines.text.shingles import shingle_hash, shingles

SCHEME = "affine32"  # of datasketch 2.0: the permutations that Gristmill uses


def documents(index: Path) -> Iterator[pa.RecordBatch]:
    """Yield id, source, locator, shingle_count and signature of all documents, a batch at a time, memory-mapped."""
    for path in sorted(index.glob("*.arrow")):
        shard = pa.ipc.open_file(pa.memory_map(str(path)))
        if "shingle_count" not in shard.schema.names:
            sys.exit(f"{path} holds no signatures of texts: is it an index of images?")
        for i in range(shard.num_record_batches):
            yield shard.get_batch(i).select(["id", "source", "locator", "shingle_count", "signature"])


def build(index: Path, minhash: dict[str, int]) -> tuple[MinHashLSH, dict[str, tuple[str, LeanMinHash]]]:
    """Fill a MinHashLSH with the stored signatures; also returns, by id, each document's name and its MinHash.

    minhash: bands, rows and seed, from the manifest. Documents without a letter or digit all look alike: they are left
    out.
    """
    bands, rows = minhash["bands"], minhash["rows"]
    lsh = MinHashLSH(num_perm=bands * rows, params=(bands, rows))
    known = {}
    for batch in documents(index):
        signatures = batch["signature"].flatten().to_numpy().reshape(len(batch), bands * rows)
        names = zip(*(batch[name].to_pylist() for name in ("id", "source", "locator", "shingle_count")), strict=True)
        for (record, source, locator, count), signature in zip(names, signatures, strict=True):
            if count:
                known[record.hex()] = (
                    f"{source}: {locator}",
                    LeanMinHash(seed=minhash["seed"], hashvalues=signature, scheme=SCHEME),
                )
                lsh.insert(record.hex(), known[record.hex()][1])
    return lsh, known


def sign(text: str, minhash: dict[str, int], size: int) -> MinHash:
    """Sign a new text as the documents of the index were signed."""
    num_perm = minhash["bands"] * minhash["rows"]
    signed = MinHash(num_perm=num_perm, seed=minhash["seed"], scheme=SCHEME, hashfunc=shingle_hash)
    signed.update_batch([shingle.encode() for shingle in shingles(text, size)])
    return signed


def main(dedupe: str, text: str) -> None:
    """Print the documents that share a band with the text, the most similar first, with the estimated similarity."""
    manifest = Path(dedupe) / "_meta/manifest.json"
    if not manifest.exists():
        sys.exit(f"{dedupe} is no output of dedupe: there is no {manifest}")
    config = json.loads(manifest.read_text(encoding="utf-8"))["config"]
    lsh, known = build(Path(dedupe) / "index", config["minhash"])
    query = sign(text, config["minhash"], config["shingle_size"])
    found = sorted((-query.jaccard(known[key][1]), known[key][0], key) for key in lsh.query(query))
    for estimate, name, key in found:
        print(f"{-estimate:.2f}  {name}  {key}")
    print(f"{len(found)} of {len(known)} documents share a band with the text")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: datasketch_lsh.py DEDUPE_DIR TEXT")
    main(sys.argv[1], sys.argv[2])
