"""Load packed rows with another library: shuffled, in batches of int64 token ids with document boundaries.

    python trainer_loading.py LOADER DATA WORK --prepare            write DATA's rows as the loader wants them, once
    python trainer_loading.py LOADER DATA WORK --rows 8             then: a command a line, a JSON object a line

Commands: `digest` reads an epoch and hashes its rows, in whatever order they came; `pass SECONDS` goes on reading for
so long and says how many rows it got, in which wall and CPU time (of this process).

Loaders read the columns that are asked for and no others, and each keeps them in its most compact form: token ids as
uint16, lengths as uint16. `datasets` reads DATA itself.
"""

from __future__ import annotations

import argparse
import json
import sys
import types
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch.utils.data import DataLoader
from trainer_rows import digest, endless, timed

COLUMNS = ["input_ids", "seq_lens"]
Batch = tuple[torch.Tensor, "torch.Tensor | None", "torch.Tensor | None"]  # token ids, lengths, documents of each row


def collate(samples: list[dict[str, Any]]) -> Batch:
    """Stack rows of numpy arrays: int64 [rows, length], int64 [documents], int64 [rows]."""
    ids = np.stack([sample["input_ids"] for sample in samples]).astype(np.int64)
    lens = [sample["seq_lens"] for sample in samples]
    counts = np.array([len(each) for each in lens])
    return torch.from_numpy(ids), torch.from_numpy(np.concatenate(lens).astype(np.int64)), torch.from_numpy(counts)


def collate_torch(samples: list[dict[str, torch.Tensor]]) -> Batch:
    """Stack rows of int64 tensors."""
    lens = [sample["seq_lens"] for sample in samples]
    ids = torch.stack([sample["input_ids"] for sample in samples])
    return ids, torch.cat(lens), torch.tensor([len(each) for each in lens])


def collate_tokens(samples: list[torch.Tensor]) -> Batch:
    """Stack rows of token ids, of which no boundaries are kept."""
    return torch.stack(samples).long(), None, None


def table(data: Path, form: str) -> Any:
    """Open the training rows of a packed dataset directory."""
    return datasets.load_from_disk(str(data))["train"].with_format(form, columns=COLUMNS)


def samples(data: Path) -> Iterator[dict[str, np.ndarray]]:
    """Yield every row as numpy arrays: uint16 [length] and uint16 [documents]."""
    for batch in table(data, "arrow").iter(1000):
        ids = np.stack(batch["input_ids"].to_numpy())
        for row, lens in zip(ids, batch["seq_lens"].to_numpy(), strict=True):
            yield {"input_ids": row.astype(np.uint16), "seq_lens": lens.astype(np.uint16)}


def token_rows(item: tuple[str, int]) -> Iterator[torch.Tensor]:
    """Yield the token ids of every row (litdata calls it with a picklable argument, in a process of its own)."""
    for sample in samples(Path(item[0])):
        yield torch.from_numpy(sample["input_ids"])


def whole_rows(item: tuple[str, int]) -> Iterator[dict[str, np.ndarray]]:
    """Yield every row with its boundaries."""
    yield from samples(Path(item[0]))


# --- the loaders: each returns a function that starts an epoch --------------------------------------------------------


def datasets_indexed(args: argparse.Namespace) -> Callable[[int], Iterator[Batch]]:
    """Read batches by random row numbers, as a loop without a DataLoader does."""
    rows = table(args.data, "torch")

    def epoch(number: int) -> Iterator[Batch]:
        order = np.random.default_rng(number).permutation(len(rows))
        for start in range(0, len(order), args.rows):
            batch = rows[order[start : start + args.rows].tolist()]
            lens = batch["seq_lens"]  # one tensor where all rows have as many documents, else a list
            yield batch["input_ids"], torch.cat(list(lens)), torch.tensor([len(each) for each in lens])

    return epoch


def datasets_loader(args: argparse.Namespace) -> Callable[[int], Iterator[Batch]]:
    """Read through a shuffling DataLoader."""
    return _epochs(DataLoader(
        table(args.data, "torch"), args.rows, shuffle=True, collate_fn=collate_torch, num_workers=args.workers
    ))  # fmt: skip


