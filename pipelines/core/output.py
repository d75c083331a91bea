"""Make a dataset directory visible all at once, or not at all.

Local: everything is written into a hidden sibling, `.NAME.partial`; the commit exchanges the two directories in one
system call. Whoever looks sees the old dataset or the new one. `.NAME.lock` beside them keeps a second run out. A run
that may be resumed names itself in `_meta/resumable`; what it left stays for the next run of that name.
Object stores: see `pipelines.core.remote`.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import sys
from pathlib import Path
from typing import IO, Any

from pipelines.core import files
from pipelines.core.shards import fsync_directory, write_bytes
from schemas.base import SchemaError
from schemas.manifest import MANIFEST_PATH, Manifest, parse

RESUMABLE_PATH = "_meta/resumable"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


class OutputError(RuntimeError):
    """The output directory cannot be written."""


class Unclaimed:
    """An output directory that a dry run names and leaves alone."""

    def __init__(self, path: str) -> None:
        self.path = self.root = path.rstrip("/") or path

    def commit(self, manifest: Manifest) -> None:
        """Refuse: there is nothing to commit."""
        raise OutputError("a dry run has nothing to commit")

    def abort(self) -> None:
        """Do nothing."""


class Output:
    """A dataset directory in the making. `root` is where the shards go until `commit`.

    resumable: a name for all that decides what the run writes; "" where nothing is to be left for another run.
    """

    def __init__(self, path: str, resumable: str = "") -> None:
        self.path = path.rstrip("/") or path
        self._lock: IO[Any] | None = None
        self._resumable = resumable
        # A link is followed: what is exchanged must be the directory and its sibling on the same disk.
        self._target = Path(self.path).resolve()
        self._partial = self._target.with_name(f".{self._target.name}.partial")
        self._aside = self._target.with_name(f".{self._target.name}.previous")
        self.root = str(self._partial)
        self._check_target()
        self._claim()

    def _check_target(self) -> None:
        """Refuse to replace anything but an empty directory or a dataset of ours."""
        manifest = files.join(self.path, MANIFEST_PATH)
        try:
            if files.exists(manifest):
                with files.open_read(manifest) as source:
                    old = parse(source.read(), manifest)
                self._refuse_foreign(old)
                return
        except SchemaError as error:
            raise OutputError(
                f"{files.redact(self.path)} holds something else than a dataset of ours: {error}"
            ) from error
        if self._target.exists() and (not self._target.is_dir() or any(self._target.iterdir())):
            raise OutputError(
                f"{self.path} exists and holds something else than a Gristmill dataset (no {MANIFEST_PATH}); "
                "nothing was written. Name another --output, or remove it yourself"
            )

    def _refuse_foreign(self, old: Manifest) -> None:
        """Raise OutputError where the directory holds files that its own manifest does not name: they would be lost."""
        named = {shard.path for shard in old.shards} | set(old.facts.get("extra_files", ())) | {MANIFEST_PATH}
        for path in sorted(self._target.rglob("*")):
            if not path.is_dir() and path.relative_to(self._target).as_posix() not in named:
                raise OutputError(
                    f"{self.path} holds {path.relative_to(self._target)}, which is not of the dataset there and "
                    "would be lost; move it away, or name another --output"
                )

    def _claim(self) -> None:
        """Keep other runs out, then mend and sweep what a killed run left."""
        try:
            self._target.parent.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(self._target.with_name(f".{self._target.name}.lock"))
            if self._lock is None:
                raise OutputError(f"another run is writing {self.path}; wait for it, or stop it")
            if self._aside.exists() and not self._target.exists():
                self._aside.rename(self._target)
            leftovers = [self._aside] if resumes(self.root, self._resumable) else [self._aside, self._partial]
            for leftover in leftovers:
                if leftover.exists():
                    shutil.rmtree(leftover)
            self._partial.mkdir(exist_ok=True)
            if self._resumable:
                write_bytes(files.join(self.root, RESUMABLE_PATH), self._resumable.encode())
        except OSError as error:
            self._release()
            raise OutputError(f"cannot write beside {self.path}: {error.strerror}") from error

    def commit(self, manifest: Manifest) -> None:
        """Sweep what the manifest does not name, write the manifest, and make the dataset visible."""
        named = {shard.path for shard in manifest.shards} | set(manifest.facts.get("extra_files", []))
        self._sweep(named)
        write_bytes(files.join(self.root, MANIFEST_PATH), manifest.to_json())
        self._swap()

    def _sweep(self, named: set[str]) -> None:
        for path in sorted(self._partial.rglob("*"), reverse=True):
            relative = path.relative_to(self._partial).as_posix()
            if path.is_dir():
                if not any(path.iterdir()):
                    path.rmdir()
                else:
                    fsync_directory(path)
            elif relative not in named:
                path.unlink()

    def _swap(self) -> None:
        fsync_directory(self._partial)
        if self._target.exists():
            _exchange(self._partial, self._target, self._aside)
        else:
            self._partial.rename(self._target)
        fsync_directory(self._target.parent)
        # The new dataset is in place: a rest of the old one that cannot be removed is no failure of this run.
        shutil.rmtree(self._partial, ignore_errors=True)
        self._release()

    def abort(self) -> None:
        """Remove what was written, unless it may be resumed; the old dataset, if any, stays as it was."""
        if self._lock is not None:
            if not self._resumable:
                shutil.rmtree(self._partial, ignore_errors=True)
            self._release()

    def _release(self) -> None:
        if self._lock is not None:
            Path(self._lock.name).unlink(missing_ok=True)
            self._lock.close()
            self._lock = None


def resumes(root: str, resumable: str) -> bool:
    """Whether `root` holds what an earlier run of this name left."""
    path = files.join(root, RESUMABLE_PATH)
    if not (resumable and files.exists(path)):
        return False
    with files.open_read(path) as source:
        return source.read() == resumable.encode()


def _lock(path: Path) -> IO[Any] | None:
    """Lock a file, made where it is missing; None where another process holds it."""
    while True:
        handle = path.open("a")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.close()
            return None
        # Whoever held it before may have unlinked it between our open and our lock: then it keeps nobody out.
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(handle.fileno()).st_ino:
                return handle
        handle.close()


def _exchange(new: Path, old: Path, aside: Path) -> None:
    """Exchange two directories in one step (Linux renameat2), so that `new` becomes the old one.

    Filesystems that cannot do that get two renames; a run killed between them leaves the old dataset in `aside`, and
    the next claim of the directory puts it back.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if hasattr(libc, "renameat2"):
            names = os.fsencode(new), os.fsencode(old)
            if libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
                return
    old.rename(aside)
    try:
        new.rename(old)
    except OSError:
        aside.rename(old)
        raise
    aside.rename(new)
