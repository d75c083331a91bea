"""Make a dataset directory visible all at once, or not at all.

Local: everything is written into a hidden sibling, `.NAME.partial`; the commit exchanges the two directories in one
system call. Whoever looks sees the old dataset or the new one. Object stores have no directories to exchange: there the old
manifest goes first, the shards are written under their final keys, and the new manifest comes last.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import sys
import uuid
from pathlib import Path
from typing import IO, Any

from apache_beam.io.filesystems import FileSystems

from pipelines.core import files
from pipelines.core.shards import fsync_directory, write_bytes
from schemas.base import SchemaError
from schemas.manifest import MANIFEST_PATH, Manifest, parse

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


class OutputError(RuntimeError):
    """The output directory cannot be written."""


class Output:
    """A dataset directory in the making. `root` is where the shards go until `commit`."""

    def __init__(self, path: str) -> None:
        self.path = path.rstrip("/")
        self._local = files.is_local(self.path)
        self._lock: IO[Any] | None = None
        self._check_target()
        if self._local:
            target = Path(self.path).absolute()
            self._target, self._partial = target, target.with_name(f".{target.name}.partial")
            self.root = str(self._partial)
            self._claim()
        else:
            self.root = self.path
            if files.exists(files.join(self.path, MANIFEST_PATH)):
                FileSystems.delete([files.join(self.path, MANIFEST_PATH)])

    def _check_target(self) -> None:
        """Refuse to replace anything but an empty directory or a dataset of ours."""
        manifest = files.join(self.path, MANIFEST_PATH)
        try:
            if files.exists(manifest):
                with files.open_read(manifest) as source:
                    parse(source.read(), manifest)
                return
        except SchemaError as error:
            raise OutputError(
                f"{files.redact(self.path)} holds something else than a dataset of ours: {error}"
            ) from error
        if self._local:
            target = Path(self.path)
            if target.exists() and (not target.is_dir() or any(target.iterdir())):
                raise OutputError(
                    f"{self.path} exists and holds something else than a Gristmill dataset (no {MANIFEST_PATH}); "
                    "nothing was written. Name another --output, or remove it yourself"
                )

    def _claim(self) -> None:
        """Take the partial directory, sweep what a killed run left there, and keep others out."""
        try:
            self._partial.mkdir(parents=True, exist_ok=True)
            lock = (self._partial / ".lock").open("w")
        except OSError as error:
            raise OutputError(f"cannot write beside {self.path}: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            raise OutputError(f"another run is writing {self.path}; wait for it, or stop it") from error
        self._lock = lock
        for leftover in self._partial.iterdir():
            if leftover.name != ".lock":
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()

    def commit(self, manifest: Manifest) -> None:
        """Sweep what the manifest does not name, write the manifest, and make the dataset visible."""
        named = {shard.path for shard in manifest.shards} | set(manifest.facts.get("extra_files", []))
        if self._local:
            self._sweep_local(named)
        write_bytes(files.join(self.root, MANIFEST_PATH), manifest.to_json())
        if self._local:
            self._swap()
        else:
            named.add(MANIFEST_PATH)
            found = [path for path, _ in files.list_tree(self.path)]
            stale = [path for path in found if files.relative(path, self.path) not in named]
            if stale:
                FileSystems.delete(stale)

    def _sweep_local(self, named: set[str]) -> None:
        for path in sorted(self._partial.rglob("*"), reverse=True):
            relative = path.relative_to(self._partial).as_posix()
            if path.is_dir():
                if not any(path.iterdir()):
                    path.rmdir()
                else:
                    fsync_directory(path)
            elif relative not in named and relative != ".lock":
                path.unlink()

    def _swap(self) -> None:
        (self._partial / ".lock").unlink()
        fsync_directory(self._partial)
        if self._target.exists():
            _exchange(self._partial, self._target)
            fsync_directory(self._target.parent)
            old = self._partial.with_name(f".{self._target.name}.{uuid.uuid4().hex}.partial")
            self._partial.rename(old)
            shutil.rmtree(old)
        else:
            self._partial.rename(self._target)
            fsync_directory(self._target.parent)
        self._release()

    def abort(self) -> None:
        """Remove what was written; the old dataset, if any, stays as it was."""
        if self._local and self._lock is not None:
            shutil.rmtree(self._partial, ignore_errors=True)
            self._release()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def _exchange(new: Path, old: Path) -> None:
    """Exchange two directories in one step (Linux renameat2); elsewhere by two renames, as close as they come."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if hasattr(libc, "renameat2"):
            names = os.fsencode(new), os.fsencode(old)
            if libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
                return
    aside = old.with_name(f".{old.name}.{uuid.uuid4().hex}.partial")
    old.rename(aside)
    new.rename(old)
    aside.rename(new)
