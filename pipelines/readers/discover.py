"""From what the user typed (files, patterns, directories) to a fixed list of tasks."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipelines.core import files
from pipelines.readers import hf, lists
from pipelines.readers.base import IMAGES, TEXT, InputFile, ReadConfig, ReadError
from pipelines.readers.decompress import IN_BYTES, sniff, suffix_codec
from pipelines.readers.image_fields import SIDECARS
from pipelines.readers.lines import other_encoding
from schemas import manifest

FORMATS = {
    "jsonl": (".jsonl", ".ndjson", ".jsonlines", ".json"),
    "parquet": (".parquet", ".pq"),
    "delimited": (".csv", ".tsv", ".tab"),
    "plain": (".txt", ".text", ".md", ".markdown", ".rst"),
    "arrow": (".arrow", ".feather"),
    "html": (".html", ".htm", ".xhtml"),
    "warc": (".warc", ".wet", ".arc"),
    "wikidump": (".xml",),
}
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
IMAGE_FORMATS = {
    "image": IMAGE_SUFFIXES,
    "tar": (".tar", ".tgz", ".tbz2", ".txz"),
    "parquet": FORMATS["parquet"],
    "arrow": FORMATS["arrow"],
    "list": (".jsonl", ".ndjson", ".jsonlines", ".csv", ".tsv", ".tab"),
}
OUTSIDE, MISSING = "path_outside", "missing_file"  # of links of images that are not followed: the ledger's reasons
KEYED = ("warc", "wikidump")  # formats whose records have ids of their own
_SUFFIXES = {
    kind: {suffix: name for name, suffixes in formats.items() for suffix in suffixes}
    for kind, formats in ((TEXT, FORMATS), (IMAGES, IMAGE_FORMATS))
}
_COMPRESSIBLE = ("jsonl", "delimited", "plain", "html", "warc", "wikidump", "tar", "list")
_COMPRESSED = {TEXT: "text formats", IMAGES: "tar, lists and IDX"}
_IDX = re.compile(r"[.-]idx([13])-ubyte$")  # MNIST's names: train-images-idx3-ubyte.gz, train-images.idx3-ubyte
_NOT_DATA = ("_meta", "_SUCCESS", "_temporary")


@dataclass(frozen=True)
class ReadTask:
    """Files that are read together, in order; the unit of work of ingest."""

    index: int
    files: tuple[InputFile, ...]

    @property
    def size(self) -> int:
        """Bytes on disk that the task reads."""
        return sum((file.size if file.end is None else file.end) - file.start for file in self.files)


@dataclass(frozen=True)
class Found:
    """The files of the inputs by relative path, and the paths that were passed over: with on_unknown 'skip', README
    files beside data (dataset cards), and of images links that are not followed where a file says something of one."""

    files: tuple[InputFile, ...]
    skipped: tuple[str, ...]


def discover(inputs: Sequence[str], config: ReadConfig) -> list[ReadTask]:
    """Expand files, patterns and directories into tasks; see `find_files` and `plan` for the rules and errors."""
    return plan(find_files(inputs, config).files, config)


def file_format(path: str, kind: str = TEXT) -> str | None:
    """Name the format that a path's suffix stands for in a corpus of text or of images, or None."""
    name = path.lower()
    compressed = suffix_codec(name) is not None
    if compressed:
        name = name[: name.rfind(".")]
    if kind == IMAGES and (idx := _IDX.search(name)):
        return "idx" if idx[1] == "3" else "idx_labels"
    dot = name.rfind(".")
    found = _SUFFIXES[kind].get(name[dot:]) if dot > max(name.rfind("/"), name.rfind(os.sep)) else None
    return None if compressed and found not in _COMPRESSIBLE else found


