"""Make a dataset under an object store's prefix visible at its commit.

Object stores have no directories to exchange. The old manifest goes first, the shards are written under their final
keys, and the new manifest comes last: whoever looks sees the old dataset, none, or the new one. `_meta/writing` marks a
prefix that a run is writing, so that the next run can tell what a killed run left behind from files of somebody else.
"""

from __future__ import annotations

import contextlib
import uuid

from pipelines.core import files
from pipelines.core.output import RESUMABLE_PATH, OutputError, resumes
from pipelines.core.shards import write_bytes
from schemas.base import SchemaError
from schemas.manifest import MANIFEST_PATH, Manifest, parse

MARKER_PATH = "_meta/writing"


class RemoteOutput:
    """A dataset under a prefix of an object store in the making; same use as `pipelines.core.output.Output`.

    OutputError where the prefix holds anything but a dataset of ours, or what a run of ours left.
    """

    def __init__(self, path: str, resumable: str = "") -> None:
        self.path = self.root = path.rstrip("/")
        self._token = uuid.uuid4().hex.encode()
        self._resumable = resumable
        self._check_target()
        write_bytes(files.join(self.path, MARKER_PATH), self._token)
        if files.exists(files.join(self.path, MANIFEST_PATH)):
            files.delete([files.join(self.path, MANIFEST_PATH)])
        if not resumes(self.root, resumable):
            self._sweep({MARKER_PATH})
        if resumable:
            write_bytes(files.join(self.path, RESUMABLE_PATH), resumable.encode())

    def _check_target(self) -> None:
        manifest = files.join(self.path, MANIFEST_PATH)
        name = files.redact(self.path)
        if files.exists(manifest):
            try:
                with files.open_read(manifest) as source:
                    parse(source.read(), manifest)
            except SchemaError as error:
                raise OutputError(f"{name} holds something else than a dataset of ours: {error}") from error
        elif not files.exists(files.join(self.path, MARKER_PATH)) and files.list_tree(self.path):
            raise OutputError(
                f"{name} holds something else than a Gristmill dataset (no {MANIFEST_PATH}); nothing was written. "
                "Name another --output, or remove it yourself"
            )

    def _is_ours(self) -> bool:
        marker = files.join(self.path, MARKER_PATH)
        if not files.exists(marker):
            return False
        with files.open_read(marker) as source:
            return source.read() == self._token

    def _sweep(self, named: set[str]) -> None:
        found = [path for path, _ in files.list_tree(self.path)]
        files.delete([path for path in found if files.relative(path, self.path) not in named])

    def commit(self, manifest: Manifest) -> None:
        """Sweep what the manifest does not name, and write the manifest.

        OutputError where another run has begun to write under the same prefix: the shards may be its own.
        """
        if not self._is_ours():
            raise OutputError(f"another run has begun to write {files.redact(self.path)}; this one gives way to it")
        named = {shard.path for shard in manifest.shards} | set(manifest.facts.get("extra_files", []))
        self._sweep(named | {MARKER_PATH})
        write_bytes(files.join(self.path, MANIFEST_PATH), manifest.to_json())
        files.delete([files.join(self.path, MARKER_PATH)])

    def abort(self) -> None:
        """Remove what was written, unless it may be resumed.

        (The old dataset went when this run began to write under its keys.)
        """
        with contextlib.suppress(OSError):
            if self._is_ours() and not self._resumable:
                self._sweep({MARKER_PATH})
                files.delete([files.join(self.path, MARKER_PATH)])
