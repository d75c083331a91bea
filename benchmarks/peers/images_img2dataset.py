"""Resize images with img2dataset's Resizer: python images_img2dataset.py FOLDER. Runs in the peers' environment.

For every line of standard input it processes all files of the folder once, in memory, and prints one line of JSON: CPU
seconds, and what came out. The resizer's settings are its defaults: the shorter side to 256, area averages, JPEG q95.
"""

from __future__ import annotations

import io
import json
import sys
import time
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")  # albumentations announces its new versions

import cv2  # noqa: E402
from img2dataset.resizer import Resizer  # noqa: E402


def main() -> None:
    """Serve passes until standard input ends."""
    images = [path.read_bytes() for path in sorted(Path(sys.argv[1]).iterdir())]
    resizer = Resizer(image_size=256, resize_mode="keep_ratio", resize_only_if_bigger=True)
    cv2.setNumThreads(1)
    for _ in sys.stdin:
        start = time.process_time()
        results = [resizer(io.BytesIO(image)) for image in images]
        seconds = time.process_time() - start
        failed = sum(error is not None for *_, error in results)
        print(json.dumps({"cpu": seconds, "failed": failed}), flush=True)


if __name__ == "__main__":
    main()