def find_files(inputs: Sequence[str], config: ReadConfig) -> Found:
    """List the files of all inputs, sorted by relative path, whatever the order of inputs or of the file system.

    A directory stands for all its files at any depth but hidden ones and `_meta`; a directory of `save_to_disk` or
    of Gristmill for the data files that its own lists name. Relative paths begin at the directory, at the last folder
    before a pattern's first wildcard, or at a file's own folder. Of images, files that a list names carry what it says
    of them; NAME.txt, NAME.json, NAME.cls, and labels in IDX go with the images of that name; a link that leads out of
    its input (unless config.images.follow_links) or nowhere is a file of format 'link'. Raises ReadError where an input
    matches nothing, a file has no reader (unless config.on_unknown is 'skip'), or two inputs give one file or
    one relative path.
    """
    if not inputs:
        raise ReadError("no input is given")
    found: list[InputFile] = []
    skipped: list[str] = []
    for given in inputs:
        root, listing, links, explicit = _expand(given, config)
        chosen, passed_over = _choose(root, listing, links, explicit, config.kind)
        refused = [_refused(path, links[path], root) for path, _ in chosen if path in links]
        chosen = [entry for entry in chosen if entry[0] not in links]
        formats = {path: file_format(path, config.kind) for path, _ in chosen}
        beside = _sidecars(formats) if config.kind == IMAGES else {}
        claimed = {path for paths in beside.values() for path in paths}
        unknown = sorted(path for path, name in formats.items() if name is None and path not in claimed)
        if unknown and config.on_unknown == "error":
            more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
            if config.kind != IMAGES and all(file_format(path, IMAGES) for path in unknown):
                named = ", ".join(files.redact(path) for path in unknown[:3])
                raise ReadError(f"{named}{more} may be images: add --images to read them as such")
            raise ReadError(
                f"no reader for {', '.join(files.redact(path) for path in unknown[:3])}{more}; known suffixes"
                f"{' of images' if config.kind == IMAGES else ''}: {' '.join(_SUFFIXES[config.kind])} "
                f"({_COMPRESSED[config.kind]} also .gz .zst .bz2 .xz); read.on_unknown: skip passes such files over"
            )
        skipped += [*passed_over, *unknown, *(file.path for file in refused if _beside_images(file.path))]
        usable = [
            InputFile(path, files.relative(path, root), size, name, beside=beside.get(path, ()))
            for path, size in chosen
            if (name := formats[path])
        ]
        if not usable:
            aside = f"; {len(refused)} links lead out of it (read.images.follow_links) or nowhere" if refused else ""
            raise ReadError(f"{files.redact(given)} holds no file that a reader knows{aside}")
        if config.kind == IMAGES:
            usable += [file for file in refused if not _beside_images(file.path)]
            usable = lists.expand([file for file in usable if file.format != "idx_labels"], root, config)
        found += usable
    found.sort(key=lambda file: (file.relative, file.path, file.listed.number if file.listed else 0))
    _refuse_repeats(found)
    return Found(tuple(found), tuple(sorted(skipped)))


def plan(found: Sequence[InputFile], config: ReadConfig) -> list[ReadTask]:
    """Group files, in the order given, into tasks of at most config.task_bytes; a larger file is a task of its own.

    Plain JSON Lines larger than that are cut into byte ranges where config.id_field is set. Without it records are
    numbered by their occurrence in the file, so the file is read by one task.
    """
    tasks: list[ReadTask] = []
    group: list[InputFile] = []
    held = 0

    def close() -> None:
        if group:
            tasks.append(ReadTask(len(tasks), tuple(group)))
            group.clear()

    for file in found:
        if held + file.size > config.task_bytes:
            close()
            held = 0
        if file.size > config.task_bytes and config.id_field is not None and _can_be_cut(file):
            for start in range(0, file.size, config.task_bytes):
                end = min(start + config.task_bytes, file.size)
                tasks.append(ReadTask(len(tasks), (replace(file, start=start, end=end),)))
            continue
        group.append(file)
        held += file.size
    close()
    return tasks


def _can_be_cut(file: InputFile) -> bool:
    if file.format != "jsonl" or suffix_codec(file.path) is not None:
        return False
    with files.open_read(file.path) as raw:
        head = raw.read(IN_BYTES)
    return sniff(head) is None and other_encoding(head) is None


def _expand(given: str, config: ReadConfig) -> tuple[str, list[tuple[str, int]], dict[str, str], bool]:
    """The root, the (path, bytes) found, the links that are not followed with the reason, and whether these were named
    one by one or by a pattern."""
    listing = files.match(given) if given else []
    wary = config.kind == IMAGES and not config.images.follow_links and files.is_local(given)
    if listing:
        if len(listing) == 1 and listing[0][0] == given:
            return _parent(given), listing, {}, True
        root = _parent(given[: files.GLOB.search(given).start()])  # type: ignore[union-attr]
        links = {path: OUTSIDE for path, _ in listing if wary and files.leads_out(path, root)}
        return root, [entry for entry in listing if entry[0] not in links], links, True
    if files.is_local(given) and Path(given).exists() and not Path(given).is_dir():
        raise ReadError(f"{given} is not a regular file")
    links = {}
    if given and not (files.has_glob(given) and files.is_remote(given)):
        if config.kind == IMAGES:
            listing, outside, broken = files.list_untrusted(given, config.images.follow_links)
            links = dict.fromkeys(outside, OUTSIDE) | dict.fromkeys(broken, MISSING)
        else:
            listing = files.list_tree(given)
    if not listing and not links:
        raise ReadError(f"no file matches {files.redact(given)!r}")
    return given, listing, links, False


def _parent(path: str) -> str:
    head = path.rpartition("/")[0] if files.is_remote(path) or "/" in path else ""
    return head or ("/" if path.startswith("/") else ".")


