"""What differs between texts and images when duplicates are sought: how a kind is signed, linked and decided on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core.dataset import Dataset
from pipelines.core.kinds import Kind
from schemas.base import SchemaError
from schemas.manifest import Shard

if TYPE_CHECKING:
    from pipelines.lsh.config import DedupeConfig
    from pipelines.lsh.nodes import IndexShard, Nodes

INDEX = "index"
EXACT, NEAR = "exact_duplicate", "near_duplicate"
HEAD = ("id", "source", "locator", "content_hash")  # columns of every index that decisions need


class Signer(ABC):
    """Write the index of one shard; iterating yields each batch of it, as it is written.

    shard: the manifest line, once all was read. seen: records by source. facts: numbers that the run adds up.
    """

    shard: Shard | None = None

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.facts: Counter[str] = Counter()

    @abstractmethod
    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """Yield the batches."""


class Rows(NamedTuple):
    """Index rows of one shard. start: node number of the first. taking: bool[n], those that take part; None: all."""

    start: int
    batches: Iterable[pa.RecordBatch]
    taking: np.ndarray | None = None

    def parts(self) -> Iterator[tuple[pa.RecordBatch, int, np.ndarray]]:
        """Yield each batch, the node number of its first row, and which of its rows take part: bool[n]."""
        done = 0
        for batch in self.batches:
            taking = np.ones(len(batch), np.bool_) if self.taking is None else self.taking[done:][: len(batch)]
            yield batch, self.start + done, taking
            done += len(batch)


class Probe(Protocol):
    """Knows which buckets the records have that may be removed, so that most others need not be shuffled."""

    def entries(self, shard: Rows, bands: range) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yield what `Method.entries` does of a shard, but only where a record that may be removed may be."""


class Linked(NamedTuple):
    """What one group of buckets gives: edges int64[m] (left, right), and facts for the driver.

    sizes, examples: int64, the sizes of its buckets, and a node of each. facts: numbers that the run adds up.
    """

    left: np.ndarray
    right: np.ndarray
    sizes: np.ndarray
    examples: np.ndarray
    facts: dict[str, int]


class Decided(NamedTuple):
    """What was decided about the candidates of whole components, in the order of decision.

    nodes: int64[n]. heads: the columns of HEAD and `fixed`. kept: int64[n], position of the kept twin, or -1. reason:
    uint8[n], a position in the method's `reasons`. similarity, error: float64[n] to that twin. cluster: int64[n],
    smallest position of its cluster. capped: comparisons that a cap left out.
    """

    nodes: np.ndarray
    heads: pa.RecordBatch
    kept: np.ndarray
    reason: np.ndarray
    similarity: np.ndarray
    error: np.ndarray
    cluster: np.ndarray
    capped: int


class Method(ABC):
    """How duplicates of one kind of records are found.

    kind: of the corpus. measured: table whose bytes are read. needs: tables besides the kind's own. reasons: of the
    ledger's rows. counted: facts of tasks that the run adds up.
    """

    kind: Kind
    measured: str
    needs: tuple[str, ...] = ()
    reasons: tuple[str, ...]
    counted: tuple[str, ...] = ("capped_comparisons",)

    @abstractmethod
    def signing(self, config: dict[str, Any]) -> dict[str, Any]:
        """The settings, of a configuration as a mapping, that an index depends on."""

    @abstractmethod
    def check_index(self, schema: pa.Schema, where: str) -> None:
        """Raise SchemaError where an index is not one of this method's."""

    @abstractmethod
    def bands(self, config: DedupeConfig) -> int:
        """The number of bands besides that of the content."""

    @abstractmethod
    def bucket_bytes(self, config: DedupeConfig) -> int:
        """Most bytes of a record in the shuffle of one band."""

    def ranges(self, least: int) -> int:
        """The number of ranges, at least `least`, that a band's hashes are cut into."""
        return least

    def cap(self, config: DedupeConfig) -> int:
        """Buckets of more than this are reported."""
        return config.bucket_cap

    @abstractmethod
    def signer(self, dataset: Dataset, key: str, table: str, root: str, config: DedupeConfig) -> Signer:
        """Make the signer of one shard."""

    @abstractmethod
    def entries(
        self, index: pa.RecordBatch, start: int, here: np.ndarray, bands: range, config: DedupeConfig
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yield each band, and the hashes uint64[m] and entries int64[m] that index rows put into its buckets.

        start: node number of the first row. here: bool[n], the rows that take part.
        """

    @abstractmethod
    def link(
        self, band: int, hashes: np.ndarray, entries: np.ndarray, numbering: Nodes, config: DedupeConfig
    ) -> Linked:
        """Turn the buckets of one range of a band into edges."""

    @abstractmethod
    def probe(self, shards: Sequence[IndexShard], config: DedupeConfig, scratch: str) -> Probe | None:
        """Write the probe of the shards whose records may be removed; None where nothing can be spared."""

    @abstractmethod
    def decide(self, nodes: np.ndarray, component: np.ndarray, numbering: Nodes, config: DedupeConfig) -> Decided:
        """Decide on the candidates of whole components; SchemaError where a record stands on both sides."""

    @abstractmethod
    def thresholds(self, config: DedupeConfig) -> tuple[float, ...]:
        """The least similarity for each of the reasons."""

    @abstractmethod
    def notes(self, facts: dict[str, Any], config: DedupeConfig) -> list[str]:
        """What the run says about itself, in lines for a person."""


def refuse_both(heads: pa.RecordBatch) -> None:
    """Raise SchemaError where a record stands in the input and in what it is compared with."""
    fixed = heads.column("fixed")
    if fixed.true_count:
        ids = heads.column("id")
        both = heads.filter(pc.and_not(pc.is_in(ids, ids.filter(fixed)), fixed))
        if len(both):
            one = both.slice(0, 1).to_pylist()[0]
            raise SchemaError(
                f"record {one['locator']!r} of source {one['source']!r} is in the input and in what --against names: "
                "it would be removed for itself; give only new records as --input"
            )
