"""What counts as a duplicate: the configuration of the stage `dedupe`."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipelines.lsh.survivors import IMAGE_POLICIES, POLICIES
from pipelines.text.minhash import MinHashConfig

_LONGEST_SHINGLE = 1000
_WIDEST_CROP, _MOST_CROPS = 0.25, 32  # what is left is half of each side; a view costs 64 bytes of the shuffle
_MOST_FLIPS = 8  # of the 16 bits of a band


@dataclass(frozen=True)
class CaptionConfig:
    """Whether images are duplicates by their captions, too.

    join: remove an image for a kept one of nearly the same caption, whatever they show. threshold: least Jaccard
    similarity of the shingle sets of two captions. shingle_size: tokens per shingle, one character each in scripts
    without spaces. least_shingles: captions of fewer distinct ones take no part. Bands and sketches are those of
    `minhash`.
    """

    join: bool = False
    threshold: float = 0.9
    shingle_size: int = 3
    least_shingles: int = 3

    def __post_init__(self) -> None:
        """Raise ValueError for what would otherwise show only after the first pass, or never."""
        if not 0 < self.threshold <= 1:
            raise ValueError(f"captions.threshold is a similarity above 0 and at most 1; got {self.threshold}")
        if not 1 <= self.shingle_size <= _LONGEST_SHINGLE or self.least_shingles < 1:
            raise ValueError(
                f"captions.shingle_size is from 1 to {_LONGEST_SHINGLE}, captions.least_shingles is at least 1"
            )


@dataclass(frozen=True)
class ImageDedupeConfig:
    """What counts as a duplicate of an image, and which one of them stays; measured in docs/images-dedupe.md.

    crops: shares of a side that the centred crops leave away at each end, by which cropped and framed copies are
    found. corners: look for corner crops too (of 5 and 10 %). sides: for crops and bars at one side, or at two opposite
    ones (a letterbox, a strip for a caption, a square out of the middle of 3:2). orientations: for mirrored copies
    and quarter turns. flips: look an image up so many times more, each time with another of the least certain bits of
    its hash flipped. candidate_distance: most bits of 64 in which the hash of an image and of a view of another differ,
    where they share 16 in a row, for these two to be compared. correlation: least correlation of their detail for a
    removal. local_change: most that the four of 64 blocks that differ most may contribute to what differs, as a share
    of the detail. hash_distance: or most bits of 256 that differ, where the detail beside a box correlates with
    uncovered (and a quarter of local_change holds there). flat: least standard deviation of the grey values; images of
    less have only exact copies. min_side: least pixels of the shorter side; smaller images (digits, icons) are alike
    without being copies, and have only exact copies. survivor: policies 'source', 'pixels' (most first), 'bytes' (most
    first). bucket_cap: most hashes on either side that one is compared with in a bucket, and most kept candidates that
    an image is compared with. captions: whether the captions count.
    """

    crops: tuple[float, ...] = (0.02, 0.04, 0.06, 0.08, 0.10, 0.12, 0.15, 0.18)
    corners: bool = False
    sides: bool = False
    orientations: bool = False
    flips: int = 2
    candidate_distance: int = 16
    correlation: float = 0.95
    local_change: float = 0.009
    hash_distance: int = 24
    uncovered: float = 0.98
    flat: float = 4.0
    min_side: int = 48
    survivor: tuple[str, ...] = ("source", "pixels", "bytes")
    bucket_cap: int = 2_000
    captions: CaptionConfig = field(default_factory=CaptionConfig)

    def __post_init__(self) -> None:
        """Raise ValueError for what would otherwise show only after the first pass, or never."""
        if not all(0 < share < _WIDEST_CROP for share in self.crops):
            raise ValueError(f"crops are shares above 0 and below {_WIDEST_CROP}; got {list(self.crops)}")
        if len(self.crops) > _MOST_CROPS or len(set(self.crops)) < len(self.crops):
            raise ValueError(f"crops are at most {_MOST_CROPS}, each another; got {list(self.crops)}")
        for name in ("correlation", "uncovered"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"images.{name} is a similarity above 0 and at most 1; got {getattr(self, name)}")
        if not 0 <= self.flips <= _MOST_FLIPS:
            raise ValueError(f"images.flips is from 0 to {_MOST_FLIPS}; got {self.flips}")
        if not 0 <= self.local_change <= 2:
            raise ValueError(f"images.local_change is a share from 0 to 2; got {self.local_change}")
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
        if self.images.captions.join and not self.near:
            raise ValueError("images.captions.join looks for near-duplicates: it does nothing with near=false")
