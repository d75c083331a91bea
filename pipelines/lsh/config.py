"""What counts as a duplicate: the configuration of the stage `dedupe`."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipelines.lsh.survivors import POLICIES
from pipelines.text.minhash import MinHashConfig

_LONGEST_SHINGLE = 1000


@dataclass(frozen=True)
class DedupeConfig:
    """What counts as a duplicate, and which one of them stays.

    near: find near-duplicates too; else exact ones only. within: remove duplicates of one another, besides those of
    the records that --against names. threshold: least Jaccard similarity of the shingle sets for a removal.
    shingle_size: tokens per shingle. survivor: the policy, see `pipelines.lsh.survivors.policy_order`. sources: names
    in the order of their priority, for the policy 'source'. date_field: metadata field for the policy 'date' (ISO
    8601). bucket_cap: most kept documents of one bucket that a document is compared with. max_removed: greatest share
    of a source that may be removed; more fails the run.
    """

    near: bool = True
    within: bool = True
    threshold: float = 0.7
    shingle_size: int = 5
    minhash: MinHashConfig = field(default_factory=MinHashConfig)
    survivor: tuple[str, ...] = ("source", "length", "date")
    sources: tuple[str, ...] = ()
    date_field: str | None = None
    bucket_cap: int = 1000
    max_removed: float = 1.0
    compression: str | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for what would otherwise show only after the first pass, or never."""
        if not 0 < self.threshold <= 1:
            raise ValueError(f"threshold is a similarity above 0 and at most 1; got {self.threshold}")
        if not 0 <= self.max_removed <= 1:
            raise ValueError(f"max_removed is a share from 0 to 1; got {self.max_removed}")
        if min(self.shingle_size, self.bucket_cap) < 1:
            raise ValueError("shingle_size and bucket_cap are at least 1")
        if self.shingle_size > _LONGEST_SHINGLE:
            raise ValueError(f"shingle_size is at most {_LONGEST_SHINGLE}; got {self.shingle_size}")
        if len(set(self.survivor)) < len(self.survivor):
            raise ValueError(f"survivor names a policy twice: {', '.join(self.survivor)}")
        if unknown := set(self.survivor) - set(POLICIES):
            raise ValueError(f"unknown survivor policy {sorted(unknown)[0]!r}; known: {', '.join(POLICIES)}")
