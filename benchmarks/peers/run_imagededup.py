"""Find near-duplicate images with imagededup's PHash: encode a folder, then compare all hashes; writes the pairs.

    python run_imagededup.py FOLDER PAIRS.json [--cores 2] [--distance 10]

Its default is a distance of at most 10 of 64 bits. Pairs are [file, file], paths relative to the folder.
imagededup fetches weights of MobileNet when it is imported, which PHash does not use: where there is no network, put a
file of that name, of any weights, into torch's cache before.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from imagededup.methods import PHash


def main() -> None:
    """Encode, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--distance", type=int, default=10)
    args = parser.parse_args()
    hasher = PHash(verbose=False)
    hashes = hasher.encode_images(str(args.folder), recursive=True, num_enc_workers=args.cores)
    found = hasher.find_duplicates(
        encoding_map=hashes, max_distance_threshold=args.distance, num_dist_workers=args.cores
    )
    args.pairs.write_text(json.dumps(sorted({tuple(sorted((a, b))) for a, others in found.items() for b in others})))


if __name__ == "__main__":
    main()
