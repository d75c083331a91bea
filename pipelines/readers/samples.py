"""Images of tar archives: WebDataset's samples (key.jpg + key.json, key.txt, key.cls), and plain trees of folders."""

from __future__ import annotations

from collections.abc import Iterator

import xxhash

from pipelines.core.files import open_read
from pipelines.readers import tar
from pipelines.readers.base import Image, InputFile, Item, ReadConfig, Reject, reject
from pipelines.readers.decompress import open_stream
from pipelines.readers.discover import IMAGE_SUFFIXES
from pipelines.readers.image_fields import SIDECARS, Unusable, from_sidecars, parent_label
from schemas.ledger import REMOVED


def read(file: InputFile, config: ReadConfig) -> Iterator[Item]:
    """Yield the images of a tar archive, compressed or not; positions are those of the members' headers.

    Members with one key, which is the path up to the first dot of the file's name, and which follow one another are one
    sample. Each image of it is a record: NAME.json gives fields (as a row of a table would), NAME.txt the caption and
    NAME.cls the label, for all images of the sample. Without a label there, `images.label_from` takes it from the
    member's folder. A record's key is `ARCHIVE#member`; with id_field it is that field of the sample's JSON, or with
    `__key__` the sample's key (both followed by the image's extension where a sample has several).

    A sample is held until it ends, or outgrows config.max_record_bytes: then its images so far are given out, and a
    file that says something of them must not follow. (A plain tree of dated names may look like one long sample.)

    Removed: 'not_an_image' (members with other extensions; nothing is unpickled), 'hidden_file'. Rejected:
    'missing_image' (files of a sample without one), 'repeated_member' (a path that stands in the archive before),
    'split_sample' (the key stands there before, so that files of it would be given to the wrong half), 'invalid_json',
    'not_an_object', 'invalid_utf8', and what `from_record` and `tar.walk` refuse.
    """
    with open_read(file.path) as raw:
        yield from read_members(open_stream(raw, file.path, config), file.relative, config)


def read_members(chunks: Iterator[bytes], archive: str, config: ReadConfig) -> Iterator[Item]:
    """Yield the images of the archive of this name; see `read`."""
    samples = _Samples(archive, config)
    for member in tar.walk(chunks, config.max_record_bytes, samples.wanted):
        yield from samples.add(member)
    yield from samples.close()


def _split(name: str) -> tuple[str, str]:
    """The key and the extension of a member, in lower case."""
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return folder + slash + stem, extension.lower()


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _hash(name: str) -> bytes:
    return xxhash.xxh3_128_digest(name.encode())


class _Sample:
    """The files of one key that follow one another.

    before: None where its key is new; else whether the files that stand before hold more than images.
    """

    def __init__(self, key: str, before: bool | None) -> None:
        self.key, self.before = key, before
        self.images: list[tar.Member] = []
        self.others: dict[str, tar.Member] = {}
        self.bytes = 0
        self.given = False  # images of it are out already

    @property
    def split(self) -> bool:
        """Whether what is said of some files of the key would be given to others only."""
        return self.before is not None and (self.before or bool(self.others))


class _Samples:
    """From members to images."""

    def __init__(self, archive: str, config: ReadConfig) -> None:
        self._archive, self._config = archive, config
        self._only = None if config.images.image_field is None else config.images.image_field.lower().removeprefix(".")
        self._sample: _Sample | None = None
        # By their hashes: an archive may hold millions.
        self._names: set[bytes] = set()
        self._keys: dict[bytes, bool] = {}  # whether there were more than images

    def wanted(self, name: str) -> bool:
        """Whether a member is to be read: an image, or what is said of one."""
        extension = _split(name)[1]
        return not _hidden(name) and (self._is_image(extension) or extension in SIDECARS)

    def _is_image(self, extension: str) -> bool:
        if self._only is not None:
            return extension == self._only
        return "." + extension.rpartition(".")[2] in IMAGE_SUFFIXES

    def add(self, member: tar.Member | Reject) -> Iterator[Item]:
        """Take the next member; yield the sample that it ends."""
        if isinstance(member, Reject):
            yield member
            return
        if member.data is None:
            reason = "hidden_file" if _hidden(member.name) else "not_an_image"
            yield Reject(member.position, reason, f"a file of the archive: {member.name!r}", action=REMOVED)
            return
        key, extension = _split(member.name)
        if self._sample is None or self._sample.key != key:
            yield from self.close()
            self._sample = _Sample(key, self._keys.get(_hash(key)))
        sample, digest = self._sample, _hash(member.name)
        if digest in self._names:
            detail = f"a file {member.name!r} stands in the archive before"
            yield reject(member.position, "repeated_member", detail, member.data)
            return
        self._names.add(digest)
        if self._is_image(extension):
            sample.images.append(member)
        elif sample.given:
            yield _is_split(sample, member)
            return
        else:
            sample.others[extension] = member
        sample.bytes += len(member.data)
        if sample.images and sample.bytes > self._config.max_record_bytes:
            yield from self._give(sample)

    def close(self) -> Iterator[Item]:
        """End the sample in progress."""
        sample, self._sample = self._sample, None
        if sample is None:
            return
        yield from self._give(sample)
        self._keys[_hash(sample.key)] = bool(sample.before or sample.others)

    def _give(self, sample: _Sample) -> Iterator[Item]:
        if sample.split:
            for member in [*sample.images, *(() if sample.given else sample.others.values())]:
                yield _is_split(sample, member)
        elif sample.images:
            yield from self._records(sample)
        elif sample.others and not sample.given:
            first = next(iter(sample.others.values()))
            yield Reject(first.position, "missing_image", f"the sample {sample.key!r} has no image")
        sample.images, sample.given = [], True
        sample.bytes = sum(len(member.data or b"") for member in sample.others.values())

    def _records(self, sample: _Sample) -> Iterator[Item]:
        try:
            beside = {extension: member.data or b"" for extension, member in sample.others.items()}
            fields = from_sidecars(beside, sample.key, self._config)
        except Unusable as error:
            for member in sample.images:
                yield reject(member.position, error.reason, str(error), member.data or b"")
            return
        for member in sample.images:
            key = f"{self._archive}#{member.name}"
            if fields.key is not None:
                alone = len(sample.images) == 1 and not sample.given
                key = fields.key if alone else f"{fields.key}.{_split(member.name)[1]}"
            label = fields.label
            if label is None:
                label = parent_label(member.name, self._config.images)
            name = member.name.rpartition("/")[2]
            yield Image(member.data or b"", name, key, label, fields.caption, fields.metadata)


def _is_split(sample: _Sample, member: tar.Member) -> Reject:
    detail = f"{member.name!r}: other files of its sample stand in the archive before, and not beside it"
    return reject(member.position, "split_sample", detail, member.data or b"")
