"""Images by memory map: decoded and transformed in threads, every draw a pure function of (seed, epoch, row id)."""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image, ImageEnhance, ImageOps, UnidentifiedImageError
from torch import Tensor

from schemas.base import SchemaError
from schemas.image import IMAGE
from trainer.attention import move
from trainer.data import DataConfig, name_of, named_shards, read_manifest
from trainer.masking import draws

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
UNDECODABLE = (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError)
OWN_BLOCK = 1 << 30  # of the counter of random words, beyond those of any mask
BICUBIC, BILINEAR = Image.Resampling.BICUBIC, Image.Resampling.BILINEAR


@dataclass(frozen=True)
class ImagesConfig:
    """What is done to images that are learned from; those measured on are only resized and cut to the middle square.

    crop: smallest share of an image's area that a random window keeps, of an aspect of 3:4 to 4:3 (Szegedy et al. 2015:
    0.08; He et al. 2021, for masked autoencoders: 0.2); 1: the middle square instead. flip: mirror half of the images.
    operations: of RandAugment (Cubuk et al. 2020) on each image; 0: none. magnitude: their greatest strength, at most
    10. mixup: parameter of the Beta distribution by which an image is mixed with the one before it (Zhang et al. 2018);
    0: none. mean, std: of pixels in 0…1, one for all channels or one for each. workers: threads that decode and
    transform. cache: MiB of decoded images that each process keeps.
    """

    crop: float = 0.3
    flip: bool = True
    operations: int = 2
    magnitude: float = 10.0
    mixup: float = 0.2
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)
    workers: int = 2
    cache: int = 1024

    def __post_init__(self) -> None:
        if not (0 < self.crop <= 1 and 0 <= self.magnitude <= 10 and 0 <= self.mixup <= 100):
            raise ValueError("images: crop is a share above 0, magnitude at most 10, mixup from 0 to 100")
        if min(self.operations, self.cache) < 0 or self.workers < 1 or min(self.std, default=0) <= 0:
            raise ValueError("images: operations and cache are not negative, workers at least 1, std above 0")
        if len(self.mean) != len(self.std):
            raise ValueError("images: mean and std must be as many")


