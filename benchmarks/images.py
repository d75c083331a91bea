"""Measure what an image costs from its bytes to its output, beside img2dataset's resizer.

    python -m venv PEERS                                        once: an environment of the peer's own
    PEERS/bin/pip install img2dataset==1.47.0 scipy
    python benchmarks/images.py --peers-python PEERS/bin/python
    python benchmarks/images.py --rounds 3 --photos 40          ours only, quickly

Work: decode, validate, turn upright, hash the pixels, make the thumbnail, resize the shorter side to 256, encode as
JPEG q95 4:2:0. The peer does no hash and no thumbnail; its settings are its defaults (area averages, q95); "the peer's
part" is ours without them. Our filter is hamming, which comes closer than area averages to a Lanczos filter in floating
point (43.8 dB against 42.8 where 0.2 megapixels shrink to 256; box 39.4, bicubic 48.7). One core, one thread, files in
memory, CPU seconds; passes of all alternate, the numbers are medians, start-up is left out.

Photos: those of ../shared/data/caltech101_subset.tar are small (0.06 megapixels), so they are enlarged (Lanczos) to 0.2
megapixels and saved as JPEG q97, which gives about the bytes that real photos of this size have; and to 12 megapixels
as JPEG q90. Enlarged photos have less detail than real ones: mind the bytes, which are shown.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import psutil  # noqa: E402
from measure import use_cores  # noqa: E402
from PIL import Image  # noqa: E402

from pipelines.images.config import ImageConfig, Refused  # noqa: E402
from pipelines.images.decode import decode, examine, flatten, turn_upright  # noqa: E402
from pipelines.images.encode import encode  # noqa: E402
from pipelines.images.process import process  # noqa: E402
from pipelines.images.resize import least, resize  # noqa: E402
from pipelines.images.sandbox import ENVIRONMENT, Sandbox  # noqa: E402

PHOTOS = ROOT.parent / "shared" / "data" / "caltech101_subset.tar"
PEER = ROOT / "benchmarks" / "peers" / "images_img2dataset.py"
SIZES = {"0.2 MP": (200_000, 97, 1), "12 MP": (12_000_000, 90, 12)}  # pixels, quality, one photo of how many
OURS = {
    "whole": {},
    "whole, simplejpeg": {"decoder": "simplejpeg"},
    "whole, in the sandbox": {},
    "the peer's part": {},
    "the peer's part, box": {"filter": "box"},
}
PEER_NAME = "img2dataset"


def write_photos(folder: Path, count: int, pixels: int, quality: int) -> None:
    """Write so many photos of the corpus, spread over its classes, enlarged to so many pixels."""
    folder.mkdir()
    with tarfile.open(PHOTOS) as archive:
        members = sorted((one for one in archive if one.isfile()), key=lambda one: one.name)
        for number, member in enumerate(members[:: max(1, len(members) // count)][:count]):
            image = Image.open(archive.extractfile(member)).convert("RGB")  # type: ignore[arg-type]
            scale = (pixels / (image.width * image.height)) ** 0.5
            size = round(image.width * scale), round(image.height * scale)
            image.resize(size, Image.Resampling.LANCZOS).save(folder / f"{number:05}.jpg", quality=quality)


def peers_part(data: bytes, config: ImageConfig) -> bytes | Refused:
    """Do what img2dataset does, and no more: decode, resize, encode; no hash and no thumbnail."""
    source = examine(data, config)
    if isinstance(source, Refused):
        return source
    decoded = decode(source, least(*source.upright, config), config)
    flat = decoded if isinstance(decoded, Refused) else flatten(decoded, config.background)
    if isinstance(flat, Refused):
        return flat
    upright = turn_upright(flat, source.orientation)
    return encode(resize(upright, source.upright, config), "jpeg", config)


def serve(folder: Path, way: str) -> None:
    """Process a folder's files once for every line of standard input; prints CPU seconds as JSON."""
    images = [path.read_bytes() for path in sorted(folder.iterdir())]
    config = ImageConfig(resize="keep_ratio", size=256, encoding="jpeg", **OURS[way])
    with Sandbox(config) as sandbox:
        one = peers_part if way.startswith("the peer") else process
        for _ in sys.stdin:
            start = _cpu()
            results = sandbox.process(images) if "sandbox" in way else [one(image, config) for image in images]
            failed = sum(isinstance(result, Refused) for result in results)
            print(json.dumps({"cpu": _cpu() - start, "failed": failed}), flush=True)


