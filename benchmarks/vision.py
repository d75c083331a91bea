"""Train on two real sets of small images, and show what pre-training without labels adds where labels are few.

    python benchmarks/vision.py digits [--processes 2]             ViT on scikit-learn's digits, three seeds
    python benchmarks/vision.py fashion [--processes 2]            ViT and ResNet on Fashion-MNIST
    python benchmarks/vision.py labels [--seeds 3]                 1 % of the labels: from scratch, and after an MAE

  digits    1,797 images of 8×8, which scikit-learn ships; a fifth is the test table, a twentieth picks the checkpoint.
  fashion   70,000 images of 28×28 of ../shared/data, split as published; 1,000 of the training images choose.
  labels    of the same 59,000 training images, 59 of each class (by a hash) keep their label. The MAE sees them all.

Each set is written as `gristmill shard` writes it (PNG in image records), and each run is the command itself, in
processes of its own. Accuracy is that of RUN/best on the test table; time is that of training, with its evaluations.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from corpora import SHARED
from measure import Measured, measure

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests" / "trainer"))  # the writer of datasets
from image_data import png, record, write_images  # noqa: E402

CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
COMMON = ["run.tensorboard=false", "run.log_every=0", "run.eval_every=0", "run.save_every=0", "run.keep=1"]
SMALL = ["images.workers=1", "images.operations=0"]  # a transform of so few pixels is over before a thread could help
DIGITS = [*SMALL, "model.preset=digits", "run.rows=32", "optim.lr=2e-3", "images.crop=0.7", "images.flip=false"]
FASHION = [
    *SMALL,
    "model.image_size=28",
    "model.channels=1",
    "images.crop=0.7",
    "images.mean=[0.3]",
    "images.std=[0.35]",
]
RESNET = ["model.preset=resnet8", "optim.lr=4e-3", "images.crop=0.8", "images.mixup=0"]
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
VIT = ["model.preset=mini", "model.layers=4", "model.hidden=64", "model.intermediate=256"]


def share(name: str) -> float:
    """A number in 0…1 by a hash of the name."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") / 2**64


def digits(folder: Path) -> Path:
    """Write the digits, split by a hash."""
    from sklearn.datasets import load_digits

    found, tables = load_digits(), {"train": [], "validation": [], "test": []}
    for number, (pixels, label) in enumerate(zip(found.images, found.target, strict=True)):
        name = f"{number:05d}.png"
        table = "test" if share(name) < 0.2 else "validation" if share(name) < 0.25 else "train"
        data = png(np.minimum(16 * pixels, 255).astype(np.uint8))
        tables[table].append(record(data, name, str(label), "digits"))
    return write_images(folder, tables)