def datasets_numpy(args: argparse.Namespace) -> Callable[[int], Iterator[Batch]]:
    """Read batches by random row numbers as numpy arrays, which is faster than its torch format."""
    rows = table(args.data, "numpy")

    def epoch(number: int) -> Iterator[Batch]:
        order = np.random.default_rng(number).permutation(len(rows))
        for start in range(0, len(order), args.rows):
            batch = rows[order[start : start + args.rows].tolist()]
            lens = list(batch["seq_lens"])
            ids = torch.from_numpy(np.asarray(batch["input_ids"]).astype(np.int64))
            flat = torch.from_numpy(np.concatenate(lens).astype(np.int64))
            yield ids, flat, torch.tensor([len(each) for each in lens])

    return epoch


def streaming(args: argparse.Namespace) -> Callable[[int], Iterator[Batch]]:
    """Write and read MDS."""
    # Its vision module asks for torchvision, of which no build fits every build of torch; nothing here needs it.
    sys.modules["streaming.vision"] = types.ModuleType("streaming.vision")
    import streaming as mds

    folder = args.work / "mds"
    if args.prepare:
        length = len(next(samples(args.data))["input_ids"])
        columns = {"input_ids": f"ndarray:uint16:{length}", "seq_lens": "ndarray:uint16"}
        with mds.MDSWriter(out=str(folder), columns=columns) as writer:
            for sample in samples(args.data):
                writer.write(sample)
    mds.base.util.clean_stale_shared_memory()
    rows = mds.StreamingDataset(local=str(folder), shuffle=True, batch_size=args.rows)
    return _epochs(DataLoader(rows, args.rows, collate_fn=collate, num_workers=args.workers))


def litdata(args: argparse.Namespace) -> Callable[[int], Iterator[Batch]]:
    """Write and read litdata's chunks, whole rows."""
    import litdata as lit

    folder = args.work / "litdata"
    if args.prepare:
        lit.optimize(
            whole_rows, [(str(args.data), 0)], str(folder), chunk_bytes="64MB", num_workers=1,
            start_method="fork", verbose=False,
        )  # fmt: skip
    rows = lit.StreamingDataset(str(folder), shuffle=True)
    return _epochs(lit.StreamingDataLoader(rows, batch_size=args.rows, collate_fn=collate, num_workers=args.workers))


def litdata_tokens(args: argparse.Namespace) -> Callable[[int], Iterator[Batch]]:
    """Write and read litdata's chunks of bare token ids: no boundaries of documents."""
    import litdata as lit

    folder, length = args.work / "litdata_tokens", len(next(samples(args.data))["input_ids"])
    if args.prepare:
        lit.optimize(
            token_rows, [(str(args.data), 0)], str(folder), chunk_size=length * 32_768, num_workers=1,
            start_method="fork", item_loader=lit.TokensLoader(), verbose=False,
        )  # fmt: skip
    rows = lit.StreamingDataset(str(folder), item_loader=lit.TokensLoader(block_size=length), shuffle=True)
    return _epochs(
        lit.StreamingDataLoader(rows, batch_size=args.rows, collate_fn=collate_tokens, num_workers=args.workers)
    )


LOADERS = {
    "datasets": (datasets_loader, "datasets"),
    "datasets-indexed": (datasets_indexed, "datasets"),
    "datasets-numpy": (datasets_numpy, "datasets"),
    "streaming": (streaming, "mosaicml-streaming"),
    "litdata": (litdata, "litdata"),
    "litdata-tokens": (litdata_tokens, "litdata"),
}


def _epochs(loader: Any) -> Callable[[int], Iterator[Batch]]:
    return lambda number: iter(loader)


def main() -> None:
    """Answer commands until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("loader", choices=LOADERS)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--prepare", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    start, package = LOADERS[args.loader]
    epoch = start(args)
    if args.prepare:
        return
    batches = endless(epoch)
    answers = sys.stdout
    sys.stdout = sys.stderr  # libraries print; the answers must stay alone
    print(json.dumps({"version": version(package)}), file=answers, flush=True)
    for line in sys.stdin:
        command, *rest = line.split()
        if command == "digest":
            answer = digest(tuple(None if part is None else part.numpy() for part in batch) for batch in epoch(0))
        else:
            answer = timed(batches, float(*rest))
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