def _choose(
    root: str, listing: list[tuple[str, int]], links: Collection[str], explicit: bool, kind: str
) -> tuple[list[tuple[str, int]], list[str]]:
    """The files and links of an input that are data, and the dataset cards among the rest."""
    entries = [*listing, *((path, 0) for path in links)]
    if explicit:
        return entries, []
    visible = [entry for entry in entries if not _hidden(files.relative(entry[0], root))]
    sizes = dict(listing)
    claimed: dict[str, list[str]] = {}
    for found in (_manifests(root, sizes, kind), _dataset_dicts(root, sizes), _states(root, sizes)):
        for folder, paths in found:
            if not any(_under(folder, outer) for outer in claimed):
                claimed[folder] = paths
    chosen = [entry for entry in visible if not any(_under(entry[0], folder) for folder in claimed)]
    for folder, paths in sorted(claimed.items()):
        for path in paths:
            if path not in sizes:
                what = "is a link that is not followed" if path in links else "does not exist"
                raise ReadError(f"{files.redact(folder)} lists {files.redact(path)}, which {what}")
            chosen.append((path, sizes[path]))
    cards_are = "plain" if kind == TEXT else None
    if all(file_format(path, kind) in (cards_are, None) for path, _ in chosen):
        return chosen, []
    readmes = (path for path, _ in chosen if _name(path).lower().startswith("readme."))
    cards = {path for path in readmes if file_format(path, kind) == cards_are}
    return [entry for entry in chosen if entry[0] not in cards], sorted(cards)


Claims = Iterator[tuple[str, list[str]]]


def _manifests(root: str, sizes: dict[str, int], kind: str) -> Claims:
    for folder, raw in _index_files(root, sizes, manifest.MANIFEST_PATH):
        content = manifest.parse(raw, files.redact(files.join(folder, manifest.MANIFEST_PATH)))
        table = "documents" if kind == TEXT else "images"
        wanted = [shard for shard in content.shards if shard.table == table] or content.shards
        yield folder, [files.join(folder, *shard.path.split("/")) for shard in wanted]


def _dataset_dicts(root: str, sizes: dict[str, int]) -> Claims:
    for folder, raw in _index_files(root, sizes, "dataset_dict.json"):
        names = hf.splits(raw)
        if names is None:
            continue
        states = {where: paths for where, paths in _states(root, sizes) if _under(where, folder)}
        for name in names:
            if files.join(folder, name) not in states:
                raise ReadError(f"{files.redact(folder)} lists the split {name!r}, which has no state.json")
        yield folder, [path for name in names for path in states[files.join(folder, name)]]


def _states(root: str, sizes: dict[str, int]) -> Claims:
    for folder, raw in _index_files(root, sizes, "state.json"):
        names = hf.data_files(raw, files.redact(files.join(folder, "state.json")))
        if names is not None:
            yield folder, [files.join(folder, name) for name in names]


def _index_files(root: str, sizes: dict[str, int], name: str) -> Iterator[tuple[str, bytes]]:
    """The folder and content of every file of that name (it may hold '/') that is in no hidden folder."""
    last = _name(name)
    for path in sorted(path for path in sizes if path.endswith(last)):
        below = files.relative(path, root)
        inside = below[: len(below) - len(name)]
        if below == inside + name and (not inside or inside.endswith("/")) and not _hidden(inside):
            with files.open_read(path) as raw:
                yield path[: len(path) - len(name)].rstrip("/\\") or root, raw.read()


def _refused(path: str, reason: str, root: str) -> InputFile:
    return InputFile(path, files.relative(path, root), 0, "link", refused=reason)


def _beside_images(path: str) -> bool:
    """Whether a file of that name would say something of images, and be none."""
    return path.rpartition(".")[2].lower() in SIDECARS or file_format(path, IMAGES) == "idx_labels"


def _sidecars(formats: Mapping[str, str | None]) -> dict[str, tuple[str, ...]]:
    """The files beside each image that have its name and say something of it."""
    by_stem: dict[str, list[str]] = {}
    for path, name in formats.items():
        stem, dot, extension = path.rpartition(".")
        if name is None and dot and extension.lower() in SIDECARS:
            by_stem.setdefault(stem, []).append(path)
    images = (path for path, name in formats.items() if name == "image") if by_stem else ()
    return {path: tuple(sorted(by_stem[stem])) for path in images if (stem := path.rpartition(".")[0]) in by_stem}


def _under(path: str, folder: str) -> bool:
    return path == folder or path.startswith((folder.rstrip("/\\") + "/", folder.rstrip("/\\") + os.sep))


def _name(path: str) -> str:
    return path.replace(os.sep, "/").rpartition("/")[2]


def _hidden(relative: str) -> bool:
    return any(part.startswith(".") or part in _NOT_DATA for part in relative.split("/"))


def _refuse_repeats(found: list[InputFile]) -> None:
    for what, key in _REPEATS:
        seen: dict[str, InputFile] = {}
        for file in found:
            first = seen.setdefault(key(file), file)
            if first is not file and not (first.listed and file.listed and file.listed.number):
                raise ReadError(what.format(files.redact(first.path), files.redact(file.path), file.relative))


def _absolute(path: str) -> str:
    return path if files.is_remote(path) else os.path.normpath(Path(path).absolute())


_REPEATS: tuple[tuple[str, Callable[[InputFile], str]], ...] = (
    ("two inputs give the same file: {0}", lambda f: _absolute(f.path)),
    (
        "{0} and {1} are both {2!r} below their inputs, so their records could not be told apart; "
        "give the folder that holds both, or read them as two sources",
        lambda f: f.relative,
    ),
)
