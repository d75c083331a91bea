"""Files on disk and in object stores, through Beam's filesystems: one set of names for local paths, gs:// and s3://."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from pipelines.core import s3  # noqa: F401  (makes Beam share its clients)

GLOB = re.compile(r"[*?\[]")
_USER_INFO = re.compile(r"(?P<scheme>\b[A-Za-z][A-Za-z0-9+.-]*://)[^/\s@'\"]+@")
_SECRET = re.compile(
    r"(?i)(?P<name>[\w.-]*(?:signature|credential|secret|token|password|passwd|api_?key|access_?key(?:_?id)?|\bsig\b)"
    r"[\w.-]*['\"]?\s*[=:]\s*['\"]?)[^\s&'\",;]+"
)
_SECRET_ENVIRONMENT = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID", "HF_TOKEN")


_hidden: set[str] = set()


class FileError(OSError):
    """A file or directory cannot be used; the message names it and holds no credentials."""


def hide(secret: str) -> None:
    """Have `redact` replace a value wherever it stands; shorter ones than four characters would hide ordinary text."""
    if len(secret) >= 4:
        _hidden.add(secret)


def redact(text: str) -> str:
    """Replace credentials in a text with '***': user info and signed parameters of URLs, secrets by name or by value.

    Values of the usual secret environment variables, and those named to `hide`, are replaced wherever they stand.
    """
    for name in _SECRET_ENVIRONMENT:
        value = os.environ.get(name, "")
        if len(value) >= 8:
            text = text.replace(value, "***")
    for value in sorted(_hidden, key=len, reverse=True):
        text = text.replace(value, "***")
    text = _USER_INFO.sub(r"\g<scheme>***@", text)
    return _SECRET.sub(r"\g<name>***", text)


def is_remote(path: str) -> bool:
    """Whether the path has a URL scheme such as gs:// or s3://."""
    return FileSystems.get_scheme(path) is not None


def is_local(path: str) -> bool:
    """Whether the path is on a local disk."""
    return not is_remote(path)


def has_glob(path: str) -> bool:
    """Whether the path holds a character that patterns give a meaning to."""
    return GLOB.search(path) is not None


def join(base: str, *parts: str) -> str:
    """Join path components by the rules of the base's filesystem."""
    if is_local(base):
        return str(Path(base, *parts))
    return "/".join([base.rstrip("/"), *(part.strip("/") for part in parts)])


def relative(path: str, root: str) -> str:
    """Make a path relative to its root, with '/' on every system; bytes that are not UTF-8 become \\xNN.

    Raises FileError where the path does not lie under the root.
    """
    if is_local(path):
        inner = os.path.relpath(path, root).replace(os.sep, "/")
    else:
        prefix = root.rstrip("/") + "/"
        inner = path[len(prefix) :] if path.startswith(prefix) else ".."
    if inner == ".." or inner.startswith("../"):
        raise FileError(f"{redact(path)} does not lie under {redact(root)}")
    return inner.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def open_read(path: str) -> BinaryIO:
    """Open a file for reading its raw bytes, whatever its suffix says. Raises FileError where it cannot be opened."""
    try:
        return FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)
    except Exception as error:  # each store has errors of its own
        raise FileError(_message("cannot open", path, error)) from None


def create(path: str) -> Any:
    """Begin to write an object; it appears when the result is closed. Raises FileError."""
    try:
        return FileSystems.create(path, "application/octet-stream", CompressionTypes.UNCOMPRESSED)
    except Exception as error:  # each store has errors of its own
        raise FileError(_message("cannot write", path, error)) from None


def match(pattern: str) -> list[tuple[str, int]]:
    """List the files that a pattern matches, as sorted (path, bytes); empty where none does.

    '*' stops at '/', '**' does not. A pattern that names an existing file is that file, brackets included. What ends
    in '/' names a directory, so it matches no file.
    """
    if pattern.endswith("/"):
        return []
    if is_local(pattern):
        if Path(pattern).is_file():
            return [_local_file(pattern)]
        if not has_glob(pattern):
            return []
        if not GLOB.split(pattern)[0].rpartition("/")[1]:
            pattern = "./" + pattern  # Beam lists the folder before the first wildcard, and '' is none
    try:
        found = FileSystems.match([pattern])[0].metadata_list
    except Exception as error:  # each store has errors of its own
        raise FileError(_message("cannot list", pattern, error)) from None
    # Some tools leave empty objects named "folder/" in a bucket.
    return sorted((entry.path, entry.size_in_bytes) for entry in found if not entry.path.endswith("/"))