class ImageDataset:
    """One table of image records of one or more dataset directories; every shard is mapped, none is read ahead."""

    tokenizer = None  # as the run of any dataset asks

    def __init__(self, directories: Sequence[Path], table: str, *, labelled: bool, channels: int = 3,
                 cache: int = 0) -> None:  # fmt: skip
        """Map the shards of `table`. labelled: leave out records without a label; `unlabelled` is their number.

        SchemaError where a directory, a manifest or a shard is amiss.
        """
        self.table, self.several, self.mode = table, len(directories), {1: "L", 3: "RGB"}[channels]
        manifests = [read_manifest(each) for each in directories]
        self._sha256 = name_of(manifests)
        self._paths: list[Path] = []
        parts, homes, self._bytes = [], [], list[pa.Array]()
        for number, (directory, manifest) in enumerate(zip(directories, manifests, strict=True)):
            for path, shard in named_shards(directory, manifest, table):
                reader = pa.ipc.open_file(pa.memory_map(str(path)))
                IMAGE.check_version(reader.schema, str(path))
                batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
                if (rows := sum(map(len, batches))) != shard.rows:
                    raise SchemaError(f"{path} holds {rows:,} rows; the manifest says {shard.rows:,}")
                self._paths += [path] * len(batches)
                self._bytes += [batch.column("image").field("bytes") for batch in batches]
                homes += [np.full(len(batch), number) for batch in batches]
                parts += [pa.table(batch.select([n for n in batch.schema.names if n != "image"])) for batch in batches]
        if not parts:
            raise SchemaError(f"{directories[0]}: table {table!r} holds no rows")
        whole = pa.concat_tables(parts)
        chosen = np.flatnonzero(whole["label"].is_valid().to_numpy()) if labelled else np.arange(len(whole))
        self.unlabelled = len(whole) - len(chosen)
        if not len(chosen):
            raise SchemaError(f"{directories[0]}: table {table!r} holds no {'labelled ' * labelled}rows")
        self.records = whole.take(pa.array(chosen)) if self.unlabelled else whole
        self.directory = np.concatenate(homes)[chosen]
        starts = np.cumsum([0, *(len(each) for each in self._bytes)])
        self._batch = np.searchsorted(starts, chosen, side="right") - 1
        self._offset = chosen - starts[self._batch]
        self.ids = np.array(self.records["id"].to_pylist(), "S16").view("<u8")[::2].copy()  # 64 bits key the draws
        self.labels: list[str | None] = self.records["label"].to_pylist()
        self.classes = np.zeros(len(chosen), np.int64)
        self._room, self._cache = cache << 20, dict[int, Image.Image]()

    def __len__(self) -> int:
        return len(self.ids)

    def sha256(self) -> str:
        """Name the data: the manifest's sha256, or of several manifests the sha256 of theirs."""
        return self._sha256

    def documents(self, rows: np.ndarray) -> pa.Table:
        """Id and source of rows."""
        return self.records.select(["id", "source"]).take(pa.array(rows))

    def weights(self, config: DataConfig) -> np.ndarray | None:
        """Weight of each row, float64 [rows], by its source and its directory; None where all are 1."""
        weights, mix = config.weights, config.mix
        sources = self.records["source"].combine_chunks().dictionary_encode()
        names = sources.dictionary.to_pylist()
        if unknown := sorted(set(weights) - set(names)):
            raise ValueError(f"data.weights names {unknown[0]!r}; the sources of {self.table!r}: {', '.join(names)}")
        if mix and len(mix) != self.several:
            raise ValueError(f"data.mix has {len(mix)} weights for {self.several} --data directories")
        found = np.array([weights.get(name, 1.0) for name in names])[sources.indices.to_numpy()]
        found = found * np.array(mix)[self.directory] if mix else found
        return None if (found == 1).all() else found

    def number(self, names: Sequence[str]) -> None:
        """Set `classes`, int64 [n]: each label's place in `names`; SchemaError where it is none of them."""
        known = {name: place for place, name in enumerate(names)}
        for row, label in enumerate(self.labels):
            if label not in known:
                where = f"table {self.table!r}, {self.records['locator'][row]}"
                raise SchemaError(f"{where}: label {label!r} does not occur in training: {', '.join(names)[:200]}")
        self.classes = np.array([known[str(label)] for label in self.labels], np.int64)

    def open(self, row: int) -> Image.Image:
        """Decode a row, or take it from the cache; SchemaError, which names it, where it cannot be decoded."""
        if (image := self._cache.get(row)) is not None:
            return image
        data = self._bytes[self._batch[row]][int(self._offset[row])].as_buffer()
        try:
            image = Image.open(io.BytesIO(data), formats=FORMATS).convert(self.mode)
        except UNDECODABLE as error:
            name, path = self.records["id"][row].as_py().hex(), self._paths[self._batch[row]]
            why = "no image file" if isinstance(error, UnidentifiedImageError) else error
            raise SchemaError(f"{path}, image {name}: {why}: make the shards from what clean has decoded") from error
        if (size := image.width * image.height * (1 if self.mode == "L" else 4)) <= self._room:
            self._room -= size
            self._cache[row] = image
        return image


