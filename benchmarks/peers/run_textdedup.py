"""Deduplicate with text-dedup's MinHash: 14 × 8 bands, 5-grams, xxh3 (which its help calls faster than its sha1)."""

from __future__ import annotations

from common import BANDS, ROWS, SHINGLE, arguments
from text_dedup.minhash import main as text_dedup


def main() -> None:
    """Call its command line."""
    args = arguments(__doc__)
    options = {
        "path": "json",
        "data_files": str(args.input / "part-*.jsonl"),
        "split": "train",
        "cache_dir": str(args.output / "cache"),
        "output": str(args.output / "kept"),
        "column": "text",
        "ngram": SHINGLE,
        "num_perm": BANDS * ROWS,
        "b": BANDS,
        "r": ROWS,
        "hash_func": "xxh3",
        "num_proc": args.cores,
    }
    text_dedup([word for name, value in options.items() for word in (f"--{name}", str(value))], standalone_mode=False)


if __name__ == "__main__":
    main()
