"""Make data/han_simplified.npz, the table that pipelines.text.words loads. For developers; run it on OpenCC's table.

    python -m pipelines.text.make_han PATH/TO/opencc/dictionary/TSCharacters.txt

The file is in the sdist of OpenCC and in the wheel of opencc-python-reimplemented 0.1.7 (both Apache-2.0). Of several
simplified forms the first, the usual one, is taken.
"""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

import numpy as np

from pipelines.text.words import DATA_PATH


def parse(lines: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Read 'traditional TAB simplified [simplified …]' lines into two sorted uint16 arrays, BMP characters only.

    Beyond the BMP a character has another length in UTF-8, and the segmenter's dictionary holds none of them.
    """
    pairs = {}
    for line in lines:
        traditional, _, simplified = line.rstrip("\n").partition("\t")
        first = simplified.split(" ")[0]
        if (
            len(traditional) == len(first) == 1
            and 0x800 <= ord(traditional) <= 0xFFFF
            and 0x800 <= ord(first) <= 0xFFFF
        ):
            pairs[ord(traditional)] = ord(first)
    keys = sorted(key for key, value in pairs.items() if key != value)
    return np.array(keys, np.uint16), np.array([pairs[key] for key in keys], np.uint16)


def write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write an npz without dates or compression: the same arrays give the same bytes everywhere."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array, version=(1, 0))
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), buffer.getvalue())


if __name__ == "__main__":
    traditional, simplified = parse(Path(sys.argv[1]).read_text(encoding="utf-8").splitlines())
    write(DATA_PATH, {"traditional": traditional, "simplified": simplified})
    print(f"{len(traditional)} characters in {DATA_PATH}")