class Loader:
    """Makes arrays of pixels with a pool of threads: Pillow decodes and resizes outside the interpreter's lock."""

    def __init__(self, dataset: ImageDataset, config: ImagesConfig, size: int) -> None:
        """size: side of the square images that come out, in pixels."""
        self.dataset, self.config, self.size = dataset, config, size
        self._pool = ThreadPoolExecutor(config.workers, "images") if config.workers > 1 else None

    def training(self, rows: np.ndarray, epochs: np.ndarray, seed: int) -> np.ndarray:
        """Cropped, mirrored and augmented: uint8 [rows, channels, size, size]."""
        chance = random(self.dataset.ids[rows], epochs, 6 + 3 * self.config.operations, seed)
        return self._map(lambda image, each: augment(image, chance[each], self.size, self.config), rows)

    def plain(self, rows: np.ndarray) -> np.ndarray:
        """The same, resized and cut to the middle square."""
        return self._map(lambda image, _: middle(image, self.size), rows)

    def _map(self, transform, rows: np.ndarray) -> np.ndarray:  # type: ignore[no-untyped-def]
        channels = len(self.dataset.mode)
        out = np.empty((len(rows), self.size, self.size, channels), np.uint8)

        def run(places: range) -> None:
            for place in places:
                image = transform(self.dataset.open(int(rows[place])), place)
                out[place] = np.asarray(image).reshape(self.size, self.size, channels)

        shares = [range(first, len(rows), self.config.workers) for first in range(self.config.workers)]
        for _ in map(run, shares) if self._pool is None else self._pool.map(run, shares):
            pass
        return np.ascontiguousarray(out.transpose(0, 3, 1, 2))


@dataclass(frozen=True)
class ImageBatch:
    """What the model reads.

    pixels: uint8 [n, channels, side, side]. labels: int64 [n]. extra: float32 [n], the share of the image itself in its
    mixture; or int64 [n, patches], all patches, those that are seen first. rows: int64 [n], global numbers. pieces,
    ordinary, counts: as of a MicroBatch whose documents are the images.
    """

    pixels: Tensor
    labels: Tensor
    extra: Tensor
    rows: np.ndarray
    pieces: np.ndarray
    ordinary: np.ndarray
    counts: tuple[int, int, int, int]

    @staticmethod
    def of(loader: Loader, rows: np.ndarray, epochs: np.ndarray | None, seed: int, patches: int) -> ImageBatch:
        """Read rows by their global numbers: a pure function. epochs: None to measure. patches: of an autoencoder."""
        ids, when = loader.dataset.ids[rows], np.zeros(len(rows), np.int64) if epochs is None else epochs
        pixels = loader.plain(rows) if epochs is None else loader.training(rows, epochs, seed)
        if patches:
            extra = np.argsort(random(ids, when, patches, seed, first=1 << 20), axis=1, kind="stable")
        else:
            shape = 0 if epochs is None else loader.config.mixup
            extra = mixing(random(ids, when, 1, seed, first=1 << 21)[:, 0], shape)
        count = len(rows)
        one, two, three = (torch.from_numpy(each) for each in (pixels, loader.dataset.classes[rows], extra))
        return ImageBatch(one, two, three, rows, np.arange(count), np.ones(count, np.int64), (count, 0, count, 0))

    def pinned(self) -> ImageBatch:
        """Copy into pinned memory, from where a device reads without the processor."""
        return replace(self, **{name: getattr(self, name).pin_memory() for name in ("pixels", "labels", "extra")})

    def arguments(self, device: torch.device, *, dense: bool = False) -> tuple[Any, ...]:
        """What Objective.forward takes, on a device."""
        return move((self.pixels, self.labels, self.extra), device)


def random(ids: np.ndarray, epochs: np.ndarray, count: int, seed: int, first: int = 0) -> np.ndarray:
    """Draw from 0…1, float64 [rows, count]: of rows, uint64 [rows] by id, in an epoch, int64 [rows]."""
    words, _ = draws(ids, epochs, count, seed, first=OWN_BLOCK + first)
    return words / 2.0**32


