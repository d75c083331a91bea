"""The files that make a dataset directory open in Hugging Face `datasets` without our code.

`load_from_disk` wants dataset_dict.json at the root and state.json + dataset_info.json in each split; `load_dataset`
wants a README.md with explicit globs (without them it guesses, and drops splits whose names it does not know).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipelines.core import files
from pipelines.core.plots import json_bytes
from pipelines.core.shards import write_bytes
from pipelines.core.summary import books_table, size_lines
from schemas.manifest import Books, Manifest, Shard


def write_hugging_face_files(root: str, splits: Sequence[str], shards: Sequence[Shard], card: str) -> list[str]:
    """Write README.md, dataset_dict.json and each split's state; returns their paths relative to `root`."""
    contents = {"README.md": card.encode(), "dataset_dict.json": json_bytes({"splits": filled(splits, shards)})}
    for split in splits:
        own = sorted(shard for shard in shards if shard.table == split)
        fingerprint = "".join(shard.sha256[:4] for shard in own)[:16].ljust(16, "0")
        state: dict[str, object] = {
            "_data_files": [{"filename": shard.path.rsplit("/", 1)[1]} for shard in own],
            "_fingerprint": fingerprint,
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": split,
        }
        contents[f"{split}/state.json"] = json_bytes(state)
        contents[f"{split}/dataset_info.json"] = json_bytes({})
    for path, data in contents.items():
        write_bytes(files.join(root, path), data)
    return sorted(contents)


def filled(splits: Sequence[str], shards: Sequence[Shard]) -> list[str]:
    """The splits that hold a row: `load_dataset` fails on one that holds none."""
    return [split for split in splits if any(shard.rows for shard in shards if shard.table == split)]


def card(title: str, splits: Sequence[str], shards: Sequence[Shard], books: Mapping[str, Books], text: str) -> str:
    """Make the dataset card: YAML with explicit globs per split, what the rows are, and the books."""
    lines = ["---", "configs:", "- config_name: default", "  data_files:"]
    for split in filled(splits, shards):
        lines += [f"  - split: {split}", f"    path: {split}/*.arrow"]
    lines += ["---", "", f"# {title}", "", text.strip(), "", "## Splits", "", "```"]
    lines += size_lines(Manifest("", {}, {}, [], list(shards), {}))
    lines += ["```", "", "## Books", "", "in = kept + removed + rejected, for each source:", "", "```"]
    lines += [
        books_table(dict(books)),
        "```",
        "",
        "The ledger (`ledger/*.arrow`) holds one row for each removed record.",
        "",
    ]
    return "\n".join(lines)
