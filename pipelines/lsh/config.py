"""What counts as a duplicate: the configuration of the stage `dedupe`."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipelines.lsh.survivors import IMAGE_POLICIES, POLICIES
from pipelines.text.minhash import MinHashConfig

_LONGEST_SHINGLE = 1000
_WIDEST_CROP, _MOST_CROPS = 0.25, 32  # what is left is half of each side; a view costs 64 bytes of the shuffle


@dataclass(frozen=True)
class ImageDedupeConfig:
    """What counts as a duplicate of an image, and which one of them stays; measured in docs/images-dedupe.md.

    crops: shares of a side that the centred crops leave away at each end, by which cropped and framed copies are
    found. corners: look for corner crops too (of 5 and 10 %). orientations: for mirrored copies and quarter turns
    too. candidate_distance: most bits of 64 in which the hash of an image and of a view of another differ, where they
    share 16 in a row, for these two to be compared. correlation: least correlation of their detail for a removal.
    hash_distance: or most bits of 256 that differ, where the detail of three quarters of the area correlates with
    uncovered (a box covers the rest). flat: least standard deviation of the grey values; images of less have only
    exact copies. min_side: least pixels of the shorter side; smaller images (digits, icons) are alike without being
    copies, and have only exact copies. survivor: policies 'source', 'pixels' (most first), 'bytes' (most first).
    bucket_cap: most hashes on either side that one is compared with in a bucket, and most kept candidates that an image
    is compared with.
    """

    crops: tuple[float, ...] = (0.02, 0.04, 0.06, 0.08, 0.10, 0.12, 0.15, 0.18)
    corners: bool = False
    orientations: bool = False
    candidate_distance: int = 16
    correlation: float = 0.95
    hash_distance: int = 24
    uncovered: float = 0.98
    flat: float = 4.0
    min_side: int = 48
    survivor: tuple[str, ...] = ("source", "pixels", "bytes")
    bucket_cap: int = 2_000

    def __post_init__(self) -> None:
        """Raise ValueError for what would otherwise show only after the first pass, or never."""
        if not all(0 < share < _WIDEST_CROP for share in self.crops):
            raise ValueError(f"crops are shares above 0 and below {_WIDEST_CROP}; got {list(self.crops)}")
        if len(self.crops) > _MOST_CROPS or len(set(self.crops)) < len(self.crops):
            raise ValueError(f"crops are at most {_MOST_CROPS}, each another; got {list(self.crops)}")
        for name in ("correlation", "uncovered"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"images.{name} is a similarity above 0 and at most 1; got {getattr(self, name)}")
        if not 0 <= self.candidate_distance <= 64 - 16 or not 0 <= self.hash_distance <= 256:
            raise ValueError("images.candidate_distance is from 0 to 48 bits, images.hash_distance from 0 to 256")
        if not 0 <= self.flat <= 128:
            raise ValueError(f"images.flat is from 0 to 128 grey levels; got {self.flat}")
        if self.bucket_cap < 1 or self.min_side < 0:
            raise ValueError("images.bucket_cap is at least 1, images.min_side at least 0")
        check_survivor(self.survivor, IMAGE_POLICIES)


def check_survivor(policy: tuple[str, ...], known: tuple[str, ...]) -> None:
    """Raise ValueError where a survivor policy is unknown, or stands twice."""
    if len(set(policy)) < len(policy):
        raise ValueError(f"survivor names a policy twice: {', '.join(policy)}")
    if unknown := set(policy) - set(known):
        raise ValueError(f"unknown survivor policy {sorted(unknown)[0]!r}; known: {', '.join(known)}")


@dataclass(frozen=True)
class DedupeConfig:
    """What counts as a duplicate, and which one of them stays.

    near: find near-duplicates too; else exact ones only. within: remove duplicates of one another, besides those of
    the records that --against names. threshold: least Jaccard similarity of the shingle sets for a removal.
    shingle_size: tokens per shingle. survivor: the policy, see `pipelines.lsh.survivors.policy_order`. sources: names
    in the order of their priority, for the policy 'source'. date_field: metadata field for the policy 'date' (ISO
    8601). bucket_cap: most kept documents of one bucket that a document is compared with. max_removed: greatest share
    of a source that may be removed; more fails the run. images: what holds for images in place of threshold, survivor
    and bucket_cap.
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
    images: ImageDedupeConfig = field(default_factory=ImageDedupeConfig)

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
        check_survivor(self.survivor, POLICIES)