def _cpu() -> float:
    """CPU seconds of this process and its children, that run or ran."""
    children = sum(sum(one.cpu_times()[:2]) for one in psutil.Process().children())
    ended = os.times()
    return time.process_time() + children + ended.children_user + ended.children_system


@contextmanager
def serving(command: list[str]) -> Iterator[Callable[[], float]]:
    """Start a command that serves passes; gives a function that runs one and returns its CPU seconds."""
    environment = os.environ | ENVIRONMENT | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as server:

        def one() -> float:
            assert server.stdin is not None and server.stdout is not None
            server.stdin.write("\n")
            server.stdin.flush()
            answer = json.loads(server.stdout.readline())
            if answer["failed"]:
                raise SystemExit(f"{answer['failed']} photos failed in: {' '.join(command)}")
            return answer["cpu"]

        yield one
        assert server.stdin is not None
        server.stdin.close()


def rounds(folder: Path, ways: dict[str, list[str]], count: int) -> dict[str, list[float]]:
    """Run so many passes of all ways in turn, after one that does not count; CPU seconds of each."""
    with ExitStack() as stack:
        servers = {name: stack.enter_context(serving(command)) for name, command in ways.items()}
        found: dict[str, list[float]] = {name: [] for name in servers}
        for number in range(count + 1):
            for name, one in servers.items():
                seconds = one()
                if number:
                    found[name].append(seconds)
    return found


def show(title: str, folder: Path, found: dict[str, list[float]]) -> None:
    """Print a table: images and bytes a second, and how often that of the peer."""
    sizes = [path.stat().st_size for path in folder.iterdir()]
    print(f"\n{title}: {len(sizes)} photos, {sum(sizes) / len(sizes) / 1000:.0f} kB on average")
    print(f"  {'':22} {'images/s':>9} {'MB/s':>7} {'× img2dataset':>14}")
    for name, seconds in found.items():
        rate = len(sizes) / statistics.median(seconds)
        ratio = ""
        if PEER_NAME in found:
            ratio = f"{statistics.median(p / s for p, s in zip(found[PEER_NAME], seconds, strict=True)):.2f}"
        print(f"  {name:22} {rate:9.0f} {rate * sum(sizes) / len(sizes) / 1e6:7.1f} {ratio:>14}")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers-python", metavar="PATH", help="Python of the peer's environment; without: ours only")
    parser.add_argument("--photos", type=int, default=120, metavar="N", help="of 0.2 megapixels (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="passes of each (default: %(default)s)")
    parser.add_argument("--serve", nargs=2, metavar=("FOLDER", "WAY"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(Path(args.serve[0]), args.serve[1])
        return
    if not PHOTOS.exists():
        raise SystemExit("no real photos here: caltech101_subset.tar is not in ../shared/data")
    use_cores(1)
    print(f"load of the machine before the first run: {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory(prefix="gristmill-bench-") as work:
        for title, (pixels, quality, share) in SIZES.items():
            folder = Path(work) / title
            write_photos(folder, max(1, args.photos // share), pixels, quality)
            ours = [sys.executable, __file__, "--serve", str(folder)]
            ways = {name: [*ours, name] for name in OURS}
            if args.peers_python:
                ways[PEER_NAME] = [args.peers_python, str(PEER), str(folder)]
            show(title, folder, rounds(folder, ways, args.rounds))


if __name__ == "__main__":
    main()