def exists(path: str) -> bool:
    """Whether a file exists, or, on a local disk, a directory."""
    try:
        return bool(FileSystems.exists(path))
    except Exception as error:  # each store has errors of its own
        raise FileError(_message("cannot look at", path, error)) from None


def version(path: str) -> str:
    """A word that changes when the content of an object changes: the store's checksum. Raises FileError."""
    try:
        return str(FileSystems.checksum(path))
    except Exception as error:  # each store has errors of its own
        raise FileError(_message("cannot look at", path, error)) from None


def _literal(path: str) -> str:
    """A pattern that matches this very path."""
    return GLOB.sub(r"[\g<0>]", path)


def delete(paths: list[str]) -> None:
    """Delete objects. Raises FileError."""
    try:
        if paths:
            # Beam reads them as patterns on Google Cloud Storage, and as they are elsewhere.
            FileSystems.delete([_literal(path) if path.startswith("gs://") else path for path in paths])
    except Exception as error:  # each store has errors of its own
        raise FileError(_message("cannot delete", paths[0], error)) from None


def list_tree(directory: str) -> list[tuple[str, int]]:
    """List all files below a directory or object prefix, at any depth, as sorted (path, bytes).

    Links to directories are followed, except into a directory that is being listed already. Sockets, pipes and devices
    are left out. Empty where the directory does not exist. Raises FileError for a link that leads nowhere.
    """
    if is_remote(directory):
        return match(_literal(directory.rstrip("/")) + "/**")
    found: list[tuple[str, int]] = []
    if Path(directory).is_dir():
        _walk(directory, (), found)
    return sorted(found)


class Tree(NamedTuple):
    """The files below a directory as (path, bytes), and the links that were not followed; each sorted by path.

    outside: links that lead out of the directory. broken: links that lead nowhere, or in a circle.
    """

    files: list[tuple[str, int]]
    outside: list[str]
    broken: list[str]


def list_untrusted(directory: str, follow: bool = False) -> Tree:
    """List as `list_tree` does, for a directory that somebody else filled: links are sorted out instead of believed.

    follow: links that lead out are followed too. The directory itself may be a link.
    """
    if is_remote(directory):
        return Tree(list_tree(directory), [], [])
    tree = Tree([], [], [])
    if Path(directory).is_dir():
        _walk(directory, (), tree.files, _Links(directory, follow, tree))
    return Tree(sorted(tree.files), sorted(tree.outside), sorted(tree.broken))


def leads_out(path: str, directory: str) -> bool:
    """Whether a path, all its links followed, does not lie in a directory; both are on a local disk."""
    return not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(directory))


class _Links:
    """What becomes of links while an untrusted directory is listed."""

    def __init__(self, root: str, follow: bool, tree: Tree) -> None:
        self._root, self._follow, self._tree = root, follow, tree

    def refuse(self, path: str) -> bool:
        """Note a link that is not to be followed; False for one that is."""
        if not os.path.exists(path):  # noqa: PTH110  (Path.exists raises where a folder may not be looked into)
            self._tree.broken.append(path)
        elif not self._follow and leads_out(path, self._root):
            self._tree.outside.append(path)
        else:
            return False
        return True


def _walk(
    directory: str, above: tuple[str, ...], found: list[tuple[str, int]], links: _Links | None = None
) -> None:  # fmt: skip
    here = os.path.realpath(directory)
    if here in above:
        return
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if links is not None and entry.is_symlink() and links.refuse(entry.path):
                    continue
                if entry.is_dir():
                    _walk(entry.path, (*above, here), found, links)
                elif entry.is_file():
                    found.append((entry.path, entry.stat().st_size))
                elif entry.is_symlink() and not Path(entry.path).exists():
                    raise FileError(f"{entry.path} is a link to a file that does not exist")
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(_message("cannot list", directory, error)) from None


def _local_file(path: str) -> tuple[str, int]:
    info = Path(path).stat()
    if not stat.S_ISREG(info.st_mode):
        raise FileError(f"{path} is not a regular file")
    return path, info.st_size


def _message(what: str, path: str, error: Exception) -> str:
    return redact(f"{what} {path}: {error}")
