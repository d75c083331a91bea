"""Share S3 clients: Beam makes one, 0.1 s of work and a connection of its own, for every file that it looks at.

Importing this module replaces Beam's client by one that takes the connection pool of the first one with equal options.
boto3's clients may be used by several threads; what Beam's client keeps of a download stays with each.
"""

from __future__ import annotations

import threading
from typing import Any

from apache_beam.io.aws.clients.s3 import boto3_client
from apache_beam.options.pipeline_options import PipelineOptions, S3Options

_lock = threading.Lock()
_clients: dict[str, Any] = {}
_own_init = boto3_client.Client.__init__


def _shared_init(self: Any, options: Any) -> None:
    chosen = options.view_as(S3Options).get_all_options() if isinstance(options, PipelineOptions) else dict(options)
    key = repr(sorted((name, value) for name, value in chosen.items() if name.startswith("s3_")))
    with _lock:
        if key not in _clients:
            _own_init(self, options)
            _clients[key] = self.client
    self.client = _clients[key]
    self._download_request = self._download_stream = None
    self._download_pos = 0


if boto3_client.boto3 is not None and boto3_client.Client.__init__ is _own_init:
    boto3_client.Client.__init__ = _shared_init  # type: ignore[method-assign]
