"""Deduplicate with datasketch: MinHash.generator (batch updates, scheme affine32, xxh32 as hash), then MinHashLSH.

Processes sign one part each; the index is a Python object and so takes one process. A record is kept where no kept one
shares a band with it.
"""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np
import xxhash
from common import BANDS, ROWS, arguments, batches, parts, shingles, write_kept
from datasketch import MinHash, MinHashLSH

OPTIONS = {"num_perm": BANDS * ROWS, "scheme": "affine32", "hashfunc": xxhash.xxh32_intdigest}


def signed(path: Path) -> np.ndarray:
    """Sign the records of a part: uint32[records, 112]."""
    sets = (shingles(text) for texts in batches(path) for text in texts)
    return np.array([minhash.hashvalues for minhash in MinHash.generator(sets, **OPTIONS)])


def main() -> None:
    """Deduplicate."""
    args = arguments(__doc__)
    source = parts(args.input)
    with multiprocessing.Pool(args.cores) as pool:
        signatures = np.concatenate(pool.map(signed, source, chunksize=1))
    index = MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS))
    minhash = MinHash(**OPTIONS)
    kept = []
    for i, values in enumerate(signatures):
        minhash.hashvalues = values
        new = not index.query(minhash)
        if new:
            index.insert(i, minhash, check_duplication=False)
        kept.append(new)
    write_kept(source, kept, args.output / "kept")


if __name__ == "__main__":
    main()
