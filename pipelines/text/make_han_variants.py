"""Make data/han_variants.npz, which pipelines.text.language loads. For developers; run it on OpenCC's two tables.

    python -m pipelines.text.make_han_variants PATH/TO/opencc/dictionary

The folder with STCharacters.txt and TSCharacters.txt is in the sdist of OpenCC and in the wheel of
opencc-python-reimplemented 0.1.7 (both Apache-2.0). A letter is simplified only where every traditional form that
STCharacters gives it is another letter, and traditional only likewise by TSCharacters; letters of both are left out.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from pipelines.text.language import VARIANTS_PATH
from pipelines.text.make_han import write


def one_sided(lines: list[str]) -> set[int]:
    """Read 'letter TAB form [form …]' lines; returns the letters of the BMP that are none of their own forms."""
    found = set()
    for line in lines:
        letter, _, forms = line.rstrip("\n").partition("\t")
        if len(letter) == 1 and ord(letter) <= 0xFFFF and letter not in forms.split(" "):
            found.add(ord(letter))
    return found


def variants(simplified_to_traditional: list[str], traditional_to_simplified: list[str]) -> dict[str, np.ndarray]:
    """Make the sorted uint16 arrays 'simplified' and 'traditional' of letters of one side only."""
    simplified, traditional = one_sided(simplified_to_traditional), one_sided(traditional_to_simplified)
    return {
        "simplified": np.array(sorted(simplified - traditional), np.uint16),
        "traditional": np.array(sorted(traditional - simplified), np.uint16),
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    tables = [
        (folder / f"{name}.txt").read_text(encoding="utf-8").splitlines() for name in ("STCharacters", "TSCharacters")
    ]
    made = variants(*tables)
    write(VARIANTS_PATH, made)
    print(f"{len(made['simplified'])} simplified, {len(made['traditional'])} traditional letters in {VARIANTS_PATH}")
