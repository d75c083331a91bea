"""HTTP responses as WARC and ARC files keep them: status, headers, and the body without its encodings."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

from pipelines.readers.base import ReadConfig
from pipelines.readers.decompress import ERRORS, zstd

try:
    import brotli
except ModuleNotFoundError:  # few archives hold such bodies; they are rejected with a reason then
    brotli = None

_STATUS = re.compile(rb"HTTP/\d(?:\.\d)?[ \t]+(\d{3})(?![0-9])[^\r\n]*\r?\n", re.IGNORECASE)
_HEADER_END = re.compile(rb"\r?\n\r?\n")
_FOLDED = re.compile(rb"\r?\n[ \t]+")
_CHUNK = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]{0,4096})?\r?\n")
# Given to a decoder at one time, twice as much with every piece: what it leaves to the next member is copied.
_FIRST_TAKE, _TAKE = 1 << 10, 256 << 10
_GZIP_MAGIC, _ZSTD_MAGIC = b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"


class HttpError(ValueError):
    """A response cannot be read; `reason` is the ledger's code."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Response(NamedTuple):
    """A response. headers: names in lower case, the first of each. body: as it was sent."""

    status: int
    headers: dict[str, str]
    body: bytes


def parse_response(block: bytes) -> Response:
    """Split a response into its parts (RFC 9112, leniently). Raises HttpError 'invalid_http'."""
    line = _STATUS.match(block)
    if line is None:
        raise HttpError("invalid_http", "no HTTP status line")
    end = _HEADER_END.search(block, line.end() - 2)
    if end is None:
        raise HttpError("invalid_http", "the HTTP headers do not end")
    headers: dict[str, str] = {}
    for field in _FOLDED.sub(b" ", block[line.end() : end.start()]).splitlines():
        name, colon, value = field.partition(b":")
        if colon:
            headers.setdefault(name.decode("latin-1").strip().lower(), _text(value))
    return Response(int(line[1]), headers, block[end.end() :])


def _text(value: bytes) -> str:
    try:
        return value.decode().strip()
    except UnicodeDecodeError:
        return value.decode("latin-1").strip()


def decode_body(response: Response, config: ReadConfig, cut: bool = False) -> bytes:
    """Undo Transfer-Encoding and Content-Encoding: chunked, gzip, deflate, br, zstd.

    Crawlers that stored a body decoded have often kept the headers: a body that does not begin as its encoding does is
    taken as it is. cut: the archive says that it holds only the beginning; what can be decoded of it is the body then.
    Raises HttpError: 'invalid_http' (damaged), 'unsupported_encoding', 'payload_too_long' (more than
    config.max_record_bytes), 'decompression_bomb' (that, and more than config.bomb_ratio times what went in).
    """
    body = response.body
    if "chunked" in response.headers.get("transfer-encoding", "").lower():
        body = _dechunk(body, cut)
    encodings = [name.strip().lower() for name in response.headers.get("content-encoding", "").split(",")]
    for name in reversed(encodings[-4:]):
        body = _decode(body, name, config, cut)
    return body


def _dechunk(body: bytes, cut: bool) -> bytes:
    pieces: list[bytes] = []
    at = 0
    while True:
        line = _CHUNK.match(body, at)
        if line is None:
            if not pieces:
                return body
            if cut or not body[at:].strip():
                break
            raise HttpError("invalid_http", f"no chunk begins at byte {at} of the body")
        size = int(line[1], 16)
        if not size:
            break
        piece = body[line.end() : line.end() + size]
        if len(piece) < size and not cut:
            if not pieces:  # a text that begins like a chunk's size
                return body
            raise HttpError("invalid_http", f"the chunk at byte {at} of the body has no end")
        pieces.append(piece)
        at = line.end() + size
        at += 2 if body.startswith(b"\r\n", at) else 1 if body.startswith(b"\n", at) else 0
    return b"".join(pieces)


def _decode(body: bytes, name: str, config: ReadConfig, cut: bool) -> bytes:
    if name in ("", "identity", "none", "utf-8", "chunked") or not body:
        return body
    limit = config.max_record_bytes
    try:
        if name in ("gzip", "x-gzip"):
            out = _inflate(body, 31, limit, cut) if body.startswith(_GZIP_MAGIC) else body
        elif name == "deflate":
            out = _deflate(body, limit, cut)
        elif name == "zstd":
            out = _unzstd(body, config, cut) if body.startswith(_ZSTD_MAGIC) else body
        elif name == "br" and brotli is not None:
            out = _unbrotli(body, limit, cut)
        else:
            raise HttpError("unsupported_encoding", f"the body is encoded as {name[:20]!r}")
    except ERRORS as error:
        if isinstance(error, HttpError):
            raise
        raise HttpError("invalid_http", f"damaged {name} body: {error}") from None
    if len(out) > limit:
        bomb = len(out) > config.bomb_ratio * len(body)
        message = f"{len(body)} bytes of {name} hold more than {limit}"
        raise HttpError("decompression_bomb" if bomb else "payload_too_long", message)
    return out


def _inflate(body: bytes, wbits: int, limit: int, cut: bool) -> bytes:
    magic = _GZIP_MAGIC if wbits == 31 else None
    return _members(body, lambda: zlib.decompressobj(wbits=wbits), magic, limit, cut)


def _members(body: bytes, new: Callable[[], Any], magic: bytes | None, limit: int, cut: bool) -> bytes:
    """Decode the member that begins there and those behind it that begin with `magic`; at most limit + 1 bytes.

    Time is linear in what goes in and comes out, however small the members are.
    """
    pieces: list[bytes] = []
    left, at = limit + 1, 0
    while True:
        decoder, size = new(), _FIRST_TAKE
        while left and at < len(body) and not decoder.eof:
            pieces.append(decoder.decompress(body[at : at + size], left))
            left -= len(pieces[-1])
            at, size = min(at + size, len(body)), min(2 * size, _TAKE)
        if not left:
            break
        if not decoder.eof:
            if cut:
                break
            raise ValueError("it has no end")
        at -= len(decoder.unused_data)
        if magic is None or not body.startswith(magic, at):
            break
    return b"".join(pieces)


def _deflate(body: bytes, limit: int, cut: bool) -> bytes:
    """Both things that servers call deflate: zlib's format (RFC 1950), as they should, and the bare stream."""
    try:
        return _inflate(body, 15, limit, cut)
    except zlib.error:
        return _inflate(body, -15, limit, cut)


def _unzstd(body: bytes, config: ReadConfig, cut: bool) -> bytes:
    options: dict[Any, int] = {zstd.DecompressionParameter.window_log_max: config.zstd_window_log}
    return _members(body, lambda: zstd.ZstdDecompressor(options=options), _ZSTD_MAGIC, config.max_record_bytes, cut)


def _unbrotli(body: bytes, limit: int, cut: bool) -> bytes:
    decoder = brotli.Decompressor()
    pieces, size, data = [], 0, body
    try:
        while size <= limit and not decoder.is_finished():
            piece = decoder.process(data, output_buffer_limit=limit + 1 - size)
            pieces.append(piece)
            size += len(piece)
            data = b""
            if not piece and not decoder.is_finished():
                if cut:
                    break
                raise ValueError("it has no end")
    except brotli.error as error:
        raise ValueError(str(error)) from None
    return b"".join(pieces)
