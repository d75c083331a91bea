"""Mend two things about Beam's S3 filesystem (2.77); importing this module is enough.

It makes a client, 0.1 s of work and a connection of its own, for every file that it looks at: here clients with equal
options share one pool. (boto3's clients may be used by several threads; what is kept of a download stays with each.)
And it tries for ten minutes what can never succeed, such as a bucket name that is none, or a request without
credentials.
"""

from __future__ import annotations

import threading
from typing import Any

from apache_beam.io.aws.clients.s3 import boto3_client
from apache_beam.options.pipeline_options import PipelineOptions, S3Options

_lock = threading.Lock()
_clients: dict[str, Any] = {}
_own_init, _own_error_code = boto3_client.Client.__init__, boto3_client.get_http_error_code


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


def _error_code(error: Any) -> int | None:
    from botocore.exceptions import BotoCoreError, ConnectionError, HTTPClientError

    code: int | None = _own_error_code(error)
    if code is None and isinstance(error, BotoCoreError) and not isinstance(error, ConnectionError | HTTPClientError):
        return 400  # the request was never sent: Beam retries where there is no code
    return code


if boto3_client.boto3 is not None:
    boto3_client.Client.__init__ = _shared_init  # type: ignore[method-assign]
    boto3_client.get_http_error_code = _error_code