def idx(name: str) -> np.ndarray:
    """Read one of Fashion-MNIST's IDX files."""
    raw = gzip.decompress((SHARED / "fashion_mnist" / f"{name}-ubyte.gz").read_bytes())
    sizes = np.frombuffer(raw, ">u4", count=raw[3], offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(sizes)


def fashion(folder: Path, per_class: int | None = None) -> Path:
    """Write Fashion-MNIST; per_class: how many training images of each class keep their label."""

    def records(split: str, prefix: str) -> Iterator[dict[str, Any]]:
        images, labels = idx(f"{prefix}-images-idx3"), idx(f"{prefix}-labels-idx1")
        for number, (pixels, label) in enumerate(zip(images, labels, strict=True)):
            yield record(png(pixels), f"{split}/{number:05d}.png", CLASSES[label], "fashion_mnist")

    train = sorted(records("train", "train"), key=lambda one: share(one["locator"]))
    validation, train = train[:1000], train[1000:]
    kept: Counter[str] = Counter()
    for one in train if per_class else ():
        kept[one["label"]] += 1
        one["label"] = one["label"] if kept[one["label"]] <= per_class else None
    return write_images(folder, {"train": train, "validation": validation, "test": records("test", "t10k")})


def train(name: str, data: Path, run: Path, options: list[str], given: argparse.Namespace, seed: int = 0,
          start: Path | None = None) -> Measured:  # fmt: skip
    """Run the command; run.seed is the seed of everything."""
    settings = [*COMMON, *options, f"run.processes={given.processes}", f"run.seed={seed}", *given.set]
    command = [sys.executable, "-m", "trainer.vision", "--data", str(data), "--output", str(run)]
    command += [part for setting in settings for part in ("--set", setting)]
    print(f"training {name} …", file=sys.stderr, flush=True)
    return measure([*command, *(["--init", str(start)] if start else [])], cwd=str(ROOT), environment=ONE_THREAD)


def test(data: Path, run: Path) -> float:
    """Accuracy of the best checkpoint on the test table."""
    out = run / "report"
    command = [sys.executable, "-m", "trainer.vision", "--evaluate", str(run / "best"), "--data", str(data)]
    measure([*command, "--output", str(out), "--set", "images.workers=1"], cwd=str(ROOT), environment=ONE_THREAD)
    return float(json.loads((out / "metrics.json").read_text())["accuracy"])


def row(*cells: Any) -> None:
    """Print a line of a table."""
    texts = [f"{each:.4f}" if isinstance(each, float) else str(each) for each in cells]
    print(f"{texts[0]:<34}" + "".join(f"{each:>12}" for each in texts[1:]), flush=True)


def on_digits(folder: Path, given: argparse.Namespace) -> None:
    """ViT on the digits, over seeds."""
    data, found = digits(folder / "digits"), []
    row("digits: 361 test images", "epochs", "accuracy", "wall s", "CPU s", "processes")
    epochs = given.epochs or 60
    for seed in range(given.seeds):
        run = folder / f"digits-{seed}"
        used = train("ViT", data, run, [*DIGITS, f"epochs={epochs}", "run.eval_every=200"], given, seed)
        found.append(test(data, run))
        row(f"ViT, seed {seed}", epochs, found[-1], round(used.wall), round(used.cpu), given.processes)
    row("mean", "", statistics.mean(found))


def on_fashion(folder: Path, given: argparse.Namespace) -> None:
    """ViT and ResNet on all labels."""
    data = fashion(folder / "fashion")
    row("fashion: 10,000 test images", "epochs", "accuracy", "wall s", "CPU s", "processes")
    for name, options, epochs in (("ViT", VIT, 10), ("ResNet-8", RESNET, 10)):
        epochs, run = given.epochs or epochs, folder / f"fashion-{name}"
        used = train(name, data, run, [*FASHION, *options, f"epochs={epochs}", "run.eval_every=700"], given)
        row(name, epochs, test(data, run), round(used.wall), round(used.cpu), given.processes)


def on_labels(folder: Path, given: argparse.Namespace) -> None:
    """A ViT on 1 % of the labels, with and without an autoencoder before it; each seed is another start and order."""
    data, mae = fashion(folder / "labels", 59), folder / "mae"
    epochs = given.epochs or 4
    pretrain = [
        "task=mae",
        f"epochs={epochs}",
        "images.crop=0.5",
        "optim.lr=2e-3",
        "optim.beta2=0.95",
        "run.eval_rows=200",
    ]
    used = train("MAE", data, mae, [*FASHION, *VIT, *pretrain], given)
    print(f"MAE: {epochs} epochs of 59,000 images, {used.wall:.0f} s, {used.cpu:.0f} CPU s")
    row("590 labels, 10,000 test images", "epochs", *(f"seed {seed}" for seed in range(given.seeds)), "mean")
    for name, start, epochs, options in (
        ("from scratch", None, 60, []), ("from scratch, three times as long", None, 180, []),
        ("after the MAE", mae, 60, ["layer_decay=0.75"]),
        ("after the MAE, three times as long", mae, 180, ["layer_decay=0.75"]),
    ):  # fmt: skip
        found = []
        for seed in range(given.seeds):
            run = folder / f"{name}-{seed}"
            sets = [*FASHION, *VIT, "run.rows=32", f"epochs={epochs}", "run.eval_every=100", *options]
            train(name, data, run, sets, given, seed, start)
            found.append(test(data, run))
        row(name, epochs, *found, statistics.mean(found))


def main() -> None:
    """Run what the command line asks for."""
    tables = {"digits": on_digits, "fashion": on_fashion, "labels": on_labels}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=tables)
    parser.add_argument("--processes", type=int, default=1, help="of each run, with a thread each beside the loader's")
    parser.add_argument("--seeds", type=int, default=3, help="of digits and labels")
    parser.add_argument("--epochs", type=int, help="replace the table's own; of labels those of the MAE")
    parser.add_argument("--set", action="append", default=[], metavar="PART.NAME=VALUE", help="replace an option")
    parser.add_argument("--folder", type=Path, help="keep data and runs here, in a new directory")
    given = parser.parse_args()
    if given.table != "digits" and not (SHARED / "fashion_mnist").exists():
        raise SystemExit("there is no ../shared/data/fashion_mnist here: only the table 'digits' can be measured")
    with tempfile.TemporaryDirectory() as temporary:
        tables[given.table](given.folder or Path(temporary), given)


if __name__ == "__main__":
    main()