def middle(image: Image.Image, size: int) -> Image.Image:
    """Resize the shorter side to `size` and cut out the middle, as ViTImageProcessor does with our settings."""
    width, height = image.size
    short = min(width, height)
    if short != size:
        image = image.resize((size * width // short, size * height // short), BILINEAR)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size)) if image.size != (size, size) else image


def augment(image: Image.Image, chance: np.ndarray, size: int, config: ImagesConfig) -> Image.Image:
    """Transform an image by numbers in 0…1, float64 [6 + 3 · operations]."""
    if config.crop < 1:
        width, height = image.size
        area, ratio = width * height * (config.crop + (1 - config.crop) * chance[0]), (4 / 3) ** (2 * chance[1] - 1)
        wide, high = min(width, (area * ratio) ** 0.5), min(height, (area / ratio) ** 0.5)
        left, top = chance[2] * (width - wide), chance[3] * (height - high)
        image = image.resize((size, size), BICUBIC, (left, top, left + wide, top + high))
    else:
        image = middle(image, size)
    if config.flip and chance[4] < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    fill = tuple(round(255 * each) for each in config.mean)
    fill = fill * len(image.getbands()) if len(fill) == 1 else fill
    for one, sign, share in chance[6:].reshape(-1, 3):
        operate = OPERATIONS[int(one * len(OPERATIONS))]
        image = operate(image, (1 if sign < 0.5 else -1) * config.magnitude / 10 * share, fill)
    return image


def affine(image: Image.Image, matrix: tuple[float, ...], fill: tuple[int, ...]) -> Image.Image:
    """Move pixels about the middle: matrix (a, b, c, d) and a shift (x, y) in shares of the sides."""
    a, b, c, d, x, y = matrix
    w, h = (image.width - 1) / 2, (image.height - 1) / 2
    data = (a, b, w - a * w - b * h + x * image.width, c, d, h - c * w - d * h + y * image.height)
    return image.transform(image.size, Image.Transform.AFFINE, data, BILINEAR, fillcolor=fill)


# RandAugment's operations with its ranges; strength −1…1
OPERATIONS = (
    lambda image, s, fill: image,
    lambda image, s, fill: ImageOps.autocontrast(image),
    lambda image, s, fill: ImageOps.equalize(image),
    lambda image, s, fill: image.rotate(30 * s, BILINEAR, fillcolor=fill),
    lambda image, s, fill: affine(image, (1, 0.3 * s, 0, 1, 0, 0), fill),
    lambda image, s, fill: affine(image, (1, 0, 0.3 * s, 1, 0, 0), fill),
    lambda image, s, fill: affine(image, (1, 0, 0, 1, 0.45 * s, 0), fill),
    lambda image, s, fill: affine(image, (1, 0, 0, 1, 0, 0.45 * s), fill),
    lambda image, s, fill: ImageOps.posterize(image, 8 - round(4 * abs(s))),
    lambda image, s, fill: ImageOps.solarize(image, 256 - round(256 * abs(s))),
    lambda image, s, fill: ImageEnhance.Brightness(image).enhance(1 + 0.9 * s),
    lambda image, s, fill: ImageEnhance.Color(image).enhance(1 + 0.9 * s),
    lambda image, s, fill: ImageEnhance.Contrast(image).enhance(1 + 0.9 * s),
    lambda image, s, fill: ImageEnhance.Sharpness(image).enhance(1 + 0.9 * s),
)


@functools.lru_cache(1)
def _beta(shape: float) -> tuple[np.ndarray, np.ndarray]:
    """Lower half of the distribution function of Beta(shape, shape), over x.

    Below a shape of 1 the density has a pole at 0: over t = x^shape it is smooth there.
    """
    if shape > 1:
        x = np.linspace(0, 0.5, 8193)
        density = (4 * x * (1 - x)) ** (shape - 1)
    else:
        x = np.linspace(0, 0.5**shape, 2049) ** (1 / shape)
        density = (1 - x) ** (shape - 1)
    total = np.append(0, np.cumsum((density[1:] + density[:-1]) / 2))
    return total / total[-1] / 2, x


def mixing(chance: np.ndarray, shape: float) -> np.ndarray:
    """Turn numbers in 0…1 into shares of the first image, Beta(shape, shape): float32, as many; all 1 for shape 0."""
    if not shape:
        return np.ones(len(chance), np.float32)
    low = np.interp(np.minimum(chance, 1 - chance), *_beta(shape))
    return np.where(chance < 0.5, low, 1 - low).astype(np.float32)
