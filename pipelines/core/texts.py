"""Find the texts of a few records: the documents that an index was made of, and the records in them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core import files
from pipelines.core.dataset import DOCUMENTS, Dataset, expand
from pipelines.core.shards import take_rows
from schemas.base import SchemaError
from schemas.manifest import MANIFEST_PATH

# Besides white space: what would move the cursor of a terminal, or turn the direction of the text around it.
_UNSEEN = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]+")


def document_sets(dataset: Dataset, given: Sequence[str] | None = None) -> list[Dataset]:
    """Open the dataset directories that hold the documents of `dataset`.

    given: directories or patterns; those of them that `dataset` names as its inputs, or all where it names none of
    them. Without `given`, the inputs are looked for beside the dataset and one level below that; what is not there (or
    is there no more as it was read) is left out. SchemaError where a given directory has no documents/.
    """
    wanted = {sha256 for manifest in dataset.manifests for sha256 in manifest.inputs}
    if given is not None:
        opened = [Dataset.open(root).require(DOCUMENTS) for root in expand(given)]
        return [one for one in opened if set(one.sha256s) & wanted] or opened
    return [one for one in beside(dataset, wanted) if one.has(DOCUMENTS)]


def kin(dataset: Dataset, given: Sequence[Dataset]) -> list[Dataset]:
    """The datasets that may hold the documents of `dataset`: itself, those beside it (`document_sets`), and `given`."""
    own = [dataset] if dataset.has(DOCUMENTS) else document_sets(dataset)
    return list({one.roots: one for one in [*own, *given]}.values())


def beside(dataset: Dataset, wanted: set[str]) -> list[Dataset]:
    """Open the dataset directories beside `dataset`, or one level below that, whose manifest's sha256 is wanted."""
    roots: set[str] = set()
    for root in dataset.roots if wanted else ():
        above = root.rpartition("/")[0] or ("." if "/" not in root else "/")
        for pattern in ("*", "*/*"):
            paths = [path for path, _ in files.match(files.join(above, pattern, MANIFEST_PATH))]
            roots |= {path[: -len(MANIFEST_PATH)].rstrip("/") for path in paths}
    found = []
    for root in sorted(roots):
        try:
            one = Dataset.open(root)
        except SchemaError:  # of a newer format, or being written: none of those that are wanted
            continue
        if set(one.sha256s) & wanted:
            found.append(one)
    return found


def texts(documents: Sequence[Dataset], wanted: Mapping[str, Sequence[bytes]]) -> dict[bytes, str]:
    """Read the texts of records by shard key and id; a record that no shard of that key holds is left out.

    Memory: the ids of one shard, and the texts asked for.
    """
    found: dict[bytes, str] = {}
    for key, ids in sorted(wanted.items()):
        values = pa.array(sorted(set(ids)), pa.binary(16))
        for dataset in documents:
            if dataset.shard(DOCUMENTS, key) is None:
                continue
            for batch in dataset.batches(DOCUMENTS, key, ["id", "text"]):
                rows = np.flatnonzero(pc.is_in(batch.column("id"), values).to_numpy(zero_copy_only=False))
                for row in rows.tolist():
                    found[batch.column("id")[row].as_py()] = batch.column("text")[row].as_py()
    return found


def gather(
    dataset: Dataset, table: str, shards: np.ndarray, numbers: np.ndarray, documents: Sequence[Dataset]
) -> tuple[dict[bytes, str], dict[bytes, str]]:
    """Read the locators and texts, by id, of rows of a table: `shards` are positions in its keys, `numbers` of rows.

    The texts are those that `documents` hold under the same shard key, see `texts`.
    """
    keys = dataset.keys(table)
    locators: dict[bytes, str] = {}
    ids: dict[str, list[bytes]] = {}
    for shard in np.unique(shards).tolist():
        rows = take_rows(dataset.open_shard(table, keys[shard]), numbers[shards == shard], ["id", "locator"])
        ids[keys[shard]] = rows.column("id").to_pylist()
        locators |= zip(ids[keys[shard]], rows.column("locator").to_pylist(), strict=True)
    return locators, texts(documents, ids)


def excerpt(text: str, length: int = 240) -> str:
    """The first `length` characters on one line, without control characters, and '…' where there are more."""
    line = _UNSEEN.sub(" ", text[: 4 * length]).strip()
    return line if len(line) <= length and len(text) <= 4 * length else line[:length].rstrip() + "…"
